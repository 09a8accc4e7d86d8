"""Both ends prove the key, or nobody gets a frame through."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from inlay.errors import TransferError
from inlay.transport import StreamChannel, accept, create_key, offer, shake_hands, shake_hands_async
from inlay.transport.handshake import _HELLO, _MAGIC, Peer

KEY = bytes(range(32))


def both(left: dict[str, Any], right: dict[str, Any]) -> tuple[Peer | TransferError, Peer | TransferError]:
    """What each end of one socket pair gets; `left` connects."""
    sockets = socket.socketpair()
    results: list[Any] = [None, None]

    def run(index: int, arguments: dict[str, Any]) -> None:
        try:
            defaults = {"key": KEY, "name": f"end {index}", "connects": index == 0}
            results[index] = shake_hands(sockets[index], **(defaults | arguments))
        except TransferError as error:
            results[index] = error

    thread = threading.Thread(target=run, args=(1, right))
    thread.start()
    run(0, left)
    thread.join()
    for sock in sockets:
        sock.close()
    return results[0], results[1]


def talk_to(*answers: bytes, connects: bool = True, seconds: float = 5.0) -> TransferError:
    """The error of an end whose peer sends these bytes and then hangs up."""
    left, right = socket.socketpair()
    for answer in answers:
        right.sendall(answer)
    right.shutdown(socket.SHUT_WR)
    with pytest.raises(TransferError) as caught:
        shake_hands(left, key=KEY, name="honest", connects=connects, seconds=seconds)
    assert left.fileno() == -1, "a refused socket must be closed"
    right.close()
    return caught.value


def test_two_ends_with_the_key_learn_each_others_name_and_share_a_session() -> None:
    left, right = both({"name": "engine"}, {"name": "cpu:0/openvino"})
    assert isinstance(left, Peer) and isinstance(right, Peer)
    assert (left.name, right.name) == ("cpu:0/openvino", "engine")
    assert left.session == right.session
    assert left.session.hex() not in repr(left)
    again, _ = both({"name": "engine"}, {"name": "cpu:0/openvino"})
    assert isinstance(again, Peer)
    assert again.session != left.session


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_wrong_key_is_refused_at_both_ends(wrong: int) -> None:
    arguments: list[dict[str, Any]] = [{}, {}]
    arguments[wrong] = {"key": create_key()}
    for result in both(*arguments):
        assert isinstance(result, TransferError)
        assert result.cause == "key"


def test_a_key_of_the_wrong_length_is_refused() -> None:
    left, right = both({"key": b"short"}, {})
    assert isinstance(left, TransferError) and left.cause == "key"
    assert isinstance(right, TransferError) and right.cause == "closed"


def test_a_proof_that_is_reflected_is_refused() -> None:
    """An impostor answers with what it was sent: the same nonce and name, then whatever it can copy."""
    left, right = socket.socketpair()
    caught: list[TransferError] = []

    def honest() -> None:
        try:
            shake_hands(left, key=KEY, name="honest", connects=False)
        except TransferError as error:
            caught.append(error)

    thread = threading.Thread(target=honest)
    hello = _HELLO.pack(_MAGIC, 1, 6, bytes(32)) + b"honest"
    right.sendall(hello)
    thread.start()
    answer = b""
    while len(answer) < len(hello) + 32:
        answer += right.recv(1000)
    right.sendall(answer[len(hello) :])
    thread.join()
    assert caught[0].cause == "key"
    right.close()


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "closed"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\n\r\n", "magic"),
        (_HELLO.pack(_MAGIC, 2, 1, bytes(32)) + b"x", "version"),
        (_HELLO.pack(_MAGIC, 1, 0, bytes(32)), "size"),
        (_HELLO.pack(_MAGIC, 1, 60000, bytes(32)), "size"),
        (_HELLO.pack(_MAGIC, 1, 5, bytes(32)) + b"x", "closed"),
        (_HELLO.pack(_MAGIC, 1, 1, bytes(32)) + b"x" + bytes(32), "key"),
        (_HELLO.pack(_MAGIC, 1, 1, bytes(32)) + b"x", "key"),
    ],
)
@pytest.mark.parametrize("connects", [True, False])
def test_a_stranger_is_refused_with_the_cause(data: bytes, cause: str, connects: bool) -> None:
    assert talk_to(data, connects=connects).cause == cause


@pytest.mark.parametrize("trickle", [b"", b"I"])
def test_a_silent_peer_runs_into_the_deadline(trickle: bytes) -> None:
    left, right = socket.socketpair()
    right.sendall(trickle)
    with pytest.raises(TransferError) as caught:
        shake_hands(left, key=KEY, name="honest", connects=False, seconds=0.02)
    assert caught.value.cause == "deadline"
    right.close()


def test_frames_and_descriptors_follow_the_handshake_untouched() -> None:
    left, right = socket.socketpair()
    made: list[Any] = []

    def device() -> None:
        shake_hands(right, key=KEY, name="device", connects=False)
        made.append(accept(right))

    thread = threading.Thread(target=device)
    thread.start()
    shake_hands(left, key=KEY, name="engine", connects=True)
    channel = offer(left, 4096)
    channel.send(1, b"first")
    thread.join()
    frame = made[0].receive()
    assert frame.header == b"first"
    channel.close()
    made[0].close()


@pytest.mark.parametrize("key", [KEY, create_key()], ids=["fixed", "fresh"])
def test_the_asyncio_end_speaks_with_the_blocking_end(key: bytes) -> None:
    async def engine(sock: socket.socket) -> Peer:
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        try:
            return await shake_hands_async(reader, writer, key=key, name="engine", connects=False)
        finally:
            writer.close()
            await writer.wait_closed()

    left, right = socket.socketpair()
    results: list[Any] = []

    def device() -> None:
        try:
            results.append(shake_hands(right, key=KEY, name="device", connects=True))
        except TransferError as error:
            results.append(error)

    thread = threading.Thread(target=device)
    thread.start()
    if key == KEY:
        assert asyncio.run(engine(left)).name == "device"
    else:
        with pytest.raises(TransferError) as caught:
            asyncio.run(engine(left))
        assert caught.value.cause == "key"
    thread.join()
    right.close()
    assert isinstance(results[0], Peer) == (key == KEY)


def test_the_asyncio_end_has_a_deadline() -> None:
    async def engine(sock: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        try:
            await shake_hands_async(reader, writer, key=KEY, name="engine", connects=False, seconds=0.02)
        finally:
            await writer.wait_closed()

    left, right = socket.socketpair()
    with pytest.raises(TransferError) as caught:
        asyncio.run(engine(left))
    assert caught.value.cause == "deadline"
    right.close()


def test_a_socket_is_usable_as_a_channel_afterwards() -> None:
    left, right = socket.socketpair()
    thread = threading.Thread(target=shake_hands, args=(right,), kwargs={"key": KEY, "name": "b", "connects": False})
    thread.start()
    shake_hands(left, key=KEY, name="a", connects=True)
    thread.join()
    a, b = StreamChannel(left), StreamChannel(right)
    assert a.send(1, b"x")
    frame = b.receive()
    assert frame is not None and frame.header == b"x"
    a.close()
    b.close()
