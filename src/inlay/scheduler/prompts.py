"""Prompts on a runner: whose turn it is, and the row that computes the next piece of one."""

from __future__ import annotations

from collections.abc import Container
from collections.abc import Sequence as Items

from inlay.scheduler.sequence import Sequence
from inlay.scheduler.state import RunnerState
from inlay.specs.device import Row

PATIENCE = 4
"""A prompt that was passed over this often is treated as if one more of its chunks were done."""


def urgency(runner: RunnerState, sequence: Sequence) -> tuple[int, int]:
    """The least goes first: the prompt with least left to compute, so that prompts end one after another, decoding begins
    early and the devices overlap. Each time a prompt is passed over counts as part of a chunk done, so a long one is never
    starved. A higher priority goes first."""
    left = sequence.goal() - sequence.computed - sequence.passed_over * runner.facts.chunk // PATIENCE
    return -sequence.request.priority, left


def pass_over(runner: RunnerState, *, but: Container[Sequence]) -> None:
    """Count who was not chosen."""
    for sequence in runner.prefilling:
        sequence.passed_over = 0 if sequence in but else sequence.passed_over + 1


def prompt_row(runner: RunnerState, sequence: Sequence, end: int, *, pages: Items[int] = ()) -> Row:
    """The piece of a prompt up to row `end`; the last one samples and, when it is handed off, commits."""
    start, wanted = sequence.computed, sequence.goal()
    last, moves = end == wanted, sequence.prefill != sequence.decode
    return Row(
        sequence=sequence.number,
        slot=sequence.slots[runner.name].index,
        tokens=tuple(sequence.tokens[start:end]),
        past_length=start,
        sample=sequence.sample if last and wanted == sequence.wanted() and not sequence.generated else None,
        prompt=max(0, min(end, len(sequence.request.prompt)) - start),
        transfer=sequence.transfer if moves else None,
        commit=last and moves and sequence.transfer is not None,
        pages=tuple(pages),
    )
