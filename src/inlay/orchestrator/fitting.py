"""Whether a deployment fits the memory its devices are said to have, told before anything is loaded."""

from __future__ import annotations

from inlay.errors import DeploymentError
from inlay.models import ModelSpec, open_checkpoint
from inlay.specs.deployment import Deployment
from inlay.units import format_bytes

FLOAT32 = 4


def check_memory(deployment: Deployment, spec: ModelSpec) -> None:
    """Raise DeploymentError with the sum where weights (the framework's copy) and KV pool exceed a device's memory."""
    weights = FLOAT32 * count_parameters(spec)
    kv = kv_pool_bytes(deployment, spec)
    for role in deployment.roles:
        for region in role.regions:
            memory = deployment.cluster.device(region.device).memory
            if memory is not None and weights + kv > memory:
                raise DeploymentError(
                    f"{region.place} needs {format_bytes(weights + kv)} (weights {format_bytes(weights)} + KV of "
                    f"{deployment.slots} sequences of up to {deployment.context} tokens {format_bytes(kv)}) "
                    f"but {region.device} has {format_bytes(memory)}",
                    hint="lower --context or --slots, or choose another device",
                )


def count_parameters(spec: ModelSpec) -> int:
    """Numbers in the checkpoint, tied ones once."""
    checkpoint = open_checkpoint(spec.folder)
    total = 0
    for name in checkpoint.names():
        size = 1
        for extent in checkpoint.entry(name).shape:
            size *= extent
        total += size
    return total


def kv_pool_bytes(deployment: Deployment, spec: ModelSpec) -> int:
    """Bytes of one replica's pool, float32: every capacity has a slot for every sequence."""
    token = FLOAT32 * 2 * spec.layers * spec.kv_heads * spec.head_dim
    return token * deployment.slots * sum(deployment.capacities)
