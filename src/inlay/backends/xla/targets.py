"""TPU generations that code is compiled for without the chip, and what the compiler says of it. Imports no SDK by itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from inlay.backends.environment import package_version
from inlay.backends.xla.support import ENVIRONMENT, NAME
from inlay.errors import UnsupportedError

TARGETS = {
    "tpu-v4": "one chip of a Google TPU v4",
    "tpu-v5e": "one chip of a Google TPU v5e",
    "tpu-v5p": "one chip of a Google TPU v5p",
    "tpu-v6e": "one chip of a Google TPU v6e",
}
PACKAGE = "libtpu"
_SLICES = {"tpu-v4": "v4:2x2x1", "tpu-v5e": "v5e:2x2", "tpu-v5p": "v5p:2x2x1", "tpu-v6e": "v6e:2x2"}
"""The smallest slice of each generation that the compiler describes; code is for one of its chips."""


_NO_HOST = {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_MIN_LOG_LEVEL": "3"}
"""Without these libtpu complains that it finds no host with chips, which nobody asked for."""


def target_device(jax: Any, target: str) -> Any:
    """One chip of a target that need not be here. Raises UnsupportedError with what the compiler's library says."""
    from jax.experimental import topologies

    for name, value in _NO_HOST.items():
        os.environ.setdefault(name, value)
    try:
        return topologies.get_topology_desc(_SLICES[target], "tpu").devices[0]
    except Exception as error:  # whatever the library raises where it is absent or broken
        raise UnsupportedError(
            f"{NAME} cannot compile for {target}: {type(error).__name__}: {str(error).splitlines()[0]}",
            hint=f"{PACKAGE} must be installed in the environment {NAME!r}",
        ) from error


def made_with(target: str) -> dict[str, str]:
    """The compiler of a target's code and its version; nothing for code of this machine."""
    return {PACKAGE: package_version(PACKAGE, ENVIRONMENT) or "absent"} if target else {}


def figures_of(compiled: Any, sizes: Mapping[str, int]) -> dict[str, int | float]:
    """What the compiler says of its code for these sizes: bytes on the chip (arguments hold the weights), FLOPs, and the
    bytes that it expects to move."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    told = cost[0] if isinstance(cost, list) else cost
    found: dict[str, int | float] = {
        "argument bytes": memory.argument_size_in_bytes,
        "output bytes": memory.output_size_in_bytes,
        "temporary bytes": memory.temp_size_in_bytes,
        "program bytes": memory.generated_code_size_in_bytes,
        "FLOPs": int(told.get("flops", 0)),
        "bytes accessed": int(told.get("bytes accessed", 0)),
    }
    at = " ".join(f"{name} {size}" for name, size in sizes.items())
    return {f"{name}, {at}" if at else name: value for name, value in found.items()}
