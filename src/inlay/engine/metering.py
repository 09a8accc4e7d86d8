"""Counts what the engine does: an observer of its loop that turns events and commands into meters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inlay.specs.choice import Drafted
from inlay.specs.device import (
    AbortTransfer,
    BatchDone,
    BatchFailed,
    DeviceToEngine,
    DraftDone,
    KvArrived,
    KvFailed,
    OpenTransfer,
    Ready,
    Submit,
)
from inlay.specs.kv import QUARANTINED
from inlay.specs.schedule import Answered, Arrived, Command, Emit, Event, Fail, Finish, Placed, Preempted, Recompute, Send
from inlay.specs.speculation import NGRAM
from inlay.telemetry import EngineMeters

DRAFT = "draft"
"""The phase of draft batches, as it is called in labels."""


@dataclass(frozen=True, slots=True)
class Label:
    """How a runner is named in labels: devices and frameworks of its processes, joined by "+"."""

    device: str
    framework: str

    @classmethod
    def of(cls, processes: Sequence[Ready]) -> Label:
        """From what the processes say of themselves, in the order of their layers."""
        return cls("+".join(item.place.partition("/")[0] for item in processes), "+".join(item.framework for item in processes))


class Metering:
    """Give it to `EngineLoop.observers`."""

    def __init__(self, meters: EngineMeters, labels: dict[str, Label]) -> None:
        self._meters = meters
        self._labels = labels
        self._phases: dict[int, tuple[str, int]] = {}
        self._drafts: dict[int, dict[int, int]] = {}
        self._routes: dict[int, tuple[str, str]] = {}
        self._busy: dict[str, float] = {}
        self._arrived: dict[int, float] = {}
        self._prompts: dict[int, int] = {}
        self._last_token: dict[int, float] = {}
        self._pairs: dict[int, tuple[str, str]] = {}
        self._modes: dict[str, str] = {}

    def worked(self, place: str, message: DeviceToEngine) -> None:
        """One message of one process: how long its device was busy."""
        if isinstance(message, BatchDone | DraftDone):
            device = place.partition("/")[0]
            self._busy[device] = self._busy.get(device, 0.0) + message.ended - message.started
            self._meters.device_busy_seconds.labels(device).set(self._busy[device])

    def observe(self, event: Event, commands: list[Command], now: float) -> None:
        """One step of the loop."""
        match event:
            case Answered(runner=runner, message=BatchDone() as done):
                self._batch(runner, done)
                self._judged(done)
            case Answered(message=BatchFailed(batch=batch)):
                self._phases.pop(batch, None)
                self._drafts.pop(batch, None)
            case Answered(runner=runner, message=DraftDone() as drafted):
                label = self._labels[runner]
                made = sum(len(guess.tokens) for guess in drafted.guesses)
                self._meters.tokens.labels(DRAFT, label.framework, label.device).inc(made)
                self._meters.phase_seconds.labels(DRAFT, label.device).observe(drafted.ended - drafted.started)
            case Answered(message=KvArrived() as arrived):
                source, destination = self._routes.pop(arrived.transfer, ("", ""))
                self._meters.kv_transfer_bytes.labels(source, destination).inc(arrived.size)
                self._meters.kv_transfer_seconds.observe(arrived.ended - arrived.started)
            case Arrived(request=request):
                self._arrived[request.sequence] = now
                self._prompts[request.sequence] = len(request.prompt)
                self._meters.prompt_tokens.inc(len(request.prompt))
            case Answered(message=KvFailed(cause=cause, transfer=transfer)):
                route = self._routes.pop(transfer, ("", ""))
                self._meters.kv_verify_failures.labels(cause).inc()
                if cause == QUARANTINED:
                    self._meters.kv_quarantined.labels(*route).inc()
            case _:
                pass
        for command in commands:
            self._command(command)
            if isinstance(command, Emit):
                self._token(command.sequence, now)
            elif isinstance(command, Finish | Fail):
                self._arrived.pop(command.sequence, None)
                self._prompts.pop(command.sequence, None)
                self._last_token.pop(command.sequence, None)
                self._pairs.pop(command.sequence, None)

    def _begun(self, placed: Placed) -> None:
        if placed.drafting is not None and not placed.drafting.cause:
            names = self._pairs[placed.sequence] = (placed.drafting.runner, placed.decode)
            self._show_mode(self._pair(names, placed.drafting.mode), placed.drafting.mode)

    def _ended(self, sequence: int, drafted: Drafted | None) -> None:
        names = self._pairs.pop(sequence, None)
        if names is not None and drafted is not None:
            mode = max(drafted.modes, key=lambda item: drafted.modes[item])
            pair = self._pair(names, mode)
            self._meters.spec_requests.labels(pair, mode).inc()
            self._show_mode(pair, mode)

    def _pair(self, names: tuple[str, str], mode: str) -> str:
        """Who drafts for whom in that mode, by their devices."""
        drafter, target = names
        source = self._labels[drafter].device if drafter and mode != NGRAM else "own text"
        return f"{source} > {self._labels[target].device}"

    def _show_mode(self, pair: str, mode: str) -> None:
        before, self._modes[pair] = self._modes.get(pair), mode
        if before is not None:
            self._meters.spec_mode.labels(pair, before).set(0)
        self._meters.spec_mode.labels(pair, mode).set(1)

    def _token(self, sequence: int, now: float) -> None:
        before = self._last_token.get(sequence)
        if before is not None:
            self._meters.inter_token_latency.observe(now - before)
        elif sequence in self._arrived:
            self._meters.time_to_first_token.observe(now - self._arrived[sequence])
        self._last_token[sequence] = now

    def _batch(self, runner: str, done: BatchDone) -> None:
        phase, tokens = (self._phases.get if done.more else self._phases.pop)(done.batch, ("unknown", 0))
        label = self._labels[runner]
        self._meters.tokens.labels(phase, label.framework, label.device).inc(tokens * done.steps)
        seconds = self._meters.phase_seconds.labels(phase, label.device)
        for _ in range(done.steps):
            seconds.observe((done.ended - done.started) / done.steps)

    def _judged(self, done: BatchDone) -> None:
        """A row that was given drafts answers with those that were kept and one token more."""
        given = self._drafts.pop(done.batch, {})
        for result in done.results:
            drafts = given.get(result.sequence, 0)
            if drafts and result.sampled:
                accepted = len(result.sampled) - 1
                self._meters.drafts.inc()
                self._meters.draft_tokens.inc(drafts)
                self._meters.accepted_tokens.inc(accepted)
                for position in range(accepted):
                    self._meters.accepted_by_position.labels(str(position)).inc()

    def _command(self, command: Command) -> None:
        match command:
            case Send(message=Submit() as batch):
                drafts = {row.sequence: row.drafts for row in batch.rows if row.drafts}
                if drafts:
                    self._drafts[batch.batch] = drafts
                self._phases[batch.batch] = (batch.phase, sum(len(row.tokens) for row in batch.rows))
            case Send(message=OpenTransfer(binding=binding)):
                source, destination = self._labels[binding.source], self._labels[binding.destination]
                self._routes[binding.transfer] = (source.device, destination.device)
            case Placed(sequence=number, way=way, cached=cached):
                if number in self._prompts:  # placed for the first time
                    self._meters.plan_requests.labels(way).inc()
                self._begun(command)
                self._meters.prefix_cache_queries.inc(self._prompts.pop(number, 0))
                self._meters.prefix_cache_hits.inc(cached)
            case Preempted():
                self._meters.preemptions.inc()
            case Emit():
                self._meters.generation_tokens.inc()
            case Finish(sequence=number, reason=reason, drafted=drafted):
                self._meters.request_success.labels(reason).inc()
                self._ended(number, drafted)
            case Recompute(cause=cause):
                self._meters.kv_recompute.inc()
                if cause == "lease":
                    self._meters.kv_lease_expired.inc()
            case Send(message=AbortTransfer(transfer=transfer)):
                self._routes.pop(transfer, None)
            case _:
                pass
