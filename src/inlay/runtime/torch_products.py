"""A torch door: matrix products in dtypes that numpy does not multiply. The program of a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import torch

from inlay.runtime.roofline import Measured, RooflineConfig, product_rates, write_measured

TORCH_PRODUCTS = ("bfloat16", "int8")


def main(config: dict[str, Any]) -> int:
    """Measure the figures of `config` (RooflineConfig), "bfloat16" or "int8" (summed in int32); write them as Measured.

    A dtype that this build of torch does not multiply on this machine is absent with torch's own words.
    """
    parsed = msgspec.convert(config, RooflineConfig)
    torch.set_num_threads(parsed.threads)
    found = Measured(versions={"torch": str(torch.__version__)})
    for figure in parsed.figures:
        try:
            with torch.no_grad():
                side, rates = product_rates(lambda side, dtype=figure: torch_product(side, dtype))  # type: ignore[misc]
        except (RuntimeError, NotImplementedError) as error:
            found.absent[figure] = f"torch {torch.__version__}: {str(error).strip().splitlines()[0]}"
        else:
            found.rates[figure], found.sides[figure] = rates, side
    write_measured(found, parsed.result)
    return 0


def torch_product(side: int, dtype: str) -> Callable[[], object]:
    """One product of random matrices into a third one."""
    generator = torch.Generator().manual_seed(side)
    if dtype == "int8":
        left, right = (torch.randint(-127, 128, (side, side), dtype=torch.int8, generator=generator) for _ in range(2))
        target = torch.empty((side, side), dtype=torch.int32)
        return lambda: torch._int_mm(left, right, out=target)
    left, right = (torch.randn((side, side), generator=generator).to(getattr(torch, dtype)) for _ in range(2))
    target = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=target)
