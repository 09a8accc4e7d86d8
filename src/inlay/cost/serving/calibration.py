"""Calibration: coefficients of the terms, fitted from the general to the particular, each held to the one above it.

A configuration is predicted by the most particular node that has points: an unseen shape by its own chip, engine and version,
an unseen chip by its engine, model and generation. Whole sets of coefficients move, never one alone: they are not identifiable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inlay.cost.serving.configuration import Configuration
from inlay.cost.serving.fitting import fit
from inlay.cost.serving.terms import IDEAL, LEAST, MOST, OVERHEADS

STRENGTH = 60.0  # points that the node above counts for
LEVELS = ("engine", "kind", "model", "precision", "generation", "chip", "version")
OWN_POINTS_STRENGTH = 0.05
Node = tuple[str, ...]


def path_of(wanted: Configuration) -> tuple[Node, ...]:
    """The nodes a configuration belongs to, general ones first."""
    names = (
        wanted.engine.name,
        "mixture" if wanted.facts.is_mixture else "dense",
        wanted.facts.name,
        wanted.precision,
        wanted.sheet.generation or wanted.sheet.name,
        wanted.sheet.name,
        f"{wanted.engine.version} {wanted.engine.date}".strip(),
    )
    return tuple(names[: depth + 1] for depth in range(len(names)))


@dataclass(frozen=True)
class Calibration:
    """Coefficients by node; the empty node has all points together."""

    nodes: dict[Node, np.ndarray]

    def node(self, wanted: Configuration) -> Node:
        """The most particular one that has points."""
        return next((node for node in reversed(path_of(wanted)) if node in self.nodes), ())

    def coefficients(self, wanted: Configuration) -> np.ndarray:
        """Of that node."""
        return self.nodes[self.node(wanted)]

    def grade(self, wanted: Configuration) -> str:
        """Calibrated where points of this very chip with this engine and model were fitted, modelled otherwise."""
        return "calibrated" if len(self.node(wanted)) >= len(LEVELS) - 1 else "modelled"


def calibrate(configurations: Sequence[Configuration], terms: np.ndarray, seconds: np.ndarray) -> Calibration:
    """Fit every node. `terms` is [configurations, terms], `seconds` the measured step of each."""
    root = fit(terms, seconds, prior=IDEAL, least=LEAST, most=MOST, strength=1.0)
    nodes: dict[Node, np.ndarray] = {(): root}
    paths = [path_of(wanted) for wanted in configurations]
    for depth in range(len(LEVELS)):
        members: dict[Node, list[int]] = defaultdict(list)
        for index, path in enumerate(paths):
            members[path[depth]].append(index)
        for node, rows in members.items():
            prior = nodes[node[:-1]]
            nodes[node] = fit(terms[rows], seconds[rows], prior=prior, least=LEAST, most=MOST, strength=STRENGTH)
    return Calibration(nodes)


def scaled_to(coefficients: np.ndarray, terms: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """The coefficients for a chip with a few points of its own: all overheads times one factor, all limits times another.

    With one point, or points alike, the two factors stay near each other and near what the point says of both together.
    """
    parts = np.stack([terms[:, OVERHEADS] @ coefficients[OVERHEADS], terms[:, ~OVERHEADS] @ coefficients[~OVERHEADS]], axis=1)
    factors = fit(
        parts,
        seconds,
        prior=np.ones(2),
        least=np.full(2, 0.1),
        most=np.full(2, 10.0),
        strength=OWN_POINTS_STRENGTH,
    )
    scaled: np.ndarray = coefficients * np.where(OVERHEADS, factors[0], factors[1])
    return scaled
