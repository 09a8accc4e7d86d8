"""Searches what may run where under budgets: frontiers, a recommended plan, what is missing. `report` tells it to people."""

from __future__ import annotations

from inlay.planner.assumptions import assumptions, moved
from inlay.planner.candidates import KnownSteps
from inlay.planner.drafting import DraftingAssumptions, DraftModel, parse_draft
from inlay.planner.plans import Plan, Speculation, Stage
from inlay.planner.question import AXES, Question, SteadyLoad, fleet_of, parse_fleet, parse_load
from inlay.planner.search import Answer, answer, contest, curve_of

__all__ = [
    "AXES",
    "Answer",
    "DraftModel",
    "DraftingAssumptions",
    "KnownSteps",
    "Plan",
    "Question",
    "Speculation",
    "Stage",
    "SteadyLoad",
    "answer",
    "assumptions",
    "contest",
    "curve_of",
    "fleet_of",
    "moved",
    "parse_draft",
    "parse_fleet",
    "parse_load",
]
