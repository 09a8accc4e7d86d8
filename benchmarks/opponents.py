"""Who races in peers.py: our engine with one device, and engines of others in a child process. All stay up between turns."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from inlay import api
from inlay.client import EngineClient
from inlay.hardware import parse_cluster
from inlay.models import read_model
from inlay.orchestrator import Running
from inlay.specs.deployment import deployment_from_roles
from inlay.specs.generation import Delta, Failed, Generate, GenerationParameters

SLOTS = 16
CHUNK = 512
CONTEXT = 1024
SILENCE_SECONDS = 600.0
NAMES = {"hugging-face": "Hugging Face", "llama.cpp": "llama.cpp", "genai": "GenAI"}
Prompts = Sequence[tuple[int, ...]]
Told = list[tuple[int, float] | None]


class Opponent(Protocol):
    """One row of the table."""

    name: str
    version: str

    async def take_turn(self, prompts: Prompts, new_tokens: int) -> tuple[float, float]:
        """All prompts at once, greedy: seconds to the first token (median of the streams) and to the last of all."""

    async def probe(self, prefixes: Prompts) -> Told:
        """The greedy next token of each prefix with its log-probability; None where it does not tell."""

    def processes(self) -> list[int]:
        """Ids of its processes."""

    async def close(self) -> None:
        """End them."""


class ServedContestant:
    """A deployment of one device on the given cores, every process of it on them; times are the client's."""

    def __init__(self, name: str, running: Running) -> None:
        self.name, self.version, self._running = name, metadata.version("inlay"), running
        self._client = EngineClient(running.engine_socket, key=running.key, name="bench", silence_seconds=SILENCE_SECONDS)

    @classmethod
    def start(cls, model: Path, backend: str, precision: str, *, runner: str, cores: Sequence[int]) -> ServedContestant:
        """Both roles at one place."""
        devices = {"cpu:0": {"node": "local", "cores": list(cores)}}
        cluster = parse_cluster({"nodes": {"local": {}}, "devices": devices}, source="peers.py")
        wanted = deployment_from_roles(
            str(model),
            cluster,
            [f"prefill,decode=cpu:0/{backend}:{precision}:{runner}"],
            context=CONTEXT,
            slots=SLOTS,
            chunk=CHUNK,
            depth=read_model(model).layers,
        )
        running = api.start(wanted)
        for pid in [worker.pid for worker in running.workers.values()]:
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), cores)
        return cls(f"inlay {backend} {runner} {precision}", running)

    async def take_turn(self, prompts: Prompts, new_tokens: int) -> tuple[float, float]:
        """See Opponent."""
        begin = time.perf_counter()
        answers = await asyncio.gather(*(self._ask(prompt, new_tokens) for prompt in prompts))
        firsts = sorted(first - begin for first, _, _ in answers)
        if any(len(tokens) != new_tokens for _, _, tokens in answers):
            raise RuntimeError(f"{self.name} gave {[len(item[2]) for item in answers]} tokens, expected {new_tokens} each")
        return firsts[len(firsts) // 2], max(last for _, last, _ in answers) - begin

    async def probe(self, prefixes: Prompts) -> Told:
        """See Opponent."""
        found: Told = []
        for prefix in prefixes:
            _, _, tokens = await self._ask(prefix, 1, logprobs=0)
            found.append(tokens[0])
        return found

    def processes(self) -> list[int]:
        """See Opponent."""
        return [worker.pid for worker in self._running.workers.values()]

    def engine(self) -> int:
        """Id of the process that schedules."""
        return self._running.workers["engine"].pid

    async def busy(self) -> float:
        """Seconds that its device has spent in batches."""
        lines = (await self._client.meters()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("inlay_device_busy_seconds{"))

    async def close(self) -> None:
        """See Opponent."""
        await self._client.aclose()
        await asyncio.to_thread(self._running.stop)

    async def _ask(self, prompt: tuple[int, ...], new_tokens: int, logprobs: int = -1) -> tuple[float, float, list[Any]]:
        """When the first and the last token came, and the tokens, with log-probabilities where asked for."""
        parameters = GenerationParameters(
            max_tokens=new_tokens, temperature=0.0, ignore_eos=True, logprobs=logprobs, speculation="off"
        )
        tokens: list[Any] = []
        first = last = 0.0
        async for event in self._client.generate(Generate(call=0, tokens=prompt, parameters=parameters)):
            if isinstance(event, Delta) and event.tokens:
                last = time.perf_counter()
                first = first or last
                tokens += event.tokens if logprobs < 0 else [(int(item[0]), float(item[2])) for item in event.logprobs]
            elif isinstance(event, Failed):
                raise RuntimeError(f"{self.name}: {event.code}: {event.message}")
        return first, last, tokens


class PeerContestant:
    """Another engine, in a child process with a Python of its own."""

    def __init__(self, python: Path, kind: str, model: Path, precision: str, *, cores: Sequence[int]) -> None:
        self.name = f"{NAMES[kind]} {precision}"
        program = str(Path(__file__).with_name("rivals.py"))
        command = [str(python), program, kind, str(model), "--context", str(CONTEXT), "--cores", *map(str, cores)]
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        child = {**inherited, "OMP_NUM_THREADS": str(len(cores)), "HF_HUB_OFFLINE": "1"}
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=child
        )
        self.version = str(self._read()["version"])

    async def take_turn(self, prompts: Prompts, new_tokens: int) -> tuple[float, float]:
        """See Opponent."""
        found = await self._ask({"prompts": prompts, "new_tokens": new_tokens})
        return float(found["first"]), float(found["last"])

    async def probe(self, prefixes: Prompts) -> Told:
        """See Opponent."""
        return [None if item is None else (item[0], item[1]) for item in await self._ask({"probe": prefixes})]

    def processes(self) -> list[int]:
        """See Opponent."""
        return [self._child.pid]

    async def close(self) -> None:
        """See Opponent."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        await asyncio.to_thread(self._child.wait)

    async def _ask(self, asked: dict[str, Any]) -> Any:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(asked) + "\n")
        self._child.stdin.flush()
        return await asyncio.to_thread(self._read)

    def _read(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._child.wait()}")
        return json.loads(line)


def gguf_file(python: Path, folder: Path, file: Path, kind: str) -> Path:
    """The model in GGUF, written where it is not there yet."""
    if not file.exists():
        program = str(Path(__file__).with_name("gguf_file.py"))
        subprocess.run([str(python), program, str(folder), str(file), "--type", kind], check=True, stderr=subprocess.DEVNULL)
    return file
