"""The examples by name, and a captured one with what it is tried with. Plain data, no torch."""

from __future__ import annotations

import msgspec

SAMPLED = ("mlp", "convnet", "text encoder", "decoder", "bert", "llama")
FULL_ONLY = ("vit", "gpt2", "t5 encoder", "resnet")
STATEFUL = ("stream",)
STAGES = ("extend of llama", "extend of gemma2")
PAIRS = ("softmax over another axis", "operands the other way round", "another constant", "another epsilon")
ROWS = (4, 6)


def side_name(pair: str, side: int, rows: int) -> str:
    """The example of one side of a pair at so many rows."""
    return f"{pair} {side} {rows}"


def side_names(*, full: bool) -> list[str]:
    """The examples of all pairs. In a sample the first pair alone has several numbers of rows."""
    sizes = {pair: ROWS if full or pair == PAIRS[0] else ROWS[:1] for pair in PAIRS}
    return [side_name(pair, side, rows) for pair in PAIRS for side in (0, 1) for rows in sizes[pair]]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One call: sizes, and the file with its inputs and its truth."""

    sizes: dict[str, int]
    values: str


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """An example in the cache: the folder of its program, and its calls in order."""

    name: str
    folder: str
    trials: tuple[Trial, ...]


class StageSubject(msgspec.Struct, frozen=True, kw_only=True):
    """A language model in the cache: its folder, and calls of its stage program, ports by their names."""

    name: str
    folder: str
    trials: tuple[Trial, ...]
