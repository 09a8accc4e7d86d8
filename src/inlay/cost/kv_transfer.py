"""What handing KV from prefill to decode takes: bytes, seconds of a link, and how wide the link must be."""

from __future__ import annotations

from dataclasses import dataclass

from inlay.errors import InputError
from inlay.models.facts import Formats, ModelFacts, kv_bytes


@dataclass(frozen=True)
class TransferLink:
    """One direction of the way between two chips: bytes a second, and seconds before the first byte."""

    bandwidth: float
    latency: float = 0.0

    def __post_init__(self) -> None:
        if self.bandwidth <= 0 or self.latency < 0:
            raise InputError(
                f"link has {self.bandwidth} B/s and {self.latency} s, expected a bandwidth above zero and no negative latency",
                hint="give the bandwidth of one direction",
            )


def narrowest(*links: TransferLink) -> TransferLink:
    """Links one after another as one: the least bandwidth, all latencies."""
    return TransferLink(min(link.bandwidth for link in links), sum(link.latency for link in links))


@dataclass(frozen=True)
class KvTransfer:
    """Seconds from the end of prefill until decode has all of the KV; `hidden` went on beside the computation."""

    bytes: float
    seconds: float
    hidden: float


def kv_transfer(
    facts: ModelFacts, formats: Formats, *, tokens: int, link: TransferLink, prefill_seconds: float = 0.0, streamed: bool = True
) -> KvTransfer:
    """Handing over the KV of one prompt. Streamed by layers, all but the last hide behind prefill where a layer travels faster
    than it is computed; otherwise what exceeds the computation shows. Layers with a window hand over no more than that."""
    size = kv_bytes(facts, formats, tokens)
    whole = link.latency + size / link.bandwidth
    if not streamed:
        return KvTransfer(size, whole, 0.0)
    layer = size / facts.layers / link.bandwidth
    computed = prefill_seconds / facts.layers
    shown = link.latency + layer + (facts.layers - 1) * max(0.0, layer - computed)
    return KvTransfer(size, min(whole, shown), max(0.0, whole - shown))


def peak_egress(size: float, *, first_token: float, chips: int) -> float:
    """Bytes a second out of each of so many prefill chips, so that a prompt's KV leaves within the time to first token."""
    return size / (first_token * chips)


def peak_ingress(size: float, *, between_tokens: float, chips: int) -> float:
    """Bytes a second into each of so many decode chips, so that it arrives within the time between two tokens."""
    return size / (between_tokens * chips)


def saved_per_token_to_break_even(transfer_seconds: float, *, output_tokens: int) -> float:
    """Seconds a token that decode elsewhere must save, so that handing over costs nothing overall."""
    return transfer_seconds / output_tokens
