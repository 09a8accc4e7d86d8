"""A real HTTP server whose answers are scripts with planted delays on a clock that only the scripts move."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from inlay.client.load import Bench, Load, Plan, Target, Workload

Step = tuple[float, bytes]
"""Seconds that pass on the clock, then bytes that are sent and read before anything else happens."""
Progress = Callable[[str], None]
Script = Callable[[dict[str, Any]], Sequence[Step]]
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


class PlantedClock:
    """Stands still until it is moved; counts how often it was read."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now

    async def sleep(self, seconds: float) -> None:
        """What a wait does to it, after what was begun before has had its turn."""
        await asyncio.sleep(0)
        self.now += seconds


def coded(data: bytes) -> bytes:
    """In HTTP's chunked coding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(value: Any) -> bytes:
    """One server-sent event in chunked coding."""
    return coded(b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n")


def text(words: str, *, finish: str | None = None, usage: dict[str, Any] | None = None) -> bytes:
    """A completions chunk."""
    chunk: dict[str, Any] = {"choices": [{"index": 0, "text": words, "finish_reason": finish}]}
    return event(chunk if usage is None else chunk | {"usage": usage})


def counted(prompt: int, output: int, **details: Any) -> bytes:
    """The last chunk with the usage, and [DONE]."""
    usage = {"prompt_tokens": prompt, "completion_tokens": output, **details}
    return event({"choices": [], "usage": usage}) + event(b"[DONE]") + LAST


def plain(status: int, body: bytes, *, kind: str = "application/json") -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (status, kind.encode(), len(body), body)


def three_words(body: dict[str, Any]) -> Sequence[Step]:
    """The answer to anything: three pieces at once, four tokens by the server's count."""
    return [(0.0, STREAM + text("a") + text("b") + text("c", finish="length") + counted(7, 4))]


class LoadWorld:
    """What the server saw: `bodies` of the streamed requests, the most that were `open` at once, `paths` of all."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.clock = PlantedClock()
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.metrics = ""
        self.models = plain(200, b'{"data": [{"id": "tiny", "max_model_len": 100}]}')
        self.hang_up_after_step: int | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split("\r\n")[0].split(" ")
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                raw = await reader.readexactly(int(fields.get("content-length", 0)))
                self.paths.append(path)
                self.headers.append(fields)
                if method == "GET":
                    answers = {"/v1/models": self.models, "/metrics": plain(200, self.metrics.encode(), kind="text/plain")}
                    writer.write(answers.get(path, plain(404, b"{}")))
                elif not await self.answer(json.loads(raw), writer):
                    break
        writer.close()

    async def answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Play the script; False when the connection is to be closed."""
        self.bodies.append(body)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            for number, (seconds, piece) in enumerate(self.script(body)):
                self.clock.now += seconds
                before = self.clock.reads
                writer.write(piece)
                while self.clock.reads == before and not writer.is_closing():
                    await asyncio.sleep(0)
                if number == self.hang_up_after_step:
                    return False
        finally:
            self.open -= 1
        return True

    def target(self, **options: Any) -> Target:
        """A client of it."""
        return Target(self.url, **({"key": None, "seconds": 20.0, "clock": self.clock} | options))

    async def stream(self) -> Any:
        """One request, as it is recorded."""
        target = self.target()
        sent = self.clock.now
        answer = await target.stream("/v1/completions", b'{"prompt": "x"}')
        target.close()
        return answer.record(index=0, planned=None, sent=sent, finished=self.clock.now, zero=1000.0)

    def bench(
        self, *loads: Load, workload: Workload | None = None, progress: Progress = lambda text: None, **plan: Any
    ) -> Bench:
        """A run against it, on its clock."""
        wanted = Workload(endpoint="completions", prompts="ids", prompt_tokens="8", output_tokens="4")
        return Bench(
            self.target(),
            workload or wanted,
            Plan(loads=loads, **({"warmup": 0} | plan)),
            clock=self.clock,
            sleep=self.clock.sleep,
            cpu_clock=lambda: 0.0,
            progress=progress,
        )


@asynccontextmanager
async def world(script: Script = three_words) -> AsyncIterator[LoadWorld]:
    """A server on a free port, in this event loop, until the block ends."""
    made = LoadWorld(script)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
