"""Prompts of wanted lengths: random words or random token ids, the same for the same seed; or those of a file.

Words stand for tokens by a ratio that the server itself gave (its count of a sample), so lengths in words are close,
not exact; the server's counts in the result are the truth. Token ids are exact.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay.errors import InputError

Prompt = str | tuple[int, ...] | tuple[dict[str, Any], ...]
"""A text, token ids, or chat messages."""

_TEXT = (
    "about above across after again air all along animal answer apple area arm around ask autumn bag ball bank base bath "
    "bear bed bell below bird black blue boat body bone book bottle box boy branch bread bridge bright brother brown build "
    "bus butter call camera car card carry cat chair change cheese child city class clean clear clock close cloth cloud "
    "coat cold color come cook copper corn cost count country course cover cow cross cup current cut dark day deep desk "
    "dog door down draw dress drink drive dry dust ear early earth east edge egg engine even evening eye face fact farm "
    "fast father field fire fish floor flower fly fold food foot forest fork form friend front fruit garden gate girl "
    "glass gold grain grass green grey ground group hair hand hat head hear heat hill history hold home horse hour house "
    "ice idea iron island join judge jump keep kettle key king knee knife know lake land last late laugh leaf left leg "
    "letter level light line lip list lock long look low machine map mark market match measure meat metal middle milk "
    "mind minute moon morning mother mountain mouth move music nail name narrow near neck needle new night north nose note "
    "number oil old open orange order oven page paint paper part path pen person picture piece plane plant plate play "
    "pocket point pot power print quick quiet rain range reach read red rest rice ring river road rock roll roof room root "
    "round rule run salt sand school sea seat second seed sense shade shape sharp sheep ship shirt shoe short side silver "
    "sister size skin sky sleep slow small smile snow soap sock soft song sound south space spoon spring square stage "
    "stamp star start station steam stem step stick stone stop store street strong sugar summer sun table tail talk tall "
    "taste test thick thin thread ticket time tin town train tree turn under uncle valley view voice walk wall warm wash "
    "watch water wave way week weight west wheel white wide wind window wing winter wire wood wool word work year yellow"
)
WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class WordRatio:
    """A prompt of w words has about `overhead + w * tokens_per_word` tokens."""

    overhead: float = 0.0
    tokens_per_word: float = 1.0

    @classmethod
    def between(cls, fewer: tuple[int, int], more: tuple[int, int]) -> WordRatio:
        """The line through two samples of (words, tokens)."""
        slope = (more[1] - fewer[1]) / (more[0] - fewer[0])
        if slope <= 0:
            return cls()
        return cls(max(0.0, fewer[1] - slope * fewer[0]), slope)

    def words(self, tokens: int, *, whole: bool) -> int:
        """How many words make `tokens`; `whole`: of a whole prompt, with what the server adds to each."""
        return max(1, round((tokens - (self.overhead if whole else 0.0)) / self.tokens_per_word))


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Makes prompts. `ids` is the range of token ids (both included), None for words. `shared` tokens in front are the
    same in all prompts of a group; `groups` take turns."""

    seed: int
    ids: tuple[int, int] | None = None
    ratio: WordRatio = WordRatio()
    shared: int = 0
    groups: int = 1

    def prompt(self, name: str, tokens: int, *, group: int = 0) -> Prompt:
        """`tokens` new tokens of its own after the shared ones; another `name` gives another prompt."""
        front = self._piece(f"shared/{group % self.groups}", self.shared, whole=False) if self.shared else []
        return self._joined([*front, *self._piece(name, tokens, whole=True)])

    def of_blocks(self, blocks: Sequence[int], tokens: int, *, block: int, scale: float = 1.0, scope: str = "") -> Prompt:
        """`tokens` tokens of a recorded prompt that is `blocks` of `block` tokens each, every `1 / scale`-th of them.

        Equal blocks of one `scope` give equal tokens, so prompts share what the recorded ones shared, at any scale."""
        count = tokens if self.ids is not None else self.ratio.words(tokens, whole=True)
        step = (1.0 if self.ids is not None else self.ratio.tokens_per_word) / scale
        made: dict[int, list[Any]] = {}
        parts = []
        for index in range(count):
            place, offset = divmod(int(index * step), block)
            number = blocks[place] if place < len(blocks) else -1 - place
            if number not in made:
                made[number] = self._block(f"block/{scope}/{number}", block)
            parts.append(made[number][offset])
        return self._joined(parts)

    def _block(self, name: str, size: int) -> list[Any]:
        rng = random.Random(f"{self.seed}/{name}")
        return rng.choices(WORDS if self.ids is None else range(self.ids[0], self.ids[1] + 1), k=size)

    def _piece(self, name: str, tokens: int, *, whole: bool) -> list[Any]:
        rng = random.Random(f"{self.seed}/{name}")
        if self.ids is not None:
            return rng.choices(range(self.ids[0], self.ids[1] + 1), k=tokens)
        return rng.choices(WORDS, k=self.ratio.words(tokens, whole=whole))

    def _joined(self, parts: list[Any]) -> Prompt:
        return tuple(parts) if self.ids is not None else " ".join(parts)


@dataclass(frozen=True, slots=True)
class Written:
    """One prompt of a file, with the tokens it asks for where the line says so."""

    prompt: Prompt
    output_tokens: int | None = None


def read_prompts(path: str | Path, *, chat: bool) -> tuple[Written, ...]:
    """Lines of JSON: a text, or an object with `prompt` (text or token ids) or `messages`, and maybe `output_tokens`.

    Raises InputError with the line at fault, also for messages where `chat` is not.
    """
    hint = 'one JSON object a line, for example {"prompt": "...", "output_tokens": 64}'
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"prompts {str(path)!r} cannot be read: {error}", hint=hint) from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(_written(json.loads(line), chat=chat))
            except (ValueError, TypeError) as error:
                raise InputError(f"{path}, line {number}: {error}", hint=hint) from error
    if not found:
        raise InputError(f"prompts {str(path)!r} holds no line", hint=hint)
    return tuple(found)


def _written(value: Any, *, chat: bool) -> Written:
    row = {"prompt": value} if isinstance(value, str) else value
    if not isinstance(row, dict) or ("prompt" in row) == ("messages" in row):
        raise ValueError("expected a text or an object with one of `prompt` and `messages`")
    tokens = row.get("output_tokens", row.get("max_tokens"))
    if tokens is not None and (type(tokens) is not int or tokens < 1):
        raise ValueError(f"`output_tokens` is {tokens!r}, expected a whole number of at least 1")
    prompt = row.get("prompt", row.get("messages"))
    if "messages" in row:
        if not chat:
            raise ValueError("it has `messages`, which completions do not take")
        if not isinstance(prompt, list) or not prompt or not all(isinstance(item, dict) for item in prompt):
            raise ValueError("`messages` is no list of objects")
        return Written(tuple(prompt), tokens)
    if isinstance(prompt, str) and prompt:
        return Written(prompt, tokens)
    if isinstance(prompt, list) and prompt and all(type(item) is int and item >= 0 for item in prompt):
        if chat:
            raise ValueError("its prompt is token ids, which chat does not take")
        return Written(tuple(prompt), tokens)
    raise ValueError("`prompt` is neither a text nor a list of token ids")
