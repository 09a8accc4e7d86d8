"""Make a Partition's code and put it into a Build: every region lowered, references beside, nothing decided here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from inlay.backends import backend
from inlay.backends.targets import runnable_of
from inlay.errors import UnsupportedError
from inlay.runtime.build import BuiltPiece, BuiltRegion, write_build
from inlay.runtime.cache import Cache
from inlay.runtime.lowering import lower_pieces
from inlay.runtime.obtain import request_for
from inlay.runtime.opening import REFERENCE
from inlay.runtime.store import read_program
from inlay.specs.partition import Partition
from inlay.specs.precision import Precision

Progress = Callable[[str], None]


def compile_partition(
    partition: Partition,
    folder: Path,
    target: Path,
    *,
    partition_text: bytes,
    cache: Cache,
    options: Mapping[str, Mapping[str, str]] | None = None,
    progress: Progress = lambda text: None,
) -> None:
    """Lower every region of the plan and write the Build. A region that cannot be lowered is an UnsupportedError that names
    it, its place and the reason; nothing else runs in its stead."""
    stored = read_program(folder)
    regions: list[BuiltRegion] = []
    artifacts: dict[str, Path] = {}
    built_not_run: list[str] = []
    for region in partition.regions:
        device = partition.cluster.device(region.device)
        threads = max(1, len(device.cores))
        request = request_for(stored, region.backend, precision=region.precision, threads=threads, target=device.target)
        if device.target and device.target not in runnable_of(backend(region.backend)):
            built_not_run.append(region.id)
        runs = [(region.first, region.end)] if region.fused else [(at, at + 1) for at in range(region.first, region.end)]
        outcomes = lower_pieces(folder, runs, backend_name=region.backend, request=request, cache=cache, progress=progress)
        for run in runs:
            if outcomes[run].reason:
                name = stored.cut.blocks[run[0]].name
                raise UnsupportedError(
                    f"region {region.id} ({name}) cannot be lowered for {region.place}: {outcomes[run].reason}",
                    hint="pin it to another place, or compile without a plan of your own",
                )
            artifacts[outcomes[run].key] = cache.artifact(outcomes[run].key)
        regions.append(
            BuiltRegion(
                id=region.id,
                device=region.device,
                backend=region.backend,
                threads=threads,
                pieces=tuple(BuiltPiece(first=first, end=end, artifact=outcomes[first, end].key) for first, end in runs),
                options=dict((options or {}).get(region.device, {})),
            )
        )
    references = _references(folder, len(stored.cut.blocks), cache, progress)
    write_build(
        target,
        partition=partition,
        program=folder,
        regions=regions,
        artifacts=artifacts,
        references=references,
        partition_text=partition_text,
        built_not_run=built_not_run,
    )


def _references(folder: Path, count: int, cache: Cache, progress: Progress) -> list[Path]:
    """The reference of every block; equal blocks share one."""
    stored = read_program(folder)
    request = request_for(stored, REFERENCE, precision=Precision(), threads=1)
    runs = [(at, at + 1) for at in range(count)]
    outcomes = lower_pieces(folder, runs, backend_name=REFERENCE, request=request, cache=cache, progress=progress)
    failed = [outcome for outcome in outcomes.values() if outcome.reason]
    if failed:
        raise UnsupportedError(f"block {stored.cut.blocks[failed[0].first].name} has no reference: {failed[0].reason}")
    return [cache.artifact(outcomes[run].key) for run in runs]
