"""What all sections of the kit share: the backend, its Python, the cache, a folder for this run, the time that is left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from inlay.backends import Backend
from inlay.backends.environment import python_of
from inlay.errors import UnsupportedError
from inlay.runtime.cache import Cache, digest_of, tool_versions
from inlay.runtime.conformance.jobs import Job, run_jobs

SOURCES = (
    "calls.py", "capturing.py", "filters.py", "models.py", "opinfo.py", "samples.py", "stages.py", "subjects.py", "trials.py",
    "units.py",
)  # fmt: skip
"""What captured samples and programs depend on beside torch; those of the models' calls also on `zoo_digest`."""


@dataclass
class World:
    """One run of the kit. `scratch` is emptied when it ends; captured samples are kept in the cache for all backends."""

    backend: Backend
    cache: Cache
    scratch: Path
    deadline: float | None = None
    processes: int = 0
    transient: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def python(self) -> str:
        """The Python that lowers and runs for this backend."""
        return python_of(self.backend.name)

    @cached_property
    def home(self) -> Path:
        """Where captured samples are kept: another folder for other sources or another torch."""
        here = Path(__file__).parent
        contents = {name: (here / name).read_text() for name in SOURCES}
        return self.cache.root / "conformance" / digest_of({"sources": contents, "tools": tool_versions(())})[:24]

    def late(self) -> bool:
        """Whether the time is over."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def jobs(
        self, program: str, jobs: Sequence[Job], *, done: Callable[[int], None] = lambda count: None, python: str = ""
    ) -> dict[str, dict[str, Any]]:
        """Jobs for this backend, in processes of its environment."""
        config = {"backend": self.backend.name, "cache": str(self.cache.root)}
        return run_jobs(
            program, jobs, config, python=python or self.python, processes=self.processes, deadline=self.deadline, done=done
        )

    def capture(self, jobs: Sequence[Job], *, done: Callable[[int], None] = lambda count: None) -> dict[str, dict[str, Any]]:
        """Jobs of `capturing`, in processes of this environment, which has torch and the models. What came of them is kept."""
        if not jobs:
            return {}
        config = {"cache": str(self.cache.root), "folder": str(self.home)}
        program = "inlay.runtime.conformance.capturing:main"

        def keep(name: str, result: dict[str, Any]) -> None:
            if not result.keys() & {"lost", "error"}:
                self.keep(name, result)

        return run_jobs(program, jobs, config, processes=self.processes, done=done, keep=keep)

    def has(self, name: str) -> bool:
        """Whether the result of a capture job is kept, with all the programs that it names."""
        path = self.home / f"{name}.json"
        if not path.is_file():
            return False
        found = json.loads(path.read_text())
        named = [*found.get("groups", ()), *found.get("trials", ()), found]
        return all(Path(item[key]).exists() for item in named for key in ("folder", "values") if key in item)

    def keep(self, name: str, result: dict[str, Any]) -> None:
        """Keep the result of a capture job."""
        self.home.mkdir(parents=True, exist_ok=True)
        part = self.home / f".{name}.part"
        part.write_text(json.dumps(result))
        part.replace(self.home / f"{name}.json")

    def read(self, name: str) -> dict[str, Any]:
        """What was kept, or is held for this run only."""
        if name in self.transient:
            return self.transient[name]
        found: dict[str, Any] = json.loads((self.home / f"{name}.json").read_text())
        return found

    def kept(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is kept under this name, made where it is not."""
        if not self.has(name):
            self.keep(name, make())
        return self.read(name)

    def unusable(self, reason: str) -> UnsupportedError:
        """The error that ends a run of the kit."""
        return UnsupportedError(f"the conformance kit cannot make its samples: {reason}", hint="pip install 'inlay[conform]'")
