"""What the engine counts, from the commands it gives and what devices answer."""

from __future__ import annotations

import pytest

from inlay.engine.metering import Label, Metering
from inlay.specs.device import BatchDone, BatchFailed, DraftDone, Guess, Row, RowResult, SampledToken, Submit
from inlay.specs.schedule import Answered, Send, Tick
from inlay.telemetry import EngineMeters, read_samples, sums


@pytest.fixture
def meters() -> EngineMeters:
    return EngineMeters()


@pytest.fixture
def metering(meters: EngineMeters) -> Metering:
    return Metering(meters, {"target": Label("cpu:1", "onnxruntime"), "draft": Label("cpu:0", "openvino")})


def submit(batch: int, drafts: dict[int, int]) -> Send:
    rows = tuple(
        Row(sequence=sequence, slot=0, tokens=(1,) * (count + 1), past_length=4, drafts=count)
        for sequence, count in drafts.items()
    )
    return Send("target", Submit(batch=batch, phase="decode", capacity=64, first=0, count=2, width=5, rows=rows))


def done(batch: int, sampled: dict[int, int]) -> Answered:
    results = tuple(
        RowResult(sequence=sequence, sampled=tuple(SampledToken(token=5, logprob=0.0) for _ in range(count)))
        for sequence, count in sampled.items()
    )
    return Answered("target", BatchDone(batch=batch, results=results, started=1.0, ended=1.25, prompt_tokens=0))


def test_accepted_drafts_are_those_before_the_last_token_of_a_row_and_are_counted_by_their_place(meters, metering) -> None:
    metering.observe(Tick(), [submit(1, {10: 4, 11: 4, 12: 0})], 0.0)
    metering.observe(done(1, {10: 3, 11: 1, 12: 1}), [submit(2, {10: 2})], 1.25)
    metering.observe(done(2, {10: 3}), [], 2.5)
    found = sums(meters.text())
    assert found["vllm:spec_decode_num_drafts"] == 3
    assert found["vllm:spec_decode_num_draft_tokens"] == 4 + 4 + 2
    assert found["vllm:spec_decode_num_accepted_tokens"] == 2 + 0 + 2
    name = "vllm:spec_decode_num_accepted_tokens_per_pos"
    places = {item.labels["position"]: item.value for item in read_samples(meters.text()) if item.name == name}
    assert places == {"0": 2, "1": 2}


def test_a_batch_that_failed_or_has_no_drafts_counts_for_nothing(meters, metering) -> None:
    metering.observe(Tick(), [submit(1, {10: 4}), submit(2, {11: 0})], 0.0)
    metering.observe(Answered("target", BatchFailed(batch=1, code="x", message="y")), [], 1.0)
    metering.observe(done(1, {10: 5}), [], 1.0)
    metering.observe(done(2, {11: 1}), [], 1.0)
    assert sums(meters.text())["vllm:spec_decode_num_drafts"] == 0


def test_draft_batches_have_a_phase_of_their_own_and_keep_their_device_busy(meters, metering) -> None:
    guesses = (Guess(sequence=1, guess=0, tokens=(3, 4, 5)), Guess(sequence=2, guess=1, tokens=(6,)))
    drafted = DraftDone(batch=7, guesses=guesses, started=2.0, ended=2.5, steps=3)
    metering.worked("cpu:0/openvino", drafted)
    metering.observe(Answered("draft", drafted), [], 3.0)
    text = meters.text()
    assert 'inlay_tokens_total{device="cpu:0",framework="openvino",phase="draft"} 4.0' in text
    assert 'inlay_phase_seconds_sum{device="cpu:0",phase="draft"} 0.5' in text
    assert 'inlay_device_busy_seconds{device="cpu:0"} 0.5' in text
