"""Workload: when requests come and how long they are: what is simulated or planned for, as data and as people write it."""

from __future__ import annotations

import msgspec

from inlay.errors import InputError
from inlay.specs.lengths import Lengths

KEYS = {
    "isl": "prompt_tokens",
    "osl": "output_tokens",
    "rate": "rate",
    "clients": "clients",
    "think": "think",
    "requests": "requests",
    "seed": "seed",
    "speed": "speed",
    "scale": "scale_lengths",
}
HINT = "write for example isl=1024,osl=lognormal:128:0.8,rate=4,requests=1000"
COUNTS = ("clients", "requests", "seed")


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one engine.

    With `rate` they come by themselves, so many a second on average, at random (Poisson). With `clients` so many are open at
    once, each following the one before it after `think` seconds. A `trace` brings times and lengths of its own: its clock runs
    `speed` times as fast, lengths are taken times `scale_lengths`; one of sessions is played by `clients` at once, think times
    as recorded. Lengths are texts that `Lengths` reads, in tokens. At most `requests` are made.
    """

    prompt_tokens: str = "1024"
    output_tokens: str = "128"
    rate: float | None = None
    clients: int | None = None
    think: float = 0.0
    requests: int | None = None
    seed: int = 0
    trace: str | None = None
    speed: float = 1.0
    scale_lengths: float = 1.0

    def check(self) -> None:
        """Raises InputError for what contradicts itself."""
        Lengths.parse(self.prompt_tokens, name="isl")
        Lengths.parse(self.output_tokens, name="osl")
        ways = [name for name in ("rate", "clients") if getattr(self, name) is not None]
        if self.trace is None and len(ways) != 1:
            found = " and ".join(ways) or "neither rate nor clients"
            raise InputError(f"the workload has {found}, expected one of rate and clients, or a trace", hint=HINT)
        if self.trace is not None and self.rate is not None:
            raise InputError("a rate is given and a trace, which has times of its own", hint="leave out rate, or use speed")
        if self.trace is None and self.requests is None:
            raise InputError("the workload has no end, expected a number of requests", hint=HINT)
        for name in ("rate", "clients", "requests", "speed", "scale_lengths"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} is {value}, expected a number above 0", hint=HINT)
        if not 0 <= self.think < float("inf"):
            raise InputError(f"think is {self.think}, expected seconds from 0", hint=HINT)


def parse_workload(text: str, *, trace: str | None = None) -> Workload:
    """The workload of "isl=1024,osl=128,rate=4,requests=1000". Raises InputError naming the part at fault."""
    found: dict[str, object] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        key, equals, value = part.partition("=")
        if key not in KEYS or not equals:
            raise InputError(f"workload has {part!r}, expected KEY=VALUE with one of {', '.join(KEYS)}", hint=HINT)
        if KEYS[key] in found:
            raise InputError(f"workload has {key} twice", hint="leave one out")
        found[KEYS[key]] = value if key in ("isl", "osl") else _number(key, value)
    workload = msgspec.convert({**found, "trace": trace}, Workload)
    workload.check()
    return workload


def _number(key: str, value: str) -> float | int:
    try:
        return int(value) if key in COUNTS else float(value)
    except ValueError:
        kind = "a whole number" if key in COUNTS else "a number"
        raise InputError(f"workload has {key} {value!r}, expected {kind}", hint=HINT) from None
