"""Name the node of a region where an error enters, once a verification has failed. No torch here: `runtime.halving` works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from inlay.backends.environment import python_of
from inlay.errors import InlayError
from inlay.runtime.build import Build
from inlay.runtime.lowering import LOWER_SECONDS, run_program
from inlay.runtime.obtain import request_for
from inlay.specs.artifact import LowerRequest
from inlay.specs.precision import Precision
from inlay.specs.verification import Culprit, RegionError, Verification

Progress = Callable[[str], None]


class HalvingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The config of `halving.main`: a captured program, a region of it, and what to compare it at."""

    program: str
    first: int
    end: int
    backend: str
    request: LowerRequest
    point: dict[str, int]
    seed: int
    tolerance: float
    result: str
    progress: str = ""


def find_culprit(build: Build, found: Verification, *, program: Path | None, progress: Progress) -> Verification:
    """The same verification with the culprit of its first failed region, where there is one.

    `program` is the captured program in the cache, None where it is not there any more. A region whose error does not come
    again when it is lowered anew gets a culprit without a node: its artifact is at fault, not its lowering.
    """
    failed = next((region for region in found.regions if not region.passed), None)
    if failed is None:
        return found
    if program is None:
        return msgspec.structs.replace(found, culprit=_unknown(failed, "the captured program is not in the cache any more"))
    built = next(region for region in build.manifest.regions if region.id == failed.id)
    planned = next((item for item in build.partition.regions if item.id == failed.id), None)
    precision = planned.precision if planned is not None else Precision()
    target = build.partition.cluster.device(built.device).target
    config = HalvingConfig(
        program=str(program),
        first=built.pieces[0].first,
        end=built.pieces[-1].end,
        backend=built.backend,
        request=request_for(build.stored, built.backend, precision=precision, threads=built.threads, target=target),
        point=build.stored.points[0],
        seed=found.seed,
        tolerance=failed.tolerance,
        result="",
    )
    given = {key: value for key, value in msgspec.to_builtins(config).items() if key not in ("result", "progress")}
    try:
        outcome = run_program(
            "inlay.runtime.halving:main",
            given,
            progress=progress,
            seconds=LOWER_SECONDS,
            python=python_of(built.backend),
        )
    except InlayError as error:
        return msgspec.structs.replace(found, culprit=_unknown(failed, error.message))
    return msgspec.structs.replace(found, culprit=_culprit(build, failed, outcome))


def _culprit(build: Build, failed: RegionError, outcome: Mapping[str, object]) -> Culprit:
    name, error = str(outcome["node"]), float(str(outcome["relative_error"]))
    node = next((item for item in build.stored.cut.program.nodes if item.name == name), None)
    if node is None:
        return _unknown(failed, "lowered anew it is within its tolerance: the artifact or its weights are at fault")
    return Culprit(
        region=failed.id,
        node=node.name,
        operator=node.operator,
        path=node.path,
        source=node.source,
        relative_error=error,
    )


def _unknown(failed: RegionError, reason: str) -> Culprit:
    return Culprit(
        region=failed.id, node="", operator="", path="", source="", relative_error=failed.relative_error, reason=reason
    )
