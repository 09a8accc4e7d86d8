"""The `inlay` command as a person runs it: real processes, their output, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INLAY = [sys.executable, "-m", "inlay.cli"]
OWN = tempfile.TemporaryDirectory(prefix="inlay-commands-")  # so that what others run at the same time is not seen here
ENVIRONMENT = {**os.environ, "TMPDIR": OWN.name}


def run(*arguments: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end."""
    return subprocess.run([*INLAY, *arguments], capture_output=True, text=True, timeout=seconds, check=False, env=ENVIRONMENT)


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    """`inlay serve ... --json --port 0`: what it announced and its process; ended by SIGTERM, and all of it must go."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*INLAY, "serve", *arguments, "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=ENVIRONMENT,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                process.wait(10)
                errors.seek(0)
                raise AssertionError(f"inlay serve ended with {process.returncode}: {errors.read()}")
            yield json.loads(line), process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(20)
            process.stdout.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def run_directories() -> set[str]:
    """What the commands have in their folder for temporary files now."""
    return set(os.listdir(OWN.name))


def until(condition: Any, *, seconds: float = 10.0) -> bool:
    """Wait for something that another process does; False when it did not within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False
