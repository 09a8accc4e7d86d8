"""Finds the end of one JSON object in text that comes in pieces, by its braces and strings alone. Pure."""

from __future__ import annotations


class JsonScan:
    """White space may come first. `is_broken` when what comes is no object or array."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.is_broken = False

    def feed(self, text: str) -> int | None:
        """How many characters of `text` belong to the object, when it ends in it; None while it goes on."""
        for at, character in enumerate(text):
            if self._in_string:
                self._string(character)
            elif character in "{[":
                self._depth += 1
            elif self._depth == 0:
                if not character.isspace():
                    self.is_broken = True
                    return at
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return at + 1
            elif character == '"':
                self._in_string = True
        return None

    def _string(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False
