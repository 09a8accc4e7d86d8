"""What `inlay serve` shows on a terminal while it serves: one live line on stderr, nothing more on stdout."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time

import httpx
import zoo
from commands import ENVIRONMENT, INLAY


def read_until(terminal: int, pattern: str, *, seconds: float) -> str:
    """What the terminal shows until `pattern` is in it."""
    shown, deadline = "", time.monotonic() + seconds
    while not re.search(pattern, shown):
        assert time.monotonic() < deadline, shown[-2000:]
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


def test_the_line_shows_a_request_while_it_runs_and_is_gone_at_the_end() -> None:
    terminal, stderr = pty.openpty()
    process = subprocess.Popen(
        [*INLAY, "serve", str(zoo.DEMO_TARGET), "--role", "prefill,decode=cpu:0/onnxruntime", "--name", "demo", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=ENVIRONMENT | {"COLUMNS": "120"},
    )
    os.close(stderr)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        read_until(terminal, r"0 running, 0 waiting  0 tokens/s  KV 0%", seconds=60)
        body = {"model": "demo", "prompt": "import", "max_tokens": 1000, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()  # held: a closed one would hang up
            next(lines)
            read_until(terminal, r"1 running, 0 waiting  [1-9]\d* tokens/s  KV [1-9]\d*%", seconds=60)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    shown = read_until(terminal, "stopping", seconds=10)
    assert shown.rstrip().endswith("stopping")
    with process.stdout as rest:
        assert process.returncode == 0 and rest.read() == ""
    os.close(terminal)
