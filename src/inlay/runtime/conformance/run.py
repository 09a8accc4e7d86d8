"""One run of the kit: the sections in order, then the report."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import msgspec

from inlay.backends import Backend, backend
from inlay.errors import InputError, UnsupportedError
from inlay.runtime.cache import Cache
from inlay.runtime.conformance.broken import try_broken
from inlay.runtime.conformance.facts import inlay_facts, machine_facts, without_paths
from inlay.runtime.conformance.files import try_cache, try_files
from inlay.runtime.conformance.numerics import Numbers, cases_of, gather, try_samples
from inlay.runtime.conformance.programs import Prepared, prepare
from inlay.runtime.conformance.sections import try_programs, try_stages, try_states
from inlay.runtime.conformance.tally import support_of
from inlay.runtime.conformance.trials import FULL_ONLY, SAMPLED, STATEFUL, side_names
from inlay.runtime.conformance.world import World
from inlay.runtime.conformance.zoo import operator_counts
from inlay.specs.conformance import CHOSEN, FULL, NOT_REACHED, SAMPLE, SECTIONS, Case, Report, measure_coverage, sign

SAMPLE_SECONDS = 170.0
NEEDED = ("torch", "transformers", "expecttest")
"""Packages that make the samples; the last one is what PyTorch's own list of them imports."""
"""After which a sample begins nothing new."""
FILES_OF = "text encoder"
"""The program that is copied, damaged and opened on a broken driver."""
Progress = Callable[[str], None]


def conform(
    name: str,
    *,
    full: bool = False,
    sections: Sequence[str] = (),
    only: Sequence[str] = (),
    cache: Cache,
    seconds: float | None = None,
    progress: Progress = lambda text: None,
) -> Report:
    """Try a backend and judge it. `sections` limits what is tried, `only` the samples to those of cases that hold one of
    these texts; the verdict is then "partial" at best.

    A sample ends after `seconds` (SAMPLE_SECONDS by default): what was not reached is skipped, with that reason. Raises
    InputError for an unknown backend or section, UnsupportedError for a backend that is not available here.
    """
    found, wanted = _checked(name, sections)
    begun = time.monotonic()
    deadline = None if full and seconds is None else begun + (SAMPLE_SECONDS if seconds is None else seconds)
    scratch = Path(tempfile.mkdtemp(prefix="inlay-conform-"))
    try:
        world = World(backend=found, cache=cache, scratch=scratch, deadline=deadline)
        return _Run(world, full=full, wanted=wanted, only=only, progress=progress, begun=begun).report()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _checked(name: str, sections: Sequence[str]) -> tuple[Backend, tuple[str, ...]]:
    found = backend(name)
    strange = [section for section in sections if section not in SECTIONS]
    if strange:
        raise InputError(
            f"section is {strange[0]!r}, expected one of: {', '.join(SECTIONS)}", hint="see `inlay conform --help`"
        )
    if name == "null":
        raise InputError("backend null computes nothing, expected one whose results can be compared", hint="try `contrary`")
    here = found.available()
    if not here.available:
        raise UnsupportedError(f"backend {name} cannot be tried here: {here.reason}", hint="`inlay devices` shows them")
    missing = next((package for package in NEEDED if find_spec(package) is None), "")
    if missing:
        raise UnsupportedError(
            f"the conformance kit needs {missing}, which is not installed in {sys.prefix}", hint="pip install 'inlay[conform]'"
        )
    return found, tuple(section for section in SECTIONS if not sections or section in sections)


