"""The Prometheus meters of one process: the engine's and the gateway's, under the names that clients read.

Labels are bounded: devices, frameworks, phases and routes, never a request, a session or text chosen by a tenant.
A meters object owns its registry, so two in one process (tests) never meet.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of `text()`."""

_FIRST_TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TRANSFER_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class EngineMeters:
    """What the engine counts. Each attribute is a prometheus_client meter; seconds and bytes are base units."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.tokens = Counter("inlay_tokens_total", "Tokens computed", ["phase", "framework", "device"], registry=registry)
        self.kv_transfer_bytes = Counter(
            "inlay_kv_transfer_bytes_total", "KV bytes handed over", ["source", "destination"], registry=registry
        )
        self.kv_transfer_seconds = Histogram(
            "inlay_kv_transfer_seconds",
            "Time from RESERVE to ACK of one hand-off",
            registry=registry,
            buckets=_TRANSFER_SECONDS,
        )
        self.kv_verify_failures = Counter(
            "inlay_kv_verify_failures_total", "Hand-offs refused by a check", ["cause"], registry=registry
        )
        self.kv_quarantined = Counter(
            "inlay_kv_quarantined_total",
            "Hand-offs refused because too many of this pair had failed their checks",
            ["source", "destination"],
            registry=registry,
        )
        self.kv_lease_expired = Counter(
            "inlay_kv_lease_expired_total", "Hand-offs given up because an end said nothing for too long", registry=registry
        )
        self.kv_recompute = Counter(
            "inlay_kv_recompute_total", "Prompts computed again after a failed hand-off", registry=registry
        )
        self.device_busy_seconds = Gauge(
            "inlay_device_busy_seconds", "Seconds a device has spent in batches since it started", ["device"], registry=registry
        )
        self.phase_seconds = Histogram(
            "inlay_phase_seconds",
            "Time of one batch on its devices, by what was computed",
            ["phase", "device"],
            registry=registry,
            buckets=_TOKEN_SECONDS,
        )
        self.plan_requests = Counter(
            "inlay_plan_requests_total", "Requests by how they were placed", ["kind"], registry=registry
        )
        self.spec_requests = Counter(
            "inlay_spec_requests_total",
            "Requests by who drafted for whom and the mode that gave most of their tokens",
            ["pair", "mode"],
            registry=registry,
        )
        self.spec_mode = Gauge(
            "inlay_spec_mode", "1 for the mode in which each pair began or ended last", ["pair", "mode"], registry=registry
        )
        self.worker_epoch = Gauge("inlay_worker_epoch", "Epoch of the device's process", ["device"], registry=registry)
        self.time_to_first_token = Histogram(
            "vllm:time_to_first_token_seconds", "Time to first token", registry=registry, buckets=_FIRST_TOKEN_SECONDS
        )
        self.inter_token_latency = Histogram(
            "vllm:inter_token_latency_seconds",
            "Gap between two tokens of one answer",
            registry=registry,
            buckets=_TOKEN_SECONDS,
        )
        self.requests_running = Gauge("vllm:num_requests_running", "Requests being computed", registry=registry)
        self.requests_waiting = Gauge("vllm:num_requests_waiting", "Requests waiting to be admitted", registry=registry)
        self.kv_cache_usage = Gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1", registry=registry)
        self.prefix_cache_queries = Counter(
            "vllm:prefix_cache_queries", "Prompt tokens looked up among kept prefixes", registry=registry
        )
        self.prefix_cache_hits = Counter(
            "vllm:prefix_cache_hits", "Tokens that a kept prefix held when a sequence was placed", registry=registry
        )
        self.preemptions = Counter("vllm:num_preemptions", "Sequences that lost their slot to another one", registry=registry)
        self.drafts = Counter(
            "vllm:spec_decode_num_drafts_total", "Verify steps of one sequence that were given drafts", registry=registry
        )
        self.draft_tokens = Counter(
            "vllm:spec_decode_num_draft_tokens_total", "Drafted tokens that verify steps were given", registry=registry
        )
        self.accepted_tokens = Counter(
            "vllm:spec_decode_num_accepted_tokens_total", "Drafted tokens that verify steps kept", registry=registry
        )
        self.accepted_by_position = Counter(
            "vllm:spec_decode_num_accepted_tokens_per_pos_total",
            "Drafted tokens that were kept, by their place among the drafts of a step, from 0",
            ["position"],
            registry=registry,
        )
        self.prompt_tokens = Counter("vllm:prompt_tokens_total", "Prompt tokens", registry=registry)
        self.generation_tokens = Counter("vllm:generation_tokens_total", "Generated tokens", registry=registry)
        self.request_success = Counter(
            "vllm:request_success_total", "Choices that ended, by reason", ["finished_reason"], registry=registry
        )

    def text(self) -> str:
        """The exposition of every meter above."""
        return expose(self._registry)


class GatewayMeters:
    """What the gateway counts. `route` is a pattern of ours or "other"."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter(
            "inlay_http_requests_total", "Answers by route and status", ["route", "status"], registry=registry
        )
        self.disconnects = Counter(
            "inlay_http_disconnects_total", "Clients that hung up before their answer was complete", registry=registry
        )

    def text(self) -> str:
        """The exposition of every meter above."""
        return expose(self._registry)


class _WithoutCreated:
    """A registry seen without the `_created` samples, which no reader of ours wants and which triple a page."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> list[Metric]:
        families = list(self._registry.collect())
        for family in families:
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        return families


def expose(registry: CollectorRegistry) -> str:
    """The text format 0.0.4 of everything in `registry`."""
    return generate_latest(_WithoutCreated(registry)).decode()
