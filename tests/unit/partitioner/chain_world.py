"""Programs and blocks for the tests of the partitioner, made by hand: every block one product with a weight of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from inlay.graph import Block, Cut, Node, Program, State, Tensor, piece_of
from inlay.hardware import Cluster, Device, Link, Place
from inlay.hardware import Node as Host
from inlay.partitioner import Search, learn, learn_trial, propose
from inlay.specs.capability import Capability, NodeSupport
from inlay.specs.partition import Partition, Trial
from inlay.specs.profile import Estimate, Failure, Profile, ProfileKey, Wanted
from inlay.units import Bytes, BytesPerSecond, Seconds

WIDTH = 64
WEIGHT = 4 * WIDTH * WIDTH


def make_program(
    count: int,
    *,
    skips: Sequence[tuple[int, int]] = (),
    kinds: Sequence[str] | None = None,
    states: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[Program, tuple[Block, ...]]:
    """A chain of `count` products. `skips` are pairs (producer, reader) beside it; equal `kinds` make equal blocks;
    `states` give, by name, the block that reads and the block that writes."""
    tensor = Tensor(dtype="float32", shape=("B", WIDTH))
    held = states or {}
    nodes, blocks = [], []
    for index in range(count):
        sources = ["x" if index == 0 else f"mm_{index - 1}"]
        sources += [f"mm_{producer}" for producer, reader in skips if reader == index and producer != index - 1]
        sources += [f"{name}_in" for name, (reader, _) in held.items() if reader == index]
        path = f"layers.{index}.product"
        kind = kinds[index] if kinds is not None else str(index)
        read = (*sources, f"w_{index}")
        wires = json.dumps([[{"node": name} for name in read], kind], separators=(",", ":"))
        nodes.append(
            Node(name=f"mm_{index}", operator="aten.mm.default", inputs=read, outputs=(tensor,), path=path, arguments=wires)
        )
        own = [f"mm_{index}"]
        for name, (_, writer) in held.items():
            if writer == index:
                nodes.append(
                    Node(name=f"{name}_out", operator="aten.add.Tensor", inputs=(own[0],), outputs=(tensor,), path=path)
                )
                own.append(f"{name}_out")
        shape = f"{kind} {len(sources)} {len(own)}"
        blocks.append((index, f"layers.{index}", hashlib.sha256(shape.encode()).hexdigest(), own, sources))
    read = {source for *_, sources in blocks for source in sources} | {f"mm_{count - 1}"}
    read |= {f"{name}_out" for name in held}
    program = Program(
        name="chain",
        inputs={"x": tensor, **{f"{name}_in": tensor for name in held}},
        weights={f"layers.{index}.weight": Tensor(dtype="float32", shape=(WIDTH, WIDTH)) for index in range(count)},
        nodes=tuple(nodes),
        outputs=(f"mm_{count - 1}",),
        digest=hashlib.sha256(repr((count, skips, kinds, states)).encode()).hexdigest(),
        results=("output",),
        weight_nodes={f"w_{index}": f"layers.{index}.weight" for index in range(count)},
        states=tuple(State(name=name, input=f"{name}_in", output=f"{name}_out") for name in held),
        ranges={"B": (1, 64)},
    )
    made = tuple(
        Block(
            index=index,
            name=name,
            digest=digest,
            nodes=tuple(own),
            replicated=(),
            inputs=tuple(sources),
            outputs=tuple(item for item in own if item in read),
            weights=(f"layers.{index}.weight",),
        )
        for index, name, digest, own, sources in blocks
    )
    return program, made


def make_cluster(
    devices: Mapping[str, int | None], *, bandwidth: float = 1e9, latency: float = 1e-4, chips: Mapping[str, str] | None = None
) -> Cluster:
    """Devices on one host by their memory in bytes (None = not known), every two of them linked alike."""
    names = list(devices)
    return Cluster(
        nodes={"local": Host(name="local")},
        devices={
            name: Device(
                name=name,
                node="local",
                cores=(core,),
                chip=(chips or {}).get(name, name),
                memory=None if devices[name] is None else Bytes(devices[name] or 0),
            )
            for core, name in enumerate(names)
        },
        links=tuple(
            Link(ends=(one, other), bandwidth=BytesPerSecond(bandwidth), latency=Seconds(latency))
            for at, one in enumerate(names)
            for other in names[at + 1 :]
        ),
    )


def offer(program: Program, backend: str, *, refused: Mapping[str, str] | None = None, group: Sequence[str] = ()) -> Capability:
    """A backend that takes every node but the `refused` ones; the nodes of `group` it keeps together."""
    reasons = refused or {}
    return Capability(
        backend=backend,
        nodes=tuple(
            NodeSupport(
                node=node.name,
                supported=node.name not in reasons,
                reason=reasons.get(node.name, ""),
                group="together" if node.name in group else None,
            )
            for node in program.nodes
        ),
    )


class Bench:
    """Answers what a search asks: seconds of a run are the sum of its blocks' at that backend, `noise` wide to each side.

    `saved` is what each cut less is worth to a backend when the run is lowered whole; `broken` maps (backend, first, end) to
    the reason why that cannot be lowered. `bias` is what a trial finds a plan to take beside what was expected of it; None:
    trials cannot be run.
    """

    def __init__(
        self,
        seconds: Mapping[str, Sequence[float]],
        *,
        noise: float = 0.02,
        saved: Mapping[str, float] | None = None,
        broken: Mapping[tuple[str, int, int], str] | None = None,
        memory: int = 0,
        bias: float | None = 1.0,
    ) -> None:
        self.bias = bias
        self.trials: list[Trial] = []
        self.seconds, self.noise, self.memory = seconds, noise, memory
        self.saved, self.broken = saved or {}, broken or {}
        self.asked: list[ProfileKey] = []
        self.stages: list[str] = []

    def answer(self, wanted: Wanted) -> tuple[list[Profile], list[Failure]]:
        profiles: list[Profile] = []
        failures: list[Failure] = []
        self.stages.append(wanted.stage)
        for item in wanted.measurements:
            reason = self.broken.get((item.backend, item.first, item.end))
            median = sum(self.seconds[item.backend][item.first : item.end])
            if item.fused:
                median -= self.saved.get(item.backend, 0.0) * (item.end - item.first - 1)
            for key in item.keys:
                assert key not in self.asked
                self.asked.append(key)
                if reason is not None:
                    failures.append(Failure(key=key, reason=reason))
                    continue
                low, high = median * (1 - self.noise), median * (1 + self.noise)
                profiles.append(Profile(key=key, median=median, low=low, high=high, rounds=9, memory=self.memory))
        return profiles, failures

    def try_out(self, trial: Trial) -> Estimate | None:
        """The ratio of what the two are expected to take, times the bias."""
        self.trials.append(trial)
        assert trial.plan.value is not None and trial.rival.value is not None
        if self.bias is None:
            return None
        ratio = self.bias * trial.plan.value.value / trial.rival.value.value
        return Estimate(value=ratio, low=0.999 * ratio, high=1.001 * ratio, grade="measured")


def search_through(search: Search, bench: Bench) -> Partition:
    """The loop that `api` runs, with a bench in place of the runtime."""
    for _ in range(40):
        step = propose(search)
        if isinstance(step, Partition):
            return step
        if isinstance(step, Trial):
            learn_trial(search, step, bench.try_out(step))
            continue
        profiles, failures = bench.answer(step)
        learn(search, profiles, failures)
    raise AssertionError("the search asks for ever")


def places(*names: str) -> list[Place]:
    """Places by their spelling."""
    return [Place(*name.split("/")) for name in names]


def run_digest(program: Program, blocks: Sequence[Block], first: int, end: int) -> str:
    """What the runtime calls a run of blocks."""
    return piece_of(Cut(program=program, blocks=tuple(blocks)), first, end).digest
