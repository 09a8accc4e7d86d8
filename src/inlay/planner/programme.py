"""How many instances of each kind to run under chips, power and money: an integer programme for HiGHS, with its gap.

Instances that serve alone, that only compute prompts and that only decode compete in it. Those that decode are fed by those
that compute prompts, so their rates match where both are bought; where splitting does not pay, none are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import highspy

from inlay.errors import InlayError, InputError

SECONDS = 30.0
GAP = 1e-6


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One kind: `rate` output tokens a second where it serves or decodes, `prompts` a second where it computes them.
    `dollars` an hour are None without a price."""

    name: str
    role: Literal["serve", "prefill", "decode"]
    chips: Mapping[str, int]
    kilowatts: float
    dollars: float | None
    rate: float = 0.0
    prompts: float = 0.0

    def through(self, *, kv_bytes: float, bandwidth: float, output_tokens: float) -> Instance:
        """The same with a link of `bandwidth` bytes a second, over which each prompt's KV of `kv_bytes` leaves or arrives. One
        that serves alone sends none."""
        if self.role == "serve" or kv_bytes <= 0.0:
            return self
        most = bandwidth / kv_bytes
        return replace(self, rate=min(self.rate, most * output_tokens), prompts=min(self.prompts, most))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Chips at hand by name; kW and dollars an hour where they are bounded."""

    chips: Mapping[str, int]
    kilowatts: float | None = None
    dollars: float | None = None


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Counts in the order of the instances; output tokens a second, no mix gives more than `bound`."""

    counts: tuple[int, ...]
    throughput: float
    bound: float

    @property
    def gap(self) -> float:
        """How much more another mix could give, as a share."""
        return max(0.0, self.bound / self.throughput - 1.0) if self.throughput else 0.0


def throughput_of(instances: Sequence[Instance], counts: Sequence[int], *, output_tokens: float) -> float:
    """Output tokens a second of a mix: what decodes is held back by the prompts that are computed for it."""
    held = list(zip(instances, counts, strict=True))
    alone = sum(count * item.rate for item, count in held if item.role == "serve")
    fed = output_tokens * sum(count * item.prompts for item, count in held if item.role == "prefill")
    return alone + min(fed, sum(count * item.rate for item, count in held if item.role == "decode"))


def best_mix(instances: Sequence[Instance], limits: Limits, *, output_tokens: float, seconds: float = SECONDS) -> Mix:
    """The mix of most output tokens a second. With a bound on dollars, instances without a price are left out.

    Raises InputError where there are no instances or no output tokens, InlayError where HiGHS gives no answer in `seconds`."""
    if not instances or not 0 < output_tokens < float("inf"):
        raise InputError(
            f"a mix of {len(instances)} instances with {output_tokens:g} output tokens, expected one and 1 at least",
            hint="give chips that hold the model, and a load with output",
        )
    solver = _Silent()
    for option, value in (("output_flag", False), ("time_limit", seconds), ("mip_rel_gap", GAP)):
        solver.setOptionValue(option, value)
    counts = [solver.addIntegral(lb=0, ub=_most(item, limits)) for item in instances]
    pairs = list(zip(instances, counts, strict=True))
    for chip, have in limits.chips.items():
        solver.addConstr(sum((item.chips.get(chip, 0) * held for item, held in pairs), 0.0 * counts[0]) <= have)
    if limits.kilowatts is not None:
        solver.addConstr(sum(item.kilowatts * held for item, held in pairs) <= limits.kilowatts)
    if limits.dollars is not None:
        solver.addConstr(sum((item.dollars or 0.0) * held for item, held in pairs) <= limits.dollars)
    unit = max(max(item.rate, item.prompts * output_tokens) for item in instances) or 1.0
    split = solver.addVariable(lb=0)  # tokens of those that decode, in the unit
    for role in ("prefill", "decode"):
        able = (((item.prompts * output_tokens if role == "prefill" else item.rate) / unit) * held
                for item, held in pairs if item.role == role)  # fmt: skip
        solver.addConstr(split <= sum(able, 0.0 * counts[0]))
    alone = sum((item.rate / unit * held for item, held in pairs if item.role == "serve"), 0.0 * counts[0])
    solver.setObjective(alone + split, highspy.ObjSense.kMaximize)
    solver.run()
    solution, info = solver.getSolution(), solver.getInfo()
    if not solution.value_valid:
        raise InlayError(f"HiGHS found no mix in {seconds:g} s: {solver.getModelStatus()}", hint="allow more seconds")
    whole = tuple(round(solution.col_value[held.index]) for held in counts)
    given = throughput_of(instances, whole, output_tokens=output_tokens)
    return Mix(counts=whole, throughput=given, bound=max(given, float(info.mip_dual_bound) * unit))


def _most(item: Instance, limits: Limits) -> int:
    """How many the chips alone allow; none of chips that are not there, or unpriced under a bound on dollars."""
    if limits.dollars is not None and item.dollars is None:
        return 0
    return min((limits.chips.get(chip, 0) // count for chip, count in item.chips.items()), default=0)


class _Silent(highspy.Highs):  # type: ignore[misc]  # it brings no types
    """As highspy's own, which greets on standard output when it is made."""

    def enableCallbacks(self) -> None:  # overrides: the constructor calls it before it greets
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()
