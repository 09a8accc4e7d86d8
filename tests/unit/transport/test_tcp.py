"""The door over TCP, plain and inside of TLS: who gets a channel, and that every failure is told instead of waited for."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inlay.errors import DeviceError, InputError, TransferError
from inlay.transport import KV, STAGE, Arrival, Channel, Door, LockedChannel, StreamChannel, Tls
from inlay.transport.address import DEAD_SECONDS, TcpAddress, parse_address
from inlay.transport.door import GREETINGS
from inlay.transport.tls import TlsChannel

KEY = bytes(range(32))
HERE = "tcp://127.0.0.1:0"


@contextlib.contextmanager
def door(path: Path, name: str, **options: Any) -> Iterator[Door]:
    it = Door(path, name=name, **{"key": KEY, "tcp": HERE, **options})
    try:
        yield it
    finally:
        it.close()


def arrival(it: Door, seconds: float = 20.0) -> Arrival:
    ready, _, _ = select.select([it], [], [], seconds)
    assert ready, "nobody came"
    [found] = it.take()
    return found


def address(it: Door) -> str:
    return f"tcp://127.0.0.1:{it.port}"


def close(*found: Arrival) -> None:
    for item in found:
        if item.channel is not None:
            item.channel.close()


@pytest.mark.parametrize("kind", [KV, STAGE])
def test_over_tcp_both_ends_get_a_stream_and_know_name_kind_and_direction(tmp_path, kind) -> None:
    with door(tmp_path / "a", "cpu:0/x") as first, door(tmp_path / "b", "cpu:1/y") as second:
        first.connect("cpu:1/y", address(second), kind=kind)
        out, into = arrival(first), arrival(second)
        assert (out.peer, out.incoming, out.kind) == ("cpu:1/y", False, kind)
        assert (into.peer, into.incoming, into.kind) == ("cpu:0/x", True, kind)
        for end in (out.channel, into.channel):
            assert isinstance(end, StreamChannel) and not isinstance(end, TlsChannel)
            sock: Any = end._socket
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == DEAD_SECONDS * 1000
        exchange(out.channel, into.channel)
        close(out, into)


def exchange(one: Any, other: Any, *, sizes: tuple[int, ...] = (0, 1, 70_000, 3_000_000)) -> None:
    """Frames both ways at once; what is sent is what comes."""
    payloads = [random.Random(size).randbytes(size) for size in sizes]
    came: dict[int, list[tuple[int, bytes, bytes]]] = {0: [], 1: []}
    waiting = {0: list(enumerate(payloads)), 1: list(enumerate(payloads))}
    ends = (one, other)
    for _ in range(100_000):
        for index, end in enumerate(ends):
            while waiting[index] and end.send(waiting[index][0][0], b"head", [waiting[index][0][1]]):
                waiting[index].pop(0)
            while (frame := end.receive()) is not None:
                came[index].append((frame.kind, frame.header, bytes(frame.payload)))
        if all(len(found) == len(sizes) for found in came.values()):
            break
        select.select([one, other], [], [], 0.01)
    assert came[0] == came[1] == [(number, b"head", payload) for number, payload in enumerate(payloads)]


def test_a_refused_connection_an_unknown_host_and_another_key_are_failures_that_say_where(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    with door(tmp_path / "a", "cpu:0/x") as it, door(tmp_path / "b", "cpu:1/y", key=bytes(32)) as stranger:
        for where, reason in ((closed, "refused"), ("tcp://nowhere.invalid:1", "nowhere.invalid"), (address(stranger), "key")):
            it.connect("cpu:1/y", where, kind=KV)
            found = arrival(it)
            assert found.channel is None and found.peer == "cpu:1/y" and reason in found.reason
        assert "key" in arrival(stranger).reason


def test_a_peer_that_accepts_and_says_nothing_ends_with_the_handshakes_deadline(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, door(tmp_path / "a", "x", handshake_seconds=0.2) as it:
        it.connect("cpu:1/y", f"tcp://127.0.0.1:{silent.getsockname()[1]}", kind=KV)
        found = arrival(it)
        assert found.channel is None and "0.2 s" in found.reason


def test_a_peer_that_connects_and_says_nothing_holds_up_nobody_else(tmp_path) -> None:
    with door(tmp_path / "a", "cpu:0/x", handshake_seconds=0.2) as it, door(tmp_path / "b", "cpu:1/y") as other:
        with socket.create_connection(("127.0.0.1", it.port)):
            other.connect("cpu:0/x", address(it), kind=KV)
            found = [arrival(it), arrival(it)]
        out = arrival(other)
        assert {item.channel is None for item in found} == {True, False}
        close(out, *found)


def test_strangers_beyond_the_limit_are_hung_up_on_and_when_they_have_gone_the_next_gets_in(tmp_path) -> None:
    with door(tmp_path / "a", "cpu:0/x") as it, door(tmp_path / "b", "cpu:1/y") as other:
        silent = [socket.create_connection(("127.0.0.1", it.port)) for _ in range(GREETINGS)]
        with socket.create_connection(("127.0.0.1", it.port)) as one_more:
            one_more.settimeout(20)
            assert one_more.recv(1) == b""  # at once, and not after the handshake's deadline
        for sock in silent:
            sock.close()
        for _ in silent:
            assert arrival_of(it).channel is None
        other.connect("cpu:0/x", address(it), kind=KV)
        close(arrival(other), arrival_of(it))


def arrival_of(it: Door) -> Arrival:
    """One of several that may be there."""
    if not WAITING:
        select.select([it], [], [], 20)
        WAITING.extend(it.take())
    return WAITING.pop(0)


WAITING: list[Arrival] = []


def test_a_port_that_is_taken_is_an_error_that_names_it(tmp_path) -> None:
    with door(tmp_path / "a", "x") as it, pytest.raises(DeviceError, match=f"127.0.0.1:{it.port}"):
        Door(tmp_path / "b", name="y", key=KEY, tcp=address(it))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://10.0.0.7:4000", TcpAddress("10.0.0.7", 4000)),
        ("tcp://[::1]:1", TcpAddress("::1", 1)),
        ("tcp://a.b:65535", TcpAddress("a.b", 65535)),
        ("/run/x.sock", Path("/run/x.sock")),
    ],
)
def test_addresses_are_read_and_written_alike(text, expected) -> None:
    assert parse_address(text) == expected and str(expected) == text


@pytest.mark.parametrize("text", ["tcp://", "tcp://host", "tcp://:1", "tcp://host:x", "tcp://host:65536", "tcp://host:-1"])
def test_an_address_spelled_otherwise_is_refused_with_its_value(text) -> None:
    with pytest.raises(InputError, match="expected tcp://HOST:PORT"):
        parse_address(text)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tls]:
    """Two authorities, and under each a certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; it makes the certificates of this test")
    folder = tmp_path_factory.mktemp("certificates")

    def make(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    found = {}
    for name in ("ours", "theirs"):
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        make("req", "-x509", *new, "-keyout", f"{name}-ca.key", "-out", f"{name}-ca.pem", "-subj", f"/CN={name}", "-days", "2")
        make("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=node")
        signed = ["-CA", f"{name}-ca.pem", "-CAkey", f"{name}-ca.key", "-CAcreateserial", "-days", "2"]
        make("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
        paths = {"certificate": f"{name}.pem", "key": f"{name}.key", "authority": f"{name}-ca.pem"}
        found[name] = Tls(**{key: str(folder / value) for key, value in paths.items()})
    return found


def test_inside_of_tls_frames_go_both_ways_and_shared_memory_stays_what_it_is(tmp_path, certificates) -> None:
    tls = certificates["ours"]
    with door(tmp_path / "a", "x", tls=tls) as first, door(tmp_path / "b", "y", tls=tls) as second:
        first.connect("y", address(second), kind=KV)
        out, into = arrival(first), arrival(second)
        assert isinstance(out.channel, TlsChannel) and isinstance(into.channel, TlsChannel)
        exchange(out.channel, into.channel)
        into.channel.close()
        select.select([out.channel], [], [], 20)
        with pytest.raises(TransferError, match="gone"):
            while True:
                assert out.channel.receive() is None
        first.connect("y", tmp_path / "b", kind=KV)
        local, theirs = arrival(first), arrival(second)
        assert not isinstance(local.channel, StreamChannel)
        close(out, local, theirs)


def test_without_a_certificate_of_the_authority_nobody_gets_in(tmp_path, certificates) -> None:
    with door(tmp_path / "a", "x", tls=certificates["ours"]) as it:
        for index, options in enumerate(({"tls": certificates["theirs"]}, {})):
            with door(tmp_path / f"b{index}", "y", handshake_seconds=2.0, **options) as other:
                other.connect("x", address(it), kind=KV)
                assert arrival(other).channel is None and arrival(it).channel is None
    with pytest.raises(InputError, match="cannot be used"):
        Door(tmp_path / "c", name="z", key=KEY, tls=Tls(certificate="no", key="no", authority="no"))


def test_a_locked_channel_bears_a_second_thread_that_sends() -> None:
    left, right = socket.socketpair()
    mine, other = LockedChannel(StreamChannel(left)), StreamChannel(right)
    sent = {1: 0, 2: 0}

    def send(kind: int) -> None:
        while sent[kind] < 300:
            if mine.send(kind, sent[kind].to_bytes(4, "little"), [os.urandom(1) * (1000 * kind)]):
                sent[kind] += 1

    threads = [threading.Thread(target=send, args=(kind,)) for kind in sent]
    for thread in threads:
        thread.start()
    came: dict[int, list[int]] = {1: [], 2: []}
    while sum(map(len, came.values())) < 600:
        select.select([other], [], [], 5)
        while (frame := other.receive()) is not None:
            assert len(frame.payload) == 1000 * frame.kind and len(set(bytes(frame.payload))) == 1
            came[frame.kind].append(int.from_bytes(frame.header, "little"))
        assert mine.receive() is None
    for thread in threads:
        thread.join()
    assert came[1] == came[2] == list(range(300))
    channels: list[Channel] = [mine, other]
    for channel in channels:
        channel.close()
