"""What `inlay conform` found of a backend: cases, coverage and the verdict, in one file that is signed by its own hash.

The verdict follows from the contents alone, so that whoever reads a report can come to it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from inlay.errors import ArtifactError

REPORT_VERSION = 1
GOAL = 0.9
"""The least share of the models' operators that a conformant backend takes and computes right."""
SECTIONS = (
    "capability",
    "numerics",
    "models",
    "dynamic shapes",
    "state",
    "save and load",
    "cache",
    "broken driver",
)
OUTCOMES = ("passed", "failed", "unsupported", "skipped")
"""As promised; not as promised; refused by the backend, with its reason; not tried by the kit, with the kit's reason."""
NEEDED = tuple(section for section in SECTIONS if section != "broken driver")
"""Sections in which something must have passed. A backend without a driver of its own has none that could break."""
CONFORMANT, NOT_CONFORMANT, PARTIAL = "conformant", "not conformant", "partial"
FULL, SAMPLE, CHOSEN = "full", "sample", "chosen"
NOT_REACHED = "not reached within the time"
"""The reason of cases that a run had no time for: what they would have shown is open, so the verdict is at best "partial"."""


class Case(msgspec.Struct, frozen=True, array_like=True):
    """One thing that was tried. `error` is the largest one relative to the largest number of the truth; `samples` how many
    samples of the case agree with `outcome`. `reason` may be given with "passed" too: what some samples were refused for."""

    name: str
    outcome: str
    samples: int = 1
    error: float | None = None
    reason: str = ""


class OperatorSupport(msgspec.Struct, frozen=True, array_like=True):
    """One operator over all samples that hold it: an outcome, or "untested" where no sample does; and why."""

    outcome: str
    reason: str = ""


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """Of the operators that occur in the models of the zoo: how many, how many passed, and why the others did not."""

    operators: int
    passed: int
    missing: dict[str, str]

    @property
    def share(self) -> float:
        """Passed by all; 0 where there are none."""
        return self.passed / self.operators if self.operators else 0.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole report.

    `kind` is "full", "sample", or "chosen" where only chosen cases were tried; `filters` maps each reason for which the kit
    leaves samples of PyTorch's out to their number; `machine` holds facts and no paths; `digest` is the sha256 over all else.
    """

    backend: str
    kind: str
    framework: str
    framework_version: str
    inlay: dict[str, str]
    machine: dict[str, str]
    taken: str
    seconds: float
    sections: dict[str, tuple[Case, ...]]
    operators: dict[str, OperatorSupport]
    coverage: Coverage
    filters: dict[str, int]
    verdict: str = ""
    because: tuple[str, ...] = ()
    digest: str = ""
    version: int = REPORT_VERSION

    def count(self, outcome: str, section: str = "") -> int:
        """How many cases of one section, or of all, came out so."""
        found = [self.sections[section]] if section else list(self.sections.values())
        return sum(case.outcome == outcome for cases in found for case in cases)


def measure_coverage(counts: Mapping[str, int], support: Mapping[str, OperatorSupport]) -> Coverage:
    """The share of these operators that passed; each of the others with its reason."""
    missing = {}
    for operator in sorted(counts):
        found = support.get(operator, OperatorSupport("untested", "no sample that was tried holds it"))
        if found.outcome != "passed":
            missing[operator] = f"{found.outcome}: {found.reason}"
    return Coverage(operators=len(counts), passed=len(counts) - len(missing), missing=missing)


def judge(report: Report) -> tuple[str, tuple[str, ...]]:
    """The verdict and what it rests on. A report that lacks sections or cases is never "conformant", at best "partial"."""
    because, wanting = [], []
    for section in (name for name in SECTIONS if name in report.sections):  # files may have them in another order
        cases = report.sections[section]
        failed = [case.name for case in cases if case.outcome == "failed"]
        if failed:
            because.append(f"{section}: {len(failed)} failed, the first is {failed[0]}")
        if section in NEEDED and not any(case.outcome in ("passed", "failed") for case in cases):
            wanting.append(f"{section}: nothing passed")
    if "numerics" in report.sections and report.coverage.share < GOAL:
        told = f"{report.coverage.passed} of {report.coverage.operators}"
        wanting.append(f"coverage: {told} operators of the models, expected at least {GOAL:.0%}")
    absent = [section for section in SECTIONS if section not in report.sections]
    if report.kind == CHOSEN:
        absent.append("cases that were not chosen")
    late = sum(case.reason == NOT_REACHED for cases in report.sections.values() for case in cases)
    if late:
        absent.append(
            f"{late} cases for which there was no time: run it again, what was lowered is kept, or give it more --seconds"
        )
    if because or (wanting and not late and report.kind != CHOSEN):
        return NOT_CONFORMANT, (*because, *wanting)
    if absent:
        return PARTIAL, (f"not tried: {', '.join(absent)}",)
    return CONFORMANT, ()


def sign(report: Report) -> Report:
    """The same report with its verdict and its digest."""
    verdict, because = judge(report)
    judged = msgspec.structs.replace(report, verdict=verdict, because=because)
    return msgspec.structs.replace(judged, digest=digest_of(judged))


def digest_of(report: Report) -> str:
    """sha256 over the canonical contents: JSON with sorted keys and no blanks, the digest itself left out."""
    canonical = msgspec.json.encode(msgspec.structs.replace(report, digest=""), order="sorted")
    return hashlib.sha256(canonical).hexdigest()


def dump_report(report: Report) -> str:
    """The text of a report file: sorted keys, one line for each case, so that two can be compared."""
    fields = msgspec.to_builtins(report, order="sorted")
    lines = []
    for key, value in fields.items():
        if key in ("sections", "operators"):
            inner = ",\n".join(
                f"  {_text(name)}: {_rows(item) if key == 'sections' else _text(item)}" for name, item in value.items()
            )
            lines.append(f"{_text(key)}: {{\n{inner}\n}}")
        else:
            lines.append(f"{_text(key)}: {_text(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def parse_report(text: str | bytes, *, source: str) -> Report:
    """The report in a file; `source` names it in messages. Raises ArtifactError for one that was changed after it was signed,
    of another version, or with a verdict that does not follow from its cases."""
    hint = "make it anew with `inlay conform`"
    try:
        report = msgspec.json.decode(text, type=Report)
    except msgspec.DecodeError as error:
        raise ArtifactError(f"report {source} cannot be read: {error}", hint=hint) from error
    if report.version != REPORT_VERSION:
        raise ArtifactError(f"report {source} has version {report.version}, expected {REPORT_VERSION}", hint=hint)
    if digest_of(report) != report.digest:
        raise ArtifactError(
            f"report {source} was changed: its contents have digest {digest_of(report)[:12]}, it says {report.digest[:12]}",
            hint=hint,
        )
    if (report.verdict, report.because) != judge(report):
        raise ArtifactError(f"report {source} says {report.verdict!r}, its cases say {judge(report)[0]!r}", hint=hint)
    return report


def _text(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _rows(cases: list[object]) -> str:
    return "[\n" + ",\n".join(f"    {_text(case)}" for case in cases) + "\n  ]"
