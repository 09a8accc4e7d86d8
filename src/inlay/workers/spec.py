"""What one process is started with: WorkerSpec. Plain data; nothing here starts anything."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import msgspec


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One process: the program `module:function` called with `config`, on `cores` (none = wherever the supervisor may
    run), with `threads` for every numeric library.

    `name` is its place ("cpu:0/openvino") or another name that is unique in the run; `epoch` only grows and comes
    from the caller; its log lies in `run_directory`. `config` may hold secrets: it is in no repr, argument or
    environment, and must be what msgpack carries.
    """

    name: str
    program: str
    run_directory: str
    config: dict[str, Any] = {}
    python: str = sys.executable
    cores: tuple[int, ...] = ()
    threads: int = 1
    environment: dict[str, str] = {}
    epoch: int = 0

    def __repr__(self) -> str:
        return f"WorkerSpec(name={self.name!r}, program={self.program!r}, cores={self.cores}, epoch={self.epoch})"

    @property
    def log_path(self) -> Path:
        """Where its stdout and stderr go: one file an epoch."""
        return Path(self.run_directory) / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', self.name)}.{self.epoch}.log"


class Start(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the entry of the new process reads: whose child it is, where it runs, and what it then calls."""

    supervisor: int
    name: str
    program: str
    cores: tuple[int, ...]
    config: dict[str, Any]

    def __repr__(self) -> str:
        return f"Start(name={self.name!r}, program={self.program!r})"
