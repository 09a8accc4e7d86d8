"""Whether a deployment fits the memory its devices are said to have, told before anything is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

from inlay.backends import backend
from inlay.errors import DeploymentError
from inlay.graph import layer_of
from inlay.models import ModelSpec, open_checkpoint
from inlay.specs.deployment import Deployment, RegionPlacement
from inlay.specs.kv import PAGE
from inlay.specs.precision import Precision
from inlay.specs.stage import StageShape
from inlay.units import format_bytes

FLOAT32 = 4
NARROW = {"bfloat16": 2, "float16": 2}
"""Bytes of a number in a framework's own copy of float32 weights, where it computes in these types."""
EXPERTS = "experts"
EMBEDDING = re.compile(r"(^|[._])(embed|wte|wpe|word_embeddings)")
PATH_LEVELS = 3


class RegionMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What one region needs, in bytes: weights of its layers (the framework's copy), its KV pool, buffers of its steps."""

    weights: int
    kv_pool: int
    buffers: int

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.kv_pool + self.buffers


class LoweredRegion(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a region once it is lowered: its layers' real geometry, and bytes of the weights that it maps."""

    stage: StageShape
    weights: int


def check_memory(
    deployment: Deployment, spec: ModelSpec, *, lowered: Mapping[str, LoweredRegion] | None = None
) -> dict[str, RegionMemory]:
    """What each process needs, draft models left out. Raises DeploymentError with the sum where that is more than its device
    is said to have.

    Before lowering by what the config and the checkpoint's names tell; again with `lowered`, by process, to the byte.
    """
    found: dict[str, RegionMemory] = {}
    for role in deployment.roles:
        if role.drafts:
            continue
        for region in role.regions:
            memory = deployment.cluster.device(region.device).memory
            needed = region_memory(deployment, region, spec, lowered=(lowered or {}).get(role.process(region)))
            found[role.process(region)] = needed
            if memory is not None and needed.total > memory:
                first, end = region.layers or (0, spec.layers)
                which = "" if end - first == spec.layers else f" for layers {first} to {end - 1}"
                raise DeploymentError(
                    f"{region.place} needs {format_bytes(needed.total)}{which} (weights {format_bytes(needed.weights)} + KV "
                    f"of {deployment.slots} sequences of up to {deployment.context} tokens {format_bytes(needed.kv_pool)} + "
                    f"buffers {format_bytes(needed.buffers)}) but {region.device} has {format_bytes(memory)}",
                    hint="lower --context or --slots, choose another device, or cut the layers over two: "
                    "DEVICE/BACKEND@0-11+DEVICE/BACKEND@12-",
                )
    return found


def region_memory(
    deployment: Deployment, region: RegionPlacement, spec: ModelSpec, *, lowered: LoweredRegion | None = None
) -> RegionMemory:
    """The need of one region: the slots of every capacity, and the pages that keep prefixes when all are full."""
    first, end = region.layers or (0, spec.layers)
    numbers = 2 * (end - first) * spec.kv_heads * spec.head_dim if lowered is None else lowered.stage.kv_elements_per_token()
    weights = predicted_weights(spec, first, end, region.precision) if lowered is None else lowered.weights
    if region.precision.weights == "float32":
        weights = weights * NARROW.get(region.precision.compute, FLOAT32) // FLOAT32
    # Widths and batch sizes that buffers are kept for double up to the largest: together at most twice as many tokens.
    tokens = 2 * (deployment.chunk + deployment.slots)
    logits = 2 * deployment.slots * spec.vocabulary if end == spec.layers else 0
    return RegionMemory(
        weights=weights,
        kv_pool=FLOAT32 * numbers * (paged_rows(deployment, region) if region.runner == "paged" else kv_rows(deployment)),
        buffers=FLOAT32 * (tokens * (numbers + 2 * spec.hidden) + logits),
    )


def kv_rows(deployment: Deployment) -> int:
    """Tokens whose KV a replica has room for: in slots, and in pages when all are full."""
    slots = sum(capacity * count for capacity, count in deployment.slots_by_capacity.items())
    return slots + PAGE * deployment.pages


def paged_rows(deployment: Deployment, region: RegionPlacement) -> int:
    """Tokens whose KV a paged runner has room for, in all of its pages."""
    page: int = getattr(backend(region.backend), "page", 0)
    return page * deployment.paged_pool(page)


def predicted_weights(spec: ModelSpec, first: int, end: int, precision: Precision) -> int:
    """Bytes of the checkpoint's tensors that layers `first` to `end` need: their own, embeddings with the first layer,
    everything behind the layers with the last; a tied embedding with both.

    In 8 bit every matrix but embeddings and experts is a byte a number and a float32 a row; a tied embedding, which is looked
    up in float32 and multiplied in 8 bit, is there twice in a whole.
    """
    checkpoint = open_checkpoint(spec.folder)
    shapes = {name: checkpoint.entry(name).shape for name in checkpoint.names()}
    layers = _layer_numbers(list(shapes), spec.layers)
    whole_numbers = precision.weights == "int8"
    total = 0
    for name, shape in shapes.items():
        layer, wide = layers.get(name), FLOAT32 * math.prod(shape)
        narrow = math.prod(shape) + FLOAT32 * shape[0] if whole_numbers and len(shape) == 2 and EXPERTS not in name else wide
        if layer is not None:
            total += narrow if first <= layer < end else 0
        elif EMBEDDING.search(name):
            tied = spec.tied and shape[:1] == (spec.vocabulary,) and end == spec.layers
            looked_up = first == 0 or (tied and not whole_numbers)
            total += (wide if looked_up else 0) + (narrow if tied and whole_numbers else 0)
        else:
            total += narrow if end == spec.layers else 0
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
