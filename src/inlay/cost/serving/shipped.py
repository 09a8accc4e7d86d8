"""The calibration that ships with the package: coefficients by node, and error bars by grade. Written by a benchmark script."""

from __future__ import annotations

from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

import msgspec
import numpy as np

from inlay.cost.serving.calibration import Calibration
from inlay.cost.serving.points import Points, read_points
from inlay.hardware.catalogue import Catalogue


class ShippedNode(msgspec.Struct, frozen=True, kw_only=True):
    """One node of the tree and its coefficients, in the order of the terms. `shares` are the least and the most prompt tokens
    for an output token that its points have."""

    path: tuple[str, ...]
    coefficients: tuple[float, ...]
    shares: tuple[float, float]


class Shipped(msgspec.Struct, frozen=True, kw_only=True):
    """Fitted to `points` rows of the file with this `digest` (sha256). `bars` are factors on a prediction by grade: 80 % of
    what was measured lay between, for rows that the fit had not seen."""

    points: int
    digest: str
    bars: dict[str, tuple[float, float]]
    nodes: tuple[ShippedNode, ...]

    def calibration(self) -> Calibration:
        """As fitted."""
        return Calibration({node.path: np.array(node.coefficients) for node in self.nodes})


@cache
def shipped() -> Shipped:
    """The file of the package."""
    found = resources.files("inlay.cost.serving").joinpath("calibration.json").read_bytes()
    return msgspec.json.decode(found, type=Shipped)


def measured_points(catalogue: Catalogue) -> Points:
    """The published measurements of the package: the only ones that the calibration is fitted to."""
    with resources.as_file(_points_file()) as path:
        return read_points(path, catalogue)


def measured_points_text() -> bytes:
    """Their file as it is."""
    return _points_file().read_bytes()


def _points_file() -> Traversable:
    return resources.files("inlay.cost.serving").joinpath("measured_points", "measured_points.csv")
