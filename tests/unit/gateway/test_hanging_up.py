"""A client that hangs up cancels its call at every stage."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from typing import Any

import httpx
import pytest

CHAT = {"model": "tiny/model", "messages": [{"role": "user", "content": "x"}]}


def disconnects(site: Any) -> float:
    text = httpx.get(f"{site.url}/metrics").text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("inlay_http_disconnects_total")))


@pytest.mark.parametrize("how", ["close", "reset", "half"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("script", ["never_ends", "stays_silent", "is_queued"])
def test_a_client_that_hangs_up_stops_the_engine(
    serve: Callable[..., Any], scripts: Any, eventually: Any, script: str, stream: bool, how: str
) -> None:
    with serve(scripts[script]) as site:
        sock = site.send_json("/v1/chat/completions", json.dumps(CHAT | {"stream": stream}).encode())
        eventually(lambda: site.upstream.running == 1)
        if stream and script == "never_ends":
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half":
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.close()
        eventually(lambda: site.upstream.stopped == 1 and site.upstream.running == 0)
        sock.close()
        eventually(lambda: disconnects(site) == 1)


def test_hanging_up_stops_all_prompts_of_the_call(serve: Callable[..., Any], scripts: Any, eventually: Any) -> None:
    with serve(scripts["never_ends"]) as site:
        body = {"model": "tiny/model", "prompt": ["a", "b", "c"]}
        sock = site.send_json("/v1/completions", json.dumps(body).encode())
        eventually(lambda: site.upstream.running == 3)
        sock.close()
        eventually(lambda: site.upstream.stopped == 3 and site.upstream.running == 0)


def test_hanging_up_in_the_middle_of_the_body_begins_nothing(serve: Callable[..., Any], eventually: Any) -> None:
    with serve() as site:
        sock = site.connect()
        sock.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
        )
        sock.close()
        needle = 'inlay_http_requests_total{route="/v1/completions",status="499"} 1.0'
        eventually(lambda: needle in httpx.get(f"{site.url}/metrics").text)
        assert site.upstream.requests == []


def test_others_are_served_while_one_hangs_up(serve: Callable[..., Any], scripts: Any, eventually: Any) -> None:
    with serve(scripts["never_ends"]) as site:
        body = json.dumps(CHAT | {"stream": True}).encode()
        stays, goes = site.send_json("/v1/chat/completions", body), site.send_json("/v1/chat/completions", body)
        eventually(lambda: site.upstream.running == 2)
        goes.close()
        eventually(lambda: site.upstream.stopped == 1)
        assert site.upstream.running == 1
        for _ in range(5):
            assert stays.recv(100)
        stays.close()


def test_a_finished_answer_is_not_a_disconnect(site: Any) -> None:
    for stream in (True, False):
        assert httpx.post(f"{site.url}/v1/chat/completions", json=CHAT | {"stream": stream}).status_code == 200
    assert disconnects(site) == 0
    assert site.upstream.stopped == 0
