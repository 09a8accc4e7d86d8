"""How many tokens a prompt or an answer has: a number, or a distribution to draw from."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from inlay.errors import InputError

FORMS = {"uniform": ("LOW", "HIGH"), "normal": ("MEAN", "DEVIATION"), "lognormal": ("MEDIAN", "SIGMA")}
HINT = "write 128, uniform:64:512, normal:256:64 or lognormal:256:0.8"


@dataclass(frozen=True, slots=True)
class Lengths:
    """`form` is fixed, uniform (both ends included), normal or lognormal (median and sigma of the logarithm)."""

    form: str
    first: float
    second: float = 0.0

    @classmethod
    def parse(cls, text: str, *, name: str) -> Lengths:
        """Raises InputError, under `name`."""
        form, *numbers = text.split(":")
        if not numbers:
            form, numbers = "fixed", [form]
        try:
            values = [float(item) for item in numbers]
        except ValueError:
            raise InputError(f"{name} is {text!r}, expected numbers", hint=HINT) from None
        if form not in ("fixed", *FORMS) or len(values) != (1 if form == "fixed" else 2):
            raise InputError(f"{name} is {text!r}, expected a number or one of {', '.join(FORMS)} with two", hint=HINT)
        if not all(map(math.isfinite, values)) or values[0] < 1 or min(values) < 0:
            raise InputError(f"{name} is {text!r}, expected finite numbers, the first at least 1", hint=HINT)
        if form == "uniform" and values[1] < values[0]:
            raise InputError(f"{name} is {text!r}, expected the first number to be the lower one", hint=HINT)
        return cls(form, *values)

    def draw(self, rng: random.Random) -> int:
        """One length, at least 1."""
        match self.form:
            case "uniform":
                return rng.randint(round(self.first), round(self.second))
            case "normal":
                return max(1, round(rng.gauss(self.first, self.second)))
            case "lognormal":
                return max(1, round(self.first * math.exp(rng.gauss(0.0, self.second))))
            case _:
                return round(self.first)

    def __str__(self) -> str:
        return f"{self.first:g}" if self.form == "fixed" else f"{self.form}:{self.first:g}:{self.second:g}"
