"""Programs that the tests of this folder start as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from inlay.errors import OutOfMemoryError
from inlay.workers import WorkerSpec, start

AFFINITY_WHEN_LOADED = sorted(os.sched_getaffinity(0))


def report(config: dict[str, Any]) -> None:
    """Writes what it finds around itself to config["to"], then waits to be stopped."""
    found = {
        "affinity": AFFINITY_WHEN_LOADED,
        "environment": dict(os.environ),
        "secret": config["secret"].hex(),
        "session": os.getsid(0),
        "group": os.getpgrp(),
        "stdin": os.readlink("/proc/self/fd/0"),
        "descriptors": [os.readlink(path) for path in map("/proc/self/fd/{}".format, range(100)) if os.path.islink(path)],
        "cmdline": Path("/proc/self/cmdline").read_bytes().hex(),
        "environ": Path("/proc/self/environ").read_bytes().hex(),
        "heavy": sorted({"torch", "numpy", "openvino"} & set(sys.modules)),
    }
    write(config["to"], json.dumps(found))
    time.sleep(600)


def speak(config: dict[str, Any]) -> None:
    """Writes to a descriptor that it was given."""
    os.write(config["descriptor"], b"hello")


def fail(config: dict[str, Any]) -> None:
    for line in range(30):
        print("line", line)
    raise OutOfMemoryError("`npu:0` cannot hold 21 GiB", hint="use a smaller bucket")


def crash(config: dict[str, Any]) -> None:
    raise ZeroDivisionError("planted")


def leave(config: dict[str, Any]) -> int:
    return int(config["status"])


def stubborn(config: dict[str, Any]) -> None:
    """Ignores SIGTERM; its own child does as well."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        time.sleep(600)
    write(config["to"], str(child))
    time.sleep(600)


def orderly(config: dict[str, Any]) -> int:
    """Ends on SIGTERM with a status of its own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    write(config["to"], "ready")
    time.sleep(600)
    return 0


def supervise(config: dict[str, Any]) -> None:
    """Starts a process of its own, tells its pid, and waits to be killed."""
    child = start(WorkerSpec(name="child", program="worker_programs:wait", run_directory=config["directory"], config=config))
    while not os.path.exists(config["to"] + ".child"):
        child.check()
        time.sleep(0.005)
    write(config["to"], str(child.pid))
    time.sleep(600)


def wait(config: dict[str, Any]) -> None:
    write(config["to"] + ".child", "ready")
    time.sleep(600)


def write(path: str, text: str) -> None:
    """So that a reader never sees half of it."""
    Path(path + ".part").write_text(text)
    os.rename(path + ".part", path)
