"""Requests of an open loop in three shapes, as disaggregation.py sends them: the same for whoever has the turn. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

VOCABULARY = range(3, 4096)
SESSIONS = 6
STEM = (96, 192)
"""Tokens that an agent's session begins with; it begins anew where it would outgrow the model."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: seconds after the turn begins, prompt, length of the answer."""

    at: float
    prompt: tuple[int, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class Shape:
    """Prompts of random ids and answers, lengths drawn evenly within bounds. With `sessions` a prompt is what one of so many
    agents has said so far and `prompt` new tokens; every fifth answer is then of `long` tokens."""

    name: str
    prompt: tuple[int, int]
    answer: tuple[int, int]
    sessions: int = 0
    long: tuple[int, int] = (0, 0)

    def requests(self, seed: str, *, longest: int) -> Iterator[tuple[tuple[int, ...], int]]:
        """Prompts with the lengths of their answers, together at most `longest`; without end."""
        rng = random.Random(f"{seed} {self.name}")
        histories: list[list[int]] = [[] for _ in range(self.sessions)]
        while True:
            answer = rng.randint(*(self.long if self.sessions and rng.random() < 0.2 else self.answer))
            added = rng.choices(VOCABULARY, k=rng.randint(*self.prompt))
            if not self.sessions:
                yield tuple(added), answer
                continue
            history = rng.choice(histories)
            if not history or len(history) + len(added) + answer > longest:
                history[:] = rng.choices(VOCABULARY, k=rng.randint(*STEM))
            history += added
            yield tuple(history), answer

    def arrivals(self, rate: float, count: int, *, seed: str, longest: int) -> list[Asked]:
        """`count` requests of a Poisson process, `rate` a second. Of one seed the requests are the same at every rate, and
        the gaps too but for their scale."""
        rng, at, found = random.Random(f"{seed} {self.name} gaps"), 0.0, []
        for prompt, answer in self.requests(seed, longest=longest):
            if len(found) == count:
                return found
            at += rng.expovariate(1.0) / rate
            found.append(Asked(at, prompt, answer))
        return found


SHAPES = (
    Shape("long prompts, short answers", (256, 704), (8, 24)),
    Shape("short prompts, long answers", (16, 64), (64, 160)),
    Shape("agents", (24, 120), (8, 40), sessions=SESSIONS, long=(80, 128)),
)
