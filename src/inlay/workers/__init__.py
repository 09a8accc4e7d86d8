"""Spawns, pins, watches and stops one process. When to do so is not decided here; the key is proven by transport."""

from __future__ import annotations

from inlay.workers.process import Worker, start, stop_all
from inlay.workers.spec import WorkerSpec
from inlay.workers.watch import Heartbeat

__all__ = ["Heartbeat", "Worker", "WorkerSpec", "start", "stop_all"]
