"""The engine's event log: what came in, when, what was decided. Read back for replays, timelines and post-mortems."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import msgspec

from inlay.errors import InputError
from inlay.scheduler import new_state, step
from inlay.specs.schedule import Command, Event, SchedulerSetup

LOG_HINT = "write one with `inlay serve --event-log`"


class LogEntry(msgspec.Struct, frozen=True):
    """A line after the first, which holds the scheduler's setup: one event, its time on the monotonic clock, and the commands
    that followed."""

    now: float
    event: Event
    commands: list[Command]


class Journal(msgspec.Struct, frozen=True):
    """A whole log."""

    start: SchedulerSetup
    entries: list[LogEntry]


def write_start(file: IO[bytes], start: SchedulerSetup) -> None:
    """Begin a log."""
    file.write(msgspec.json.encode(start) + b"\n")


def read_journal(path: Path) -> Journal:
    """Read a log back. Raises InputError naming the line that is none of ours; a torn last line is left out."""
    lines = path.read_bytes().split(b"\n")
    complete, torn = lines[:-1], lines[-1]
    if not complete:
        raise InputError(f"{path} has no complete line{' but a torn one' if torn else ''}, expected an event log of inlay")
    decoder = msgspec.json.Decoder(LogEntry)
    try:
        start = msgspec.json.decode(complete[0], type=SchedulerSetup)
        return Journal(start, [decoder.decode(line) for line in complete[1:]])
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is not an event log of inlay: {error}", hint=LOG_HINT) from error


def read_start(path: Path) -> SchedulerSetup:
    """What the engine of a log was started with. Raises InputError."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.readline(), type=SchedulerSetup)
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f"{path} is not an event log of inlay: {error}", hint=LOG_HINT) from error


def first_difference(journal: Journal) -> int | None:
    """Replay the scheduler over the recorded events: the index of the first entry whose commands differ, or None."""
    state = new_state(journal.start)
    for index, entry in enumerate(journal.entries):
        if step(state, entry.event, entry.now) != entry.commands:
            return index
    return None
