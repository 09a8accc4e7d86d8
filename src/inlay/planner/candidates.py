"""Candidates: every instance that a question allows, as arrays over batches, drafts and cards, grouped by what is fixed.

An instance is one copy of the target on equal chips, alone, with a drafter on the same chips, or with one apart on other chips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from inlay.cost.serving import Engine, Predictor, StepModel
from inlay.errors import InlayError, InputError
from inlay.hardware import FleetChips
from inlay.hardware.catalogue import Catalogue, DataSheet
from inlay.models.facts import ModelFacts
from inlay.planner.drafting import DraftModel, accepted, draft_seconds
from inlay.planner.question import Question, SteadyLoad

BATCHES = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512], dtype=float)
DRAFTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20)
MOST_CARDS = 16


class Steps:
    """The steps of one target on equal chips, each computed once: prompts beside add in proportion to their tokens."""

    def __init__(self, model: StepModel, load: SteadyLoad) -> None:
        self.model = model
        self.batch = BATCHES[model.fits(BATCHES)]
        self._bare: dict[int, np.ndarray] = {}
        self._load = load

    @cached_property
    def prompt(self) -> float:
        """Seconds of a prompt alone."""
        load = self._load
        return float(self.model.prompt(load.input_tokens, cached=load.hit * load.input_tokens).seconds[0])

    @cached_property
    def _beside(self) -> np.ndarray:
        """Seconds that a prompt token for each sequence adds to a step."""
        found: np.ndarray = self.model.decode(self.batch, prefill_share=1.0).seconds - self._decoding(0)
        return found

    def _decoding(self, drafts: int) -> np.ndarray:
        if drafts not in self._bare:
            self._bare[drafts] = self.model.decode(self.batch, width=drafts + 1, prefill_share=0.0).seconds
        return self._bare[drafts]

    def seconds(self, drafts: int, share: float) -> np.ndarray:
        """A step by batch, with so many drafts to verify and `share` prompt tokens beside for each sequence."""
        found: np.ndarray = self._decoding(drafts) + share * self._beside
        return found


KnownSteps = dict[tuple[str, int, Engine, str, SteadyLoad], Steps]


@dataclass(frozen=True, kw_only=True)
class Group:
    """What is fixed, and by candidate: batch, drafts, cards, seconds of the target's step and of a drafted token, and tokens of
    a round. `low` and `high` are the band of the target's step as factors. `prompt` are seconds of a prompt alone."""

    target: str
    chips: int
    engine: Engine
    precision: str
    grade: str
    note: str
    low: float
    high: float
    prompt: float
    output_tokens: float
    placement: str
    draft: DraftModel | None
    drafter: str
    batch: np.ndarray
    drafts: np.ndarray
    cards: np.ndarray
    step: np.ndarray
    draft_token: np.ndarray
    gained: np.ndarray
    round_trip: float

    @property
    def seconds(self) -> np.ndarray:
        """Of a round."""
        found: np.ndarray = self.step + self.drafts * self.draft_token + self.round_trip
        return found

    @property
    def user(self) -> np.ndarray:
        """Tokens a second of one user."""
        found: np.ndarray = self.gained / self.seconds
        return found

    @property
    def rate(self) -> np.ndarray:
        """Output tokens a second of the instance."""
        found: np.ndarray = self.batch * self.gained / self.seconds
        return found

    @property
    def ttft(self) -> np.ndarray:
        """Seconds to the first token: the round that runs, the prompts before it, as a queue of equal services with random
        arrivals (M/D/1), and its own. Infinite where prompts alone fill the instance."""
        load = self.rate / self.output_tokens * self.prompt
        waited = np.where(load < 1.0, load * self.prompt / (2.0 * np.maximum(1.0 - load, 1e-9)), np.inf)
        found: np.ndarray = self.prompt + waited + self.seconds / 2
        return found


