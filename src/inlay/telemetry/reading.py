"""Prometheus text, ours or another server's, as samples. Lines that are none are passed over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: a counter's `name` is without `_total`."""

    name: str
    labels: dict[str, str]
    value: float


def read_samples(text: str) -> Iterator[Sample]:
    """Every sample of an exposition, in its order."""
    for line in text.splitlines():
        found = _SAMPLE.match(line)
        if found is None:
            continue
        try:
            value = float(found["value"])
        except ValueError:
            continue
        yield Sample(found["name"].removesuffix("_total"), dict(_LABEL.findall(found["labels"] or "")), value)


def sums(text: str) -> dict[str, float]:
    """The sum over all labels of every name."""
    found: dict[str, float] = {}
    for sample in read_samples(text):
        found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found
