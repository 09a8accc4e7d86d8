"""Compare a Build with its reference: every region on fresh random inputs at several sizes, alone and as stitched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inlay.backends import Array
from inlay.graph import flops_of
from inlay.runtime.build import Build, BuiltRegion
from inlay.runtime.inputs import random_inputs
from inlay.runtime.opening import is_static
from inlay.runtime.session import Session
from inlay.specs.verification import TOLERANCES, RegionError, Verification

LARGEST_FLOPS = 4.0
"""The upper bounds of the sizes are tried where they cost at most this much more than the largest declared point."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Of one value from its reference."""

    relative: float
    absolute: float
    l2: float
    non_finite: int


def difference(found: Array, expected: Array) -> Difference:
    """Largest difference by the largest number of the reference, the same absolute, the L2 ratio, and non-finite numbers
    where the reference has finite ones (or the reverse)."""
    one, two = found.astype(np.float64), expected.astype(np.float64)
    both = np.isfinite(one) & np.isfinite(two)
    strange = int((np.isfinite(one) != np.isfinite(two)).sum())
    if not both.any():
        return Difference(0.0, 0.0, 0.0, strange)
    gap = np.abs(one[both] - two[both])
    scale = np.abs(two[both]).max()
    norm = float(np.sqrt((two[both] ** 2).sum()))
    least = np.finfo(np.float64).tiny
    return Difference(
        float(gap.max() / max(scale, least)) if gap.max() else 0.0,
        float(gap.max()),
        float(np.sqrt((gap**2).sum()) / max(norm, least)) if gap.max() else 0.0,
        strange,
    )


def verify(
    build: Build,
    session: Session,
    reference: Session,
    *,
    seed: int,
    points: Sequence[Mapping[str, int]] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Verification:
    """Run both at every point; a state starts at its first value in both and is carried on."""
    chosen = [dict(point) for point in points] if points else points_to_check(build)
    program, samples = build.stored.cut.program, build.stored.samples
    states = {state.input for state in program.states}
    wanted = {name: tensor for name, tensor in program.inputs.items() if name not in states}
    found = {region.id: _Worst(build, region) for region in build.manifest.regions}
    results: dict[str, float] = {}
    for number, point in enumerate(chosen):
        label = ", ".join(f"{name} {size}" for name, size in point.items()) or "fixed sizes"
        progress(f"verify at {label}")
        inputs = random_inputs(wanted, sizes=point, samples=samples, seed=seed + number)
        given = tuple(dict.fromkeys(name for region in build.manifest.regions for name in _outputs(build, region)))
        truth = {**inputs, **reference.run(inputs, keep=given).values}
        stitched = session.run(inputs, keep=given).values
        for region in build.manifest.regions:
            outputs = _outputs(build, region)
            worst = found[region.id]
            worst.carried(outputs, stitched, truth)
            if not states:
                alone = session.run_region(region.id, truth, point).values
                worst.alone(outputs, alone, truth)
            else:  # running a region once more would change its state: what it gave in turn counts
                worst.alone(outputs, stitched, truth)
        for key, name in zip(program.results, program.outputs, strict=True):
            if name in stitched:
                results[key] = max(results.get(key, 0.0), difference(stitched[name], truth[name]).relative)
    regions = tuple(worst.error() for worst in found.values())
    return Verification(points=tuple(chosen), seed=seed, regions=regions, results=results)


def points_to_check(build: Build) -> list[dict[str, int]]:
    """The declared points; and where every region takes any size, the least of each, an odd one between, and the most."""
    declared = [dict(point) for point in build.stored.points]
    program = build.stored.cut.program
    ranges = {name: program.ranges.get(name, (1, size)) for name, size in declared[0].items()}
    if is_static(build) or not ranges:
        return declared
    least = {name: low for name, (low, _) in ranges.items()}
    between = {name: max(low, min(high, low + 2 * index + 4)) for index, (name, (low, high)) in enumerate(ranges.items())}
    most = {name: high for name, (_, high) in ranges.items()}
    names = [node.name for node in program.nodes]
    budget = LARGEST_FLOPS * max(flops_of(program, names, point) for point in declared)
    bounded = all(high < 2**31 for _, high in ranges.values()) and flops_of(program, names, most) <= budget
    tried = [*declared, least, between, *([most] if bounded else [])]
    return [dict(item) for item in dict.fromkeys(tuple(sorted(point.items())) for point in tried)]


def _outputs(build: Build, region: BuiltRegion) -> list[str]:
    return [name for piece in region.pieces for name in build.piece(piece).outputs]


class _Worst:
    """The worst that a region did over all points and values."""

    def __init__(self, build: Build, region: BuiltRegion) -> None:
        self._region = region
        planned = next((item for item in build.partition.regions if item.id == region.id), None)
        self._compute = planned.precision.compute if planned is not None else "float32"
        self._worst = Difference(0.0, 0.0, 0.0, 0)
        self._carried, self._value = 0.0, ""

    def carried(self, names: Sequence[str], found: Mapping[str, Array], truth: Mapping[str, Array]) -> None:
        for name in names:
            self._carried = max(self._carried, difference(found[name], truth[name]).relative)

    def alone(self, names: Sequence[str], found: Mapping[str, Array], truth: Mapping[str, Array]) -> None:
        for name in names:
            item = difference(found[name], truth[name])
            if item.relative > self._worst.relative or item.non_finite > self._worst.non_finite:
                self._value = name
            worst = self._worst
            self._worst = Difference(
                max(item.relative, worst.relative),
                max(item.absolute, worst.absolute),
                max(item.l2, worst.l2),
                max(item.non_finite, worst.non_finite),
            )

    def error(self) -> RegionError:
        return RegionError(
            id=self._region.id,
            device=self._region.device,
            backend=self._region.backend,
            relative_error=self._worst.relative,
            carried_error=self._carried,
            max_absolute=self._worst.absolute,
            relative_l2=self._worst.l2,
            non_finite=self._worst.non_finite,
            compute=self._compute,
            tolerance=TOLERANCES[self._compute],
            value=self._value,
        )
