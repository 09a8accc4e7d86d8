"""Who races in serving.py: deployments of the engine, and Hugging Face in a child process. All stay up between turns."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from inlay import api
from inlay.client import EngineClient
from inlay.orchestrator import Running
from inlay.specs.generation import Delta, Failed, Generate, GenerationParameters

SILENCE_SECONDS = 300.0
Prompts = Sequence[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: seconds from asking to the first token (median of the streams) and to the last of all, and tokens.

    `busy` is the devices' own count of seconds in batches, 0 where nobody counts.
    """

    first: float
    last: float
    tokens: tuple[tuple[int, ...], ...]
    busy: float

    @property
    def rate(self) -> float:
        """New tokens a second over the whole turn, prompts included."""
        return sum(len(stream) for stream in self.tokens) / self.last


class Contestant(Protocol):
    """One row of the table. `rival` names the row it is compared with; `cores` is what it may compute on."""

    name: str
    rival: str
    cores: int

    async def take_turn(self, prompts: Prompts, new_tokens: int) -> Turn:
        """All prompts at once, greedy, exactly `new_tokens` each."""

    def processes(self) -> list[int]:
        """Ids of its processes."""

    async def close(self) -> None:
        """End them."""


class EngineContestant:
    """A deployment, asked through the engine's own protocol; times are the client's."""

    def __init__(self, name: str, running: Running, *, rival: str, cores: int) -> None:
        self.name, self.rival, self.cores = name, rival, cores
        self._running = running
        self._client = EngineClient(running.engine_socket, key=running.key, name="bench", silence_seconds=SILENCE_SECONDS)

    @classmethod
    def start(cls, model: Path, places: Sequence[str], *, rival: str, cores: int, event_log: Path | None = None) -> Any:
        """One place serves both roles; of two, the first computes prompts and the second tokens."""
        roles = [f"prefill,decode={places[0]}"] if len(places) == 1 else [f"prefill={places[0]}", f"decode={places[1]}"]
        running = api.start(api.deployment(model, roles=roles), event_log=event_log)
        return cls("inlay " + " → ".join(place.partition("/")[2] for place in places), running, rival=rival, cores=cores)

    async def take_turn(self, prompts: Prompts, new_tokens: int) -> Turn:
        """See Contestant."""
        busy = await self._busy()
        begin = time.perf_counter()
        answers = await asyncio.gather(*(self._stream(prompt, new_tokens) for prompt in prompts))
        firsts = sorted(first - begin for first, _, _ in answers)
        last = max(last for _, last, _ in answers) - begin
        return Turn(firsts[len(firsts) // 2], last, tuple(tokens for _, _, tokens in answers), await self._busy() - busy)

    def processes(self) -> list[int]:
        """See Contestant."""
        return [worker.pid for worker in self._running.workers.values()]

    async def close(self) -> None:
        """See Contestant."""
        await self._client.aclose()
        await asyncio.to_thread(self._running.stop)

    async def _stream(self, prompt: tuple[int, ...], new_tokens: int) -> tuple[float, float, tuple[int, ...]]:
        parameters = GenerationParameters(max_tokens=new_tokens, temperature=0.0, ignore_eos=True)
        tokens: list[int] = []
        first = last = 0.0
        async for event in self._client.generate(Generate(call=0, tokens=prompt, parameters=parameters)):
            if isinstance(event, Delta) and event.tokens:
                last = time.perf_counter()
                first = first or last
                tokens += event.tokens
            elif isinstance(event, Failed):
                raise RuntimeError(f"{self.name}: {event.code}: {event.message}")
        return first, last, tuple(tokens)

    async def _busy(self) -> float:
        lines = (await self._client.meters()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("inlay_device_busy_seconds{"))


class HuggingFaceContestant:
    """`generate` in a pinned child; several streams are one batch of equal lengths, which is the best case for it."""

    def __init__(self, model: Path, *, cores: Sequence[int]) -> None:
        self.name = hugging_face_name(len(cores))
        self.rival, self.cores = self.name, len(cores)
        program = str(Path(__file__).with_name("hugging_face.py"))
        command = [sys.executable, program, str(model), "--cores", *map(str, cores)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(len(cores)), "HF_HUB_OFFLINE": "1"}
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self._read()

    async def take_turn(self, prompts: Prompts, new_tokens: int) -> Turn:
        """See Contestant."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"prompts": prompts, "new_tokens": new_tokens}) + "\n")
        self._child.stdin.flush()
        found = await asyncio.to_thread(self._read)
        return Turn(found["first"], found["last"], tuple(tuple(stream) for stream in found["tokens"]), 0.0)

    def processes(self) -> list[int]:
        """See Contestant."""
        return [self._child.pid]

    async def close(self) -> None:
        """See Contestant."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        await asyncio.to_thread(self._child.wait)

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._child.wait()}")
        return dict(json.loads(line))


def hugging_face_name(threads: int) -> str:
    """The name of the row."""
    return f"Hugging Face, {threads} thread{'s' if threads > 1 else ''}"