def groups(
    question: Question,
    facts: ModelFacts,
    *,
    catalogue: Catalogue,
    predictor: Predictor,
    known: KnownSteps,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[Group, ...]:
    """All of them; steps are taken from `known` and kept there.

    Raises InputError where no chip of the fleet can hold the model, with what it would need."""
    allowed = question.allowed(catalogue)
    found: list[Group] = []
    refused: list[str] = []
    for number, item in enumerate(allowed, 1):
        progress(f"chips: {number} of {len(allowed)}")
        sheet = catalogue.sheet(item.chip)
        others = [(other, catalogue.sheet(other.chip)) for other in allowed if other is not item]
        before = len(found)
        for chips in _counts(item.count, sheet):
            try:
                for steps in _engines(question, facts, sheet, chips, predictor, known):
                    found += _of_model(question, item, steps, others)
            except InlayError as error:
                refused.append(f"{item.chip}: {error.message}")
        if len(found) == before and not any(text.startswith(f"{item.chip}:") for text in refused):
            refused.append(f"{item.count} x {item.chip}: {facts.name} and one sequence do not fit its memory")
    if not found:
        raise InputError(
            f"no chip of the fleet can serve {facts.name}: {'; '.join(refused)}", hint="add chips with more memory"
        )
    return tuple(found)


def _engines(
    question: Question, facts: ModelFacts, sheet: DataSheet, chips: int, predictor: Predictor, known: KnownSteps
) -> list[Steps]:
    """The steps by each engine. Where some are calibrated at this load the others are left out: among predictions of unlike
    certainty the most hopeful one would win, not the best."""
    found = []
    for engine, precision in predictor.engines(facts, sheet):
        model = predictor.step_model(
            facts, sheet, engine, precision, input_tokens=question.load.input_tokens,
            output_tokens=question.load.output_tokens, chips=chips, tensor=chips,
        )  # fmt: skip
        key = (sheet.name, chips, engine, precision, question.load)
        found.append(known.setdefault(key, Steps(model, question.load)))
    trusted = [steps for steps in found if steps.model.grade == "calibrated"]
    for key in [key for key in known if key[:2] == (sheet.name, chips) and trusted and known[key] not in trusted]:
        del known[key]  # nor may a split be made of them
    return trusted or found


def _counts(count: int, sheet: DataSheet) -> Iterator[int]:
    """Powers of two, up to what there is and to what is linked closely."""
    chips = 1
    while chips <= min(count, max(1, sheet.link.domain)):
        yield chips
        chips *= 2


def _of_model(
    question: Question, item: FleetChips, steps: Steps, others: list[tuple[FleetChips, DataSheet]]
) -> Iterator[Group]:
    batch, model = steps.batch, steps.model
    if not len(batch):
        return
    load, wanted = question.load, model.wanted
    context = load.input_tokens + load.output_tokens / 2

    def made(placement: str, draft: DraftModel | None, sheet: DataSheet, name: str, cards: int) -> Group:
        widths = DRAFTS if draft is not None else (0,)
        parts = [(width, accepted(draft.acceptance, width) if draft else 1.0) for width in widths]
        token = np.zeros(len(batch))
        if draft is not None:
            used = cards or wanted.chips
            token = draft_seconds(draft, sheet, chips=used, batch=batch, context=context, given=question.drafting)
        step = np.concatenate(
            [question.step_factor * steps.seconds(width, gained * load.prefill_share) for width, gained in parts]
        )
        low, high = model.bars[model.grade]
        possible = np.tile(np.isfinite(token), len(parts))
        return Group(
            target=item.chip, chips=wanted.chips, engine=wanted.engine, precision=wanted.precision, grade=model.grade,
            note=model.note,
            low=low, high=high, prompt=question.step_factor * steps.prompt,
            output_tokens=load.output_tokens, placement=placement, draft=draft, drafter=name,
            batch=np.tile(batch, len(parts))[possible],
            drafts=np.repeat([width for width, _ in parts], len(batch))[possible].astype(float),
            cards=np.full(int(possible.sum()), float(cards)),
            step=step[possible], draft_token=np.tile(token, len(parts))[possible],
            gained=np.repeat([gained for _, gained in parts], len(batch))[possible],
            round_trip=question.drafting.round_trip if placement == "apart" else 0.0,
        )  # fmt: skip

    yield made("", None, wanted.sheet, "", 0)
    if question.own_draft is not None:
        yield made("own", question.own_draft, wanted.sheet, "", 0)
    if question.draft is not None:
        for other, sheet in others:
            for cards in range(1, min(other.count, MOST_CARDS) + 1):
                group = made("apart", question.draft, sheet, other.chip, cards)
                if len(group.batch):
                    yield group
