"""The terms of the calibrated roofline: what a step would take on each limit of the chip, to be weighed by a calibration.

step = sum over terms of coefficient * term. An ideal chip has 1 for every limit and 0 for every overhead. The sum fits served
engines better than the maximum: kernels run one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inlay.cost.serving.configuration import NARROW, Configuration
from inlay.errors import ClusterError
from inlay.hardware.catalogue import DataSheet
from inlay.models.facts import Attention, Experts, LatentAttention, PassCount, kv_row_bytes, one_pass, state_bytes

# Name; the coefficient of an ideal chip; least and most that a fit may give. Overheads are seconds, the rest 1/efficiency.
TERMS = (
    ("fixed", 0.0, 0.0, 10e-3),
    ("layer", 0.0, 0.0, 200e-6),
    ("expert layer", 0.0, 0.0, 200e-6),
    ("weights", 1.0, 1.0, 4.0),
    ("kv", 1.0, 1.0, 10.0),
    ("expert products", 1.0, 1.0, 20.0),
    ("other products", 1.0, 1.0, 20.0),
    ("attention scores", 1.0, 1.0, 20.0),
    ("collective", 0.0, 0.0, 50e-6),
    ("link", 1.0, 1.0, 20.0),
    ("sequence", 0.0, 0.0, 50e-6),
)
IDEAL, LEAST, MOST = (np.array([term[index] for term in TERMS]) for index in (1, 2, 3))
OVERHEADS = IDEAL == 0.0
ACTIVATION_BYTES = 2


@dataclass(frozen=True)
class Limits:
    """What one chip can do, from its data sheet: bytes a second, operations a second by format, bytes a second of its link."""

    bandwidth: float
    link: float
    peak: Callable[[float], float]


def limits_of(sheet: DataSheet) -> Limits:
    """From the slowest tier that holds weights (the last one). Raises ClusterError where the sheet has no bandwidth or peak."""
    bandwidths = [memory.bandwidth.value for memory in sheet.tiers if memory.bandwidth]
    if not bandwidths or not sheet.peaks:
        missing = "peak" if bandwidths else "bandwidth"
        raise ClusterError(
            f"chip {sheet.name!r} has no {missing} in the catalogue, expected one", hint="add it with a YAML file of your own"
        )
    link = sheet.link.inside or sheet.link.outside

    def peak(width: float) -> float:
        """Of the widest arithmetic that weights of so many bytes are multiplied in."""
        found = sheet.peak("fp4" if width < 1.0 else "fp8" if width < 2.0 else "bf16") or max(
            sheet.peaks.values(), key=lambda figure: figure.value
        )
        return found.value

    return Limits(bandwidth=bandwidths[-1], link=link.value if link else 8e9, peak=peak)


def decode_terms(wanted: Configuration, *, width: int = 1, prefill_share: float | None = None) -> np.ndarray:
    """The mean step in the steady state: `width` tokens for each sequence, and the prompts that are computed meanwhile,
    `prefill_share` of their tokens for each sequence (None: those that one output token a step brings)."""
    load = wanted.load
    decode = one_pass(wanted.facts, wanted.formats, batch=load.concurrency, new=width, context=round(load.context))
    prompt_tokens = load.concurrency * (load.prefill_share if prefill_share is None else prefill_share)
    prompt = one_pass(wanted.facts, wanted.formats, batch=1, new=max(1, round(load.input_tokens)), context=0, logit_rows=1)
    share = prompt_tokens / max(1.0, load.input_tokens)
    return _terms(wanted, decode, prompt, share, sequences=load.concurrency, overheads=1.0)


def least_step(wanted: Configuration) -> float:
    """Seconds below which no step in the steady state can be by the data sheet: the slower of all memory reads and all
    products, perfectly overlapped, without overheads or links."""
    seconds = dict(zip((term[0] for term in TERMS), decode_terms(wanted), strict=True))
    memory = seconds["weights"] + seconds["kv"]
    return float(max(memory, seconds["expert products"] + seconds["other products"]))


def prompt_terms(wanted: Configuration, *, cached: int = 0) -> np.ndarray:
    """One prompt alone, of which `cached` tokens before those of the load need no computing."""
    new = max(1, round(wanted.load.input_tokens))
    prompt = one_pass(wanted.facts, wanted.formats, batch=1, new=new, context=cached, logit_rows=1)
    return _terms(wanted, prompt, prompt, 0.0, sequences=1.0, overheads=1.0)


def _terms(
    wanted: Configuration, count: PassCount, beside: PassCount, share: float, *, sequences: float, overheads: float
) -> np.ndarray:
    """`count` and `share` of `beside`, whose weights are read anyway, as seconds on each limit of one chip."""
    limits, chips, formats, facts = limits_of(wanted.sheet), wanted.chips, wanted.formats, wanted.facts
    tokens = count.tokens + share * beside.tokens
    weights = count.attention_weights / wanted.tensor
    weights += (count.dense_weights + count.expert_weights + count.head_weights) / chips
    dense = (count.projection_flops + share * beside.projection_flops) / limits.peak(formats.attention)
    dense += (count.dense_flops + share * beside.dense_flops) / limits.peak(formats.feed_forward)
    dense += (count.head_flops + share * beside.head_flops) / limits.peak(formats.head)
    mixtures = sum(group.count for group in facts.groups if isinstance(group.feed_forward, Experts))
    collectives = count.collectives if chips > 1 else 0
    return np.array(
        [
            overheads,
            facts.layers,
            mixtures,
            weights / limits.bandwidth,
            _kv_bytes(wanted, sequences) / limits.bandwidth,
            (count.expert_flops + share * beside.expert_flops) / limits.peak(_expert_width(wanted)) / chips,
            dense / chips,
            (count.score_flops + share * beside.score_flops) / limits.peak(2.0) / chips,
            collectives,
            _message_bytes(wanted, tokens) / limits.link,
            sequences,
        ]
    )


def _expert_width(wanted: Configuration) -> float:
    return 0.5 if wanted.precision in NARROW else wanted.formats.experts


def _kv_bytes(wanted: Configuration, sequences: float) -> float:
    """KV that one chip reads: of its group's sequences, its share of the heads. Heads are repeated where there are too few;
    a compressed row belongs to all heads."""
    total = 0.0
    for group in wanted.facts.groups:
        kind, context = group.attention, wanted.load.context
        heads = 1 if isinstance(kind, LatentAttention) else kind.kv_heads if isinstance(kind, Attention) else kind.value_heads
        rows = context if not isinstance(kind, Attention) or kind.window is None else min(context, kind.window)
        own = rows * kv_row_bytes(kind, wanted.formats) + 2 * state_bytes(kind, wanted.formats)
        total += group.count * own / min(wanted.tensor, heads)
    return total * sequences / wanted.groups


def _message_bytes(wanted: Configuration, tokens: float) -> float:
    """What a chip sends in a step: two sums a layer over the chips of a group (a ring), or tokens to their experts and back."""
    facts, chips = wanted.facts, wanted.chips
    if chips == 1:
        return 0.0
    row = facts.hidden * ACTIVATION_BYTES
    over = wanted.tensor
    summed = 2 * facts.layers * 2 * (over - 1) / over * row * tokens / wanted.groups
    if wanted.groups == 1:
        return summed
    sent = sum(
        2 * group.count * group.feed_forward.chosen * row * tokens / chips
        for group in facts.groups
        if isinstance(group.feed_forward, Experts)
    )
    return summed + sent
