"""How long and how much: what was measured, kept on disk; prices of runs of blocks and of moves, with interval and grade.

Later: energy, money, LatencyTables. Called by `partitioner`, and by `api` for the store. Only `store` touches the disk.
"""

from __future__ import annotations

from inlay.cost.chain import Chain, Crossing
from inlay.cost.estimates import NOTHING, beats, predicted, scaled, total, weakest
from inlay.cost.links import LinkPrice, Links
from inlay.cost.memory import region_memory
from inlay.cost.prices import Evidence, Price, Prices, Refusal, cut_name
from inlay.cost.roofline import roofline_seconds
from inlay.cost.runs import LENGTHS, RunFit, fit_runs
from inlay.cost.store import ProfileStore, Stored

__all__ = [
    "LENGTHS",
    "NOTHING",
    "Chain",
    "Crossing",
    "Evidence",
    "LinkPrice",
    "Links",
    "Price",
    "Prices",
    "ProfileStore",
    "Refusal",
    "RunFit",
    "Stored",
    "beats",
    "cut_name",
    "fit_runs",
    "predicted",
    "region_memory",
    "roofline_seconds",
    "scaled",
    "total",
    "weakest",
]
