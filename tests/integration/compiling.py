"""The compile path for tests: captured builders, plans written by hand so that nothing is measured, Builds opened."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from inlay import api
from inlay.graph import flops_of
from inlay.hardware import Cluster, Device, Node
from inlay.runtime.store import read_program
from inlay.specs.partition import Partition, PlannedBlock, PlannedRegion

BUILDERS = Path(__file__).with_name("builders.py")
Region = tuple[int, int, str, str]
"""First block, end, device, backend."""


@cache
def captured(name: str) -> api.CapturedModel:
    """A builder of builders.py, captured once a session."""
    return api.capture_file(f"{BUILDERS}:{name}")


def source(name: str) -> str:
    return f"{BUILDERS}:{name}"


def two_devices(**memory: int) -> Cluster:
    """cpu:0 and cpu:1 on the first core each; both fit any machine."""
    import os

    cores = sorted(os.sched_getaffinity(0))
    devices = {
        f"cpu:{index}": Device(
            name=f"cpu:{index}", node="local", chip="cpu", cores=(cores[index % len(cores)],), memory=memory.get(f"cpu{index}")
        )
        for index in range(2)
    }
    return Cluster(nodes={"local": Node(name="local")}, devices=devices)


def plan_of(model: api.CapturedModel, regions: Sequence[Region], *, fused: bool = False) -> Partition:
    """A partition by hand: nothing measured, nothing predicted."""
    blocks = read_program(model.folder).cut.blocks
    states = {
        state.name: f"r{number}"
        for state in model.program.states
        for number, (first, end, _, _) in enumerate(regions)
        if any(state.input in block.inputs for block in blocks[first:end])
    }
    return Partition(
        program=model.program.digest,
        name=model.program.name,
        blocks=tuple(PlannedBlock(name=block.name, digest=block.digest) for block in blocks),
        points=model.points,
        cluster=two_devices(),
        states=states,
        regions=tuple(
            PlannedRegion(
                id=f"r{number}", first=first, end=end, device=device, backend=backend, fused=fused and end - first > 1
            )
            for number, (first, end, device, backend) in enumerate(regions)
        ),
    )


def build(model: api.CapturedModel, target: Path, regions: Sequence[Region], *, fused: bool = False) -> Path:
    """Compile by hand."""
    api.compile(model, target, plan=plan_of(model, regions, fused=fused), cluster=two_devices())
    return target


def halves(model: api.CapturedModel, one: str, two: str, *, devices: tuple[str, str] = ("cpu:0", "cpu:1")) -> list[Region]:
    """Cut where half of the FLOPs are done (at least one block on each side)."""
    stored = read_program(model.folder)
    blocks, point = stored.cut.blocks, stored.points[0]
    shares = [flops_of(model.program, block.nodes, point) for block in blocks]
    at = next((index for index in range(1, len(blocks)) if sum(shares[:index]) >= sum(shares) / 2), len(blocks) - 1)
    return [(0, at, devices[0], one), (at, len(blocks), devices[1], two)]
