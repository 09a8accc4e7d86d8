"""A real process that serves and is told to stop."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from inlay.errors import InputError
from inlay.gateway import bind_socket

PROGRAM = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("doubles", sys.argv[1])
doubles = importlib.util.module_from_spec(spec)
sys.modules["doubles"] = doubles
spec.loader.exec_module(doubles)
from inlay.gateway import make_app, serve_http
app = make_app(doubles.ScriptedUpstream(doubles.never_ends))
serve_http(app, grace_seconds=1, on_bound=lambda host, port: print(port, flush=True))
print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stream", [True, False])
def test_a_signal_ends_open_answers_cleanly_within_seconds(number: signal.Signals, stream: bool, request: Any) -> None:
    doubles = request.path.with_name("conftest.py")
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(doubles)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        body = json.dumps({"model": "tiny/model", "prompt": "x", "stream": stream}).encode()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: "
                b"%d\r\n\r\n" % len(body) + body
            )
            if stream:
                assert sock.recv(10)
            else:
                time.sleep(0.3)
            began = time.monotonic()
            process.send_signal(number)
            received = b""
            while part := sock.recv(65536):
                received += part
        out, err = process.communicate(timeout=10)
        assert time.monotonic() - began < 4
        assert process.returncode == 0, err
        assert out == "cleaned up\n"
        assert b'"code":"stopping"' in received and b"[DONE]" not in received
        assert (b" 503 " in received) is not stream
        assert "Traceback" not in err


def test_an_idle_server_stops_at_once_and_idle_connections_do_not_hold_it(serve: Callable[..., Any]) -> None:
    with serve() as site:
        sock = site.connect()
        began = time.monotonic()
    assert time.monotonic() - began < 2
    sock.close()


def test_an_address_in_use_is_an_input_error() -> None:
    with bind_socket("127.0.0.1", 0) as taken, pytest.raises(InputError, match="cannot be had"):
        bind_socket("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError):
        bind_socket("no such host", 0)
