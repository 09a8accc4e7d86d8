"""The options of `inlay bench` that are more than a word: loads, plan, ranges, headers, from text to data."""

from __future__ import annotations

import json
import re
from typing import Any

from inlay.api.bench import Load, Plan, parse_budgets
from inlay.errors import InputError

AUTO = "auto"
HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")


def read_plan(
    loads: tuple[Load, ...],
    goodput: str,
    *,
    attain: float,
    requests: int | None,
    seconds: float | None,
    warmup: int,
    arrivals: str,
) -> Plan:
    """Without loads a search. Raises InputError for one without budgets, and for bounds that let nothing through."""
    budgets = parse_budgets(goodput)
    for name, value, least in (("requests", requests, 1), ("warmup", warmup, 0)):
        if value is not None and value < least:
            raise InputError(f"{name} is {value}, expected at least {least}", hint=f"leave --{name} out for its default")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InputError(f"seconds is {seconds:g}, expected a time above 0", hint="write for example --seconds 30")
    bounds: dict[str, Any] = {"requests": requests, "seconds": seconds, "warmup": warmup, "arrivals": arrivals}
    if loads:
        return Plan(loads=loads, budgets=budgets, **bounds)
    if not budgets or not 0 < attain <= 1:
        found = f"attain is {attain:g}" if budgets else "rate is auto without budgets"
        raise InputError(f"{found}, expected budgets and a share of at most 1", hint="add --goodput ttft:200,tpot:50")
    return Plan(budgets=budgets, attain=attain, **bounds)


def read_loads(
    concurrency: str | None, rate: str | None, *, arrivals: str, trace: str | None, sessions: str | None, speed: str
) -> tuple[Load, ...]:
    """One load a level. Raises InputError unless at most one way is given; concurrency 1 when none is."""
    ways = {"concurrency": concurrency, "rate": rate, "trace": trace}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        found = " and ".join(f"--{name}" for name in given)
        raise InputError(f"{found} are given, expected one of them", hint="run them one after the other, and --plot both")
    if arrivals not in ("poisson", "uniform"):
        raise InputError(f"arrivals is {arrivals!r}, expected poisson or uniform", hint="poisson is the default")
    if rate == AUTO:
        return ()
    if rate is not None:
        return tuple(Load(kind="open", value=value, arrivals=arrivals) for value in _numbers(rate, name="rate"))
    if sessions is not None and (trace is None or "," in speed):
        raise InputError(f"sessions is {sessions!r}, expected a --trace and one --speed beside it", hint="--trace FILE.jsonl")
    if trace is not None and sessions is not None:
        pace = _numbers(speed, name="speed")[0]
        return tuple(Load(kind="sessions", value=count, speed=pace) for count in _whole(sessions, name="sessions"))
    if trace is not None:
        return tuple(Load(kind="replay", value=value) for value in _numbers(speed, name="speed"))
    return tuple(Load(kind="closed", value=value) for value in _whole(concurrency or "1", name="concurrency"))


def _whole(text: str, *, name: str) -> list[float]:
    values = _numbers(text, name=name)
    broken = [value for value in values if value != int(value)]
    if broken:
        raise InputError(f"{name} {broken[0]:g} is no whole number, expected one", hint="rates may be broken: --rate")
    return values


def _numbers(text: str, *, name: str) -> list[float]:
    try:
        values = [float(item) for item in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < float("inf") for value in values):
        raise InputError(f"{name} is {text!r}, expected numbers above 0", hint=f"write for example --{name} 1,4,8")
    return values


def read_range(text: str) -> tuple[int, int]:
    """Two whole numbers from LOW:HIGH. Raises InputError."""
    low, _, high = text.partition(":")
    if not (low.isdigit() and high.isdigit()):
        raise InputError(f"ids is {text!r}, expected a range of token ids", hint="write for example --ids 100:4000")
    return int(low), int(high)


def read_extra(text: str | None) -> dict[str, Any]:
    """A JSON object, empty of nothing. Raises InputError."""
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise InputError(f"extra is {text!r}, which is not JSON: {error}", hint="write an object in single quotes") from error
    if not isinstance(found, dict):
        raise InputError(f"extra is {text!r}, expected a JSON object", hint="write for example --extra '{\"top_k\": 20}'")
    return found


def read_headers(items: list[str]) -> dict[str, str]:
    """Headers by their names from NAME:VALUE. Raises InputError."""
    found = {}
    for item in items:
        name, colon, value = item.partition(":")
        if not colon or not HEADER_NAME.fullmatch(name) or not value.isprintable() or not value.isascii():
            raise InputError(f"header {item!r:.80} is no NAME:VALUE in plain text", hint="for example x-slo-ttft-ms:200")
        found[name.lower()] = value.strip()
    return found
