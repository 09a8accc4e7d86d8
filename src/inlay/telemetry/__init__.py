"""Prometheus meters and their names. Called by the engine and the gateway, each of which owns one object."""

from __future__ import annotations

from inlay.telemetry.meters import CONTENT_TYPE, EngineMeters, GatewayMeters

__all__ = ["CONTENT_TYPE", "EngineMeters", "GatewayMeters"]
