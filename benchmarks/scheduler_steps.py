"""How many steps a second the scheduler takes, and what share of a device's step that is.

    python benchmarks/scheduler_steps.py [--out DIR]

A step: one finished decode batch in, tokens and the next batch out. Batches of 1, 8 and 64 sequences, without drafts, with 4
accepted drafts each from a draft runner that runs ahead, and with prefixes kept. No devices: answers are made at once and not
timed. Processor time of this thread, so that other work on the machine counts less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import RESULTS, Spread, environment, say, show, spread, table, write_result

from inlay.scheduler import State, new_state, step
from inlay.specs.device import BatchDone, DeviceToEngine, Draft, DraftDone, Guess, RowResult, Submit
from inlay.specs.sampling import SampledToken, Sampling
from inlay.specs.schedule import Answered, Arrived, Command, RunnerFacts, SchedulerSetup, Send, SequenceRequest
from inlay.specs.speculation import FREE, OFF, SpeculationSetup

BATCHES = {1: 50_000, 8: 20_000, 64: 5_000}
"""By sequences in a batch: the goal, in steps a second."""
STEPS = 400
ROUNDS = 9
DRAFTS = 4
DEVICE_STEP = {1: 0.004, 8: 0.012, 64: 0.06}
"""Seconds of one decode step of the demo model (9 million parameters, one core) where it was measured: step_time.md; 64 is
five times 8. The larger the model, the smaller the share."""
TOKEN = SampledToken(token=5)


def setup(mode: str) -> SchedulerSetup:
    """A target and a draft runner, with kept prefixes."""
    sizes: dict[str, Any] = {"epoch": 1, "capacities": (256, 1024, 4096), "slots": 64, "chunk": 128, "page": 16, "pages": 4096}
    return SchedulerSetup(
        facts=(
            RunnerFacts(runner="target", roles=("prefill", "decode"), device="a", **sizes),
            RunnerFacts(runner="draft", roles=("draft",), device="b", **sizes),
        ),
        context=4096,
        speculation=SpeculationSetup(mode=mode, drafts=DRAFTS),
    )


def answers(commands: list[Command]) -> Iterator[tuple[str, DeviceToEngine]]:
    """What devices answer: every draft is accepted."""
    for command in commands:
        if not isinstance(command, Send):
            continue
        message = command.message
        if isinstance(message, Submit):
            results = tuple(
                RowResult(
                    sequence=row.sequence,
                    sampled=() if row.sample is None else tuple(SampledToken(token=5) for _ in range(row.drafts + 1)),
                )
                for row in message.rows
            )
            yield command.runner, BatchDone(batch=message.batch, results=results, started=0.0, ended=0.0, prompt_tokens=0)
        elif isinstance(message, Draft):
            guesses = tuple(Guess(sequence=row.sequence, guess=row.guess, tokens=(5,) * row.count) for row in message.rows)
            yield command.runner, DraftDone(batch=message.batch, guesses=guesses, started=0.0, ended=0.0, steps=1)


def started(batch: int, mode: str) -> tuple[State, list[Command]]:
    """A scheduler with that many sequences, their prompts computed."""
    state = new_state(setup(mode))
    commands: list[Command] = []
    for number in range(batch):
        request = SequenceRequest(
            sequence=number,
            request="r",
            prompt=tuple(range(100)),
            max_tokens=3900,
            sampling=Sampling(temperature=0.0),
            entropy=bytes(16),
        )
        commands += step(state, Arrived(request), 0.0)
    while True:
        phases = {
            command.message.phase for command in commands if isinstance(command, Send) and isinstance(command.message, Submit)
        }
        if phases == {"decode"} and sum(map(len, state.runners["target"].decoding.values())) == batch:
            return state, commands
        commands = [more for runner, answer in answers(commands) for more in step(state, Answered(runner, answer), 0.0)]


def one_round(batch: int, mode: str) -> tuple[float, float]:
    """Seconds of a step (all events that one finished batch of the target brings), and tokens that it emitted."""
    state, commands = started(batch, mode)
    seconds, steps, tokens = 0.0, 0, 0
    while steps < max(40, STEPS // batch):
        following: list[Command] = []
        for runner, answer in answers(commands):
            event = Answered(runner, answer)
            begin = time.thread_time()
            following += step(state, event, 0.0)
            seconds += time.thread_time() - begin
            if isinstance(answer, BatchDone):
                steps += 1
                tokens += sum(len(item.sampled) for item in answer.results)
        commands = following
    return seconds / steps, tokens / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    facts = environment()
    found: dict[tuple[int, str], list[float]] = {}
    tokens: dict[tuple[int, str], float] = {}
    for number in range(ROUNDS):
        say(f"round {number + 1} of {ROUNDS}")
        for batch in BATCHES:
            for mode in (OFF, FREE):
                seconds, per_step = one_round(batch, mode)
                found.setdefault((batch, mode), []).append(seconds)
                tokens[batch, mode] = per_step
    rows, records = [], []
    for (batch, mode), values in found.items():
        speed = spread([1 / value for value in values])
        share = statistics.median(values) / DEVICE_STEP[batch]
        rows.append(_row(batch, mode, speed, tokens[batch, mode], share))
        records.append({"batch": batch, "mode": mode, "steps_per_second": speed, "share_of_device_step": round(share, 4)})
    head = ["sequences", "drafts", "steps a second", "goal", "tokens a step", "share of a demo step (modelled)"]
    write_result(
        "scheduler_steps", title="Scheduler steps", facts=facts, records=records, text=table(head, rows), folder=arguments.out
    )


def _row(batch: int, mode: str, speed: Spread, tokens: float, share: float) -> list[str]:
    goal = f"{BATCHES[batch]:,}" if mode == OFF else ""
    drafts = "none" if mode == OFF else f"{DRAFTS}, running ahead, draft batches included"
    return [str(batch), drafts, show(speed, 0), goal, f"{tokens:.0f}", f"{100 * share:.2f} %"]


if __name__ == "__main__":
    main()
