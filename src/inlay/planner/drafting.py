"""Drafting: a draft model's bytes, its seconds a token on chips, how far a round of drafts goes. All modelled."""

from __future__ import annotations

import re

import msgspec
import numpy as np

from inlay.errors import InputError
from inlay.hardware.catalogue import DataSheet
from inlay.models.facts import formats_of, kv_bytes_per_token, read_facts, weight_bytes

SIZE = re.compile(r"([0-9]*\.?[0-9]+)[bB](?:/([1-9][0-9]*))?")
SYNTHETIC_LAYERS = 16
LAYER_KV = 2 * 8 * 64.0  # bytes of a token in one layer: 8 heads x 64, 8 bits


class DraftModel(msgspec.Struct, frozen=True, kw_only=True):
    """A drafter in 8 bits: bytes of its weights and of a token's KV, and the share of its tokens that the target takes."""

    name: str
    weights: float
    kv_per_token: float
    acceptance: float


class DraftingAssumptions(msgspec.Struct, frozen=True, kw_only=True):
    """Of a drafted token: seconds before any byte is read, on a chip with one memory (within its graph) and on one with SRAM
    before its DRAM; the share of the SRAM's bandwidth that is reached; seconds to the drafter and back."""

    graph_overhead: float = 0.4e-3
    sram_overhead: float = 60e-6
    sram_share: float = 0.5
    round_trip: float = 60e-6


def parse_draft(text: str, *, acceptance: float) -> DraftModel:
    """`1.6b` (16 layers), `0.8b/1` (so many layers), or the name of a model of the catalogue. Raises InputError, ModelError."""
    if not 0.0 <= acceptance < 1.0:
        raise InputError(
            f"acceptance is {acceptance:g}, expected a share from 0 to below 1", hint="for example --acceptance 0.8"
        )
    match = SIZE.fullmatch(text.strip())
    if match is not None:
        layers = int(match.group(2) or SYNTHETIC_LAYERS)
        weights = float(match.group(1)) * 1e9
        return DraftModel(name=text, weights=weights, kv_per_token=layers * LAYER_KV, acceptance=acceptance)
    facts = read_facts(text)
    formats = formats_of(facts, "int8", kv="int8")
    per_token = kv_bytes_per_token(facts, formats)
    return DraftModel(name=facts.name, weights=weight_bytes(facts, formats), kv_per_token=per_token, acceptance=acceptance)


def accepted(acceptance: float, drafts: int) -> float:
    """Mean tokens of a round: the drafts taken in a chain, and the target's own one."""
    return (1.0 - acceptance ** (drafts + 1)) / (1.0 - acceptance)


def has_sram(sheet: DataSheet) -> bool:
    """Whether weights can lie in a memory before the last one."""
    return len(sheet.tiers) > 1 or sheet.kind == "sram_asic"


def draft_seconds(
    draft: DraftModel, sheet: DataSheet, *, chips: int, batch: np.ndarray, context: float, given: DraftingAssumptions
) -> np.ndarray:
    """Seconds of one drafted token for all sequences of a batch, infinite where the drafter does not fit. What is beyond the
    SRAM of all chips is read from the next memory."""
    held = draft.weights + batch * draft.kv_per_token * context
    overhead = given.sram_overhead if has_sram(sheet) else given.graph_overhead
    seconds, left = np.full(len(batch), overhead), held.astype(float)
    for index, memory in enumerate(sheet.tiers):
        if memory.bandwidth is None:
            continue
        here = np.minimum(left, memory.size.value * chips)
        share = given.sram_share if has_sram(sheet) and not index else 1.0
        seconds = seconds + here / (memory.bandwidth.value * chips * share)
        left = left - here
    return np.where(left > 0, np.inf, seconds)
