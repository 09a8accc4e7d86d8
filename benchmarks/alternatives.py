"""One session that holds every run of blocks at every place, so that any assignment runs without a load of its own.

Used by `regret.py`. Regions are named by what they are; a run names those that do it, as a Build's own session would run them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from inlay import api
from inlay.graph import piece_of
from inlay.hardware import Cluster, Place
from inlay.runtime import Cache
from inlay.runtime.device import PieceConfig, RegionConfig
from inlay.runtime.inputs import random_inputs
from inlay.runtime.lowering import lower_pieces
from inlay.runtime.obtain import request_for
from inlay.runtime.opening import initial_values
from inlay.runtime.session import Plan, Process, Session
from inlay.runtime.store import piece_weights, read_program, read_weights
from inlay.specs.partition import Partition
from inlay.specs.precision import Precision

Assignment = tuple[Place, ...]


def regions_of(found: Assignment) -> list[tuple[int, int, Place]]:
    """First block, end and place of every run of blocks at one place."""
    made: list[tuple[int, int, Place]] = []
    for place, blocks in groupby(range(len(found)), key=lambda at: found[at]):
        held = list(blocks)
        made.append((held[0], held[-1] + 1, place))
    return made


class Alternatives:
    """All regions of a model on a cluster, lowered; `refused` names those that a backend would not lower, with the reason."""

    def __init__(
        self,
        model: api.CapturedModel,
        places: Sequence[Place],
        cluster: Cluster,
        *,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._stored = read_program(model.folder)
        self._weights = read_weights(model.folder)
        self._cluster, self._cache = cluster, Cache.default()
        self._point = dict(model.points[0])
        self.refused: dict[str, str] = {}
        self._regions: dict[str, dict[str, RegionConfig]] = {device: {} for device in cluster.devices}
        blocks = len(self._stored.cut.blocks)
        runs = [(first, end) for first in range(blocks) for end in range(first + 1, blocks + 1)]
        for place in places:
            self._lower(model.folder, place, runs, progress)
        program = self._stored.cut.program
        states = {state.input for state in program.states}
        wanted = {name: tensor for name, tensor in program.inputs.items() if name not in states}
        self.inputs = random_inputs(wanted, sizes=self._point, samples=self._stored.samples, seed=1)

    def order(self, found: Assignment) -> tuple[str, ...] | None:
        """The regions that do an assignment; None where one of them cannot be."""
        names = tuple(_name(first, end, place) for first, end, place in regions_of(found))
        return None if any(name in self.refused for name in names) else names

    def order_of(self, plan: Partition) -> tuple[str, ...]:
        """The regions of a partition, one for each block where a region runs block by block."""
        names: list[str] = []
        for region in sorted(plan.regions, key=lambda item: item.first):
            whole = [(region.first, region.end)]
            runs = whole if region.fused else [(at, at + 1) for at in range(region.first, region.end)]
            names += [_name(first, end, region.place) for first, end in runs]
        return tuple(names)

    def open(self) -> Session:
        """The processes, loaded, every region having given the same as the others that can stand in its stead."""
        program = self._stored.cut.program
        processes = tuple(
            Process(name=device, device=device, regions=tuple(held.values())) for device, held in self._regions.items() if held
        )
        plan = Plan(
            processes=processes,
            order=(),
            inputs=program.inputs,
            results=tuple(dict.fromkeys(program.outputs)),
            states=program.states,
            initial=initial_values(program, self._weights),
            ranges=program.ranges,
        )
        return Session(plan, cluster=self._cluster)

    def run(self, session: Session, order: tuple[str, ...]) -> float:
        """One pass; its seconds. Raises SystemExit where the result is not what the first pass of all gave."""
        outcome = session.run(self.inputs, order=order)
        if not hasattr(self, "_truth"):
            self._truth = {name: np.array(value) for name, value in outcome.values.items()}
        for name, value in outcome.values.items():
            if value.dtype.kind == "f":
                scale = float(np.abs(self._truth[name]).max()) or 1.0
                if not float(np.abs(value - self._truth[name]).max()) <= 1e-3 * scale:
                    raise SystemExit(f"error: {order} gave another {name} than the first plan")
        return outcome.seconds

    def _lower(self, folder: Path, place: Place, runs: list[tuple[int, int]], progress: Callable[[str], None]) -> None:
        threads = max(1, len(self._cluster.device(place.device).cores))
        request = request_for(self._stored, place.backend, precision=Precision(), threads=threads)
        progress(f"lower {len(runs)} runs of blocks for {place}")
        outcomes = lower_pieces(folder, runs, backend_name=place.backend, request=request, cache=self._cache)
        for (first, end), outcome in outcomes.items():
            name, piece = _name(first, end, place), piece_of(self._stored.cut, first, end)
            if outcome.reason:
                self.refused[name] = outcome.reason
                continue
            config = PieceConfig(
                name=name,
                directory=str(self._cache.artifact(outcome.key)),
                weights=piece_weights(self._weights, piece),
                inputs=piece.inputs,
                outputs=piece.outputs,
            )
            region = RegionConfig(id=name, backend=place.backend, threads=threads, pieces=(config,))
            self._regions[place.device][name] = region


def _name(first: int, end: int, place: Place) -> str:
    return f"{first}-{end - 1} {place}"
