"""Why a request was served the way it was: every choice has its reason, and predicted figures say that they are."""

from __future__ import annotations

import pytest

from inlay.gateway.reasons import mode_of, mode_reason, way_reason
from inlay.specs.choice import Drafted, Drafting, Weighed
from inlay.specs.generation import Started


def started(*weighed: tuple[str, float, float], asked: bool = False, way: str = "") -> Started:
    ways = tuple(Weighed(way=name, prefill="p", decode="d", seconds=seconds, cost=cost) for name, seconds, cost in weighed)
    return Started(
        call=1,
        prompt_tokens=3,
        prefill="p",
        decode="d",
        way=way or (ways[0].way if ways else "whole"),
        weighed=ways,
        asked=asked,
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            started(("split", 0.02, 2.25), ("whole", 0.03, 2.9), ("part", 0.05, 4.0)),
            "the prompt is computed elsewhere and handed off: predicted (modelled) 20.0 ms to the first token, "
            "added slowdown 0.2; whole 30.0 ms, 0.9; part 50.0 ms, 2.0",
        ),
        (
            started(("whole", 0.02, 2.0)),
            "the prompt is computed where it decodes: the only way there is; "
            "predicted (modelled) 20.0 ms to the first token, added slowdown 0.0",
        ),
        (
            started(way="part", asked=True),
            "the first part of the prompt is computed elsewhere and handed off: as the request asked",
        ),
        (started(), "the prompt is computed where it decodes: the shortest queue, no times are known"),
    ],
)
def test_a_way_has_its_reason(given: Started, expected: str) -> None:
    assert way_reason(given) == expected


@pytest.mark.parametrize(
    ("drafting", "drafted", "mode", "expected"),
    [
        (None, None, "off", "off: nothing is known of it"),
        (Drafting(mode="off", cause="asked"), None, "off", "off: as asked for"),
        (Drafting(mode="off", cause="no slots"), None, "off", "off: no free slot of a draft runner"),
        (
            Drafting(mode="off", best="free", gain=1.04),
            None,
            "off",
            "off: predicted (modelled) gain of free is 1.04, under 1.05",
        ),
        (
            Drafting(mode="free", drafts=4, runner="cpu:1:draft", best="free", gain=1.31, grade="calibrated"),
            Drafted(modes={"off": 3, "free": 40}, drafts=30, accepted=21),
            "free",
            "free with cpu:1:draft: predicted (calibrated) gain 1.31 with up to 4 drafts; "
            "tokens by mode: 40 free, 3 off; 21 of 30 drafts kept",
        ),
        (
            Drafting(mode="ngram", drafts=7, runner="cpu:1:draft", asked=True),
            Drafted(modes={"ngram": 5}, drafts=0, accepted=0),
            "ngram",
            "ngram: as asked for; tokens by mode: 5 ngram",
        ),
        (Drafting(mode="free", drafts=4, runner="d"), None, "free", "free with d: no times are known"),
    ],
)
def test_a_mode_has_its_reason(drafting: Drafting | None, drafted: Drafted | None, mode: str, expected: str) -> None:
    assert mode_reason(drafting, drafted) == expected
    assert mode_of(drafting, drafted) == mode
