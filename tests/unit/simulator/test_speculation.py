"""Drafts of a given acceptance: as many tokens a verify step as the formula says, in the modes of the real scheduler."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from simulator_world import TABLE, Listed, facts, run, setup

from inlay.simulator import Simulation, result_of
from inlay.simulator.text import DraftSlots, Text
from inlay.specs.device import Row, SlotAddress
from inlay.specs.sampling import Sampling
from inlay.specs.schedule import Answered
from inlay.specs.speculation import ENUMERATED, FREE, SYNCHRONOUS, SpeculationSetup, expected_tokens

QUICK = msgspec.structs.replace(TABLE, fixed=0.001, per_row=0.0001, per_token=0.00001, overhead=0.0005)
DRAFTS = 3


def drafted(mode: str, acceptance: float, *, tokens: int = 600) -> tuple[Simulation, list[tuple[int, int]]]:
    """A run of one long answer, and by verify step how many drafts it had and how many tokens it gave."""
    given = setup(
        facts("target", chunk=64),
        facts("draft", roles=("draft",), chunk=64, table=QUICK),
        speculation=SpeculationSetup(mode=mode, drafts=DRAFTS),
        acceptance=acceptance,
    )
    sent: dict[int, int] = {}
    steps: list[tuple[int, int]] = []

    def observe(event, commands, now) -> None:  # type: ignore[no-untyped-def]
        if isinstance(event, Answered) and event.runner == "target" and event.message.batch in sent:
            steps.append((sent[event.message.batch], len(event.message.results[0].sampled)))
        for command in commands:
            message = getattr(command, "message", None)
            if getattr(command, "runner", "") == "target" and getattr(message, "phase", "") == "decode":
                sent[message.batch] = message.rows[0].drafts

    return run(given, Listed((0.0, 20, tokens)), observer=observe), steps


@pytest.mark.parametrize("mode", [SYNCHRONOUS, FREE, ENUMERATED])
@pytest.mark.parametrize("acceptance", [0.0, 0.5, 0.8, 1.0])
def test_a_verify_step_gives_as_many_tokens_as_the_formula_says(mode, acceptance) -> None:
    _, steps = drafted(mode, acceptance)
    full = [given for sent, given in steps if sent == DRAFTS]
    assert len(full) > 50
    mean = sum(full) / len(full)
    wanted = expected_tokens(acceptance, DRAFTS)
    assert mean == pytest.approx(wanted, abs=0.0 if acceptance in (0.0, 1.0) else 4 * DRAFTS / 2 / len(full) ** 0.5)


def test_a_good_draft_makes_it_faster_and_a_useless_one_slower() -> None:
    plain = result_of(run(setup(facts("target", chunk=64)), Listed((0.0, 20, 600)))).seconds
    good, useless = (result_of(drafted(SYNCHRONOUS, share)[0]).seconds for share in (0.9, 0.0))
    assert good < 0.7 * plain
    assert useless > plain


def test_running_ahead_is_faster_than_waiting_where_most_is_accepted() -> None:
    waiting, ahead = (result_of(drafted(mode, 0.95)[0]).seconds for mode in (SYNCHRONOUS, FREE))
    assert ahead < waiting


def test_the_same_seed_gives_the_same_run() -> None:
    assert drafted(ENUMERATED, 0.7)[1] == drafted(ENUMERATED, 0.7)[1]


def test_a_verdict_keeps_drafts_up_to_the_first_wrong_one() -> None:
    text = Text(seed=1, acceptance=0.5)
    text.begin(7, (1, 2, 3))
    first, second = text.token(7, 3), text.token(7, 4)
    row = Row(sequence=7, slot=0, tokens=(3, first, second + 1, 9), past_length=2, sample=Sampling(temperature=0.0), drafts=3)
    assert [item.token for item in text.judge(row)] == [first, second]


def test_rows_after_a_wrong_token_are_not_right() -> None:
    text = Text(seed=1, acceptance=1.0)
    text.begin(7, (1, 2, 3))
    slots, slot = DraftSlots(text), SlotAddress(64, 0)
    assert slots.feed(slot, 7, (1, 2), 0)
    assert not slots.feed(slot, 7, (9,), 2)
    assert not slots.feed(slot, 7, (text.token(7, 3),), 3)
    assert slots.feed(slot, 7, (3,), 2)
