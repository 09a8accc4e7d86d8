"""What Inductor took for granted about sizes while compiling. Its code does not check it; outside, it answers wrongly.

An example: it compiles `adaptive_avg_pool2d` for the example's height alone, whatever was declared.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence

from inlay.backends.inductor.support import NAME
from inlay.errors import UnsupportedError
from inlay.graph import size_value

Condition = tuple[str, str, str]
"""Two expressions of symbols (see `inlay.graph.sizes`) and the relation between them."""
RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip


def check_conditions(conditions: Sequence[Condition], sizes: Mapping[str, int]) -> None:
    """Raise UnsupportedError for sizes that the code was not compiled for."""
    for left, relation, right in conditions:
        if not RELATIONS[relation](size_value(left, sizes), size_value(right, sizes)):
            raise UnsupportedError(
                f"{NAME} compiles the program for {left} {relation} {right} only, which sizes {dict(sizes)} are not",
                hint="declare that size as fixed, or place the operator that needs it elsewhere",
            )
