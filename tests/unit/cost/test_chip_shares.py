"""Shares of arithmetic and bandwidth of a served load: by hand, and where nothing is served."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inlay.cost.chip_shares import ServedLoad, chip_shares
from inlay.errors import InputError
from inlay.models.facts import active_parameters, formats_of, kv_bytes, read_facts, weight_bytes

FACTS = read_facts("llama-3.1-8b")
FORMATS = formats_of(FACTS, "bf16", kv="bf16")
CHIP = {"chips": 2, "flops": 1e15, "bandwidth": 2e12}
LOAD = ServedLoad(concurrency=4, input_tokens=1, output_tokens=1000, output_rate=200)


def test_of_a_load_of_answers_alone_bandwidth_is_the_weights_and_kv_of_every_step() -> None:
    found = chip_shares(FACTS, FORMATS, LOAD, **CHIP)
    table = FACTS.vocabulary * FACTS.hidden * 2  # the input embedding is looked up, not read
    step = weight_bytes(FACTS, FORMATS) - table + 4 * kv_bytes(FACTS, FORMATS, 501)
    assert found.bandwidth == pytest.approx(50 * step / (2 * 2e12), rel=0.01)
    assert found.compute == pytest.approx(200 * 2 * active_parameters(FACTS) / (2 * 1e15), rel=0.03)


def test_long_prompts_add_arithmetic_and_hardly_any_bandwidth() -> None:
    short, long = (chip_shares(FACTS, FORMATS, replace(LOAD, input_tokens=tokens), **CHIP) for tokens in (1, 8000))
    assert long.compute > 8 * short.compute
    assert long.bandwidth < 1.5 * short.bandwidth


def test_accepted_drafts_take_steps_away() -> None:
    plain = chip_shares(FACTS, FORMATS, LOAD, **CHIP)
    drafted = chip_shares(FACTS, FORMATS, replace(LOAD, accepted=2.0, width=2), **CHIP)
    assert drafted.bandwidth == pytest.approx(plain.bandwidth / 2, rel=0.02)
    assert drafted.compute == pytest.approx(plain.compute, rel=0.02)


def test_an_idle_chip_uses_nothing_and_no_requests_are_an_error() -> None:
    found = chip_shares(FACTS, FORMATS, replace(LOAD, output_rate=0.0), **CHIP)
    assert (found.compute, found.bandwidth) == (0.0, 0.0)
    with pytest.raises(InputError, match="above 0"):
        replace(LOAD, concurrency=0)
