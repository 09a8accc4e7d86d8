"""The scheduler on paged runners: ragged batches, pages shared and given back, who gives way, hand-offs to and from slots."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from paged_world import PagedWorld
from scheduler_world import answer

from inlay.scheduler import new_state
from inlay.specs.schedule import RunnerFacts, SchedulerSetup
from inlay.specs.speculation import SpeculationSetup

PAGE = 8
CONTEXT = 96
BOTH = ("prefill", "decode")


def paged(
    name: str = "a", roles: tuple[str, ...] = BOTH, *, pages: int = 72, slots: int = 6, chunk: int = 20, keeps: bool = True
) -> RunnerFacts:
    return RunnerFacts(
        runner=name, epoch=1, roles=roles, capacities=(32, CONTEXT), slots=slots, chunk=chunk, page=PAGE, pages=pages,
        paged=True, keeps=keeps, rounds=5,
    )  # fmt: skip


def slotted(name: str, roles: tuple[str, ...] = BOTH, *, pages: int = 40) -> RunnerFacts:
    return RunnerFacts(
        runner=name, epoch=1, roles=roles, capacities=(32, CONTEXT), slots=6, chunk=10, page=4, pages=pages, device=name
    )


def world(*runners: RunnerFacts, seed: int = 0, mode: str = "off", **options: float) -> PagedWorld:
    setup = SchedulerSetup(facts=runners or (paged(),), context=CONTEXT, speculation=SpeculationSetup(mode=mode, drafts=3))
    return PagedWorld(new_state(setup), random.Random(seed), **options)


def load(it: PagedWorld, *, seed: int, requests: int = 40, cancelled: float = 0.15, **fields: object) -> None:
    """Prompts that often begin alike, answers of all lengths, some cancelled, some of another tenant or priority."""
    rng = random.Random(seed)
    openings = [tuple(rng.randrange(50) for _ in range(40)) for _ in range(3)]
    asked = []
    for _ in range(requests):
        prompt = rng.choice(openings)[: rng.randrange(41)] + tuple(rng.randrange(50) for _ in range(rng.randint(1, 20)))
        more = {"priority": rng.choice((0, 0, 0, 1)), "tenant": rng.choice(("one", "one", "two"))} | fields
        asked.append(it.request(prompt, max_tokens=rng.randint(1, 50), **more))
        for _ in range(rng.randint(0, 8)):
            it.act()
        if rng.random() < cancelled:
            victim = rng.choice(asked).sequence
            if victim not in it.ended:
                it.cancel(victim)
    it.run()
    for request in asked:
        found, ended = it.tokens.get(request.sequence, []), it.ended[request.sequence]
        expected = answer(request.prompt, min(request.max_tokens, CONTEXT - len(request.prompt)))
        assert found == (expected[: len(found)] if ended.reason == "cancelled" else expected)
    for runner in it.state.runners.values():
        assert not runner.holders and runner.flight is None
        assert runner.paging is None or runner.paging.used == 0
    assert not it.state.sequences and not len(it.state.waiting)


@pytest.mark.parametrize("pages", [72, 30, 13])
@pytest.mark.parametrize("seed", range(8))
def test_every_answer_is_right_and_every_page_comes_back(pages: int, seed: int) -> None:
    it = world(paged(pages=pages), seed=seed)
    load(it, seed=seed)
    assert it.cached
    assert it.preempted or pages == 72
    phases = {batch.phase for batch in it.batches}
    assert phases == {"prefill", "decode", "mixed"}
