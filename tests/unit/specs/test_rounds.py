"""Rounds at a device: quick ones are reported together, slow ones at once, and none is ever left unsaid."""

from __future__ import annotations

from itertools import pairwise

from inlay.specs.device import BatchDone, RowResult
from inlay.specs.rounds import REPORT_SECONDS, Unsaid
from inlay.specs.sampling import SampledToken


def done(token: int, *, started: float, seconds: float) -> BatchDone:
    results = tuple(RowResult(sequence=row, sampled=(SampledToken(token=token + row),)) for row in (0, 100))
    return BatchDone(batch=1, results=results, started=started, ended=started + seconds, prompt_tokens=token)


def test_slow_rounds_are_reported_each() -> None:
    unsaid = Unsaid()
    for token in range(3):
        report = unsaid.take(done(token, started=float(token), seconds=REPORT_SECONDS), more=True)
        assert report is not None and report.more and report.steps == 1


def test_quick_rounds_are_reported_together_and_in_order() -> None:
    unsaid, step = Unsaid(), REPORT_SECONDS / 4
    reports = [unsaid.take(done(i, started=5.0 + i * step, seconds=step), more=i < 9) for i in range(10)]
    said = [report for report in reports if report is not None]
    assert reports[0] is not None and said[-1] is reports[9] and not said[-1].more
    assert 3 <= len(said) < 6 and sum(report.steps for report in said) == 10
    for row, sequence in enumerate((0, 100)):
        tokens = [item.token for report in said for item in report.results[row].sampled]
        assert tokens == [sequence + i for i in range(10)] and said[0].results[row].sequence == sequence
    assert all(a.ended == b.started for a, b in pairwise(said))
    assert unsaid.give(more=True) is None


def test_what_is_held_can_be_had_before_a_failure_is_told() -> None:
    unsaid = Unsaid()
    unsaid.take(done(0, started=1.0, seconds=0.0), more=True)
    assert unsaid.take(done(1, started=1.0, seconds=0.0), more=True) is None
    held = unsaid.give(more=True)
    assert held is not None and held.more and held.results[0].sampled[0].token == 1
