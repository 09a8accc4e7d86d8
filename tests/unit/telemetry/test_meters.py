from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

import inlay.telemetry
from inlay.telemetry import EngineMeters, GatewayMeters


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_the_face_is_sorted() -> None:
    assert sorted(inlay.telemetry.__all__) == inlay.telemetry.__all__


def test_engine_meters_appear_under_the_names_clients_read() -> None:
    meters = EngineMeters()
    meters.tokens.labels(phase="decode", framework="openvino", device="xeon:0").inc(3)
    meters.kv_transfer_bytes.labels(source="xeon:0", destination="xeon:1").inc(4096)
    meters.kv_transfer_seconds.observe(0.01)
    meters.kv_verify_failures.labels(cause="crc").inc()
    meters.kv_quarantined.labels(source="xeon:0", destination="xeon:1").inc()
    meters.kv_lease_expired.inc()
    meters.kv_recompute.inc()
    meters.device_busy_seconds.labels(device="xeon:0").inc(1.5)
    meters.plan_requests.labels(kind="split").inc()
    meters.worker_epoch.labels(device="xeon:0").set(2)
    meters.time_to_first_token.observe(0.2)
    meters.inter_token_latency.observe(0.02)
    meters.requests_running.set(4)
    meters.requests_waiting.set(5)
    meters.kv_cache_usage.set(0.5)
    meters.prompt_tokens.inc(11)
    meters.generation_tokens.inc(7)
    meters.request_success.labels(finished_reason="stop").inc()
    found = samples(meters.text())
    device = (("device", "xeon:0"),)
    expected = {
        ("inlay_tokens_total", (("device", "xeon:0"), ("framework", "openvino"), ("phase", "decode"))): 3,
        ("inlay_kv_transfer_bytes_total", (("destination", "xeon:1"), ("source", "xeon:0"))): 4096,
        ("inlay_kv_transfer_seconds_count", ()): 1,
        ("inlay_kv_verify_failures_total", (("cause", "crc"),)): 1,
        ("inlay_kv_quarantined_total", (("destination", "xeon:1"), ("source", "xeon:0"))): 1,
        ("inlay_kv_lease_expired_total", ()): 1,
        ("inlay_kv_recompute_total", ()): 1,
        ("inlay_device_busy_seconds", device): 1.5,
        ("inlay_plan_requests_total", (("kind", "split"),)): 1,
        ("inlay_worker_epoch", device): 2,
        ("vllm:time_to_first_token_seconds_count", ()): 1,
        ("vllm:inter_token_latency_seconds_count", ()): 1,
        ("vllm:num_requests_running", ()): 4,
        ("vllm:num_requests_waiting", ()): 5,
        ("vllm:kv_cache_usage_perc", ()): 0.5,
        ("vllm:prompt_tokens_total", ()): 11,
        ("vllm:generation_tokens_total", ()): 7,
        ("vllm:request_success_total", (("finished_reason", "stop"),)): 1,
    }
    assert {key: found[key] for key in expected} == expected


def test_two_meters_objects_share_nothing() -> None:
    first, second = EngineMeters(), EngineMeters()
    first.kv_recompute.inc()
    assert samples(second.text())[("inlay_kv_recompute_total", ())] == 0


def test_engine_and_gateway_text_can_be_joined() -> None:
    gateway = GatewayMeters()
    gateway.requests.labels(route="/v1/models", status="200").inc()
    gateway.disconnects.inc()
    found = samples(gateway.text() + EngineMeters().text())
    assert found[("inlay_http_requests_total", (("route", "/v1/models"), ("status", "200")))] == 1
    assert found[("inlay_http_disconnects_total", ())] == 1
    assert not [name for name, _ in found if name.endswith("_created")]
