"""TextStream: text from tokens that arrive one at a time, never cutting a character.

The method of text-generation servers: decode a short window that begins with text already shown, show what is new,
and hold back while the end is an incomplete character. Leading spaces then come out as in the whole text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

_REPLACEMENT = "\ufffd"
# A character has at most four bytes, so four tokens: longer runs of U+FFFD are no character to wait for, and the
# window, decoded anew for each token, must stay short.
_LONGEST_HOLD = 64
_PREFIX_TOKENS = 8


class TextStream:
    """One stream of one sequence. Not thread-safe."""

    def __init__(
        self, *, decode: Callable[[Sequence[int]], str], has_text: Callable[[int], bool], prefix: Iterable[int] = ()
    ) -> None:
        self._decode = decode
        self._has_text = has_text
        self._window = [token for token in list(prefix)[-_PREFIX_TOKENS:] if has_text(token)]
        self._read = len(self._window)
        # A prefix that ends inside a character: what completes it is new.
        self._shown = decode(self._window).rstrip(_REPLACEMENT)

    def feed(self, token: int) -> str:
        """The text that this token makes certain, often empty. Special tokens have no text."""
        if not self._has_text(token):
            return ""
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith(_REPLACEMENT) and len(self._window) - self._read < _LONGEST_HOLD:
            return ""
        piece = self._new_part(text)
        if piece:
            self._window = self._window[self._read :]
            self._read = len(self._window)
            self._shown = self._decode(self._window)
        return piece

    def flush(self) -> str:
        """What was held back, incomplete characters as U+FFFD; the stream then continues after it."""
        piece = self._new_part(self._decode(self._window))
        self._read = len(self._window)
        self._shown = self._decode(self._window)
        return piece

    def _new_part(self, text: str) -> str:
        if text.startswith(self._shown):
            return text[len(self._shown) :]
        # Bytes that make a run of them invalid change how byte fallback decodes the valid ones shown before.
        return self._decode(self._window[self._read :])
