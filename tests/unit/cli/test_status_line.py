"""The live line of `inlay serve`: its text is a pure function of two readings of the meters."""

from __future__ import annotations

from inlay.cli.status_line import status_text
from inlay.telemetry import EngineMeters, read_samples, sums


def test_the_line_tells_requests_rate_and_memory_and_leaves_out_what_is_not_there() -> None:
    meters = EngineMeters()
    before = list(read_samples(meters.text()))
    meters.requests_running.set(2)
    meters.requests_waiting.set(3)
    meters.generation_tokens.inc(120)
    meters.kv_cache_usage.set(0.125)
    after = list(read_samples(meters.text()))
    assert status_text(before, after, seconds=2.0) == "2 running, 3 waiting  60 tokens/s  KV 12%"
    meters.kv_recompute.inc()
    assert status_text(after, list(read_samples(meters.text())), seconds=1.0).endswith("  0 tokens/s  KV 12%  1 recomputed")
    assert status_text(before, [], seconds=1.0) == "the engine does not answer"


def test_phases_have_the_mean_time_of_their_last_batches_and_devices_their_share() -> None:
    meters = EngineMeters()
    meters.phase_seconds.labels("decode", "cpu:1").observe(5.0)
    meters.device_busy_seconds.labels("cpu:1").set(5.0)
    before = list(read_samples(meters.text()))
    for seconds in (0.004, 0.006):
        meters.phase_seconds.labels("decode", "cpu:1").observe(seconds)
    meters.phase_seconds.labels("prefill", "cpu:0").observe(0.05)
    meters.device_busy_seconds.labels("cpu:0").set(0.05)
    meters.device_busy_seconds.labels("cpu:1").set(5.01)
    line = status_text(before, list(read_samples(meters.text())), seconds=0.1)
    assert "  decode 5.0 ms  prefill 50.0 ms" in line
    assert "  cpu:1 10%  cpu:0 50%" in line


TEXT = """
vllm:spec_decode_num_draft_tokens_total %d
vllm:spec_decode_num_accepted_tokens_total %d
vllm:prefix_cache_queries_total{engine="0"} 100
vllm:prefix_cache_hits_total{engine="0"} 25
inlay_spec_mode{pair="cpu:0>cpu:1",mode="free-running"} 1
inlay_spec_mode{pair="cpu:0>cpu:1",mode="off"} 0
"""


def test_acceptance_is_of_the_last_drafts_and_the_mode_stands_beside_its_pair() -> None:
    before, after = list(read_samples(TEXT % (100, 90))), list(read_samples(TEXT % (200, 140)))
    line = status_text(before, after, seconds=1.0)
    assert "acceptance 0.50" in line and "prefix hits 25%" in line
    assert line.endswith("cpu:0>cpu:1 free-running")
    assert "acceptance 0.70" in status_text(after, after, seconds=1.0)


def test_samples_are_read_with_their_labels_and_other_lines_are_passed_over() -> None:
    text = '# HELP a b\na_total{x="1",y="q\\"}"} 2.5\na_total{x="2"} 1 1234\nb nothing\n{} 3\nc +Inf\n'
    found = [(sample.name, sample.labels, sample.value) for sample in read_samples(text)]
    assert found == [("a", {"x": "1", "y": 'q\\"}'}, 2.5), ("a", {"x": "2"}, 1.0), ("c", {}, float("inf"))]
    assert sums(text)["a"] == 3.5