class _Run:
    """The sections of one run as they are done."""

    def __init__(
        self, world: World, *, full: bool, wanted: tuple[str, ...], only: Sequence[str], progress: Progress, begun: float
    ) -> None:
        self._world, self._full, self._wanted, self._progress, self._begun = world, full, wanted, progress, begun
        self._only = only
        self._sections: dict[str, tuple[Case, ...]] = {}
        self._numbers = Numbers()
        self._programs: dict[str, bool] = {}
        self._refused: dict[str, str] = {}

    def report(self) -> Report:
        """Everything, signed."""
        self._whole_programs()
        if {"capability", "numerics"} & set(self._wanted):
            gathered = gather(self._world, full=self._full, only=self._only, progress=self._progress)
            self._numbers = try_samples(self._world, gathered, progress=self._progress)
            self._note("numerics", cases_of(self._numbers))
            self._note("capability", capability_cases(self._numbers, self._refused))
        world, here = self._world, self._world.backend.available()
        found = support_of(
            self._numbers.verdicts.values(),
            refused={**self._refused, **self._numbers.refused},
            programs=self._programs,
            operators=operator_counts(),
        )
        support = {name: msgspec.structs.replace(item, reason=without_paths(item.reason)) for name, item in found.items()}
        return sign(
            Report(
                backend=world.backend.name,
                kind=CHOSEN if self._only else FULL if self._full else SAMPLE,
                framework=here.framework,
                framework_version=here.version,
                inlay=inlay_facts(),
                machine=machine_facts(),
                taken=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - self._begun, 1),
                sections={name: self._sections[name] for name in SECTIONS if name in self._sections},
                operators=support,
                coverage=measure_coverage(operator_counts(), support),
                filters=_filters(self._numbers),
            )
        )

    def _note(self, section: str, cases: Sequence[Case]) -> None:
        if section in self._wanted:
            self._sections[section] = tuple(msgspec.structs.replace(case, reason=without_paths(case.reason)) for case in cases)

    def _whole_programs(self) -> None:
        world, wanted, progress = self._world, set(self._wanted), self._progress
        shown = wanted & ({"models", "dynamic shapes"} if self._only else {"models", "dynamic shapes", "numerics"})
        plain = [*SAMPLED, *(FULL_ONLY if self._full else ())] if shown else []
        stateful = list(STATEFUL) if "state" in wanted else []
        sides = side_names(full=self._full) if "cache" in wanted else []
        files = [FILES_OF] if wanted & {"save and load", "broken driver"} else []
        names = list(dict.fromkeys([*plain, *stateful, *files, *sides]))
        if not names:
            return
        prepared = prepare(world, names, cut=self._full, progress=progress)
        if plain:
            models, shapes = try_programs(world, {name: prepared[name] for name in plain}, progress=progress)
            self._note("models", [*models, *(try_stages(world, progress=progress) if "models" in wanted else [])])
            self._note("dynamic shapes", shapes)
            for case in models:
                self._learn(prepared[case.name], case)
        if stateful:
            cases = try_states(world, {name: prepared[name] for name in stateful}, progress=progress)
            self._note("state", cases)
            for name, case in zip(stateful, cases, strict=True):
                self._learn(prepared[name], case)
        if "save and load" in wanted:
            progress("save and load")
            self._note("save and load", try_files(world, prepared[FILES_OF]))
        if sides:
            self._note("cache", try_cache(world, {name: prepared[name] for name in sides}, progress=progress))
        if "broken driver" in wanted:
            self._note("broken driver", try_broken(world, prepared[FILES_OF], progress=progress))

    def _learn(self, item: Prepared, case: Case) -> None:
        """The operators of a program that passed did; those that the backend refused are noted with the reason."""
        program = item.stored.cut.program
        for node in program.nodes:
            self._programs[node.operator] = self._programs.get(node.operator, False) or case.outcome == "passed"
        if case.outcome == "unsupported":
            answers = self._world.backend.supports(program, device="cpu:0").nodes
            known = {node.name: node.operator for node in program.nodes}
            for answer in answers:
                if not answer.supported:
                    self._refused.setdefault(known[answer.node], answer.reason)


def capability_cases(numbers: Numbers, refused: dict[str, str]) -> list[Case]:
    """Whether `supports` answers for every node with reasons, and what it promised that was then refused or lost."""
    answers = sorted(set(numbers.bad_answers))
    reasons = {**refused, **numbers.refused}
    cases = [
        Case(
            f"one answer for each node, a reason for each refusal ({len(reasons)} operators are refused somewhere)",
            "failed" if answers else "passed",
            numbers.answers,
            reason=answers[0] if answers else "",
        )
    ]
    tried = [verdict for verdict in numbers.verdicts.values() if verdict.outcome in ("passed", "failed")]
    broken: dict[str, str] = {}
    for verdict in tried:
        if verdict.promised:
            broken.setdefault(verdict.case, verdict.reason)
    kept = sum(not verdict.promised for verdict in tried)
    if tried:
        cases.append(Case("what it takes can be lowered", "passed" if kept else "failed", kept))
    cases += [Case(f"promised and refused: {case}", "failed", reason=reason) for case, reason in sorted(broken.items())]
    return cases


def _filters(numbers: Numbers) -> dict[str, int]:
    """How many samples were left out for each reason; reasons that name a value are counted under what they have in common."""
    found: Counter[str] = Counter()
    for verdict in numbers.verdicts.values():
        if verdict.outcome == "skipped" and verdict.reason != NOT_REACHED:
            found[verdict.reason.partition(": ")[0]] += 1
    return dict(sorted(found.items()))
