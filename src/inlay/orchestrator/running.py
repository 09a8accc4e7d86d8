"""A deployment that runs: its processes, where to reach it, and how it ends."""

from __future__ import annotations

import os
import selectors
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from inlay.errors import DeviceError
from inlay.orchestrator.fitting import RegionMemory
from inlay.specs.deployment import Deployment
from inlay.workers import Worker, WorkerSpec, start, stop_all

PAGE_KIB = 1024


class ProcessMemory(msgspec.Struct, frozen=True, kw_only=True):
    """One process: its proportional share of memory (PSS) in bytes, shared pages split among their users."""

    name: str
    pid: int
    pss: int


class Running:
    """Processes by name. `stop` ends all of them and removes the run directory; safe to call twice. `predicted` is what each
    device process was expected to need before it was started."""

    def __init__(
        self, deployment: Deployment, *, directory: Path, key: bytes, predicted: Mapping[str, RegionMemory] | None = None
    ) -> None:
        self.deployment = deployment
        self.predicted = dict(predicted or {})
        self.directory = directory
        self.key = key
        self.workers: dict[str, Worker] = {}

    @property
    def engine_socket(self) -> Path:
        """Where clients connect."""
        return self.directory / "engine.sock"

    def spawn(self, spec: WorkerSpec) -> Worker:
        """Start one more process that ends with this deployment."""
        worker = start(spec)
        self.workers[spec.name] = worker
        return worker

    def wait_for(self, path: Path, *, needs: list[str], seconds: float) -> None:
        """Until `path` exists. Raises DeviceLostError with the end of its log when one of `needs` dies before that."""
        deadline = time.monotonic() + seconds
        while not path.exists():
            for name in needs:
                self.workers[name].check()
            if time.monotonic() > deadline:
                raise DeviceError(
                    f"{path.name} did not appear within {seconds:.0f} s", hint=f"look at the logs in {self.directory}"
                )
            time.sleep(0.02)

    def wait_for_end(self, *, among: list[str]) -> str:
        """Block until one of these processes ends; its name."""
        with selectors.DefaultSelector() as selector:
            for name in among:
                selector.register(self.workers[name], selectors.EVENT_READ, name)
            return str(selector.select()[0][0].data)

    def memory(self) -> list[ProcessMemory]:
        """PSS of every living process, this one included, read from /proc."""
        found = [ProcessMemory(name="supervisor", pid=os.getpid(), pss=read_pss(os.getpid()))]
        for name, worker in self.workers.items():
            if worker.alive():
                found.append(ProcessMemory(name=name, pid=worker.pid, pss=read_pss(worker.pid)))
        return found

    def stop(self, *, grace_seconds: float = 5.0) -> None:
        """End gateway and engine first, so that devices see an orderly end; then the devices."""
        order = sorted(self.workers, key=lambda name: {"gateway": 0, "engine": 1}.get(name, 2))
        stop_all([self.workers.pop(name) for name in order], grace_seconds)
        shutil.rmtree(self.directory, ignore_errors=True)


def read_pss(pid: int) -> int:
    """Proportional set size of a process in bytes; 0 when it has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * PAGE_KIB for line in lines if line.startswith("Pss:")), 0)
