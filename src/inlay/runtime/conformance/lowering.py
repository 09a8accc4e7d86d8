"""A torch door: the compile process of the kit. It lowers units as `inlay compile` lowers blocks, by the same function.

Units of one program are lowered together; where that fails they are parted, so that each fault is told of one unit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from inlay.graph import piece_of
from inlay.graph.capture import load_exported, with_weights
from inlay.runtime.cache import Cache
from inlay.runtime.compile import lower_piece, torch_tensor
from inlay.runtime.conformance.jobs import Job, serve
from inlay.runtime.conformance.units import Unit, operators_of, piece_of_units
from inlay.runtime.obtain import request_for
from inlay.runtime.store import GRAPH_FILE, StoredProgram, read_program, read_weights
from inlay.runtime.weights import map_weights
from inlay.specs.precision import Precision


def main(config: dict[str, Any]) -> int:
    """Jobs {name, folder, units} for `backend`; each result is {"sets": [{units: [names], key, reason, seconds}]}. Jobs
    {name, folder, pieces: [[first, end]]} lower blocks as they are; each result is {"pieces": [outcomes]}."""
    backend, cache = config["backend"], Cache(Path(config["cache"]))

    def work(job: Job) -> dict[str, Any]:
        program = _Program(Path(job["folder"]), backend, cache)
        if "pieces" in job:
            return {"pieces": [program.lower_blocks(first, end) for first, end in job["pieces"]]}
        return {"sets": program.lower(msgspec.convert(job["units"], list[Unit]))}

    return serve(config, work)


class _Program:
    """A captured program with its weights, to be lowered for one backend."""

    def __init__(self, folder: Path, backend: str, cache: Cache) -> None:
        self._stored: StoredProgram = read_program(folder)
        weights = {name: torch_tensor(array) for name, array in map_weights(read_weights(folder)).items()}
        wanted = {name: weights[name] for name in self._stored.weight_names}
        self._exported = with_weights(load_exported(folder / GRAPH_FILE), wanted)
        self._backend, self._cache = backend, cache
        self._request = request_for(self._stored, backend, precision=Precision(), threads=1)

    def lower(self, units: list[Unit]) -> list[dict[str, Any]]:
        piece = piece_of_units(self._stored.cut.program, units)
        names = [unit.name for unit in units]
        try:
            found = lower_piece(self._exported, self._stored, piece, self._backend, self._request, self._cache)
            key, reason, seconds = found.key, found.reason, found.seconds
        except Exception as error:  # noqa: BLE001  # process edge: what a backend raises beside UnsupportedError is its fault
            text = " ".join(str(error).split())[:200]
            key, seconds = "", 0.0
            reason = f"lower raised {type(error).__name__}, expected UnsupportedError: {text}"
        if not reason or len(units) == 1:
            return [{"units": names, "key": key, "reason": reason, "seconds": round(seconds, 2)}]
        return [item for part in self._parted(units, reason) for item in self.lower(part)]

    def _parted(self, units: list[Unit], reason: str) -> list[list[Unit]]:
        """Each unit with an operator that the reason names alone, the others together; halves where it names none or all."""
        program = self._stored.cut.program
        named = [unit for unit in units if any(name.rpartition(".")[0] in reason for name in operators_of(program, unit))]
        if named and len(named) < len(units):
            return [[unit for unit in units if unit not in named], *([unit] for unit in named)]
        half = len(units) // 2
        return [units[:half], units[half:]]

    def lower_blocks(self, first: int, end: int) -> dict[str, Any]:
        """These blocks as one piece."""
        piece = piece_of(self._stored.cut, first, end)
        found: dict[str, Any] = msgspec.to_builtins(
            lower_piece(self._exported, self._stored, piece, self._backend, self._request, self._cache)
        )
        return found
