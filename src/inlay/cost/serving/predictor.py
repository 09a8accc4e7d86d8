"""Predictor: seconds of a served model's steps and prompts on chips, by a calibration, each with its band and grade."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from inlay.cost.serving.calibration import LEVELS, Calibration, Node
from inlay.cost.serving.configuration import Configuration, Engine, Load
from inlay.cost.serving.shipped import shipped
from inlay.cost.serving.terms import decode_terms, prompt_terms
from inlay.hardware.catalogue import DataSheet
from inlay.models.facts import Attention, LatentAttention, ModelFacts, kv_bytes, weight_bytes

VENDORS = {"trtllm": "NVIDIA"}  # an engine that runs on chips of one vendor alone
USABLE = 0.9  # of a memory, for weights and KV; the rest is the engine's
MODELLED = "modelled"
REACH = 1.5  # times beyond the shapes that were measured: further on a prediction is extrapolated, and graded so


@dataclass(frozen=True)
class Prediction:
    """Seconds by load, the ends of the band in which 80 % of unseen measurements lay, and the grade of it."""

    seconds: np.ndarray
    low: np.ndarray
    high: np.ndarray
    grade: str


@dataclass(frozen=True)
class StepModel:
    """One model on equal chips by one engine: all is fixed but the load's size. `note` says where it reaches beyond what was
    measured."""

    wanted: Configuration
    coefficients: np.ndarray
    grade: str
    bars: dict[str, tuple[float, float]]
    note: str = ""

    def decode(self, concurrency: np.ndarray, *, width: int = 1, prefill_share: float | None = None) -> Prediction:
        """The mean step that holds so many sequences, each with `width` new tokens; `prefill_share` prompt tokens are computed
        beside for each sequence (None: the load's own for one output token; 0: an instance that only decodes)."""
        terms = [decode_terms(self._at(batch), width=width, prefill_share=prefill_share) for batch in concurrency]
        return self._predicted(np.array(terms) @ self.coefficients, self.grade)

    def prompt(self, tokens: float, *, cached: float = 0.0) -> Prediction:
        """One prompt alone, of which `cached` tokens are not computed. Its band is that of steps: graded "modelled"."""
        load = replace(self.wanted.load, input_tokens=max(1.0, tokens - cached), concurrency=1.0)
        terms = prompt_terms(replace(self.wanted, load=load), cached=round(cached))
        return self._predicted(np.array([terms @ self.coefficients]), MODELLED)

    def fits(self, concurrency: np.ndarray) -> np.ndarray:
        """Whether weights and KV of so many sequences at their longest fit the largest memory of the chips."""
        wanted, load = self.wanted, self.wanted.load
        heads = min(
            kind.kv_heads if isinstance(kind, Attention) else 1 if isinstance(kind, LatentAttention) else wanted.tensor
            for kind in (group.attention for group in wanted.facts.groups)
        )
        longest = kv_bytes(wanted.facts, wanted.formats, round(load.input_tokens + load.output_tokens))
        own = longest / min(wanted.tensor, heads) * concurrency / wanted.groups
        room = max(memory.size.value for memory in wanted.sheet.tiers) * USABLE
        held: np.ndarray = weight_bytes(wanted.facts, wanted.formats) / wanted.chips + own <= room
        return held

    def _at(self, concurrency: float) -> Configuration:
        return replace(self.wanted, load=replace(self.wanted.load, concurrency=float(concurrency)))

    def _predicted(self, seconds: np.ndarray, grade: str) -> Prediction:
        low, high = self.bars[grade]
        return Prediction(seconds=seconds, low=low * seconds, high=high * seconds, grade=grade)


@dataclass(frozen=True)
class Predictor:
    """A calibration with its error bars by grade; `shares` are the least and the most prompt tokens for an output token of each
    node's points."""

    calibration: Calibration
    bars: dict[str, tuple[float, float]]
    shares: dict[Node, tuple[float, float]]

    @classmethod
    def shipped(cls) -> Predictor:
        """Of the package."""
        found = shipped()
        return cls(found.calibration(), dict(found.bars), {node.path: node.shares for node in found.nodes})

    def engines(self, facts: ModelFacts, sheet: DataSheet) -> tuple[tuple[Engine, str], ...]:
        """Engines with their newest version that was measured, and the precision: of this model on this chip; where there are
        none, of this model on its generation, of this model, of any. Never empty."""
        whole = [
            node
            for node in self.calibration.nodes
            if len(node) == len(LEVELS)
            and VENDORS.get(node[0], sheet.vendor) == sheet.vendor
            and (node[5] == sheet.name or _computes(sheet, node[3]))
        ]
        chip, generation = sheet.name, sheet.generation or sheet.name
        for kept in (
            [node for node in whole if node[2] == facts.name and node[5] == chip],
            [node for node in whole if node[2] == facts.name and node[4] == generation],
            [node for node in whole if node[2] == facts.name],
            [node for node in whole if node[4] == generation],
            whole,
        ):
            newest: dict[tuple[str, str], str] = {}
            for node in kept:
                key = (node[0], node[3])
                newest[key] = max(newest.get(key, ""), node[6], key=_date)
            if newest:
                return tuple((_engine(name, version), precision) for (name, precision), version in newest.items())
        return ((Engine(name="vllm"), "native"),)  # no point at all: the root of the tree answers

    def step_model(
        self,
        facts: ModelFacts,
        sheet: DataSheet,
        engine: Engine,
        precision: str,
        *,
        input_tokens: float,
        output_tokens: float,
        chips: int,
        tensor: int,
        expert: int = 1,
    ) -> StepModel:
        """For one configuration. Raises InputError for degrees that do not divide, ClusterError for a sheet without limits."""
        load = Load(input_tokens=input_tokens, output_tokens=output_tokens, concurrency=1.0)
        wanted = Configuration(facts, sheet, engine, precision, load, chips, tensor, expert)
        grade, note = self.calibration.grade(wanted), ""
        low, high = self.shares[self.calibration.node(wanted)]
        if not low / REACH <= load.prefill_share <= high * REACH:
            spread = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
            grade = MODELLED
            note = (
                f"extrapolated: {facts.name} on {sheet.name} was measured with {spread} prompt tokens for an output token by "
                f"{engine.name}, asked are {load.prefill_share:.3g}"
            )
        return StepModel(wanted, self.calibration.coefficients(wanted), grade, self.bars, note)


def _computes(sheet: DataSheet, precision: str) -> bool:
    """Whether a chip has arithmetic of its own in a precision that another chip was measured in; checkpoints as published and
    bf16 run anywhere."""
    return precision in ("native", "bf16") or precision in sheet.peaks


def _date(version: str) -> str:
    return version.rpartition(" ")[2]


def _engine(name: str, told: str) -> Engine:
    version, _, date = told.rpartition(" ")
    return Engine(name=name, version=version, date=date)
