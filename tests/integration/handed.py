"""Asks for tokens with their best log-probabilities, and says how far two answers to one prompt are from each other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from inlay.client import EngineClient
from inlay.orchestrator import Running
from inlay.specs.generation import Delta, Failed, Generate, GenerationParameters, Placement


@dataclass(frozen=True)
class Answer:
    """One greedy continuation: its tokens, and after each of them the log-probabilities of the best by token."""

    tokens: tuple[int, ...]
    best: tuple[dict[int, float], ...]


@dataclass(frozen=True)
class Distance:
    """Two answers to one prompt: the largest difference of a log-probability while their tokens are the same, and the
    margin of the first answer where they part (None = they do not)."""

    largest: float
    parted: float | None


def answers(
    it: Running, jobs: Sequence[tuple[tuple[int, ...], Placement]], *, new_tokens: int, top: int = 5, at_once: int = 8
) -> list[Answer]:
    """Greedy continuations of all jobs, several at a time, in the order of the jobs."""
    parameters = GenerationParameters(max_tokens=new_tokens, temperature=0.0, ignore_eos=True, logprobs=top)

    async def work() -> list[Answer]:
        gate = asyncio.Semaphore(at_once)
        async with EngineClient(it.engine_socket, key=it.key, silence_seconds=120.0) as client:

            async def job(prompt: tuple[int, ...], placement: Placement) -> Answer:
                tokens: list[int] = []
                best: list[dict[int, float]] = []
                async with gate:
                    wanted = Generate(call=0, tokens=prompt, parameters=parameters, placement=placement)
                    async for event in client.generate(wanted):
                        if isinstance(event, Failed):
                            raise AssertionError(f"request failed: {event.code}: {event.message}")
                        if isinstance(event, Delta):
                            tokens += event.tokens
                            best += [{token: value for token, _, value in tops} for _, _, _, tops in event.logprobs]
                return Answer(tuple(tokens), tuple(best))

            return list(await asyncio.gather(*(job(*item) for item in jobs)))

    return asyncio.run(work())


def distance(one: Answer, other: Answer) -> Distance:
    """Compared step by step; after the tokens part the contexts differ and nothing more is compared."""
    largest = 0.0
    steps = zip(one.tokens, other.tokens, one.best, other.best, strict=True)
    for mine, theirs, my_best, their_best in steps:
        common = my_best.keys() & their_best.keys()
        largest = max([largest, *(abs(my_best[token] - their_best[token]) for token in common)])
        if mine != theirs:
            first, second, *_ = sorted(my_best.values(), reverse=True)
            return Distance(largest, first - second)
    return Distance(largest, None)
