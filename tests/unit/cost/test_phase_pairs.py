"""Prefill on one chip, decode on another, by a roofline: by hand arithmetic, limits and the published study."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from inlay.cost.phase_pairs import (
    PairLoad,
    PairTerms,
    cheapest_decode,
    cheapest_prefill,
    pair_devices,
    pair_dollars,
    pass_seconds,
)
from inlay.errors import InputError
from inlay.models.facts import formats_of, kv_bytes, one_pass, read_facts, weight_bytes

SMALL, LARGE = read_facts("llama-3.1-8b"), read_facts("llama-3.1-70b")
TERMS = PairTerms(collective=20e-6)
LATENCY = {"first_token": 0.25, "between_tokens": 0.02}


def wide(facts):
    return formats_of(facts, "bf16", kv="bf16")


def test_hourly_cost_is_the_published_one() -> None:
    found = {name: device.dollars_an_hour for name, device in pair_devices().items()}
    for name, dollars in {"H100": 1.313, "B200": 1.972, "Gaudi 3": 0.847, "MI300X": 1.091}.items():
        assert found[name] == pytest.approx(dollars, abs=0.001)


def test_a_step_on_one_chip_is_its_bytes_over_the_bandwidth_that_is_reached() -> None:
    device = pair_devices()["H100"]
    seconds = pass_seconds(SMALL, wide(SMALL), device, TERMS, chips=1, batch=1, new=1, context=1000)
    count = one_pass(SMALL, wide(SMALL), batch=1, new=1, context=1000, logit_rows=1)
    assert seconds == pytest.approx(count.bytes / (3_350e9 * 0.7))
    assert seconds == pytest.approx(15.1e9 / 2345e9, rel=0.02)  # 7.5 thousand million weights of two bytes, and 0.13 GB of KV


def test_sums_over_chips_are_charged_twice_a_layer_with_their_bytes() -> None:
    device = pair_devices()["H100"]
    slow, quick = (
        pass_seconds(SMALL, wide(SMALL), device, PairTerms(collective=cost), chips=2, batch=4, new=1, context=8)
        for cost in (50e-6, 10e-6)
    )
    assert slow - quick == pytest.approx(2 * SMALL.layers * 40e-6)
    wider = pass_seconds(SMALL, wide(SMALL), replace(device, link=device.link / 2), TERMS, chips=2, batch=4, new=1, context=8)
    before = pass_seconds(SMALL, wide(SMALL), device, TERMS, chips=2, batch=4, new=1, context=8)
    message = 2 * (1 / 2) * 4 * SMALL.hidden * 2 / 450e9
    assert wider - before == pytest.approx(2 * SMALL.layers * message)


def test_decode_takes_the_largest_batch_that_memory_and_the_limit_allow() -> None:
    device, formats = pair_devices()["H100"], wide(SMALL)
    terms = replace(TERMS, chip_counts=(1,))
    load = PairLoad(512, 4096)
    free = cheapest_decode(SMALL, formats, device, load, terms)
    assert free is not None
    room = (80e9 * 0.9 - weight_bytes(SMALL, formats)) / kv_bytes(SMALL, formats, 4608)
    assert free.batch == int(room)
    limited = cheapest_decode(SMALL, formats, device, replace(load, between_tokens=0.012), terms)
    assert limited is not None
    assert limited.batch < free.batch
    assert limited.seconds <= 0.012
    one_more = pass_seconds(SMALL, formats, device, terms, chips=1, batch=limited.batch + 1, new=1, context=512 + 2048)
    assert one_more > 0.012


def test_a_model_that_does_not_fit_or_a_limit_that_cannot_be_kept_has_no_price() -> None:
    device = pair_devices()["H100"]
    one_chip = replace(TERMS, chip_counts=(1,))
    assert cheapest_decode(LARGE, wide(LARGE), device, PairLoad(512, 4096), one_chip) is None
    assert cheapest_prefill(LARGE, wide(LARGE), device, PairLoad(512, 4096), one_chip) is None
    hopeless = PairLoad(4096, 512, first_token=0.001)
    assert pair_dollars(LARGE, wide(LARGE), device, device, hopeless, TERMS) is None


def test_a_limit_never_makes_a_request_cheaper() -> None:
    devices = pair_devices()
    for prefill, decode in itertools.product(devices.values(), repeat=2):
        free = pair_dollars(LARGE, wide(LARGE), prefill, decode, PairLoad(4096, 512), TERMS)
        held = pair_dollars(LARGE, wide(LARGE), prefill, decode, PairLoad(4096, 512, **LATENCY), TERMS)
        assert free is not None and held is not None
        assert free <= held


def test_the_printed_figure_of_h100_takes_the_gain_of_long_prompts_in_two_bytes() -> None:
    load = PairLoad(4096, 512, **LATENCY)
    gains = {}
    for printed in (False, True):
        devices = pair_devices(as_published=printed)
        base = pair_dollars(SMALL, wide(SMALL), devices["H100"], devices["H100"], load, TERMS)
        mixed = pair_dollars(SMALL, wide(SMALL), devices["B200"], devices["Gaudi 3"], load, TERMS)
        assert base is not None and mixed is not None
        gains[printed] = base / mixed
    assert gains[False] == pytest.approx(1.6, abs=0.05)
    assert gains[True] == pytest.approx(1.25, abs=0.06)


def test_terms_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match=r"shares \(1.5, 0.7, 0.9\)"):
        PairTerms(collective=1e-5, compute_share=1.5)
