"""The support matrix, from the reports in docs/conformance: what `docs/generate.py` writes as docs/reference/support.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from inlay.api.conformance import read_report
from inlay.runtime.conformance.zoo import operator_counts
from inlay.specs.conformance import GOAL, OUTCOMES, Report

REPORTS = Path(__file__).parent / "conformance"
MARKS = {"passed": "yes", "failed": "**wrong**", "unsupported": "no", "untested": ""}
SOME = "some"


def support() -> str:
    """The whole page. Raises ArtifactError for a report that was changed after it was signed."""
    reports = {path.stem: read_report(path) for path in sorted(REPORTS.glob("*.json"))}
    return "".join([_head(), _verdicts(reports), _matrix(reports), _refusals(reports), _failures(reports)])


def _head() -> str:
    return (
        "# Support matrix\n\nMade from the signed reports in [docs/conformance](../conformance), written by "
        "`inlay conform BACKEND -o` (a sample)\nor with `--full` ([how](../guides/add-a-backend.md#conformance)). "
        "Truth is eager PyTorch on its own samples of each operator.\n\n"
    )


def _verdicts(reports: Mapping[str, Report]) -> str:
    lines = [
        f"| backend | framework | report | {' | '.join(OUTCOMES)} | operators of the models | verdict |\n",
        f"| --- | --- | --- |{' ---: |' * len(OUTCOMES)} ---: | --- |\n",
    ]
    for name, report in reports.items():
        counts = " | ".join(str(report.count(outcome)) for outcome in OUTCOMES)
        share = f"{report.coverage.passed} of {report.coverage.operators} ({report.coverage.share:.0%})"
        what = f"{report.framework} {report.framework_version}"
        told = f"{report.kind}, {report.taken[:10]}, {report.machine['chip']}"
        lines.append(f"| {name} | {what} | {told} | {counts} | {share} | {report.verdict} |\n")
    return (
        "".join(lines)
        + f"\nConformant: nothing failed, and at least {GOAL:.0%} of the operators of the models are taken and right.\n"
    )


def _matrix(reports: Mapping[str, Report]) -> str:
    counts = operator_counts()
    every = {name for report in reports.values() for name in report.operators}
    lines = [
        "\n## Operators\n\nyes: taken and right on every sample tried; some: taken and right, and refused with some "
        "arguments or types; no: refused;\nblank: no sample that was tried holds it. In models: how many nodes of the "
        "models of `benchmarks/model_zoo.py` it is. Those of the models\ncome first.\n\n",
        f"| operator | in models | {' | '.join(reports)} |\n| --- | ---: |{' --- |' * len(reports)}\n",
    ]
    for name in sorted(every, key=lambda item: (-counts.get(item, 0), item)):
        marks = []
        for report in reports.values():
            found = report.operators.get(name)
            some = found is not None and found.outcome == "passed" and bool(found.reason)
            marks.append("" if found is None else SOME if some else MARKS[found.outcome])
        lines.append(f"| `{name}` | {counts.get(name, '')} | {' | '.join(marks)} |\n")
    return "".join(lines)


def _refusals(reports: Mapping[str, Report]) -> str:
    """Every operator that is refused somewhere, under its reason."""
    parts = ["\n## Refused, and why\n"]
    for backend, report in reports.items():
        reasons: dict[str, list[str]] = {}
        for name, found in report.operators.items():
            if found.outcome == "unsupported" or (found.outcome == "passed" and found.reason):
                reasons.setdefault(found.reason, []).append(f"`{name}`")
        parts.append(f"\n### {backend}\n\n")
        parts += [f"- {_plain(reason)}: {', '.join(names)}\n" for reason, names in sorted(reasons.items())] or ["Nothing.\n"]
    return "".join(parts)


def _failures(reports: Mapping[str, Report]) -> str:
    parts = []
    for backend, report in reports.items():
        failed = [(section, case) for section, cases in report.sections.items() for case in cases if case.outcome == "failed"]
        if failed:
            parts.append(f"\n### {backend}\n\n")
            parts += [f"- {section}, {case.name}: {_plain(case.reason)}\n" for section, case in failed]
    return ("\n## Failed\n" + "".join(parts)) if parts else ""


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
