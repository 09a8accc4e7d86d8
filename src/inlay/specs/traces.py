"""Recorded arrivals: Mooncake's JSON lines, Azure's CSV, or JSON lines with either's names; gzip by the suffix .gz.

A trace holds no text: times, lengths, and with Mooncake's the ids of the blocks a prompt is made of, equal ids for equal
blocks, from which prompts with the same shared prefixes can be made.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from inlay.errors import InputError

BLOCK = 512
"""Tokens of one of Mooncake's blocks."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One recorded request: seconds since the first one, tokens, and ids of its prompt's blocks where recorded."""

    at: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def read_trace(path: str | Path) -> tuple[Arrival, ...]:
    """All requests in order of time, the first at 0. Raises InputError with the line at fault."""
    source = Path(path)
    try:
        packed = source.read_bytes()
        text = (gzip.decompress(packed) if source.suffix == ".gz" else packed).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"trace {str(path)!r} cannot be read: {error}", hint="see docs/guides/measure-a-server.md") from error
    found = []
    for number, row in _rows(text, path):
        try:
            found.append(_arrival(row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            missing = f"has no {error}" if isinstance(error, KeyError) else f"cannot be used: {error}"
            expected = "expected timestamp, input_length and output_length, or TIMESTAMP, ContextTokens and GeneratedTokens"
            raise InputError(f"{path}, line {number}: the request {missing}", hint=expected) from error
    if not found:
        raise InputError(f"trace {str(path)!r} holds no request", hint="see docs/guides/measure-a-server.md")
    found.sort(key=lambda item: item.at)
    zero = found[0].at
    return tuple(Arrival(item.at - zero, item.prompt_tokens, item.output_tokens, item.blocks) for item in found)


def _rows(text: str, path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not text.lstrip().startswith("{"):
        yield from enumerate(csv.DictReader(io.StringIO(text)), start=2)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: not JSON: {error}", hint="one JSON object a line") from error
            yield number, row


def _arrival(row: dict[str, Any]) -> Arrival:
    if "TIMESTAMP" in row:
        at, prompt, output = _azure_seconds(row["TIMESTAMP"]), int(row["ContextTokens"]), int(row["GeneratedTokens"])
    else:
        at, prompt, output = float(row["timestamp"]) / 1e3, int(row["input_length"]), int(row["output_length"])
    blocks = tuple(int(item) for item in row.get("hash_ids") or ())
    if prompt < 1 or output < 0:
        raise ValueError(f"its lengths are {prompt} and {output}, expected at least 1 and 0")
    if not abs(at) < float("inf"):
        raise ValueError(f"its time is {at}")
    return Arrival(at, prompt, max(1, output), blocks)


def _azure_seconds(text: str) -> float:
    """Azure writes seven digits of a second, of which datetime takes six."""
    whole, _, fraction = text.partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction.rstrip('Z') or 0}")
