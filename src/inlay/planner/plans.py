"""Plan: which chips do what for one model and load, what that gives, with what band and by which evidence. Frozen data."""

from __future__ import annotations

from typing import Literal

import msgspec

Grade = Literal["measured", "calibrated", "modelled", "vendor"]
Kind = Literal["aggregated", "prefill/decode", "draft apart", "attention/feed-forward"]
StageRole = Literal["serve", "prefill", "decode", "draft", "attention", "feed_forward"]


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """`instances` equal ones of `chips` chips each, with their degrees of parallelism. `batch` is the sequences of one
    instance, `seconds` its step, or its pass over a prompt where it is for prefill."""

    role: StageRole
    chip: str
    chips: int
    tensor: int
    expert: int
    pipeline: int
    engine: str
    precision: str
    batch: float
    instances: int
    seconds: float
    grade: Grade


class Speculation(msgspec.Struct, frozen=True, kw_only=True):
    """`drafts` tokens a round, each taken with probability `acceptance` (stated), at `draft_seconds` a token; drafted on the
    target's "own" chips, or "apart", `round_trip` seconds away."""

    drafts: int
    acceptance: float
    draft_seconds: float
    round_trip: float
    placement: Literal["own", "apart"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One whole configuration in its steady state. `tpot` is seconds per output token after the first, `ttft` to the first with
    a quick estimate of the queue, `throughput` output tokens a second of all chips; `low` and `high` are factors on it at equal
    interactivity. `chips` are counts by name. `dollars_an_hour` is None while a chip is in `unpriced`. `grade` is the
    worst of its stages."""

    kind: Kind
    stages: tuple[Stage, ...]
    speculation: Speculation | None
    tpot: float
    ttft: float
    throughput: float
    low: float
    high: float
    tpot_low: float
    tpot_high: float
    ttft_low: float
    ttft_high: float
    kilowatts: float
    dollars_an_hour: float | None
    unpriced: tuple[str, ...]
    chips: dict[str, int]
    grade: Grade
    assumptions: tuple[str, ...] = ()

    @property
    def interactivity(self) -> float:
        """Tokens a second of one user."""
        return 1.0 / self.tpot

    @property
    def per_chip(self) -> float:
        """Output tokens a second and chip, all chips counted."""
        return self.throughput / sum(self.chips.values())

    @property
    def per_target(self) -> float:
        """Output tokens a second and chip that serves the model itself; those of a drafter apart are not counted."""
        return self.throughput / sum(stage.chips * stage.instances for stage in self.stages if stage.role != "draft")

    @property
    def per_kilowatt(self) -> float:
        """Output tokens a second and all-in kW."""
        return self.throughput / self.kilowatts

    @property
    def per_dollar(self) -> float | None:
        """Output tokens a second for a dollar an hour; None without a price."""
        return None if self.dollars_an_hour is None else self.throughput / self.dollars_an_hour
