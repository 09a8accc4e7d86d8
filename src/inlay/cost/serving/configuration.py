"""Configuration: one model served on equal chips by one engine under one load; all that a prediction of it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from inlay.errors import InputError
from inlay.hardware.catalogue import DataSheet
from inlay.models.facts import Formats, ModelFacts, formats_of

NARROW = ("fp4", "mxfp4", "int4")


@dataclass(frozen=True)
class Engine:
    """What served it: `name` ("vllm"), `version` and `date`, which are part of every calibration's key."""

    name: str
    version: str = ""
    date: str = ""


@dataclass(frozen=True)
class Load:
    """A closed loop of `concurrency` requests of so many input and output tokens (means, not nominal ones)."""

    input_tokens: float
    output_tokens: float
    concurrency: float

    @property
    def context(self) -> float:
        """Mean tokens behind a decoded one."""
        return self.input_tokens + self.output_tokens / 2

    @property
    def prefill_share(self) -> float:
        """Input tokens computed for each output token."""
        return self.input_tokens / self.output_tokens


@dataclass(frozen=True)
class Configuration:
    """`chips` equal chips. Attention is split over `tensor` of them and repeated on the other groups (data parallel);
    experts are split over all chips, whole ones where `expert` is above 1. `precision` is that of the weights."""

    facts: ModelFacts
    sheet: DataSheet
    engine: Engine
    precision: str
    load: Load
    chips: int = 1
    tensor: int = 1
    expert: int = 1

    def __post_init__(self) -> None:
        if self.chips < 1 or self.tensor < 1 or self.chips % self.tensor:
            raise InputError(
                f"{self.chips} chips have tensor parallel {self.tensor}, expected a divisor of the chips", hint="for example 1"
            )
        if min(self.load.input_tokens, self.load.output_tokens, self.load.concurrency) <= 0:
            raise InputError(f"load is {self.load}, expected all of it above zero", hint="give isl, osl and concurrency")

    @property
    def groups(self) -> int:
        """Data parallel copies of attention."""
        return self.chips // self.tensor

    @cached_property
    def formats(self) -> Formats:
        """Bytes of the weights; a checkpoint that is published narrower than asked for stays as it is."""
        return formats_of(self.facts, self.precision)
