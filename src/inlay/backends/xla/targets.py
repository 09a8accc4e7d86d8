"""TPU generations that code is compiled for without the chip, and what the compiler says of it. Imports no SDK by itself."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from inlay.backends.xla.support import NAME
from inlay.errors import UnsupportedError

TOPOLOGIES = {"tpu-v4": "v4:2x2x1", "tpu-v5e": "v5e:2x2", "tpu-v5p": "v5p:2x2x1", "tpu-v6e": "v6e:2x2"}
"""The smallest slice of each generation that libtpu describes; code is compiled for one of its chips."""
TARGETS = tuple(TOPOLOGIES)
PACKAGE = "libtpu"
FIGURES_FILE = "figures.json"


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What the compiler of a target says of one point: bytes on the chip, operations, bytes moved; and the seconds it took.

    Argument bytes hold the weights too. `flops` and `bytes_accessed` are the compiler's own estimates (grade: vendor).
    """

    sizes: dict[str, int]
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    code_bytes: int
    flops: float
    bytes_accessed: float
    compile_seconds: float


def target_device(jax: Any, target: str) -> Any:
    """One chip of a target that is not here. Raises UnsupportedError with what the compiler's library says."""
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(TOPOLOGIES[target], "tpu").devices[0]
    except Exception as error:  # whatever the library raises where it is absent or broken
        raise UnsupportedError(
            f"{NAME} cannot compile for {target}: {type(error).__name__}: {str(error).splitlines()[0]}",
            hint=f"{PACKAGE} must be installed in the environment {NAME!r}",
        ) from error


def compile_for(jax: Any, code: Any, device: Any, sizes: dict[str, int]) -> tuple[Any, Figures]:
    """The executable of exported code for a chip, and its figures. Raises UnsupportedError with the compiler's reason."""
    sharding = jax.sharding.SingleDeviceSharding(device)
    arguments = [jax.ShapeDtypeStruct(item.shape, item.dtype, sharding=sharding) for item in code.in_avals]
    begun = time.monotonic()
    try:
        compiled = jax.jit(code.call, out_shardings=sharding).lower(*arguments).compile()
    except Exception as error:  # whatever the compiler raises: memory that the chip does not have, an operator it lacks
        raise UnsupportedError(f"{NAME} cannot compile {sizes} for {device}: {str(error).splitlines()[0]}") from error
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    figures = Figures(
        sizes=sizes,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        flops=float(cost.get("flops", 0.0)),
        bytes_accessed=float(cost.get("bytes accessed", 0.0)),
        compile_seconds=time.monotonic() - begun,
    )
    return compiled, figures
