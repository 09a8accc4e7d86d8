"""What XLA takes through JAX, the packages it needs, and its one way in. Imports no SDK by itself.

The operators are those of the table in `operators`; one that is not there is refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from inlay.backends.processor import instructions
from inlay.backends.refusal import RANDOM, Rules, argument
from inlay.backends.xla.operators import TABLE
from inlay.graph import Node, Program, Tensor
from inlay.specs.capability import Capability

NAME = "xla"
ENVIRONMENT = "xla"
PACKAGES = ("jax", "jaxlib")
LOWERED_WITH = ("jaxlib", "libtpu")
PLATFORMS = ("cpu", "cuda", "tpu")
"""What a portable artifact can be compiled for when it is loaded."""
NO_ROW = "the table of operators has no row for it"
ON_NUMBERS = ("<built-in function", "<function", "<class ")
"""How Python's own operators are called, which take sizes, or a part of several results."""
ASSERTIONS = ("aten._assert_scalar.", "aten._assert_tensor_metadata.", "aten.sym_constrain_range")
"""What is asserted of sizes has been checked when the declared sizes were; nothing is computed."""
DTYPES = {
    "float8_e4m3fn": "numbers of 8 bits are not carried across its edges",
    "float8_e5m2": "numbers of 8 bits are not carried across its edges",
    "complex32": "JAX has no complex numbers of 32 bits",
}


def import_jax(*, platform: str = "cpu") -> Any:
    """The jax module with everything set that would change numbers: 64-bit types exist, products of float32 are in float32.

    Only this platform is looked for, unless JAX_PLATFORMS says otherwise: looking for others takes seconds.
    """
    os.environ.setdefault("JAX_PLATFORMS", platform if platform == "cpu" else f"{platform},cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    return jax


def machine() -> dict[str, str]:
    """The instructions of this CPU, for which machine code is kept beside the portable code."""
    return {"instructions": instructions()}


def supports(program: Program) -> Capability:
    """Every node that the table has a row for and no rule refuses; declared sizes only."""
    return Capability(backend=NAME, nodes=RULES.judge(program), dynamic=False)


def functional(operator: str) -> str:
    """The operator that gives what this one writes in place (`aten.add_.Tensor`); itself where it writes nothing."""
    name, _, overload = operator.rpartition(".")
    writes = name.endswith("_") and not name.endswith("__")
    return f"{name[:-1]}.{overload}" if writes else operator


def _special(node: Node, values: Mapping[str, Tensor]) -> str:
    """Reasons that lie in the name or in the arguments of a node."""
    if node.operator.startswith((*ON_NUMBERS, *ASSERTIONS)):
        return ""
    if functional(node.operator) not in TABLE:
        return NO_ROW
    if functional(node.operator).startswith(("aten.index_put.", "aten._unsafe_index_put.")):
        return _masked_put(node, values)
    if node.operator in ("aten.dropout.default", "aten.feature_dropout.default") and argument(node, 2, "train", False):
        return "it drops at random"
    return ""


def _masked_put(node: Node, values: Mapping[str, Tensor]) -> str:
    """Writing by a mask has a static form where the mask is the only index and one value is written."""
    inputs = [values[name] for name in node.inputs if name in values]
    masks = [item for item in inputs[1:-1] if item.dtype == "bool"]
    if not masks or (len(inputs) == 3 and not any(size != 1 for size in inputs[-1].shape)):
        return ""
    return "it writes several values by a mask, so that how many depends on values"


RULES = Rules(backend=NAME, operators=RANDOM, dtypes=DTYPES, special=_special)
