"""A heartbeat is judged by the times it is given, and by nothing else."""

from __future__ import annotations

import pytest

from inlay.workers import Heartbeat

pytestmark = pytest.mark.alone


def test_a_process_that_is_asked_nothing_is_never_late() -> None:
    heart = Heartbeat(2.0)
    assert not heart.late(1e9)
    assert heart.due() is None


def test_it_is_late_only_after_the_deadline() -> None:
    heart = Heartbeat(2.0)
    heart.expect(10.0)
    assert heart.due() == 12.0
    assert not heart.late(12.0)
    assert heart.late(12.001)


def test_asking_again_does_not_give_more_time() -> None:
    heart = Heartbeat(2.0)
    heart.expect(10.0)
    heart.expect(11.9)
    assert heart.late(12.1)


def test_a_beat_answers_all_questions() -> None:
    heart = Heartbeat(2.0)
    heart.expect(10.0)
    heart.expect(11.0)
    heart.beat(11.5)
    assert not heart.late(100.0)
    assert heart.silent_for(12.0) == 0.5
    heart.expect(100.0)
    assert not heart.late(101.0)
    assert heart.late(102.5)


def test_silence_is_unknown_before_the_first_beat() -> None:
    assert Heartbeat(2.0).silent_for(5.0) is None
