"""Grammars and penalties wherever the target is sampled, drafts included: the real engine loop, scheduler, guidance and sampler
over make-believe models, with wrong drafts, cancellations and preemptions; the text is that of plain decoding."""

from __future__ import annotations

import random
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scheduler"))
import scheduler_world
from scheduler_world import World

import inlay.engine.loop
from inlay.engine.grammar import GrammarCompiler
from inlay.engine.guidance import Guide
from inlay.engine.loop import EngineLoop
from inlay.engine.verifying import verify
from inlay.models import read_tokenizer
from inlay.scheduler import new_state
from inlay.specs.choice import Drafted
from inlay.specs.device import Row
from inlay.specs.generation import Constraint
from inlay.specs.sampling import SampledToken, Sampling
from inlay.specs.schedule import Arrived, Cancelled, Event, Placed, RunnerFacts, SchedulerSetup, SequenceRequest
from inlay.specs.speculation import ENUMERATED, FREE, NGRAM, OFF, SYNCHRONOUS, SpeculationSetup

pytest.importorskip("llguidance")
VOCABULARY, ENDS = 4096, (1, 2)
TOKENIZER = read_tokenizer(Path(__file__).parents[3] / "demo" / "target")
COMPILER = GrammarCompiler(TOKENIZER, vocabulary=VOCABULARY, ends=ENDS)
PATTERNS = (r'\{"[a-z]{1,8}": ([0-9]{1,3}|true)\}', r"([a-z]{1,5} ){2,6}[0-9]", r"ab*(cd|ef){1,4}")


def logits_after(content: list[int]) -> np.ndarray:
    """The make-believe target: depends on every token; likes a few tokens, so that penalties have work."""
    seed = 0
    for token in content:
        seed = (seed * 31 + token + 1) % 1000003
    found = np.random.default_rng(seed).normal(size=VOCABULARY).astype("f4")
    found[60:130] += 4
    return found


def verdict(content: list[int], row: Row) -> tuple[SampledToken, ...]:
    """The device's own way from logits to tokens, with what the row carries."""
    assert row.sample is not None
    starts = range(len(content) - row.drafts, len(content) + 1)
    return verify(row, np.stack([logits_after(content[:end]) for end in starts]), row.sample)


@dataclass(frozen=True)
class Asked:
    prompt: tuple[int, ...]
    sampling: Sampling
    pattern: str | None

    @property
    def name(self) -> str:
        return f"{self.prompt} {self.sampling.seed}"


class Ear:
    """A listener that keeps the tokens, and stops where the grammar has ended."""

    def __init__(self, world: GuidedWorld, number: int) -> None:
        self.world, self.number = world, number
        self.tokens: list[int] = []
        self.complete = False
        self.end: str | None = None

    def placed(self, placed: Placed) -> None:
        pass

    def scored(self, scores: tuple[SampledToken, ...]) -> None:
        raise AssertionError("nothing was to be scored")

    def token(self, sampled: SampledToken) -> None:
        if not self.complete:
            self.tokens.append(sampled.token)

    def completed(self) -> None:
        self.complete = True
        self.world.loop.feed(Cancelled(self.number, "complete"))

    def finished(self, reason: str, drafted: Drafted | None) -> None:
        self.end = reason

    def failed(self, status: int, code: str, message: str, hint: str = "") -> None:
        raise AssertionError(message)


class GuidedWorld(World):
    """The world of the scheduler's tests with the engine's loop between it and the scheduler."""

    def __init__(self, mode: str, *, seed: int, agreement: float, known: dict[str, tuple[int, ...]]) -> None:
        runners = (
            RunnerFacts(runner="t", epoch=1, roles=("prefill", "decode"), capacities=(32, 96), slots=4, chunk=9,
                        rooms=(4, 2), page=8, pages=12),
            RunnerFacts(runner="d", epoch=1, roles=("draft",), capacities=(32, 96), slots=24, chunk=9),
        )  # fmt: skip
        setup = SchedulerSetup(facts=runners, context=96, speculation=SpeculationSetup(mode=mode, drafts=4, breadth=3))
        super().__init__(new_state(setup), random.Random(seed))
        self.agreement = agreement
        self.known = known
        self.loop = EngineLoop(self.state, send=self.tell, wake=lambda _, at: self.wakes.append(at))
        self.ears: dict[str, Ear] = {}

    def feed(self, event: Event) -> None:
        self.loop.feed(event)

    def ask(self, asked: Asked) -> None:
        self.sequences += 1
        matcher = None if asked.pattern is None else COMPILER.compile(Constraint(kind="regex", text=asked.pattern))
        request = SequenceRequest(
            sequence=self.sequences, request=asked.name, prompt=asked.prompt, max_tokens=40, sampling=asked.sampling,
            entropy=bytes(16), stop_tokens=ENDS,
        )  # fmt: skip
        if Guide.is_needed(asked.sampling, constrained=matcher is not None, score=-1):
            self.loop.guidance.add(self.sequences, Guide(asked.prompt, sampling=asked.sampling, matcher=matcher))
        self.ears[asked.name] = Ear(self, self.sequences)
        self.loop.listen(self.sequences, self.ears[asked.name])
        self.loop.feed(Arrived(request))

    def guess(self, content: list[int]) -> tuple[int, int]:
        """The known text's next token this often, else one that may not even fit the grammar."""
        right = next((text[len(content)] for text in self.known.values() if self._begins(text, content)), 7)
        wrong = sum(content) % VOCABULARY
        return (right, wrong) if hash(tuple(content)) % 100 < self.agreement * 100 else (wrong, right)

    @staticmethod
    def _begins(text: tuple[int, ...], content: list[int]) -> bool:
        return len(content) < len(text) and text[: len(content)] == tuple(content)


