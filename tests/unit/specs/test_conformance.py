"""Reports of the conformance kit: the verdict follows from the cases, and a changed report is refused."""

from __future__ import annotations

import msgspec
import pytest

from inlay.errors import ArtifactError
from inlay.specs.conformance import (
    CHOSEN,
    CONFORMANT,
    NOT_CONFORMANT,
    NOT_REACHED,
    PARTIAL,
    REPORT_VERSION,
    SECTIONS,
    Case,
    OperatorSupport,
    Report,
    digest_of,
    dump_report,
    measure_coverage,
    parse_report,
    sign,
)

COUNTS = {f"aten.op{number}.default": number + 1 for number in range(10)}


def report(**changes: object) -> Report:
    """A conformant one, with changes."""
    fields = {
        "backend": "madeup",
        "kind": "full",
        "framework": "madeup-runtime",
        "framework_version": "1.2",
        "inlay": {"version": "0.1.0"},
        "machine": {"chip": "made up"},
        "taken": "2026-11-26T00:00:00+00:00",
        "seconds": 1.0,
        "sections": {section: (Case("one", "passed", 2, 1e-7),) for section in SECTIONS},
        "operators": {name: OperatorSupport("passed") for name in COUNTS},
        "coverage": measure_coverage(COUNTS, {name: OperatorSupport("passed") for name in COUNTS}),
        "filters": {"it draws random numbers": 3},
    }
    return Report(**{**fields, **changes})  # type: ignore[arg-type]


def with_section(name: str, *cases: Case) -> dict[str, tuple[Case, ...]]:
    return {**report().sections, name: cases}


def test_everything_passed_and_all_operators_covered_is_conformant() -> None:
    assert sign(report()).verdict == CONFORMANT


def test_one_failed_case_anywhere_is_not_conformant_and_is_named() -> None:
    for section in SECTIONS:
        found = sign(report(sections=with_section(section, Case("good", "passed"), Case("bad", "failed", reason="wrong"))))
        assert found.verdict == NOT_CONFORMANT
        assert section in found.because[0] and "bad" in found.because[0]


def test_a_backend_that_declares_everything_unsupported_does_not_pass() -> None:
    nothing = {section: (Case("one", "unsupported", reason="no such unit"),) for section in SECTIONS}
    support = {name: OperatorSupport("unsupported", "no such unit") for name in COUNTS}
    found = sign(report(sections=nothing, operators=support, coverage=measure_coverage(COUNTS, support)))
    assert found.verdict == NOT_CONFORMANT
    assert any("numerics: nothing passed" in reason for reason in found.because)
    assert any("0 of 10" in reason for reason in found.because)


@pytest.mark.parametrize(("passed", "verdict"), [(10, CONFORMANT), (9, CONFORMANT), (8, NOT_CONFORMANT)])
def test_the_goal_is_nine_of_ten_operators(passed: int, verdict: str) -> None:
    names = list(COUNTS)
    support = {name: OperatorSupport("passed" if index < passed else "unsupported", "why") for index, name in enumerate(names)}
    coverage = measure_coverage(COUNTS, support)
    assert (coverage.passed, coverage.operators) == (passed, 10)
    assert sign(report(coverage=coverage)).verdict == verdict


def test_coverage_names_every_missing_operator_with_its_reason_and_untested_is_missing() -> None:
    support = {name: OperatorSupport("passed") for name in list(COUNTS)[:8]}
    support["aten.op8.default"] = OperatorSupport("failed", "relative error 1.0")
    missing = measure_coverage(COUNTS, support).missing
    assert missing["aten.op8.default"] == "failed: relative error 1.0"
    assert missing["aten.op9.default"].startswith("untested")


def test_a_run_of_some_sections_is_at_best_partial_and_still_fails_by_a_failure() -> None:
    some = {"state": report().sections["state"]}
    assert sign(report(sections=some)).verdict == PARTIAL
    assert sign(report(sections={"state": (Case("ten steps", "failed", reason="lost"),)})).verdict == NOT_CONFORMANT


def test_chosen_cases_are_at_best_partial_whatever_they_cover() -> None:
    nothing = measure_coverage(COUNTS, {})
    assert sign(report(kind=CHOSEN, coverage=nothing)).verdict == PARTIAL
    assert (
        sign(report(kind=CHOSEN, sections=with_section("numerics", Case("x", "failed", reason="wrong")))).verdict
        == NOT_CONFORMANT
    )


def test_what_there_was_no_time_for_leaves_the_verdict_open() -> None:
    late = with_section("numerics", Case("a", "passed"), Case("b", "skipped", reason=NOT_REACHED))
    assert sign(report(sections=late, coverage=measure_coverage(COUNTS, {}))).verdict == PARTIAL
    assert sign(report(sections={**late, "state": (Case("c", "failed", reason="lost"),)})).verdict == NOT_CONFORMANT


def test_a_backend_without_a_driver_that_could_break_is_conformant_all_the_same() -> None:
    assert (
        sign(report(sections=with_section("broken driver", Case("import", "skipped", reason="no driver")))).verdict
        == CONFORMANT
    )


def test_a_report_is_read_back_as_it_was_signed() -> None:
    signed = sign(report())
    assert parse_report(dump_report(signed), source="it") == signed


def test_a_report_with_failures_in_many_sections_is_read_back_too() -> None:
    wrong = {section: (Case("bad", "failed", reason="wrong"),) for section in SECTIONS}
    signed = sign(report(sections=wrong))
    assert len(signed.because) == len(SECTIONS)
    assert parse_report(dump_report(signed), source="it") == signed


@pytest.mark.parametrize(
    ("old", "new"),
    [('"passed",2', '"passed",3'), ("made up", "other"), ('"taken": "2026', '"taken": "2027'), ("1e-7", "1e-8")],
)
def test_a_changed_report_is_refused(old: str, new: str) -> None:
    text = dump_report(sign(report()))
    assert old in text
    with pytest.raises(ArtifactError, match="was changed"):
        parse_report(text.replace(old, new), source="it")


def test_a_report_that_was_signed_again_with_another_verdict_is_refused() -> None:
    bad = sign(report(sections=with_section("state", Case("ten steps", "failed", reason="lost"))))
    praised = msgspec.structs.replace(bad, verdict=CONFORMANT, because=())
    forged = msgspec.structs.replace(praised, digest=digest_of(praised))
    with pytest.raises(ArtifactError, match="its cases say 'not conformant'"):
        parse_report(dump_report(forged), source="it")


def test_other_versions_and_what_is_no_report_are_refused() -> None:
    other = msgspec.structs.replace(sign(report()), version=REPORT_VERSION + 1)
    with pytest.raises(ArtifactError, match=f"version {REPORT_VERSION + 1}, expected {REPORT_VERSION}"):
        parse_report(dump_report(other), source="it")
    with pytest.raises(ArtifactError, match="cannot be read"):
        parse_report("{}", source="it")
