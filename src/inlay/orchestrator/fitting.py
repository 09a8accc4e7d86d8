"""Whether a deployment fits the memory its devices are said to have, told before anything is loaded."""

from __future__ import annotations

import math
import re

import msgspec

from inlay.errors import DeploymentError
from inlay.graph import layer_of
from inlay.models import ModelSpec, open_checkpoint
from inlay.specs.deployment import PAGE, Deployment, RegionPlacement
from inlay.units import format_bytes

FLOAT32 = 4
EMBEDDING = re.compile(r"(^|[._])(embed|wte|wpe|word_embeddings)")
PATH_LEVELS = 3


class RegionMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What one region needs, in bytes: weights of its layers (the framework's copy), its KV pool, buffers of its steps."""

    weights: int
    kv: int
    buffers: int

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.kv + self.buffers


def check_memory(deployment: Deployment, spec: ModelSpec) -> None:
    """Raise DeploymentError with the sum where a region needs more than its device is said to have."""
    for role in deployment.roles:
        if role.drafts:
            continue
        for region in role.regions:
            memory = deployment.cluster.device(region.device).memory
            if memory is None:
                continue
            needed = region_memory(deployment, region, spec)
            if needed.total > memory:
                first, end = region.layers or (0, spec.layers)
                which = "" if end - first == spec.layers else f" for layers {first} to {end - 1}"
                raise DeploymentError(
                    f"{region.place} needs {format_bytes(needed.total)}{which} (weights {format_bytes(needed.weights)} + KV of "
                    f"{deployment.slots} sequences of up to {deployment.context} tokens {format_bytes(needed.kv)} + buffers "
                    f"{format_bytes(needed.buffers)}) but {region.device} has {format_bytes(memory)}",
                    hint="lower --context or --slots, choose another device, or cut the layers over two: "
                    "DEVICE/BACKEND@0-11+DEVICE/BACKEND@12-",
                )


def region_memory(deployment: Deployment, region: RegionPlacement, spec: ModelSpec) -> RegionMemory:
    """The need of one region: the slots of every capacity, and the pages that keep prefixes when all are full."""
    first, end = region.layers or (0, spec.layers)
    token = FLOAT32 * 2 * (end - first) * spec.kv_heads * spec.head_dim
    # Widths and batch sizes that buffers are kept for double up to the largest: together at most twice as many tokens.
    tokens = 2 * (deployment.chunk + deployment.slots)
    logits = 2 * deployment.slots * spec.vocabulary if end == spec.layers else 0
    return RegionMemory(
        weights=FLOAT32 * count_parameters(spec, first, end),
        kv=token * kv_rows(deployment),
        buffers=tokens * (token + FLOAT32 * 2 * spec.hidden) + FLOAT32 * logits,
    )


def kv_rows(deployment: Deployment) -> int:
    """Tokens whose KV a replica has room for: in slots, and in pages when all are full."""
    slots = sum(capacity * count for capacity, count in deployment.slots_by_capacity.items())
    return slots + PAGE * deployment.pages


def count_parameters(spec: ModelSpec, first: int, end: int) -> int:
    """Numbers in the checkpoint that layers `first` to `end` need: their own, embeddings with the first layer, everything
    behind the layers with the last; a tied embedding with both."""
    checkpoint = open_checkpoint(spec.folder)
    sizes = {name: math.prod(checkpoint.entry(name).shape) for name in checkpoint.names()}
    layers = _layer_numbers(list(sizes), spec.layers)
    total = 0
    for name, size in sizes.items():
        layer = layers.get(name)
        if layer is not None:
            total += size if first <= layer < end else 0
        elif EMBEDDING.search(name):
            tied = spec.tied and checkpoint.entry(name).shape[:1] == (spec.vocabulary,)
            total += size if first == 0 or (tied and end == spec.layers) else 0
        else:
            total += size if end == spec.layers else 0
    return total


def _layer_numbers(names: list[str], depth: int) -> dict[str, int]:
    """The layer of each tensor that belongs to one, read from its name. None where the names do not tell layers apart:
    then everything counts for the piece that ends the model."""
    for level in range(PATH_LEVELS):
        lists: dict[str, dict[str, int]] = {}
        for name in names:
            stem, _, index = layer_of(name, level).rpartition(".")
            if index:
                lists.setdefault(stem, {})[name] = int(index)
        for found in lists.values():
            if set(found.values()) == set(range(depth)):
                return found
    return {}
