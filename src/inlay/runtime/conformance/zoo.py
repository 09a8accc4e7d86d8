"""The operators of the models of the zoo: how often each occurs, and its smallest call, from `operators.json`, which
`benchmarks/operators.py` writes. No torch.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("operators.json")


@lru_cache(maxsize=1)
def zoo_operators() -> dict[str, dict[str, Any]]:
    """Each operator with `count`, `models` and `call`, its smallest call as data (None for what computes sizes)."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text())["operators"]
    return found


def zoo_digest() -> str:
    """Names this state of the data."""
    return hashlib.sha256(FILE.read_bytes()).hexdigest()[:16]


def operator_counts() -> dict[str, int]:
    """How many nodes of the models each operator is."""
    return {name: item["count"] for name, item in zoo_operators().items()}


def call_names() -> tuple[str, ...]:
    """The operators that have a call of their own to be tried: torch's own, since processes of programs know no others."""
    return tuple(name for name, item in zoo_operators().items() if item["call"] is not None and name.startswith("aten."))
