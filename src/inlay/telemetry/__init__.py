"""Prometheus meters and their names, and reading an exposition. The engine and the gateway own one object of meters each."""

from __future__ import annotations

from inlay.telemetry.meters import CONTENT_TYPE, EngineMeters, GatewayMeters
from inlay.telemetry.reading import Sample, read_samples, sums

__all__ = ["CONTENT_TYPE", "EngineMeters", "GatewayMeters", "Sample", "read_samples", "sums"]
