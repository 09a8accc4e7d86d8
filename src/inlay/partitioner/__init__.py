"""Cuts a Program over a Cluster by cost: exact for the costs that are known, with its bound and its reasons.

Sans-I/O: `propose` asks for measurements or answers, `learn` takes them in. `api` wires it to the runtime that measures.
"""

from __future__ import annotations

from inlay.partitioner.check import check_partition
from inlay.partitioner.constraints import Pin, parse_pin
from inlay.partitioner.decide import best_plans, floor_plans, reprice
from inlay.partitioner.difference import difference
from inlay.partitioner.drawing import draw
from inlay.partitioner.explain import estimate_text, explain
from inlay.partitioner.problem import Plan, Problem, Step, Value
from inlay.partitioner.propose import propose
from inlay.partitioner.residency import Residency, parse_residency
from inlay.partitioner.search import Search, learn, learn_trial, new_search
from inlay.partitioner.solve import Solution, solve

__all__ = [
    "Pin",
    "Plan",
    "Problem",
    "Residency",
    "Search",
    "Solution",
    "Step",
    "Value",
    "best_plans",
    "check_partition",
    "difference",
    "draw",
    "estimate_text",
    "explain",
    "floor_plans",
    "learn",
    "learn_trial",
    "new_search",
    "parse_pin",
    "parse_residency",
    "propose",
    "reprice",
    "solve",
]
