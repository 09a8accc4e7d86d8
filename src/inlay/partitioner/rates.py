"""What a second of each device costs in dollars and takes in joules, from the cluster."""

from __future__ import annotations

from inlay.errors import PartitionError
from inlay.hardware import Cluster
from inlay.specs.goal import Goal

HOUR = 3600.0


def rates_of(cluster: Cluster, devices: tuple[str, ...], goal: Goal) -> dict[str, tuple[float, ...]]:
    """What a second of each device costs and takes, for the objectives whose figures are all known.

    Raises PartitionError where the goal asks for one that is not.
    """
    found: dict[str, tuple[float, ...]] = {}
    for objective, figure, per in (("cost", "price", HOUR), ("energy", "power", 1.0)):
        figures = {name: getattr(cluster.device(name), figure) for name in devices}
        missing = [name for name, value in figures.items() if value is None]
        if not missing:
            found[objective] = tuple(float(value) / per for value in figures.values())
        elif objective == goal.objective or objective in goal.within:
            raise PartitionError(
                f"{objective} was asked for and device {missing[0]} has no {figure}, expected one for each device offered",
                hint=f"write `{figure}` in the cluster file, in {'dollars an hour' if figure == 'price' else 'watts'}",
            )
    return found
