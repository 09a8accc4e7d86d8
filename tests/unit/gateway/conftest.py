"""A scripted upstream and a real HTTP server around it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from inlay.errors import RequestError
from inlay.gateway import Event, Limits, Upstream, make_app, run_http
from inlay.specs.generation import Delta, Description, Failed, Finished, Generate, Started

Script = Callable[[Generate], AsyncGenerator[Event, None]]
WORDS = ("one", " two", " three")


async def count_to_three(request: Generate) -> AsyncGenerator[Event, None]:
    """Each choice says one, two, three; with echo the prompt comes first."""
    yield Started(call=0, prompt_tokens=4, prefill="a:0/x", decode="b:0/y")
    rows = request.parameters.logprobs >= 0
    for index in range(request.parameters.n):
        if request.parameters.echo:
            yield Delta(call=0, index=index, text=str(request.text))
        for i, word in enumerate(WORDS):
            row = ([i, word, -0.5, [[i, word, -0.5]]],) if rows else ()
            yield Delta(call=0, index=index, text=word, tokens=(i,), logprobs=row)
        yield Delta(call=0, index=index, text="", finish_reason="stop")
    tokens = 3 * request.parameters.n
    yield Finished(call=0, prompt_tokens=4, completion_tokens=tokens, cached_tokens=1, timing={"ttft": 0.5})


async def never_ends(request: Generate) -> AsyncGenerator[Event, None]:
    """One token every 10 ms, for ever."""
    yield Started(call=0, prompt_tokens=4, prefill="a:0/x", decode="b:0/y")
    while True:
        yield Delta(call=0, index=0, text="x", tokens=(1,))
        await asyncio.sleep(0.01)


async def stays_silent(request: Generate) -> AsyncGenerator[Event, None]:
    """Admitted, then nothing, for ever."""
    yield Started(call=0, prompt_tokens=4, prefill="a:0/x", decode="b:0/y")
    await asyncio.sleep(3600)


async def is_queued(request: Generate) -> AsyncGenerator[Event, None]:
    """Not even admitted."""
    await asyncio.sleep(3600)
    yield Started(call=0, prompt_tokens=4, prefill="a:0/x", decode="b:0/y")


class ScriptedUpstream:
    """Plays a script for every generation and keeps what it was asked; `stopped` counts those closed before their end."""

    def __init__(self, script: Script = count_to_three) -> None:
        self.script = script
        self.requests: list[Generate] = []
        self.stopped = 0
        self.running = 0
        self.lost: RequestError | None = None
        self.reason = ""

    async def describe(self) -> Description:
        if self.lost is not None:
            raise self.lost
        facts = {"tokenizer_class": "Tiny", "eos_token": "</s>"}
        return Description(
            call=0, model="tiny/model", context=2048, created=5, ready=True, reason="", runners=(), tokenizer=facts
        )

    async def generate(self, request: Generate) -> AsyncGenerator[Event, None]:
        self.requests.append(request)
        self.running += 1
        ended = False
        try:
            async for event in self.script(request):
                ended = isinstance(event, (Finished, Failed))
                yield event
            ended = True
        finally:
            self.running -= 1
            self.stopped += not ended

    async def tokenize(
        self, *, text: str | None = None, messages: tuple[dict[str, Any], ...] | None = None, add_special: bool = True
    ) -> tuple[int, ...]:
        if text == "bos":
            return (0, 98) if add_special else (98,)
        if messages is not None:
            text = "".join(str(message["content"]) for message in messages)
        return tuple((text or "").encode())

    async def detokenize(self, tokens: Sequence[int]) -> str:
        if max(tokens) > 255:
            raise RequestError(f"token {max(tokens)} is out of range, expected at most 255", param="tokens")
        return bytes(tokens).decode()

    async def ready(self) -> tuple[bool, str]:
        return not self.reason, self.reason

    async def meters(self) -> str:
        if self.lost is not None:
            raise self.lost
        return "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 2.0\n"


class Site:
    """A running gateway."""

    def __init__(self, upstream: ScriptedUpstream, port: int) -> None:
        self.upstream = upstream
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def connect(self) -> socket.socket:
        """A raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def send_json(self, path: str, body: bytes) -> socket.socket:
        """A raw connection on which a POST has been sent."""
        sock = self.connect()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        return sock


@contextmanager
def running_site(upstream: ScriptedUpstream, **options: Any) -> Iterator[Site]:
    """Serve on a free port until the block ends; a fault of the server's thread is raised here."""
    bound: list[int] = []
    ready = threading.Event()
    faults: list[BaseException] = []
    stops: list[Callable[[], Any]] = []
    seam: Upstream = upstream

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))

        def on_bound(host: str, port: int) -> None:
            bound.append(port)
            ready.set()

        await run_http(make_app(seam, **options), on_bound=on_bound, stop=stop, grace_seconds=1)

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - thread edge: raised again by the test
            faults.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(20)
    try:
        if faults:
            raise faults[0]
        yield Site(upstream, bound[0])
    finally:
        for stop in stops:
            stop()
        thread.join(20)
    assert not thread.is_alive()
    assert not faults


@pytest.fixture
def site() -> Iterator[Site]:
    """A gateway over an upstream that counts to three."""
    with running_site(ScriptedUpstream()) as made:
        yield made


@pytest.fixture
def serve() -> Callable[..., Any]:
    """`with serve(script, **options of make_app) as site:`."""

    def start(script: Script = count_to_three, **options: Any) -> Any:
        return running_site(ScriptedUpstream(script), **options)

    return start


@pytest.fixture
def scripts() -> dict[str, Script]:
    """The scripts of this page by name."""
    return {script.__name__: script for script in (count_to_three, never_ends, stays_silent, is_queued)}


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits up to five seconds until something is true."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < deadline, "it never became true"
            time.sleep(0.01)

    return wait


@pytest.fixture
def quick_limits() -> Limits:
    """Limits with a short ping."""
    return Limits(ping_seconds=0.1, body_bytes=10_000, body_seconds=0.3, prompts=4)
