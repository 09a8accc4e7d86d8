"""Makes a Deployment true and keeps it so: local processes by default."""

from __future__ import annotations

from inlay.orchestrator.local import start_local
from inlay.orchestrator.running import ProcessMemory, Running, read_pss

__all__ = ["ProcessMemory", "Running", "read_pss", "start_local"]
