"""A hand-off that goes wrong while a deployment serves: the tokens are the reference's, and no request waits for ever."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zoo
from serving import deployment, generate, running
from truth import Truth, continuations, load, prompts

from inlay import api
from inlay.client import EngineClient
from inlay.engine.journal import read_journal
from inlay.engine.planted import OF_WIRE
from inlay.engine.quarantine import FAILURES
from inlay.orchestrator import Running
from inlay.specs.device import KvArrived
from inlay.specs.generation import Failed, Generate, GenerationParameters, Placement
from inlay.specs.schedule import Answered, Recompute

pytestmark = pytest.mark.alone

PREFILL, DECODE = "cpu:0/openvino", "cpu:1/onnxruntime"
NEW_TOKENS = 12
GREEDY = GenerationParameters(max_tokens=NEW_TOKENS, temperature=0.0, ignore_eos=True)
LEASE, LONG_LEASE, SILENCE = 1.0, 10.0, 6.0
"""Seconds: a lease that is waited for, and one that never ends in a test where something else must."""
BOTH = ["shared", pytest.param("tcp", marks=pytest.mark.thorough)]
REQUESTS = 5
CAUSES = {
    "flip": "checksum",
    "drop": "order",
    "double": "order",
    "swap": "order",
    "replay": "checksum",
    "truncate": "truncated",
    "cut": "size",
    "stale_epoch": "binding",
    "other_request": "binding",
    "wrong_nonce": "unexpected",
    "other_version": "version",
}


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    given = prompts(REQUESTS, vocabulary=4096, seed=41, shortest=130, longest=240)
    return continuations(load(zoo.DEMO_TARGET), given, new_tokens=NEW_TOKENS)


@dataclass(frozen=True)
class Seen:
    """What the event log tells of the hand-offs of a run."""

    arrived: int
    causes: Counter[str]

    @classmethod
    def of(cls, log: Path) -> Seen:
        entries = read_journal(log).entries
        arrived = sum(isinstance(entry.event, Answered) and isinstance(entry.event.message, KvArrived) for entry in entries)
        again = [command for entry in entries for command in entry.commands if isinstance(command, Recompute)]
        assert all(command.runner == DECODE for command in again)
        return cls(arrived, Counter(command.cause for command in again))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "events.jsonl"


def split(transport: str = "") -> object:
    roles = [f"prefill={PREFILL}", f"decode={DECODE}"]
    return deployment(zoo.DEMO_TARGET, ["openvino", "onnxruntime"], roles=roles, chunk=32, context=256, transport=transport)


def served(
    truths: list[Truth], faults: dict[str, str], log: Path, *, transport: str = "", at_once: int = 8, lease: float = LONG_LEASE
) -> Seen:
    """All prompts through a deployment with a planted fault; their tokens must be the reference's."""
    seconds = {"lease": lease, "silence": SILENCE}
    with running(split(transport), faults=faults, event_log=log, seconds=seconds) as it:  # type: ignore[arg-type]
        found = generate(it, [(truth.prompt, Placement()) for truth in truths], parameters=GREEDY, at_once=at_once)
    assert [tuple(tokens) for tokens in found] == [truth.tokens for truth in truths]
    return Seen.of(log)


def test_every_fault_of_the_wire_has_its_cause() -> None:
    assert set(CAUSES) == set(OF_WIRE)


@pytest.mark.parametrize("fault", list(CAUSES))
def test_damaged_transfers_are_computed_again_and_after_three_of_them_nothing_of_that_source_is_taken(
    fault, truths, log
) -> None:
    """One after another, so that the third failure is known when the fourth manifest comes."""
    seen = served(truths, {PREFILL: fault}, log, at_once=1)
    cause = CAUSES[fault]
    integrity = cause in ("checksum", "order", "truncated", "size")
    expected = Counter({cause: FAILURES, "quarantined": REQUESTS - FAILURES} if integrity else {cause: REQUESTS})
    assert seen == Seen(0, expected)


@pytest.mark.parametrize("transport", BOTH)
@pytest.mark.parametrize("moment", ["reserve", "chunk", "commit"])
@pytest.mark.parametrize("what", ["kill", "stop"])
def test_a_source_that_is_killed_or_frozen_before_within_or_after_its_transfer_costs_no_token(
    what, moment, transport, truths, log
) -> None:
    lease = LEASE if what == "stop" else LONG_LEASE
    seen = served(truths, {PREFILL: f"{what}_{moment}"}, log, transport=transport, lease=lease)
    assert seen.arrived + seen.causes.total() == REQUESTS and seen.causes.total() > 0
    assert set(seen.causes) <= {"channel_lost", "source_lost", "lease"}


@pytest.mark.parametrize("transport", BOTH)
def test_a_source_that_thaws_after_its_lease_finds_its_transfers_fenced_off_and_is_used_again(transport, truths, log) -> None:
    seconds = {"lease": LEASE, "silence": 120.0}
    faults = {PREFILL: "stop_chunk"}
    with running(split(transport), faults=faults, event_log=log, seconds=seconds) as it:  # type: ignore[arg-type]
        first = generate(it, [(truths[0].prompt, Placement())], parameters=GREEDY)
        os.kill(it.workers[PREFILL].pid, signal.SIGCONT)
        rest = generate(it, [(truth.prompt, Placement()) for truth in truths[1:]], parameters=GREEDY, at_once=1)
    assert [tuple(tokens) for tokens in (*first, *rest)] == [truth.tokens for truth in truths]
    assert Seen.of(log) == Seen(REQUESTS - 1, Counter({"lease": 1}))


@pytest.mark.parametrize("moment", ["grant", "acknowledge"])
@pytest.mark.parametrize("what", ["kill", "stop"])
def test_a_destination_that_is_killed_or_frozen_ends_its_requests_with_an_error_and_the_source_lives_on(
    what, moment, truths, log
) -> None:
    """Frozen, it is cut off when the engine's limit of silence ends; what it held is gone with it."""
    faults, seconds = {DECODE: f"{what}_{moment}"}, {"lease": LEASE, "silence": 4.0}
    with running(split(), faults=faults, event_log=log, seconds=seconds) as it:  # type: ignore[arg-type]
        codes = failures(it, [truth.prompt for truth in truths])
        alive = {runner.place: runner.alive for runner in api.describe(it).runners}
        assert it.workers[PREFILL].alive() and alive == {PREFILL: True, DECODE: False}
        if what == "stop":
            os.kill(it.workers[DECODE].pid, signal.SIGCONT)  # it finds its engine gone, and ends
    assert set(codes) <= {"device_lost", "no_runner"} and len(codes) == REQUESTS


def failures(it: Running, given: list[tuple[int, ...]]) -> list[str]:
    """The codes that requests fail with."""

    async def work() -> list[str]:
        async with EngineClient(it.engine_socket, key=it.key, silence_seconds=120.0) as client:

            async def one(prompt: tuple[int, ...]) -> list[str]:
                wanted = Generate(call=0, tokens=prompt, parameters=GREEDY)
                return [event.code async for event in client.generate(wanted) if isinstance(event, Failed)]

            return [code for codes in await asyncio.gather(*(one(prompt) for prompt in given)) for code in codes]

    return asyncio.run(work())
