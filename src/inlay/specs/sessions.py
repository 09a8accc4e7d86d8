"""Recorded sessions of agents, one JSON object a line: turns that follow each other, with the time before each.

The schema is kv-cache-tester's, converted (`requests` with `in`, `out`, `think_time`, `hash_ranges`). A sub-agent's turns are
played where it stands: its session waits for it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay.errors import InputError

BLOCK = 64
"""Tokens of one block where a session does not say."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: seconds between the answer before it and this one, tokens, and the ids of its prompt's blocks, as ranges
    with both ends included: a long session has millions."""

    think: float
    prompt_tokens: int
    output_tokens: int
    ranges: tuple[tuple[int, int], ...] = ()

    @property
    def blocks(self) -> tuple[int, ...]:
        """All ids in their order."""
        return tuple(block for low, high in self.ranges for block in range(low, high + 1))


@dataclass(frozen=True, slots=True)
class Session:
    """One agent's turns; block ids mean nothing outside of it. `block` is in tokens."""

    name: str
    block: int
    turns: tuple[Turn, ...]


def holds_sessions(path: str | Path) -> bool:
    """Whether a file's first line is a session. False where it cannot be read: whoever reads it says so."""
    source = Path(path)
    try:
        with gzip.open(source, "rt") if source.suffix == ".gz" else source.open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (OSError, EOFError, ValueError):
        return False
    return isinstance(first, dict) and "requests" in first


def read_sessions(path: str | Path) -> tuple[Session, ...]:
    """All sessions in their order. Raises InputError with the line at fault."""
    source = Path(path)
    hint = "one JSON object a line with `requests`, each with `in`, `out` and maybe `think_time` and `hash_ranges`"
    try:
        packed = source.read_bytes()
        text = (gzip.decompress(packed) if source.suffix == ".gz" else packed).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"sessions {str(path)!r} cannot be read: {error}", hint=hint) from error
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                turns = tuple(_turns(row["requests"]))
                if turns:
                    found.append(Session(str(row.get("id", number)), int(row.get("block_size", BLOCK)), turns))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"{path}, line {number}: the session cannot be used: {error!r}", hint=hint) from error
    if not found:
        raise InputError(f"sessions {str(path)!r} holds no request", hint=hint)
    return tuple(found)


def _turns(rows: list[dict[str, Any]]) -> Iterator[Turn]:
    for row in rows:
        if row.get("type") == "subagent":
            yield from _turns(row.get("requests") or [])
            continue
        prompt, output, think = int(row["in"]), int(row["out"]), float(row.get("think_time") or 0.0)
        if prompt < 1 or output < 0 or not 0 <= think < float("inf"):
            raise ValueError(f"in is {prompt}, out {output}, think_time {think:g}, expected at least 1, 0 and 0")
        ranges = tuple((int(low), int(high)) for low, high in row.get("hash_ranges") or ())
        yield Turn(think, prompt, max(1, output), ranges)
