"""Fits the shipped calibration of served models to the measured points and writes it into the package, with its error bars.

The bars are the middle 80 % of the errors, in the logarithm, of fits that had not seen the row: for "calibrated" its shape was
left out, for "modelled" its chip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from cost_model import HERE, left_out, shape

from inlay.cost.serving import MeasuredPoint, calibrate, decode_terms
from inlay.cost.serving.calibration import path_of
from inlay.cost.serving.shipped import Shipped, ShippedNode, measured_points, measured_points_text
from inlay.hardware.catalogue import read_catalogue

TARGET = HERE.parent / "src" / "inlay" / "cost" / "serving" / "calibration.json"


def bars(seen: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Factors on a prediction between which 80 % of what was measured lay."""
    low, high = np.nanquantile(np.log(seen / predicted), (0.1, 0.9))
    return round(float(np.exp(low)), 4), round(float(np.exp(high)), 4)


def chip(point: MeasuredPoint) -> tuple[object, ...]:
    return (point.wanted.sheet.name,)


def shares(node: tuple[str, ...], points: Sequence[MeasuredPoint]) -> tuple[float, float]:
    """The least and the most prompt tokens for an output token among the points of a node."""
    found = [p.wanted.load.prefill_share for p in points if path_of(p.wanted)[: len(node)][-1:] == (node,) or not node]
    return round(min(found), 4), round(max(found), 4)


def main() -> None:
    points = measured_points(read_catalogue()).points
    terms = np.array([decode_terms(point.wanted) for point in points])
    seen = np.array([point.tpot for point in points])
    fitted = calibrate([point.wanted for point in points], terms, seen)
    shipped = Shipped(
        points=len(points),
        digest=hashlib.sha256(measured_points_text()).hexdigest(),
        bars={
            "calibrated": bars(seen, left_out(points, terms, seen, shape)),
            "modelled": bars(seen, left_out(points, terms, seen, chip)),
        },
        nodes=tuple(
            ShippedNode(path=node, coefficients=tuple(float(f"{value:.6g}") for value in found), shares=shares(node, points))
            for node, found in fitted.nodes.items()
        ),
    )
    TARGET.write_bytes(msgspec.json.format(msgspec.json.encode(shipped), indent=0) + b"\n")
    print(f"{len(shipped.nodes)} nodes of {shipped.points} points, bars {shipped.bars}, {Path(TARGET).stat().st_size} bytes")


if __name__ == "__main__":
    main()