def requests(seed: int) -> list[Asked]:
    rng = random.Random(seed)
    found = []
    for number in range(9):
        prompt = tuple(rng.randrange(3, VOCABULARY) for _ in range(rng.randint(1, 20)))
        looks_back = {"repetition": 1.3, "frequency": 0.6, "presence": 0.8} if number % 3 else {}
        sampling = Sampling(temperature=1.0, seed=number, **looks_back)
        found.append(Asked(prompt, sampling, rng.choice(PATTERNS) if number % 4 else None))
    return found


def run(mode: str, *, seed: int, agreement: float, known: dict[str, tuple[int, ...]], monkeypatch: Any) -> GuidedWorld:
    world = GuidedWorld(mode, seed=seed, agreement=agreement, known=known)
    monkeypatch.setattr(inlay.engine.loop, "monotonic", partial(getattr, world, "now"))
    monkeypatch.setattr(scheduler_world, "verdict", verdict)
    for asked in requests(seed):
        world.ask(asked)
        for _ in range(world.random.randint(0, 12)):
            world.act()
    world.run()
    return world


@pytest.mark.parametrize("mode", (SYNCHRONOUS, FREE, ENUMERATED, NGRAM))
@pytest.mark.parametrize("agreement", [0.3, 0.9])
@pytest.mark.parametrize("seed", range(2))
def test_guided_text_is_the_same_with_and_without_drafts(mode, agreement, seed, monkeypatch) -> None:
    plain = run(OFF, seed=seed, agreement=0, known={}, monkeypatch=monkeypatch)
    wanted = {name: tuple(ear.tokens) for name, ear in plain.ears.items()}
    prompts = {asked.name: asked.prompt for asked in requests(seed)}
    known = {name: prompts[name] + tokens for name, tokens in wanted.items()}
    drafted = run(mode, seed=seed, agreement=agreement, known=known, monkeypatch=monkeypatch)
    assert {name: tuple(ear.tokens) for name, ear in drafted.ears.items()} == wanted
    for asked in requests(seed):
        if asked.pattern is not None:
            text = TOKENIZER.decode(drafted.ears[asked.name].tokens)
            assert drafted.ears[asked.name].end == "length" or re.fullmatch(asked.pattern, text), text
    rows = [row for batch in drafted.batches for row in batch.rows if row.drafts]
    if mode != NGRAM:
        assert any(len(row.masks) == row.drafts + 1 for row in rows) and any(row.history is not None for row in rows)
        if agreement > 0.5:
            assert len(drafted.batches) < len(plain.batches)
    assert not drafted.loop.guidance._guides


def test_a_token_outside_the_grammar_ends_its_request_and_no_other(monkeypatch) -> None:
    world = GuidedWorld(OFF, seed=1, agreement=0, known={})
    monkeypatch.setattr(inlay.engine.loop, "monotonic", partial(getattr, world, "now"))

    def faulty(content: list[int], row: Row) -> tuple[SampledToken, ...]:
        """A device that forgets the mask of sequence 1."""
        return verdict(content, msgspec.structs.replace(row, masks=()) if row.sequence == 1 else row)

    monkeypatch.setattr(scheduler_world, "verdict", faulty)
    failures: list[str] = []
    first, second = Asked((5, 6), Sampling(seed=1), PATTERNS[0]), Asked((7, 8), Sampling(seed=2), PATTERNS[0])
    for asked in (first, second):
        world.ask(asked)
    world.ears[first.name].failed = lambda status, code, message: failures.append(message)  # type: ignore[method-assign]
    world.run()
    assert len(failures) == 1 and "does not fit the grammar" in failures[0] and world.ears[first.name].tokens == []
    assert re.fullmatch(PATTERNS[0], TOKENIZER.decode(world.ears[second.name].tokens))
    assert not world.state.sequences and not world.loop.guidance._guides
