"""From verdicts on samples to what holds of each operator. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from inlay.runtime.conformance.numerics import Verdict
from inlay.specs.conformance import OperatorSupport

SIZES = ("<built-in function ", "aten.sym_", "<class ", "<function ")
"""Operators that handle numbers and tuples; no sample fails because of them."""


def support_of(
    verdicts: Iterable[Verdict], *, refused: Mapping[str, str], programs: Mapping[str, bool], operators: Iterable[str]
) -> dict[str, OperatorSupport]:
    """What holds of each operator that occurs anywhere.

    An operator failed where a sample fails of which it is the only operator, or that fails and it passed nowhere else;
    else it passed where a sample or one of the `programs` (operators of those that passed) holds it. Those that were only
    `refused` are unsupported, with the reason. The others of `operators` are untested.
    """
    found = list(verdicts)
    passed = {name for verdict in found if verdict.outcome == "passed" for name in verdict.operators}
    passed |= {name for name, right in programs.items() if right}
    failed: dict[str, str] = {}
    for verdict in found:
        if verdict.outcome == "failed":
            own = [name for name in verdict.operators if not name.startswith(SIZES)]
            blamed = own if len(own) == 1 else [name for name in own if name not in passed]
            for name in blamed:
                failed.setdefault(name, f"{verdict.case}: {verdict.reason}")
    every = {name for verdict in found for name in verdict.operators} | set(refused) | set(programs) | set(operators)
    return {name: _support(name, passed, failed, refused) for name in sorted(every)}


def _support(name: str, passed: set[str], failed: Mapping[str, str], refused: Mapping[str, str]) -> OperatorSupport:
    if name in failed:
        return OperatorSupport("failed", failed[name])
    if name in passed:
        return OperatorSupport("passed", f"not always: {refused[name]}" if name in refused else "")
    if name in refused:
        return OperatorSupport("unsupported", refused[name])
    return OperatorSupport("untested", "no sample that was tried holds it")
