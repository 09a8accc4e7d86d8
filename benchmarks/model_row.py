"""One row of the table of models: a model captured, cut into blocks, and every block lowered, run and compared by each backend.

The truth is the captured program run eagerly in float32 on fresh random inputs. Everything happens in this one process.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inlay.errors import InlayError
from inlay.graph import Piece, piece_of
from inlay.graph.capture import capture
from inlay.runtime.cache import Cache
from inlay.runtime.compile import check_built, lower_piece, store_program
from inlay.runtime.inputs import random_inputs
from inlay.runtime.load import load_executable
from inlay.runtime.obtain import request_for
from inlay.runtime.stitch import LoadedPiece, Stitched
from inlay.runtime.store import StoredProgram, piece_weights, read_program, read_weights
from inlay.runtime.verify import difference
from inlay.specs.precision import Precision

SPLIT = "openvino | onnxruntime"


def row(name: str, builder: Any, *, backends: Sequence[str]) -> dict[str, Any]:
    """Everything the table says of one model; a failure is a reason, never an exception."""
    begun = time.monotonic()
    try:
        built = check_built(builder(), name)
        captured = capture(built["model"], built["args"], built["kwargs"], dynamic=built["dynamic"], name=name)
    except InlayError as error:
        return {"captured": False, "reason": error.message, "seconds": time.monotonic() - begun}
    with tempfile.TemporaryDirectory(prefix="inlay-zoo-") as directory:
        cache = Cache(Path(directory))
        folder = store_program(captured, built, cache=cache)
        world = _World(captured, folder, cache)
        blocks = world.stored.cut.blocks
        found: dict[str, Any] = {
            "captured": True,
            "nodes": len(captured.program.nodes),
            "blocks": len(blocks),
            "unique": len({block.digest for block in blocks}),
            "capture_seconds": round(time.monotonic() - begun, 1),
            "points": world.points,
            "backends": {},
        }
        for item in backends:
            found["backends"][item] = world.tried(item, [item] * len(blocks))
        if {"openvino", "onnxruntime"} <= set(backends) and len(blocks) > 1:
            half = world.middle()
            found["backends"][SPLIT] = world.tried(SPLIT, ["openvino"] * half + ["onnxruntime"] * (len(blocks) - half))
    return {**found, "seconds": round(time.monotonic() - begun, 1)}


class _World:
    """A captured model with its truth at every point."""

    def __init__(self, captured: Any, folder: Path, cache: Cache) -> None:
        self._captured, self._cache = captured, cache
        self.stored: StoredProgram = read_program(folder)
        self._weights = read_weights(folder)
        self.points = [dict(point) for point in self.stored.points]
        self._truths = [self._truth(point, seed) for seed, point in enumerate(self.points)]

    def middle(self) -> int:
        """The block at which half of the FLOPs are done."""
        from inlay.graph import block_flops

        shares = [block_flops(self.stored.cut.program, block, self.points[0]) for block in self.stored.cut.blocks]
        done = [sum(shares[:at]) for at in range(1, len(shares))]
        return 1 + min(range(len(done)), key=lambda at: abs(done[at] - sum(shares) / 2))

    def tried(self, label: str, backends: Sequence[str]) -> dict[str, Any]:
        """Every block on its backend: lowered, loaded, run alone and in a chain, compared."""
        begun = time.monotonic()
        pieces: list[LoadedPiece] = []
        keys: set[str] = set()
        try:
            for block, name in zip(self.stored.cut.blocks, backends, strict=True):
                piece = piece_of(self.stored.cut, block.index, block.index + 1)
                request = request_for(self.stored, name, precision=Precision(), threads=1)
                outcome = lower_piece(self._captured.exported, self.stored, piece, name, request, self._cache)
                if outcome.reason:
                    return {"lowered": False, "reason": outcome.reason, "seconds": round(time.monotonic() - begun, 1)}
                keys.add(outcome.key)
                pieces.append(self._load(block.name, piece, name, outcome.key))
            stitched = Stitched(pieces, states=self.stored.cut.program.states)
            alone = max(self._alone(stitched, point, truth) for point, truth in zip(self.points, self._truths, strict=True))
            carried = max(self._carried(stitched, point, truth) for point, truth in zip(self.points, self._truths, strict=True))
        except InlayError as error:
            return {"lowered": True, "ran": False, "reason": error.message, "seconds": round(time.monotonic() - begun, 1)}
        finally:
            for piece_loaded in pieces:
                piece_loaded.executable.close()
        size = sum(file.stat().st_size for key in keys for file in self._cache.artifact(key).iterdir())
        return {
            "lowered": True,
            "ran": True,
            "relative_error": alone,
            "carried_error": carried,
            "artifacts": len(keys),
            "bytes": size,
            "seconds": round(time.monotonic() - begun, 1),
        }

    def _load(self, label: str, piece: Piece, name: str, key: str) -> LoadedPiece:
        executable = load_executable(
            self._cache.artifact(key), weight_map=piece_weights(self._weights, piece), backend_name=name, threads=1
        )
        return LoadedPiece(label, executable, piece.inputs, piece.outputs)

    def _truth(self, point: Mapping[str, int], seed: int) -> dict[str, Any]:
        """The value of every tensor of the program, run eagerly; states begin at their first values."""
        import torch

        program = self.stored.cut.program
        states = {state.input: state.name for state in program.states}
        wanted = {name: tensor for name, tensor in program.inputs.items() if name not in states}
        given = random_inputs(wanted, sizes=point, samples=self.stored.samples, seed=100 + seed)
        given |= {name: self._captured.initial[target].numpy() for name, target in states.items()}

        values: dict[str, Any] = {}

        class Recorder(torch.fx.Interpreter):
            def run_node(self, n: torch.fx.Node) -> Any:
                values[n.name] = super().run_node(n)
                return values[n.name]

        recorder = Recorder(self._captured.exported.graph_module, garbage_collect_values=False)
        lifted = self._captured.exported
        store = {**lifted.constants, **lifted.state_dict}
        weights = [store[spec.target] for spec in lifted.graph_signature.input_specs if spec.kind.name != "USER_INPUT"]
        with torch.no_grad():
            recorder.run(*weights, *(torch.from_numpy(given[name]) for name in program.inputs))
        tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
        return {name: value.detach().contiguous().numpy() for name, value in tensors.items()}

    def _alone(self, stitched: Stitched, point: Mapping[str, int], truth: Mapping[str, Any]) -> float:
        stitched.arrange(point)
        worst = 0.0
        for at, piece in enumerate(stitched.pieces):
            for name in piece.inputs:
                stitched.write(name, truth[name])
            stitched.run(at, at + 1)
            for name in piece.outputs:
                item = difference(stitched.read(name), truth[name])
                worst = max(worst, item.relative if not item.non_finite else float("inf"))
        return worst

    def _carried(self, stitched: Stitched, point: Mapping[str, int], truth: Mapping[str, Any]) -> float:
        program = self.stored.cut.program
        stitched.arrange(point)
        for name in program.inputs:
            stitched.write(name, truth[name])
        stitched.run()
        made = {name for piece in stitched.pieces for name in piece.outputs}
        return max(difference(stitched.read(name), truth[name]).relative for name in program.outputs if name in made)
