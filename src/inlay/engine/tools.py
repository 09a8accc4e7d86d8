"""Reads calls of functions out of an answer's text as it comes: text before and after them, each call's name, then its
arguments piece by piece. Pure.

What looks like a call and is none stays text. Arguments are passed on as the model writes them, JSON that is not
re-written, so that pieces can be sent before their end is known.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from inlay.engine.json_scan import JsonScan
from inlay.models import CallFormat
from inlay.specs.generation import CallPiece

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
_FIRST_KEY = re.compile(r'\s*\{\s*"((?:[^"\\]|\\.)*)"')
_KEYS = ("arguments", "parameters")


def new_id() -> str:
    """A fresh id of a call."""
    return f"call_{secrets.token_hex(12)}"


@dataclass
class Read:
    """What a piece of text turned out to be."""

    text: str = ""
    calls: list[CallPiece] = field(default_factory=list)


class ToolReader:
    """One answer. `many` False takes one call, after which `is_full` is true and nothing more is read."""

    def __init__(self, shape: CallFormat, *, many: bool = True, make_id: Callable[[], str] = new_id) -> None:
        self._shape = shape
        self._many = many
        self._make_id = make_id
        self._held = ""
        self._call: _Call | None = None
        self._closing = False
        self._spoke = False
        self.calls = 0
        self.is_full = False

    def feed(self, text: str) -> Read:
        """What is certain now."""
        found = Read()
        self._held += text
        while self._held and not self.is_full and self._advance(found):
            pass
        return found

    def flush(self) -> Read:
        """The answer has ended: what was held back is text, unless it is white space beside calls."""
        found = Read()
        if self._call is not None:
            if not self._call.begun:
                self._say(self._shape.opening + self._call.raw, found)
            self._call = None
        elif not self._closing and not self.is_full:
            self._say(self._held, found, last=True)
        self._held = ""
        return found

    def _advance(self, found: Read) -> bool:
        """Take one step in what is held; False when more is needed."""
        if self._call is not None:
            return self._read_call(self._call, found)
        if self._closing:
            return self._close()
        return self._find_bare(found) if self._shape.is_bare else self._find_opening(found)

    def _find_opening(self, found: Read) -> bool:
        opening = self._shape.opening
        at = self._held.find(opening)
        if at < 0:
            keep = next((size for size in range(len(opening) - 1, 0, -1) if self._held.endswith(opening[:size])), 0)
            said, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
            held = self._say(said, found)
            self._held = held + self._held
            return False
        self._say(self._held[:at], found)
        self._held = self._held[at + len(opening) :]
        self._call = _Call(self.calls, self._make_id)
        return True

    def _find_bare(self, found: Read) -> bool:
        """A call can only begin the answer, or follow another one."""
        start = self._held.lstrip(" \t\r\n;" if self.calls else None)
        if not start:
            return False
        if self._spoke or not start.startswith("{"):
            self._say(self._held, found)
            self._held = ""
            return False
        self._held = start
        self._call = _Call(self.calls, self._make_id)
        return True

    def _read_call(self, call: _Call, found: Read) -> bool:
        piece, self._held = self._held, ""
        pieces, rest = call.feed(piece)
        if self._shape.is_bare and call.is_other:
            self._call = None
            self._spoke = True
            found.text += call.raw + rest
            return False
        found.calls += pieces
        if not call.ended:
            return False
        self._call, self._held = None, rest
        if call.begun:
            self.calls += 1
            self._closing = not self._shape.is_bare
            self.is_full = not self._many and not self._closing
        else:
            self._say(self._shape.opening + call.raw, found)
        return True

    def _close(self) -> bool:
        """After a call: its closing tag, which a model that breaks off may leave out."""
        closing, bare = self._shape.closing, self._held.lstrip()
        if bare != closing and closing.startswith(bare):
            return False
        self._held = bare.removeprefix(closing)
        self._closing = False
        self.is_full = not self._many
        return True

    def _say(self, text: str, found: Read, *, last: bool = False) -> str:
        """Text of the answer; white space before its first word, or after a call, waits until a word follows. What waits
        is given back, and dropped where a call follows."""
        if not text.strip() and not (self._spoke and not self.calls) and not (last and not self.calls):
            return text
        self._spoke = self._spoke or bool(text.strip())
        found.text += text
        return ""


class _Call:
    """One JSON object that may be a call."""

    def __init__(self, index: int, make_id: Callable[[], str]) -> None:
        self._index = index
        self._make_id = make_id
        self._outer = JsonScan()
        self._value: JsonScan | None = None
        self.raw = ""
        self.begun = False
        self.ended = False

    @property
    def is_other(self) -> bool:
        """Whether its first key says that it is no call."""
        key = _FIRST_KEY.match(self.raw)
        return not self.begun and (key is not None and key[1] not in ("name", *_KEYS, "type", "id"))

    def feed(self, text: str) -> tuple[list[CallPiece], str]:
        """Pieces that are certain, and the text after the object's end."""
        size = self._outer.feed(text)
        own, rest = (text, "") if size is None else (text[:size], text[size:])
        self.ended = size is not None or self._outer.is_broken
        self.raw += own
        if self.begun:
            return self._argument(own), rest
        head = _HEAD.match(self.raw)
        if head is not None:
            self.begun, self._value = True, JsonScan()
            start = CallPiece(index=self._index, id=self._make_id(), name=json.loads(head[1]), arguments="")
            return [start, *self._argument(self.raw[head.end() :])], rest
        return (self._whole() if self.ended else []), rest

    def _argument(self, text: str) -> list[CallPiece]:
        """The part of `text` that belongs to the arguments."""
        if self._value is None:
            return []
        size = self._value.feed(text)
        piece = text if size is None else text[:size]
        if size is not None:
            self._value = None
        return [CallPiece(index=self._index, arguments=piece)] if piece else []

    def _whole(self) -> list[CallPiece]:
        """A call with its keys in another order, or with its arguments as text."""
        try:
            found = json.loads(self.raw)
        except (ValueError, RecursionError):
            return []
        if not isinstance(found, dict) or not isinstance(found.get("name"), str):
            return []
        arguments: Any = next((found[key] for key in _KEYS if key in found), {})
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        self.begun = True
        return [CallPiece(index=self._index, id=self._make_id(), name=found["name"], arguments=text)]
