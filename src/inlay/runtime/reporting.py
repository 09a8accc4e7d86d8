"""How a compile process tells its parent what it does and how it ended: steps as JSON lines, one result file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from inlay.errors import InlayError


class Steps:
    """Times named steps and writes their begin and end to a file as {step, state, seconds}."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._file = file

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._tell(step=name, state="begun")
        begun = time.monotonic()
        try:
            yield
        except BaseException:
            self._tell(step=name, state="failed", seconds=time.monotonic() - begun)
            raise
        self.seconds[name] = time.monotonic() - begun
        self._tell(step=name, state="done", seconds=self.seconds[name])

    def _tell(self, **event: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps(event) + "\n")


def reported(result: str, progress: str, work: Callable[[Steps], dict[str, Any]]) -> int:
    """Do the work; write its outcome, or {"error": {code, message, hint}}, whole to `result`. Returns the exit code."""
    code = 0
    try:
        if progress:
            with open(progress, "a", buffering=1) as file:
                outcome = work(Steps(file))
        else:
            outcome = work(Steps())
    except InlayError as error:
        outcome, code = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}, error.exit_code
    except Exception as error:  # noqa: BLE001  # process edge: the parent gets a reason, not a traceback
        outcome, code = {"error": {"code": "internal_error", "message": f"{type(error).__name__}: {error}", "hint": None}}, 1
    target = Path(result)
    temporary = target.with_name(f".{target.name}.part")
    temporary.write_text(json.dumps(outcome))
    temporary.replace(target)
    return code
