"""Captured programs on disk: what `runtime.compile` leaves in the cache and everything later reads without torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from inlay.errors import ArtifactError
from inlay.graph import Cut, Piece, weight_name
from inlay.runtime.cache import Cache
from inlay.runtime.weights import read_weight_map
from inlay.specs.artifact import WeightMap

PROGRAM_FILE = "program.json"
GRAPH_FILE = "graph.pt2"
WEIGHTS_FOLDER = "weights"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What the example inputs of one port looked like: least and most of their values, so that random ones are alike."""

    low: float
    high: float


class StoredProgram(msgspec.Struct, frozen=True, kw_only=True):
    """A captured program with its blocks. `points` are the sizes it is used at, `weight_names` the order in which the saved
    graph takes its weights; `initial` maps each state to its first value's name among the weights."""

    cut: Cut
    points: tuple[dict[str, int], ...]
    weight_names: tuple[str, ...]
    weights_digest: str
    samples: dict[str, Sample]
    source: str = ""

    @property
    def key(self) -> str:
        """Names the program with its weights: equal keys have equal code and equal weights."""
        points = msgspec.json.encode(self.points)
        whole = f"{self.cut.program.digest}{self.weights_digest}{hashlib.sha256(points).hexdigest()}"
        return hashlib.sha256(whole.encode()).hexdigest()[:40]


def program_folder(cache: Cache, key: str) -> Path:
    """Where a captured program lies or will lie."""
    return cache.root / "programs" / key


def read_program(folder: Path) -> StoredProgram:
    """A captured program. Raises ArtifactError naming the file."""
    path = folder / PROGRAM_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=StoredProgram)
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(
            f"captured program {str(path)!r} cannot be read: {error}", hint="compile the model again"
        ) from error


def read_weights(folder: Path) -> WeightMap:
    """The weights of a captured program. Raises ArtifactError."""
    found = read_weight_map(folder / WEIGHTS_FOLDER)
    if found is None:
        raise ArtifactError(
            f"weights of the captured program in {str(folder)!r} are absent or have gone elsewhere", hint="compile it again"
        )
    return found


def piece_weights(weights: WeightMap, piece: Piece) -> WeightMap:
    """The weights of one piece under the names that its code knows them by."""
    return WeightMap(
        model_digest=weights.model_digest,
        weights={weight_name(index): weights.weights[name] for index, name in enumerate(piece.weights)},
    )
