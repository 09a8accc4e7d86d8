"""Carries the scheduler's commands out on real devices and turns their answers into events. One per engine process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import IO, Protocol

import msgspec

from inlay.engine.guidance import Fault, Guidance
from inlay.engine.journal import LogEntry
from inlay.scheduler import State, step
from inlay.specs.choice import Drafted
from inlay.specs.device import BatchDone, EngineToDevice, Submit
from inlay.specs.sampling import SampledToken
from inlay.specs.schedule import Answered, Cancelled, Command, Emit, Event, Fail, Finish, Placed, Send, Wake


class Listener(Protocol):
    """Who is told what becomes of one sequence."""

    def placed(self, placed: Placed) -> None:
        """It left the queue: for which runners, why, and how many of its tokens need not be computed."""

    def scored(self, scores: tuple[SampledToken, ...]) -> None:
        """The log-probabilities of its prompt, the first token left out; before any token."""

    def token(self, sampled: SampledToken) -> None:
        """One more token."""

    def completed(self) -> None:
        """Its grammar lets nothing more follow."""

    def finished(self, reason: str, drafted: Drafted | None) -> None:
        """It ended: "stop", "length" or "cancelled"; and how it speculated."""

    def failed(self, status: int, code: str, message: str, hint: str = "") -> None:
        """It cannot go on."""


class EngineLoop:
    """Feeds events to the scheduler one at a time, in order, also those that arise while commands are carried out."""

    def __init__(
        self,
        state: State,
        *,
        send: Callable[[str, EngineToDevice], None],
        wake: Callable[[EngineLoop, float], None] | None = None,
        log: IO[bytes] | None = None,
    ) -> None:
        self.state = state
        self._send = send
        self._wake = wake
        self._log = log
        self._events: deque[Event] = deque()
        self._busy = False
        self._listeners: dict[int, Listener] = {}
        self.guidance = Guidance()
        self.observers: list[Callable[[Event, list[Command], float], None]] = []

    def listen(self, sequence: int, listener: Listener) -> None:
        """Tell `listener` of this sequence until it ends."""
        self._listeners[sequence] = listener

    def feed(self, event: Event) -> None:
        """Take an event; returns when it and all that followed from it are carried out."""
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._events:
                self._step(self._events.popleft())
        finally:
            self._busy = False

    def _step(self, event: Event) -> None:
        now = monotonic()
        if isinstance(event, Answered) and isinstance(event.message, BatchDone):
            for number, scores in self.guidance.scored(event.message):
                if number in self._listeners:
                    self._listeners[number].scored(scores)
        commands = step(self.state, event, now)
        if self._log is not None:
            self._log.write(msgspec.json.encode(LogEntry(now, event, commands)) + b"\n")
        for observer in self.observers:
            observer(event, commands, now)
        for command in commands:
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Send(runner=runner, message=Submit() as batch):
                self._send(runner, self.guidance.prepare(batch))
                for number, fault in self.guidance.faults(batch):
                    self._fail(number, fault)
            case Send(runner=runner, message=message):
                self._send(runner, message)
            case Placed(sequence=number) if number in self._listeners:
                self._listeners[number].placed(command)
            case Emit(sequence=number, sampled=sampled) if number in self._listeners:
                self._emit(number, sampled)
            case Finish(sequence=number, reason=reason, drafted=drafted) if number in self._listeners:
                self.guidance.forget(number)
                self._listeners.pop(number).finished(reason, drafted)
            case Fail(sequence=number) if number in self._listeners:
                self.guidance.forget(number)
                self._listeners.pop(number).failed(command.status, command.code, command.message, command.hint)
            case Wake(at=at) if self._wake is not None:
                self._wake(self, at)
            case _:
                return

    def _emit(self, number: int, sampled: SampledToken) -> None:
        """A token goes to its listener once its guide has seen it; one that breaks the grammar goes nowhere."""
        guide = self.guidance.find(number)
        if guide is None:
            self._listeners[number].token(sampled)
            return
        guide.emitted(sampled.token)
        if guide.fault is not None:
            self._fail(number, guide.fault)
            return
        self._listeners[number].token(sampled)
        if guide.is_complete:
            self._listeners[number].completed()

    def _fail(self, number: int, fault: Fault) -> None:
        """End one sequence that cannot go on, once; the others do."""
        self.guidance.forget(number)
        listener = self._listeners.pop(number, None)
        if listener is not None:
            listener.failed(*fault)
            self.feed(Cancelled(number, "guidance failed"))
