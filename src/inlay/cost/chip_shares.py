"""How much of its arithmetic and of its bandwidth a chip uses over a run, from what was served: what a formula of power needs.

Modelled: closed forms over data-sheet limits. Means over the run, pauses included, as a meter of power gives them.
"""

from __future__ import annotations

from dataclasses import dataclass

from inlay.errors import InputError
from inlay.models.facts import Formats, ModelFacts, one_pass


@dataclass(frozen=True)
class ServedLoad:
    """A closed loop: `concurrency` requests at once of so many tokens, `output_rate` tokens a second over all chips. A step
    yields `accepted` tokens of a sequence and computes `width` (drafts verified, and one)."""

    concurrency: float
    input_tokens: float
    output_tokens: float
    output_rate: float
    accepted: float = 1.0
    width: int = 1

    def __post_init__(self) -> None:
        least = min(self.concurrency, self.input_tokens, self.output_tokens, self.accepted, self.width)
        if least <= 0 or self.output_rate < 0:
            raise InputError(f"a served load has {self}, expected figures above 0", hint="an idle chip has output_rate=0")


@dataclass(frozen=True)
class ChipShares:
    """Of peak arithmetic and of peak bandwidth; may exceed 1 where more is claimed to be served than the sheet allows."""

    compute: float
    bandwidth: float


def chip_shares(
    facts: ModelFacts, formats: Formats, load: ServedLoad, *, chips: int, flops: float, bandwidth: float
) -> ChipShares:
    """`flops` operations and `bandwidth` bytes a second of one chip. Steps read the weights once and KV at half of the answer;
    each prompt is a pass of its own, so that weights are read for it once more."""
    steps = load.output_rate / (load.concurrency * load.accepted)
    prompts = load.output_rate / load.output_tokens
    context = round(load.input_tokens + load.output_tokens / 2)
    step = one_pass(facts, formats, batch=load.concurrency, new=load.width, context=context)
    prompt = one_pass(facts, formats, batch=1.0, new=max(1, round(load.input_tokens)), context=0, logit_rows=1.0)
    return ChipShares(
        compute=(steps * step.flops + prompts * prompt.flops) / (chips * flops),
        bandwidth=(steps * step.bytes + prompts * prompt.bytes) / (chips * bandwidth),
    )
