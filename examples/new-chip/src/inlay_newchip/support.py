"""What the chip takes. One object of rules answers `supports` and `lower`, so that neither promises what the other refuses."""

from __future__ import annotations

from inlay.backends.refusal import RANDOM, Rules

NAME = "newchip"
PACKAGES = ("inlay-newchip", "torch")
REFUSED = {"aten.sort": "the chip has no sorting unit", "aten.fft_fft": "the chip has no complex numbers"}
DTYPES = dict.fromkeys(("float64", "complex64", "complex128"), "the chip has no registers for it")
RULES = Rules(backend=NAME, operators={**RANDOM, **REFUSED}, dtypes=DTYPES)
