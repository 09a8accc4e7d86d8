"""What is asked: from the options of a run to the bodies of its requests, each a pure function of seed, level and number."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec

from inlay.client.load.prompts import Prompt, Synthetic, Written, read_prompts
from inlay.client.load.records import Load
from inlay.errors import InputError
from inlay.specs.lengths import Lengths
from inlay.specs.sessions import Session, holds_sessions, read_sessions
from inlay.specs.traces import BLOCK, Arrival, read_trace

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of a run.

    `prompts` is text (random words), ids (random token ids in `ids`, completions only) or the path of a JSONL file.
    Lengths are texts that `Lengths` reads, in tokens; `shared_prefix` tokens come in front, the same within each of
    `prefix_groups`. `extra` is laid over each body, null takes a field out. A trace brings times and lengths of its own:
    lengths times `scale_lengths`, prompts cut so that prompt and answer have at most `most_tokens`.
    """

    endpoint: str = "chat"
    prompts: str = "text"
    prompt_tokens: str = "128"
    output_tokens: str = "64"
    shared_prefix: int = 0
    prefix_groups: int = 1
    ids: tuple[int, int] = (100, 4000)
    seed: int = 0
    ignore_eos: bool = True
    temperature: float | None = None
    request_seed: int | None = None
    continuous_usage: bool = False
    extra: dict[str, Any] = {}
    trace: str | None = None
    scale_lengths: float = 1.0
    most_tokens: int | None = None

    def check(self) -> None:
        """Raises InputError for what contradicts itself."""
        if self.endpoint not in PATHS:
            raise InputError(f"endpoint is {self.endpoint!r}, expected one of {', '.join(PATHS)}", hint="chat is the default")
        if self.prompts == "ids" and self.endpoint == "chat":
            raise InputError("prompts are token ids, which chat does not take", hint="add --endpoint completions")
        if not 0 <= self.ids[0] <= self.ids[1]:
            found = f"the range of token ids is {self.ids[0]}:{self.ids[1]}"
            raise InputError(f"{found}, expected two numbers, the lower first", hint="write for example --ids 100:4000")
        if self.trace is not None and self.prompts not in ("text", "ids"):
            raise InputError("a trace and a file of prompts are given, expected one of them", hint="leave out --prompts")
        if self.shared_prefix < 0 or self.prefix_groups < 1:
            found = f"shared prefix {self.shared_prefix} in {self.prefix_groups} groups"
            raise InputError(f"{found}, expected at least 0 tokens and 1 group", hint="leave both out for none")
        if not 0 < self.scale_lengths < float("inf"):
            raise InputError(f"lengths are scaled by {self.scale_lengths}, expected a number above 0", hint="1 keeps them")


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request before it is sent; `at` seconds after the level begins, None when a stream is free. `think` seconds go
    by before it, after the answer that it follows."""

    prompt: Prompt
    output_tokens: int
    at: float | None = None
    think: float = 0.0


class Asker:
    """Makes the requests of one run for `model`. Reads the prompts or the trace at once. Raises InputError."""

    def __init__(self, workload: Workload, *, model: str, source: Synthetic) -> None:
        workload.check()
        self.workload = workload
        self._model = model
        self._source = source
        self._prompt_tokens = Lengths.parse(workload.prompt_tokens, name="prompt tokens")
        self._output_tokens = Lengths.parse(workload.output_tokens, name="output tokens")
        from_file = workload.prompts not in ("text", "ids")
        chat = workload.endpoint == "chat"
        self.written: tuple[Written, ...] = read_prompts(workload.prompts, chat=chat) if from_file else ()
        in_sessions = workload.trace is not None and holds_sessions(workload.trace)
        self.sessions: tuple[Session, ...] = read_sessions(workload.trace) if workload.trace and in_sessions else ()
        self.trace: tuple[Arrival, ...] = read_trace(workload.trace) if workload.trace and not in_sessions else ()
        self.clipped = 0

    @property
    def path(self) -> str:
        """The endpoint's path under the base URL."""
        return PATHS[self.workload.endpoint]

    def ask(self, name: str, number: int, *, at: float | None = None) -> Ask:
        """Request `number` of the level `name`."""
        rng = random.Random(f"{self.workload.seed}/lengths/{name}/{number}")
        prompt_tokens, output_tokens = self._prompt_tokens.draw(rng), self._output_tokens.draw(rng)
        if self.written:
            line = self.written[number % len(self.written)]
            return Ask(prompt=line.prompt, output_tokens=line.output_tokens or output_tokens, at=at)
        prompt = self._source.prompt(f"{name}/{number}", prompt_tokens, group=number)
        return Ask(prompt=prompt, output_tokens=output_tokens, at=at)

    def asks(self, load: Load) -> Iterator[Ask]:
        """The requests of a level with its own times: without end for `open`, the trace's for `replay`."""
        if load.kind == "replay":
            yield from (self._recorded(number, item, speed=load.value) for number, item in enumerate(self.trace))
            return
        rng = random.Random(f"{self.workload.seed}/arrivals/{load}")
        at, number = 0.0, 0
        while True:
            yield self.ask(str(load), number, at=at)
            number += 1
            at += rng.expovariate(load.value) if load.arrivals == "poisson" else 1 / load.value

    def body(self, ask: Ask) -> bytes:
        """The JSON that is sent."""
        wanted = self.workload
        fields: dict[str, Any] = {"model": self._model}
        if wanted.endpoint == "completions":
            fields["prompt"] = ask.prompt
        elif isinstance(ask.prompt, str):
            fields["messages"] = [{"role": "user", "content": ask.prompt}]
        else:
            fields["messages"] = ask.prompt
        usage: dict[str, Any] = {"include_usage": True}
        if wanted.continuous_usage:
            usage["continuous_usage_stats"] = True
        fields |= {"stream": True, "stream_options": usage, "max_tokens": ask.output_tokens}
        options = {"ignore_eos": wanted.ignore_eos or None, "temperature": wanted.temperature, "seed": wanted.request_seed}
        fields |= {name: value for name, value in options.items() if value is not None}
        fields |= wanted.extra
        return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})

    def session(self, number: int, *, speed: float) -> Iterator[Ask]:
        """The turns of session `number`, those of the file over and over; thinking takes `1 / speed` of its time."""
        found = self.sessions[number % len(self.sessions)]
        scope = found.name if number < len(self.sessions) else f"{found.name}/{number // len(self.sessions)}"
        for place, turn in enumerate(found.turns):
            prompt, output = self._fitted(turn.prompt_tokens, turn.output_tokens)
            if turn.ranges:
                scale = self.workload.scale_lengths
                made = self._source.of_blocks(turn.blocks, prompt, block=found.block, scale=scale, scope=scope)
            else:
                made = self._source.prompt(f"session/{scope}/{place}", prompt, group=number)
            yield Ask(prompt=made, output_tokens=output, think=turn.think / speed)

    def _recorded(self, number: int, item: Arrival, *, speed: float) -> Ask:
        prompt, output = self._fitted(item.prompt_tokens, item.output_tokens)
        if item.blocks:
            made = self._source.of_blocks(item.blocks, prompt, block=BLOCK, scale=self.workload.scale_lengths)
        else:
            made = self._source.prompt(f"trace/{number}", prompt, group=number)
        return Ask(prompt=made, output_tokens=output, at=item.at / speed)

    def _fitted(self, prompt: int, output: int) -> tuple[int, int]:
        """Recorded lengths, scaled, and cut where both together exceed what may be sent."""
        scale, most = self.workload.scale_lengths, self.workload.most_tokens
        prompt, output = max(1, round(prompt * scale)), max(1, round(output * scale))
        if most is None or prompt + output <= most:
            return prompt, output
        self.clipped += 1
        output = min(output, max(1, most // 2))
        return max(1, min(prompt, most - output)), output
