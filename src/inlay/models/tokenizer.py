"""Text to token ids and back, over the `tokenizers` library alone.

A Tokenizer is immutable after loading and may be used from several threads; encoding releases the GIL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from inlay.errors import ModelError
from inlay.models.control import ControlTokens
from inlay.models.folder import check_folder
from inlay.models.spec import ModelSpec
from inlay.models.stream import TextStream


class Tokenizer:
    """A tokenizer.json at work. Text from users is never read as special tokens unless asked for by `parse_special`."""

    def __init__(self, native: Any) -> None:
        # What the training set up for batches (cutting, padding) has no place in serving.
        native.no_truncation()
        native.no_padding()
        self._native = native
        added = native.get_added_tokens_decoder()
        self.added: dict[int, str] = {number: token.content for number, token in added.items()}
        self.special: dict[int, str] = {number: token.content for number, token in added.items() if token.special}
        self.size: int = max(native.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._prefix, self._suffix = _surroundings(native)
        self._control = ControlTokens(native, self.special.values())

    def encode(self, text: str, *, parse_special: bool = False, add_special: bool = True) -> list[int]:
        """Ids of a text, with the tokens that the model's own post-processor puts around it, each once.

        Special tokens spelled out in the text become ordinary text, unless `parse_special`; other added tokens are
        vocabulary like any other. With `parse_special`, a text that already begins with the first token
        (<s>) gets no second one.
        """
        ids: list[int] = self._native.encode(text, add_special_tokens=False).ids
        if not parse_special and any(number in self.special for number in ids):
            ids = self._control.encode_plain(text)
        if not add_special:
            return ids
        prefix = [] if ids[: len(self._prefix)] == self._prefix else self._prefix
        suffix = [] if self._suffix and ids[-len(self._suffix) :] == self._suffix else self._suffix
        return [*prefix, *ids, *suffix]

    def encode_template(self, rendered: str) -> list[int]:
        """Ids of a rendered chat template: special tokens are read as such and nothing is put around."""
        return list(self._native.encode(rendered, add_special_tokens=False).ids)

    def control_tokens(self, literals: str) -> ControlTokens:
        """What must not come from a user in a chat: special tokens, and other added ones that `literals`, the
        template's own text, contains (white space excepted)."""
        others = (text for number, text in self.added.items() if number not in self.special)
        chosen = [text for text in others if text.strip() and text in literals]
        return ControlTokens(self._native, [*self.special.values(), *chosen])

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ids; incomplete UTF-8 becomes U+FFFD. Ids outside the vocabulary have no text."""
        return str(self._native.decode(list(ids), skip_special_tokens=skip_special))

    def to_json(self) -> str:
        """The tokenizer.json of what is at work here, for libraries that read it themselves."""
        return str(self._native.to_str())

    def token_text(self, token: int) -> str:
        """The text of one token by itself, special ones included."""
        return self.decode([token], skip_special=False)

    def stream(self, prefix: Iterable[int] = ()) -> TextStream:
        """A decoder for tokens that arrive one by one, after `prefix` (which is not returned as text)."""
        native = self._native
        return TextStream(
            decode=self.decode,
            has_text=lambda token: token not in self.special and native.id_to_token(token) is not None,
            prefix=prefix,
        )


def read_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a model folder. Raises ModelError when tokenizer.json is missing or damaged."""
    path = check_folder(folder) / "tokenizer.json"
    if not path.is_file():
        others = sorted(file.name for file in path.parent.glob("*.model")) or ["none"]
        raise ModelError(
            f"{path.parent} has no tokenizer.json (other vocabularies there: {', '.join(others)})",
            hint="save it once with transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        )
    try:
        native = tokenizers.Tokenizer.from_file(str(path))
    except Exception as cause:  # the library raises plain Exception
        raise ModelError(f"{path} is not a tokenizer: {cause}", hint="download the file again") from cause
    return Tokenizer(native)


def check_vocabulary(tokenizer: Tokenizer, spec: ModelSpec) -> None:
    """Raise ModelError when the tokenizer has ids that the model has no embedding for."""
    if tokenizer.size > spec.vocabulary:
        raise ModelError(
            f"{spec.folder}: tokenizer has ids up to {tokenizer.size - 1}, expected less than the model's vocabulary "
            f"{spec.vocabulary}",
            hint="tokenizer.json and config.json are of different models",
        )


def _surroundings(native: Any) -> tuple[list[int], list[int]]:
    """What the post-processor puts before and after a text, learned from one letter."""
    encoding = native.encode("a", add_special_tokens=True)
    own = [index for index, flag in enumerate(encoding.special_tokens_mask) if not flag]
    if not own:
        return [], []
    return list(encoding.ids[: own[0]]), list(encoding.ids[own[-1] + 1 :])
