"""Keeping control tokens (<|im_end|>, [INST]) spelled out by users apart from those a chat template writes.

Where no user text spells one, nothing here runs. Where one does, a twin of the tokenizer is used in which control
tokens exist only in a private spelling: the user's are then ordinary text to it, the template's are respelled. The
text is still encoded in one piece, so merges and leading spaces come out as without any of this.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from typing import Any

import tokenizers

from inlay.errors import RequestError

# Unicode noncharacters "for internal use": valid in strings, never assigned, in no text.
_OPEN, _CLOSE, _LEFT, _RIGHT = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
_PRIVATE = re.compile(f"[{_OPEN}-{_RIGHT}]")


class ControlTokens:
    """The control tokens of one tokenizer and one use of it. Thread-safe; the twin is made when first needed."""

    def __init__(self, native: Any, texts: Iterable[str]) -> None:
        self._native = native
        self._texts = frozenset(text for text in texts if text)
        # Longer ones first: <|end_of_text|> before <|end|>, as the tokenizer itself matches.
        either = "|".join(map(re.escape, sorted(self._texts, key=lambda text: (-len(text), text)))) or "(?!)"
        self._pattern = re.compile(either)
        self._scan = re.compile(f"{_OPEN}({either}){_CLOSE}|({either})|[{_OPEN}{_CLOSE}]|\\\\ufdd[01]")
        self._heads = {text[:size] for text in self._texts for size in range(2, len(text))}
        self._tails = {text[size:] for text in self._texts for size in range(1, len(text) - 1)}
        self._longest = max(map(len, self._texts), default=0)
        self._ids = {native.token_to_id(text) for text in self._texts} - {None}
        self._is_normalized = native.normalizer is not None and any(
            token.normalized for token in native.get_added_tokens_decoder().values() if token.content in self._texts
        )
        self._lock = threading.Lock()
        self._twin: tuple[Any, dict[int, int]] | None = None

    def occur_in(self, value: object) -> bool:
        """Whether any text in a message, a tool or a list of them spells a control token, or an end of one."""
        if isinstance(value, str):
            return self._spells(value) or self._starts_inside(value) or self._ends_inside(value)
        if isinstance(value, dict):
            return any(self.occur_in(key) or self.occur_in(item) for key, item in value.items())
        return isinstance(value, (list, tuple)) and any(self.occur_in(item) for item in value)

    def mark(self, value: Any) -> Any:
        """A copy of `value` with each control token in its texts wrapped in private characters, to be rendered.

        Raises RequestError where a text contains those characters already.
        """
        if isinstance(value, str):
            return self._mark_text(value)
        if isinstance(value, dict):
            return {self.mark(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mark(item) for item in value]
        return value

    def encode_marked(self, rendered: str) -> list[int]:
        """Ids of a rendered text: marked control tokens are plain text, the template's own are themselves."""
        return self._encode(self._scan.sub(_respell, rendered))

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text in which no control token counts as one."""
        _refuse_private(text)
        return self._encode(text)

    def _spells(self, text: str) -> bool:
        if self._pattern.search(text):
            return True
        # A token matched after normalisation may be spelled in other characters: only the tokenizer can tell.
        return self._is_normalized and any(
            number in self._ids for number in self._native.encode(text, add_special_tokens=False).ids
        )

    def _starts_inside(self, text: str) -> bool:
        start = text.lstrip()[: self._longest]
        return any(start[:size] in self._tails for size in range(2, len(start) + 1))

    def _ends_inside(self, text: str) -> bool:
        end = text.rstrip()[-self._longest :]
        return any(end[-size:] in self._heads for size in range(2, len(end) + 1))

    def _mark_text(self, text: str) -> str:
        _refuse_private(text)
        marked = self._pattern.sub(f"{_OPEN}\\g<0>{_CLOSE}", text)
        # Two texts side by side must not join into a control token: a lone mark keeps them apart. It stands inside
        # the white space, which templates trim.
        if self._starts_inside(text):
            bare = marked.lstrip()
            marked = marked[: len(marked) - len(bare)] + _CLOSE + bare
        if self._ends_inside(text):
            bare = marked.rstrip()
            marked = bare + _CLOSE + marked[len(bare) :]
        return marked

    def _encode(self, text: str) -> list[int]:
        twin, numbers = self._load_twin()
        ids = []
        for number in twin.encode(text, add_special_tokens=False).ids:
            if number not in numbers and number in self._ids:
                raise RequestError(
                    f"the text spells {self._native.id_to_token(number)!r}, which this tokenizer cannot keep apart from the "
                    "control token",
                    hint="remove it from the text",
                    code="control_token_in_text",
                )
            ids.append(numbers.get(number, number))
        return ids

    def _load_twin(self) -> tuple[Any, dict[int, int]]:
        """The tokenizer with control tokens respelled, and the ids of its added tokens translated."""
        with self._lock:
            if self._twin is None:
                content = json.loads(self._native.to_str())
                numbers: dict[str, int] = {}
                for token in content["added_tokens"]:
                    if token["content"] in self._texts:
                        token["content"] = f"{_LEFT}{token['content']}{_RIGHT}"
                    numbers[token["content"]] = token["id"]
                twin = tokenizers.Tokenizer.from_str(json.dumps(content))
                # An added token that is also in the vocabulary loses its id by the respelling, and shifts others.
                found = ((twin.token_to_id(text), number) for text, number in numbers.items())
                self._twin = twin, {own: number for own, number in found if own is not None}
            return self._twin


def _respell(match: re.Match[str]) -> str:
    plain, control = match.groups()
    if control is not None:
        return f"{_LEFT}{control}{_RIGHT}"
    return plain or ""


def _refuse_private(text: str) -> None:
    found = _PRIVATE.search(text)
    if found:
        raise RequestError(
            f"the text has the noncharacter U+{ord(found.group()):04X} beside the spelling of a control token, "
            "expected text without it",
            hint="remove that character",
            code="noncharacter_in_text",
        )
