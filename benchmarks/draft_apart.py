"""Speculative decoding of one target on GPUs with the drafts on those GPUs, or on cards of another kind: all configurations.

All modelled: closed forms over a calibrated step. `plan_draft_apart.py` asks the questions and writes the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inlay.cost.serving import Configuration, Engine, Load, decode_terms
from inlay.hardware.catalogue import DataSheet
from inlay.models.facts import ModelFacts, formats_of, kv_bytes, weight_bytes

BATCHES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 512.0)
GPUS = (1, 2, 4, 8)
CARDS = (1, 2, 3, 4, 5, 6, 7, 8)
MOST_DRAFTS = 24
USABLE = 0.9  # of a GPU's memory, for weights and KV


@dataclass(frozen=True, kw_only=True)
class Drafter:
    """A draft model: bytes of its weights and of one sequence's KV, and the share of its tokens that the target takes."""

    weights: float
    kv: float
    acceptance: float


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Of a drafted token: seconds before any byte is read, on a GPU (within its graph) and on a card; share of the SRAM's
    bandwidth that is reached; seconds there and back; all-in kW of each; and whether drafts overlap with the verification.

    `spreads` has a drafter on GPUs split over all of them, `gpu_width` are its bytes there to those on a card."""

    gpu_overhead: float = 0.4e-3
    spreads: bool = True
    gpu_width: float = 1.0
    card_overhead: float = 60e-6
    card_efficiency: float = 0.5
    round_trip: float = 60e-6
    gpu_kilowatts: float = 1.71
    card_kilowatts: float = 1.03
    overlaps: bool = False


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Of every configuration, flat and alike in length: tokens a second of one user and of all, GPUs, cards, drafts, batch."""

    user: np.ndarray
    tokens: np.ndarray
    gpus: np.ndarray
    cards: np.ndarray
    drafts: np.ndarray
    batch: np.ndarray

    def chosen(self, kept: np.ndarray) -> Rates:
        """Those configurations alone."""
        names = ("user", "tokens", "gpus", "cards", "drafts", "batch")
        return Rates(**{name: getattr(self, name)[kept] for name in names})

    def best(self, value: np.ndarray, floor: float) -> tuple[float, int]:
        """The most of `value` among those with `floor` tokens a second for a user, and where; 0 and -1 where there are none."""
        kept = self.user >= floor
        if not kept.any():
            return 0.0, -1
        index = int(np.argmax(np.where(kept, value, -np.inf)))
        return float(value[index]), index


class Target:
    """The target on 1 to 8 GPUs under a load: terms of a verification, by GPUs, batch and width, and of the prompts beside."""

    def __init__(
        self, facts: ModelFacts, sheet: DataSheet, engine: Engine, *, input_tokens: float, output_tokens: float
    ) -> None:
        self.share = input_tokens / output_tokens
        formats = formats_of(facts, "native")
        longest = kv_bytes(facts, formats, round(input_tokens + output_tokens))
        memory = sheet.tiers[-1].size.value
        shape = (len(GPUS), len(BATCHES), MOST_DRAFTS + 1)
        self.fits = np.zeros(shape, dtype=bool)
        terms = np.zeros((*shape, 11))
        prompts = np.zeros((len(GPUS), 11))
        for row, gpus in enumerate(GPUS):
            for column, batch in enumerate(BATCHES):
                load = Load(input_tokens=input_tokens, output_tokens=output_tokens, concurrency=batch)
                wanted = Configuration(facts, sheet, engine, "native", load, gpus, gpus, 1)
                self.fits[row, column] = weight_bytes(facts, formats) + batch * longest <= USABLE * memory * gpus
                for width in range(1, MOST_DRAFTS + 2):
                    bare = decode_terms(wanted, width=width, prefill_share=0.0)
                    terms[row, column, width - 1] = bare
                    if not column and width == 1:
                        prompts[row] = decode_terms(wanted, prefill_share=1.0) - bare
        self.terms, self.prompts = terms, prompts
        self.bandwidth = sheet.tiers[-1].bandwidth.value if sheet.tiers[-1].bandwidth else 0.0

    def verify(self, coefficients: np.ndarray, accepted: np.ndarray) -> np.ndarray:
        """Seconds of a step [GPUs, batch, drafts from 0] in which each sequence goes on by `accepted` [drafts] tokens."""
        batch = np.array(BATCHES)[None, :, None]
        prompt_seconds = (self.prompts @ coefficients)[:, None, None]
        seconds: np.ndarray = self.terms @ coefficients + prompt_seconds * batch * accepted * self.share
        return seconds


def accepted(acceptance: float) -> np.ndarray:
    """Mean tokens of a round by drafts from 0: those taken in a chain, and the target's own one."""
    drafts = np.arange(MOST_DRAFTS + 1)
    return (1.0 - acceptance ** (drafts + 1)) / (1.0 - acceptance)


def on_gpus(target: Target, coefficients: np.ndarray, drafters: Sequence[Drafter], given: Assumptions) -> Rates:
    """Every configuration with the drafts on the GPUs themselves; without any draft too."""
    gpus = np.array(GPUS)[:, None, None]
    batch = np.array(BATCHES)[None, :, None]
    drafts = np.arange(MOST_DRAFTS + 1)[None, None, :]
    parts = []
    for drafter in drafters:
        gained = accepted(drafter.acceptance)
        held = given.gpu_width * (drafter.weights + batch * drafter.kv)
        one = given.gpu_overhead + held / ((gpus if given.spreads else 1) * target.bandwidth)
        step = target.verify(coefficients, gained) + drafts * one
        parts.append(_flat(gained / step, batch * gained / step, gpus, 0.0, drafts, batch, target.fits))
    return _joined(parts)


def with_cards(target: Target, coefficients: np.ndarray, drafter: Drafter, card: DataSheet, given: Assumptions) -> Rates:
    """Every configuration with at least one draft, all of them made on cards; the drafter and its KV lie in their SRAM."""
    gpus = np.array(GPUS)[:, None, None]
    batch = np.array(BATCHES)[None, :, None]
    drafts = np.arange(MOST_DRAFTS + 1)[None, None, :]
    gained = accepted(drafter.acceptance)
    sram = card.tiers[0]
    bandwidth = sram.bandwidth.value if sram.bandwidth else 0.0
    peak = max(figure.value for name, figure in card.peaks.items() if name == "mxint8")
    verify = target.verify(coefficients, gained)
    parts = []
    for cards in CARDS:
        held = drafter.weights + batch * drafter.kv
        one = given.card_overhead + np.maximum(
            held / (cards * bandwidth * given.card_efficiency), 2 * drafter.weights * batch / (cards * peak)
        )
        drafting = drafts * one + given.round_trip
        step = np.maximum(verify, drafting) if given.overlaps else verify + drafting
        fits = target.fits & (held <= cards * sram.size.value) & (drafts > 0)
        parts.append(_flat(gained / step, batch * gained / step, gpus, float(cards), drafts, batch, fits))
    return _joined(parts)


def _flat(
    user: np.ndarray, tokens: np.ndarray, gpus: object, cards: object, drafts: object, batch: object, fits: np.ndarray
) -> Rates:
    spread = [
        np.broadcast_to(np.asarray(item, dtype=float), fits.shape)[fits] for item in (user, tokens, gpus, cards, drafts, batch)
    ]
    return Rates(**dict(zip(("user", "tokens", "gpus", "cards", "drafts", "batch"), spread, strict=True)))


def _joined(parts: Sequence[Rates]) -> Rates:
    names = ("user", "tokens", "gpus", "cards", "drafts", "batch")
    return Rates(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
