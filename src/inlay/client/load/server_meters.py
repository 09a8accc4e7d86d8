"""What the server's own /metrics counted between two readings: acceptance of drafts, hits of the prefix cache."""

from __future__ import annotations

from collections.abc import Mapping

from inlay.client.load.records import ServerDelta
from inlay.telemetry import read_samples

DRAFTS = "vllm:spec_decode_num_drafts"
DRAFTED = "vllm:spec_decode_num_draft_tokens"
ACCEPTED = "vllm:spec_decode_num_accepted_tokens"
BY_POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos"
QUERIES = "vllm:prefix_cache_queries"
HITS = "vllm:prefix_cache_hits"
GENERATED = "vllm:generation_tokens"
PLAIN = (DRAFTS, DRAFTED, ACCEPTED, QUERIES, HITS, GENERATED)

Counts = dict[str, float]


def read_counts(text: str) -> Counts:
    """Sums over all label sets of the counters above, by name; per-position counters as `name/position`."""
    found: Counts = {}
    for sample in read_samples(text):
        name = sample.name
        if name == BY_POSITION and sample.labels.get("position", "").isdigit():
            name = f"{BY_POSITION}/{sample.labels['position']}"
        elif name not in PLAIN:
            continue
        found[name] = found.get(name, 0.0) + sample.value
    return found


def delta(before: Mapping[str, float], after: Mapping[str, float]) -> ServerDelta:
    """What lies between. A counter that fell, because the server was started again, gives nothing."""
    changed = {name: value - before.get(name, 0.0) for name, value in after.items() if value >= before.get(name, 0.0)}
    drafts, drafted = changed.get(DRAFTS, 0.0), changed.get(DRAFTED, 0.0)
    accepted = changed.get(ACCEPTED, 0.0)
    places = sorted((int(name.partition("/")[2]), value) for name, value in changed.items() if name.startswith(BY_POSITION))
    queries = changed.get(QUERIES, 0.0)
    return ServerDelta(
        acceptance=accepted / drafted if drafted else None,
        accepted_length=1 + accepted / drafts if drafts else None,
        by_position=tuple(value / drafts for _, value in places) if drafts else (),
        prefix_hits=changed.get(HITS, 0.0) / queries if queries else None,
        generated=round(changed[GENERATED]) if GENERATED in changed else None,
    )
