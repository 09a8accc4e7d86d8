"""The real scheduler on a virtual clock: how long requests take on devices whose LatencyTables are known, here or not."""

from __future__ import annotations

from inlay.simulator.arrivals import make_source
from inlay.simulator.described import describe, recorded
from inlay.simulator.links import LinkSetup
from inlay.simulator.results import DeviceUse, Quantiles, RequestFigures, SimulationResult, result_of
from inlay.simulator.simulation import Planned, Simulation, SimulationSetup, Source

__all__ = [
    "DeviceUse",
    "LinkSetup",
    "Planned",
    "Quantiles",
    "RequestFigures",
    "Simulation",
    "SimulationResult",
    "SimulationSetup",
    "Source",
    "describe",
    "make_source",
    "recorded",
    "result_of",
]
