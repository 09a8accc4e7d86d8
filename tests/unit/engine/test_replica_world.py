"""The scheduler over runners of several processes: every process's KV is what the scheduler believes, whatever fails."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scheduler"))
from scheduler_world import World, answer

from inlay.engine.replica import Region, Replicas, Tell
from inlay.scheduler import new_state
from inlay.specs.device import (
    AbortTransfer,
    BatchFailed,
    DeviceToEngine,
    EngineToDevice,
    ExpectTransfer,
    KvArrived,
    KvSent,
    OpenTransfer,
    Submit,
)
from inlay.specs.schedule import Fail, Finish, RunnerFacts, SchedulerSetup

DEPTH = 6


@dataclass
class RegionWorld(World):
    """Devices are processes; each holds the rows of its own layers, and the last one of a runner samples."""

    replicas: Replicas = field(default_factory=lambda: Replicas({}))
    regions: dict[str, list[Region]] = field(default_factory=dict)
    batch_fault_share: float = 0.0
    sources: dict[int, tuple[str, int | None]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def runner_of(self, place: str) -> str:
        return next(runner for runner, items in self.regions.items() if place in [item.place for item in items])

    def tell(self, runner: str, message: EngineToDevice) -> None:  # type: ignore[override]
        self.pending += [tell for tell in self.replicas.send(runner, message) if tell.place not in self.gone]

    def answer(self, place: str, message: DeviceToEngine) -> None:  # type: ignore[override]
        self.take(self.replicas.heard(place, message))
        if isinstance(message, KvArrived) and self.sources[message.transfer][0] not in self.gone:
            sent = KvSent(transfer=message.transfer, sequence=message.sequence, size=message.size)
            self.take(self.replicas.heard(self.sources[message.transfer][0], sent))

    def take(self, outcomes: list[object]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Tell):
                self.pending += [outcome] if outcome.place not in self.gone else []
            else:
                self.feed(outcome)  # type: ignore[arg-type]

    def facts_of(self, place: str) -> RunnerFacts:
        return self.state.runners[self.runner_of(place)].facts

    def samples(self, place: str) -> bool:
        return self.regions[self.runner_of(place)][-1].place == place

    def transfers_of(self, place: str, number: int | None) -> list[int]:
        return [part for part, source in self.sources.items() if source == (place, number) and part in self.exported]

    def obey(self, place: str, message: object) -> None:
        if isinstance(message, OpenTransfer):
            self.sources[message.binding.transfer] = (place, message.binding.part_of)
        if isinstance(message, AbortTransfer) and self.sources.get(message.transfer, ("",))[0] == place:
            return  # what it has sent is on its way; the destination has its own message
        if isinstance(message, ExpectTransfer):
            assert message.binding.destination == place
        if isinstance(message, Submit) and self.random.random() < self.batch_fault_share:
            self.answer(place, BatchFailed(batch=message.batch, code="planted", message=place))
            return
        super().obey(place, message)

    def kill(self, place: str) -> None:
        self.gone.add(place)
        self.pending = [(to, message) for to, message in self.pending if to != place]
        self.take(self.replicas.lost(place, "killed"))


def world(cuts: dict[str, tuple[int, ...]], seed: int, *, kv_faults: float = 0.0, batch_faults: float = 0.0) -> RegionWorld:
    regions = {name: [Region(f"{name}:{low}", 1, low, high) for low, high in pairwise(edges)] for name, edges in cuts.items()}
    roles = {"p": ("prefill",), "d": ("decode",), "b": ("prefill", "decode")}
    facts = tuple(
        RunnerFacts(runner=name, epoch=1, roles=roles[name[0]], capacities=(16, 48, 96), slots=4, chunk=7) for name in cuts
    )
    return RegionWorld(
        new_state(SchedulerSetup(facts=facts, context=96)),
        random.Random(seed),
        kv_fault_share=kv_faults,
        replicas=Replicas(regions),
        regions=regions,
        batch_fault_share=batch_faults,
    )


CUTS = (
    {"b": (0, 3, DEPTH)},
    {"p": (0, 3, DEPTH), "d": (0, DEPTH)},
    {"p": (0, DEPTH), "d": (0, 2, DEPTH)},
    {"p": (0, 2, 4, DEPTH), "d": (0, 3, DEPTH)},
    {"b1": (0, 1, DEPTH), "b2": (0, 4, 5, DEPTH)},
)


def load(it: RegionWorld, rng: random.Random, count: int, *, at: int = -1, event: object = None) -> list[object]:
    requests = []
    for number in range(count):
        requests.append(it.request(tuple(rng.randrange(50) for _ in range(rng.randint(1, 60))), max_tokens=rng.randint(1, 30)))
        for _ in range(rng.randint(0, 25)):
            it.act()
        if number == at and callable(event):
            event()
    it.run()
    return requests


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kv_faults", [0.0, 0.3])
def test_every_sequence_gets_its_tokens_through_every_cut_also_when_parts_of_hand_offs_fail(cuts, seed, kv_faults) -> None:
    it = world(cuts, seed, kv_faults=kv_faults)
    for request in load(it, random.Random(seed), 20):
        count = min(request.max_tokens, 96 - len(request.prompt))  # type: ignore[attr-defined]
        assert it.tokens[request.sequence] == answer(request.prompt, count)  # type: ignore[attr-defined]
        assert it.ended[request.sequence].reason == "length"  # type: ignore[attr-defined]
    assert not it.state.sequences and not it.state.handoffs
    assert it.replicas.open == 0
    if "p" in cuts:
        assert bool(it.recomputed) == (kv_faults > 0)


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_failed_batches_end_their_sequences_and_no_others(cuts, seed) -> None:
    it = world(cuts, seed, batch_faults=0.02)
    requests = load(it, random.Random(seed), 25)
    failed = {number for number, end in it.ended.items() if isinstance(end, Fail)}
    assert failed and len(it.ended) == len(requests) and not it.state.sequences and it.replicas.open == 0
    for request in requests:
        wanted = answer(request.prompt, min(request.max_tokens, 96 - len(request.prompt)))  # type: ignore[attr-defined]
        found = it.tokens.get(request.sequence, [])  # type: ignore[attr-defined]
        assert found == (wanted[: len(found)] if request.sequence in failed else wanted)  # type: ignore[attr-defined]


@pytest.mark.parametrize("victim", ["p:0", "p:2", "d:0", "d:3"])
@pytest.mark.parametrize("seed", range(4))
def test_a_killed_process_of_the_prompt_side_costs_nothing_and_of_the_other_side_ends_all(victim, seed) -> None:
    it = world({"p": (0, 2, DEPTH), "d": (0, 3, DEPTH)}, seed)
    requests = load(it, random.Random(seed), 16, at=8, event=lambda: it.kill(victim))
    assert not it.state.sequences and len(it.ended) == len(requests) and it.replicas.open == 0
    for request in requests:
        wanted = answer(request.prompt, min(request.max_tokens, 96 - len(request.prompt)))  # type: ignore[attr-defined]
        found = it.tokens.get(request.sequence, [])  # type: ignore[attr-defined]
        assert found == wanted[: len(found)]
        if isinstance(it.ended[request.sequence], Finish):  # type: ignore[attr-defined]
            assert found == wanted
    assert any(isinstance(end, Fail) for end in it.ended.values())
