"""Plans for tests of reports: small, and with figures that can be checked by hand."""

from __future__ import annotations

from inlay.planner.plans import Plan, Speculation, Stage


def stage(role: str = "serve", chip: str = "b200", chips: int = 1, **changed: object) -> Stage:
    fields: dict[str, object] = {
        "role": role, "chip": chip, "chips": chips, "tensor": chips, "expert": 1, "pipeline": 1, "engine": "vllm",
        "precision": "native", "batch": 8.0, "instances": 1, "seconds": 0.008, "grade": "calibrated",
    }  # fmt: skip
    return Stage(**{**fields, **changed})  # type: ignore[arg-type]


def plan(*, speed: float, rate: float, chips: dict[str, int], dollars: float | None = None, kilowatts: float = 1.0) -> Plan:
    """One that gives `rate` tokens a second at `speed` for a user."""
    apart = len(chips) > 1
    roles = zip(("serve", "draft"), chips.items(), strict=False)
    drafting = Speculation(drafts=6, acceptance=0.8, draft_seconds=8e-5, round_trip=6e-5, placement="apart")
    return Plan(
        kind="draft apart" if apart else "aggregated",
        stages=tuple(stage(role, chip, count) for role, (chip, count) in roles),
        speculation=drafting if apart else None,
        tpot=1.0 / speed, ttft=0.4, throughput=rate, low=0.9, high=1.1, tpot_low=0.9 / speed, tpot_high=1.1 / speed,
        ttft_low=0.3, ttft_high=0.6, kilowatts=kilowatts, dollars_an_hour=dollars,
        unpriced=("corsair",) if dollars is None else (), chips=chips, grade="modelled" if apart else "calibrated",
    )  # fmt: skip
