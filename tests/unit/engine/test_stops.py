"""Stop strings across token borders."""

from __future__ import annotations

import random

import pytest

from inlay.engine.stops import StopFilter


@pytest.mark.parametrize("seed", range(30))
def test_however_the_text_is_cut_the_shown_part_is_that_before_the_first_stop(seed) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choice("abc") for _ in range(60))
    stops = tuple("".join(rng.choice("abc") for _ in range(rng.randint(3, 5))) for _ in range(3))
    filter_ = StopFilter(stops)
    shown, at = "", 0
    while at < len(text) and not filter_.stopped:
        size = rng.randint(1, 4)
        shown += filter_.feed(text[at : at + size])
        at += size
    shown += filter_.flush()
    first = min((text.find(stop) for stop in stops if stop in text), default=len(text))
    assert shown == text[:first]
    assert filter_.stopped == (first < len(text))


def test_text_that_cannot_become_a_stop_is_shown_at_once() -> None:
    filter_ = StopFilter(("END",))
    assert filter_.feed("hello E") == "hello "
    assert filter_.feed("xit") == "Exit"
    assert StopFilter(()).feed("anything") == "anything"
