"""What instances a mix may be made of: each engine on each count of chips, to serve whole, to compute prompts, to decode.

Modelled: prompts run alone, one after another; a prompt's whole KV goes over the link, in the format it is kept in. The wait
for a prompt instance is not in it, so a budget on the first token is kept by the prompt and its hand-over alone.
"""

from __future__ import annotations

import numpy as np

from inlay.cost.ownership import PriceList
from inlay.hardware.catalogue import Catalogue
from inlay.models.facts import kv_bytes
from inlay.planner.candidates import KnownSteps, Steps
from inlay.planner.programme import Instance, Limits, Mix, best_mix
from inlay.planner.question import Question


def instances(
    question: Question, known: KnownSteps, *, catalogue: Catalogue, prices: PriceList, bandwidth: float
) -> tuple[Instance, ...]:
    """Of the steps in `known` that are for the question's load, at the batch of most tokens that keeps its budgets and its
    floor; a link of `bandwidth` bytes a second carries KV. What cannot keep them is left out."""
    named = {catalogue.sheet(item.chip).name: item.chip for item in question.allowed(catalogue)}
    found: list[Instance] = []
    for (sheet, chips, engine, precision, load), steps in known.items():
        if sheet not in named or load != question.load or not len(steps.batch):  # not even one sequence fits so few chips
            continue
        wanted = steps.model.wanted
        handed = kv_bytes(wanted.facts, wanted.formats, round(load.input_tokens))
        cost = prices.chip(named[sheet])
        prompt = question.step_factor * steps.prompt
        for role in ("serve", "prefill", "decode"):
            first = prompt + (0.0 if role == "serve" else handed / bandwidth)
            rate = 0.0 if role == "prefill" else _rate(question, steps, first, load.prefill_share if role == "serve" else 0.0)
            late = role == "prefill" and first > question.budgets.get("ttft", np.inf)
            if late or (role != "prefill" and rate <= 0.0):
                continue
            item = Instance(
                name=f"{role}: {chips} x {named[sheet]}, {engine.name} {engine.version or ''} {precision}", role=role,
                chips={named[sheet]: chips}, kilowatts=chips * cost.kilowatts,
                dollars=chips * cost.hour.total if cost.hour else None,
                rate=rate, prompts=1.0 / prompt if role == "prefill" else 0.0,
            )  # fmt: skip
            found.append(item.through(kv_bytes=handed, bandwidth=bandwidth, output_tokens=load.output_tokens))
    return tuple(found)


def mixed(
    question: Question, known: KnownSteps, *, catalogue: Catalogue, prices: PriceList, bandwidth: float, whole: bool = False
) -> tuple[tuple[tuple[Instance, int], ...], Mix] | None:
    """The best mix for the fleet and the caps, with the instances it has; only of those that serve `whole` where that is
    asked. None where none keeps what is asked."""
    items = instances(question, known, catalogue=catalogue, prices=prices, bandwidth=bandwidth)
    items = tuple(item for item in items if item.role == "serve" or not whole)
    if not items:
        return None
    have: dict[str, int] = {}
    for fleet in question.allowed(catalogue):
        have[fleet.chip] = have.get(fleet.chip, 0) + fleet.count
    limits = Limits(chips=have, kilowatts=question.cap_kilowatts, dollars=question.cap_dollars)
    mix = best_mix(items, limits, output_tokens=question.load.output_tokens)
    if mix.throughput <= 0.0:  # only prompts keep what is asked, or not one instance is within the caps
        return None
    return tuple((item, count) for item, count in zip(items, mix.counts, strict=True) if count), mix


def _rate(question: Question, steps: Steps, first: float, share: float) -> float:
    """Output tokens a second at the best batch whose step keeps the budgets; 0 where none does. A decoder's first token comes
    from another's prompt, so only the whole response of it counts `first`."""
    step = question.step_factor * steps.seconds(0, share)
    most = min(question.budgets.get("tpot", np.inf), 1.0 / question.floor if question.floor else np.inf)
    whole = first + question.load.output_tokens * step
    good = (step <= most) & (whole <= question.budgets.get("e2e", np.inf))
    if share and first + float(step.min(initial=np.inf)) / 2 > question.budgets.get("ttft", np.inf):
        return 0.0
    return float(np.max(np.where(good, steps.batch / step, 0.0), initial=0.0))
