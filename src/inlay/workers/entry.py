"""The first code of every process that `start` makes: `python -m inlay.workers.entry NAME`, configuration on stdin.

It ties its life to the supervisor, pins itself, and only then loads the program by name and calls it. Not imported
by anyone.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from inlay.errors import InlayError, InputError
from inlay.workers.spec import Start

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Runs the program; the status it returns (None = 0), or the exit code of its InlayError, traceback in the log."""
    begin = _read_start()
    try:
        _follow(begin.supervisor)
        _pin(begin.cores)
        return _load(begin.program)(begin.config) or 0
    except InlayError as error:
        traceback.print_exc()
        return error.exit_code


def _read_start() -> Start:
    """Reads stdin to its end and puts /dev/null there, so that the secret does not stay open."""
    with os.fdopen(os.dup(0), "rb") as file:
        data = file.read()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return msgspec.msgpack.decode(data, type=Start)


def _follow(supervisor: int) -> None:
    """Have the kernel end this process with its supervisor."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != supervisor:  # it died before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def _pin(cores: Iterable[int]) -> None:
    wanted = set(cores)
    if not wanted:
        return
    with suppress(OSError):  # none of them exists: told below
        os.sched_setaffinity(0, wanted)
    given = os.sched_getaffinity(0)
    if given != wanted:
        message = f"cores {sorted(wanted)} were asked for but this machine gives {sorted(given)}"
        raise InputError(message, hint="give cores that `taskset -p $$` shows")


def _load(program: str) -> Callable[[dict[str, Any]], int | None]:
    module_name, separator, function_name = program.partition(":")
    if not separator or not module_name or not function_name:
        raise InputError(f"program is {program!r}, expected module:function", hint="for example inlay.engine.device:main")
    function = getattr(importlib.import_module(module_name), function_name, None)
    if not callable(function):
        raise InputError(f"program {program!r} does not exist: {module_name} has no function {function_name!r}")
    loaded: Callable[[dict[str, Any]], int | None] = function
    return loaded


if __name__ == "__main__":
    sys.exit(main())
