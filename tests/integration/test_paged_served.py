"""A paged runner, served: the tokens of the reference under cancellations and preemptions, alone and with other devices."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import zoo
from comparing import compare
from handed import answers, distance
from serving import deployment, running
from truth import Truth, continuations, load, prompts

from inlay import api
from inlay.client import EngineClient
from inlay.engine.journal import Journal, first_difference, read_journal
from inlay.errors import UnsupportedError
from inlay.orchestrator import Running, start_local
from inlay.scheduler import new_state, step
from inlay.specs.deployment import Deployment
from inlay.specs.device import Submit
from inlay.specs.generation import Delta, Failed, Generate, GenerationParameters, Placement
from inlay.specs.schedule import Placed, Preempted, Send
from inlay.specs.speculation import SpeculationSetup

NEW_TOKENS = 90
LOGIT_ERROR = 1e-4
PAGED, SLOTS, CONTRARY = "cpu:0/openvino", "cpu:1/openvino", "cpu:2/contrary"
ROLES = tuple(f"prefill,decode={place}" for place in (f"{PAGED}:paged", SLOTS, CONTRARY))


@dataclass(frozen=True)
class Served:
    """A paged runner, one over slots of the same framework, and the contrary one; pages for 6 sequences of 256 tokens."""

    wanted: Deployment
    running: Running
    log: Path

    def journal(self) -> Journal:
        return read_journal(self.log)


def few_pages(*, mode: str = "off") -> Deployment:
    wanted = deployment(zoo.DEMO_TARGET, ("openvino", "openvino", "contrary"), roles=ROLES, slots=16, chunk=64)
    return msgspec.structs.replace(wanted, rooms=(8, 1), speculation=SpeculationSetup(mode=mode))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    wanted, log = few_pages(), tmp_path_factory.mktemp("paged") / "events.jsonl"
    with running(wanted, event_log=log) as it:
        yield Served(wanted, it, log)


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    given = prompts(24, vocabulary=4096, seed=12, shortest=20, longest=240)
    return continuations(load(zoo.DEMO_TARGET), given, new_tokens=NEW_TOKENS)


def ask(it: Running, truths: list[Truth], placement: Placement, *, cut: dict[int, int]) -> list[list[int]]:
    """Greedy continuations, 16 at once, each after a pause; those in `cut` are given up after so many tokens."""
    parameters = GenerationParameters(max_tokens=NEW_TOKENS, temperature=0.0, ignore_eos=True)
    rng = random.Random(3)
    pauses = [rng.random() * 0.02 for _ in truths]

    async def work() -> list[list[int]]:
        gate = asyncio.Semaphore(16)
        async with EngineClient(it.engine_socket, key=it.key, silence_seconds=120.0) as client:

            async def one(index: int) -> list[int]:
                wanted = Generate(call=0, tokens=truths[index].prompt, parameters=parameters, placement=placement)
                tokens: list[int] = []
                async with gate, aclosing(client.generate(wanted)) as events:
                    await asyncio.sleep(pauses[index])
                    async for event in events:
                        assert not isinstance(event, Failed), event
                        if isinstance(event, Delta):
                            tokens += event.tokens
                        if len(tokens) >= cut.get(index, NEW_TOKENS + 1):
                            break
                return tokens

            return list(await asyncio.gather(*(one(index) for index in range(len(truths)))))

    return asyncio.run(work())


def unexcused(truths: list[Truth], found: list[list[int]]) -> list[object]:
    shorter = [
        Truth(truth.prompt, truth.tokens[: len(tokens)], truth.margins) for truth, tokens in zip(truths, found, strict=True)
    ]
    return [item for item in compare(shorter, found, logit_error=LOGIT_ERROR) if not item.excused]


def test_sixteen_ragged_requests_at_once_give_the_tokens_of_the_reference_whoever_gives_way_or_goes(served, truths) -> None:
    cut = {index: 1 + index for index in range(2, 24, 5)}
    found = ask(served.running, truths, Placement(prefill=PAGED, decode=PAGED), cut=cut)
    assert all(len(tokens) == NEW_TOKENS or index in cut for index, tokens in enumerate(found))
    assert not unexcused(truths, found)
    journal = served.journal()
    commands = [command for entry in journal.entries for command in entry.commands]
    assert any(isinstance(command, Preempted) and command.runner == PAGED for command in commands)
    batches = [item.message for item in commands if isinstance(item, Send) and isinstance(item.message, Submit)]
    mixed = [batch for batch in batches if batch.phase == "mixed"]
    assert mixed and all(len({len(row.tokens) for row in batch.rows}) > 1 for batch in mixed)
    print(
        f"{len(batches)} batches, {len(mixed)} mixed, {sum(isinstance(c, Preempted) for c in commands)} gave way",
        file=sys.stderr,
    )


def test_the_log_replays_and_leaves_no_page_in_use(served, truths) -> None:
    ask(served.running, truths[:4], Placement(prefill=PAGED, decode=PAGED), cut={1: 3})
    journal = served.journal()
    assert first_difference(journal) is None
    state = new_state(journal.start)
    for entry in journal.entries:
        step(state, entry.event, entry.now)
    paging = state.runners[PAGED].paging
    assert paging is not None and paging.used == 0 and not state.sequences


def test_a_prompt_that_begins_like_another_shares_its_pages_and_says_the_same(served) -> None:
    (prompt,) = prompts(3, vocabulary=4096, seed=40, shortest=150, longest=150)[:1]
    here = Placement(prefill=PAGED, decode=PAGED)
    first, second = (answers(served.running, [(prompt, here)], new_tokens=8)[0] for _ in range(2))
    placed = [c for entry in served.journal().entries for c in entry.commands if isinstance(c, Placed)]
    assert (placed[-2].cached, placed[-1].cached) == (0, 149 // 32 * 32)
    told = distance(first, second)
    assert told.parted is None and told.largest < 1e-4


@pytest.mark.parametrize(("prefill", "decode"), [(PAGED, SLOTS), (SLOTS, PAGED), (PAGED, CONTRARY), (CONTRARY, PAGED)])
def test_keys_go_between_pages_and_slots(served, truths, prefill, decode) -> None:
    found = ask(served.running, truths, Placement(prefill=prefill, decode=decode), cut={5: 2, 9: 7})
    assert not unexcused(truths, found)


def test_the_description_says_that_it_keeps_pages_and_its_pool_is_what_was_predicted(served) -> None:
    found = {runner.place: runner.regions[0] for runner in api.describe(served.running).runners}
    assert {place: region.runner for place, region in found.items()} == {PAGED: "paged", SLOTS: "extend", CONTRARY: "extend"}
    token = 4 * 2 * 6 * 2 * 64  # float32, keys and values, layers, KV heads and dimension of the demo target
    assert found[PAGED].memory["kv_pool"] == served.running.predicted[PAGED].kv_pool == token * 32 * 48
    assert found[PAGED].memory["kv_pages"] == 0


def test_guesses_are_verified_in_pages(truths) -> None:
    wanted = few_pages(mode="ngram")
    repeating = [Truth(item.prompt, item.tokens, item.margins) for item in truths[:12]]
    with running(msgspec.structs.replace(wanted, roles=wanted.roles[:1])) as it:
        found = ask(it, repeating, Placement(), cut={})
    assert not unexcused(repeating, found)


def test_a_draft_runner_over_pages_is_refused_before_anything_starts() -> None:
    wanted = deployment(
        zoo.DEMO_TARGET,
        ("openvino", "openvino"),
        roles=("prefill,decode=cpu:0/openvino", "prefill,decode=cpu:1/openvino:paged"),
    )
    drafting = msgspec.structs.replace(wanted.roles[1], roles=("draft",))
    wanted = msgspec.structs.replace(wanted, roles=(wanted.roles[0], drafting), draft_model=str(zoo.DEMO_TARGET))
    with pytest.raises(UnsupportedError, match="cpu:1/openvino asks for a paged runner with the role draft"):
        start_local(wanted)
