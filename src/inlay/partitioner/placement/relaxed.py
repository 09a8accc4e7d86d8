"""What no placement can be below, by sharing tasks out in fractions: a linear programme, and its dual prices for later use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highspy
import numpy as np

from inlay.partitioner.placement.arrays import Numbers
from inlay.partitioner.placement.graph import INFINITE, TaskGraph
from inlay.partitioner.placement.solver import Solver

HEAVY = 1e4
"""So many times all other tasks together weighs one that none of the devices left supports."""


@dataclass(frozen=True)
class Shares:
    """Every task weighs `weights`, and whoever must place them all needs devices with a load of `sum(weights)` at least:
    n devices of the kinds left, each below L, hold tasks that weigh at most `spare` * L together."""

    weights: Numbers
    spare: float


def shares(graph: TaskGraph, left: Sequence[int | None]) -> Shares | None:
    """The best weights where so many devices of each kind are left. Tasks that none of them supports weigh more than all can
    hold; None where no kind at all supports one.

    From the dual of: least L so that every task is shared out and every kind's seconds stay within its devices times L.
    """
    usable = [number for number, count in enumerate(left) if count is None or count > 0]
    if not usable:
        return Shares(np.zeros(graph.count) + 1.0, 0.0)
    seconds = np.array([graph.kinds[number].seconds for number in usable])
    everywhere = np.array([kind.seconds for kind in graph.kinds]).min(axis=0)
    if np.isinf(everywhere).any():
        return None
    stuck = np.isinf(seconds.min(axis=0))
    if any(left[number] is None for number in usable):
        return Shares(np.where(stuck, 1.0, 0.0), INFINITE)
    counts = np.array([float(left[number] or 0) for number in usable])
    rates = _rates(seconds[:, ~stuck], counts)
    with np.errstate(invalid="ignore"):
        weighed = np.where(np.isinf(seconds), INFINITE, seconds * rates[:, None]).min(axis=0)
    weighed[stuck] = HEAVY * (1.0 + weighed[~stuck].sum())
    return Shares(weighed, float(counts @ rates))


def _rates(seconds: Numbers, counts: Numbers) -> Numbers:
    """The dual prices of the kinds' time, their sum over the devices being one.

    Columns: the share of every task on every kind that supports it, then L. Rows: each task is shared out whole; each kind
    has `counts` times L.
    """
    kinds, tasks = seconds.shape
    if kinds == 1:
        return np.array([1.0 / counts[0]])
    scale = float(seconds[np.isfinite(seconds)].max()) or 1.0
    kind, task = np.nonzero(np.isfinite(seconds))
    shares_count = kind.size
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = shares_count + 1, tasks + kinds
    model.col_cost_ = np.append(np.zeros(shares_count), 1.0)
    model.col_lower_, model.col_upper_ = np.zeros(shares_count + 1), np.full(shares_count + 1, INFINITE)
    model.row_lower_ = np.append(np.ones(tasks), np.full(kinds, -INFINITE))
    model.row_upper_ = np.append(np.ones(tasks), np.zeros(kinds))
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.append(np.arange(0, 2 * shares_count + 1, 2), 2 * shares_count + kinds)
    model.a_matrix_.index_ = np.append(np.column_stack((task, tasks + kind)).ravel(), tasks + np.arange(kinds))
    times = seconds[kind, task] / scale
    model.a_matrix_.value_ = np.append(np.column_stack((np.ones(shares_count), times)).ravel(), -counts)
    solver = Solver()
    solver.passModel(model)
    solver.run()
    prices = np.maximum(-np.array(solver.getSolution().row_dual[tasks:]), 0.0)
    total = float(counts @ prices)
    return prices / total if total > 0 else np.full(kinds, 1.0 / counts.sum())
