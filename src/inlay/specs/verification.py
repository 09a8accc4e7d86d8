"""What a verification found: the error of every region against the float32 reference, alone and carried along."""

from __future__ import annotations

import msgspec

TOLERANCES = {"float64": 1e-4, "float32": 1e-4, "bfloat16": 3e-2, "float16": 5e-3, "int8": 1e-1}
"""Largest error relative to the largest number of the reference, by the type a region computes in. Measured levels: 2e-7 to
2e-6 for float32 on every CPU framework here, 2e-3 to 2e-2 for bfloat16, 5e-4 to 2e-3 for float16."""


class RegionError(msgspec.Struct, frozen=True, kw_only=True):
    """One region over all points: `relative_error` on reference inputs, `carried_error` on what the stitched program gave
    it, each the largest difference by the largest number of the reference; `relative_l2` and non-finite numbers beside."""

    id: str
    device: str
    backend: str
    relative_error: float
    carried_error: float
    max_absolute: float
    relative_l2: float
    non_finite: int
    compute: str
    tolerance: float
    value: str = ""

    @property
    def passed(self) -> bool:
        """Whether the region alone is within its tolerance and gave only finite numbers where the reference did."""
        return self.relative_error <= self.tolerance and self.non_finite == 0


class Culprit(msgspec.Struct, frozen=True, kw_only=True):
    """The first node of a region whose value leaves the tolerance, found by halving the region; or no node and why not."""

    region: str
    node: str
    operator: str
    path: str
    source: str
    relative_error: float
    reason: str = ""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """A whole verification; `results` are the errors of the program's results end to end, by name."""

    points: tuple[dict[str, int], ...]
    seed: int
    regions: tuple[RegionError, ...]
    results: dict[str, float]
    culprit: Culprit | None = None

    @property
    def passed(self) -> bool:
        """Whether every region is within its tolerance."""
        return all(region.passed for region in self.regions)
