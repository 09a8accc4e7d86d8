"""A torch door: capture a module into the cache, and lower pieces of a captured program through one backend.

`capture_main` and `lower_main` are programs of compile processes, started by `runtime.lowering`; `store_program` is for those
who have the module in their own process. Nothing here decides what is cut or placed.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.utils._pytree as pytree

from inlay.backends import backend, tensor_digest
from inlay.errors import InlayError, InputError, UnsupportedError
from inlay.graph import Cut, Piece, cut_into_blocks, piece_of
from inlay.graph.capture import Captured, capture, lifted_weights, load_exported, save_graph, with_weights
from inlay.graph.extract import extract_piece
from inlay.runtime.cache import KEY_FILE, MANIFEST_FILE, Cache
from inlay.runtime.lowering import CaptureConfig, LowerConfig, PieceOutcome, check_piece, piece_key, piece_key_contents
from inlay.runtime.publish import publish
from inlay.runtime.reporting import Steps, reported
from inlay.runtime.store import (
    GRAPH_FILE,
    PROGRAM_FILE,
    WEIGHTS_FOLDER,
    Sample,
    StoredProgram,
    program_folder,
    read_program,
    read_weights,
)
from inlay.runtime.weights import build_weight_map, map_weights
from inlay.specs.artifact import LowerRequest, program_interface

BUILDER_KEYS = ("model", "args", "kwargs", "dynamic", "points", "name")


def capture_main(config: dict[str, Any]) -> int:
    """Call the builder that `source` names, capture what it gives, store it; the outcome is {"folder": ...}."""
    parsed = msgspec.convert(config, CaptureConfig)

    def work(steps: Steps) -> dict[str, Any]:
        with steps("build the model"):
            built = call_builder(parsed.source)
        with steps("capture"):
            captured = capture(built["model"], built["args"], built["kwargs"], dynamic=built["dynamic"], name=built["name"])
        with steps("store weights"):
            folder = store_program(captured, built, cache=Cache(Path(parsed.cache)), source=parsed.source)
        return {"folder": str(folder)}

    return reported(parsed.result, parsed.progress, work)


def lower_main(config: dict[str, Any]) -> int:
    """Lower each wanted piece through one backend; a piece that fails is a reason in its outcome, the others go on."""
    parsed = msgspec.convert(config, LowerConfig)

    def work(steps: Steps) -> dict[str, Any]:
        folder, cache = Path(parsed.program), Cache(Path(parsed.cache))
        stored = read_program(folder)
        with steps("read the program"):
            weights = {name: torch_tensor(array) for name, array in map_weights(read_weights(folder)).items()}
            exported = with_weights(load_exported(folder / GRAPH_FILE), {name: weights[name] for name in stored.weight_names})
        outcomes = []
        for first, end in parsed.pieces:
            piece = piece_of(stored.cut, first, end)
            with steps(f"lower {parsed.backend} {name_of(stored.cut, piece)}"):
                outcomes.append(lower_piece(exported, stored, piece, parsed.backend, parsed.request, cache))
        return {"pieces": msgspec.to_builtins(outcomes)}

    return reported(parsed.result, parsed.progress, work)


def name_of(cut: Cut, piece: Piece) -> str:
    """What people call a piece: its block, or its first and last block."""
    first, last = cut.blocks[piece.first].name, cut.blocks[piece.end - 1].name
    return first if piece.end - piece.first == 1 else f"{first} .. {last}"


def call_builder(source: str) -> dict[str, Any]:
    """The mapping that `path/to/file.py:function` returns, checked. Raises InputError with what is wrong in it.

    Keys: model (a module), args, kwargs (its example inputs), dynamic (see `graph.capture.capture`), points (sizes by name
    it will be used at), name. The file's own folder can be imported from while it runs.
    """
    path, _, function = source.rpartition(":")
    file = Path(path)
    if not function.isidentifier() or not file.is_file():
        raise InputError(
            f"model is {source!r}, expected FILE.py:FUNCTION with a file that exists", hint="see examples/encoder.py"
        )
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent.resolve()))
    sys.modules.setdefault(file.stem, module)
    spec.loader.exec_module(module)
    builder = getattr(module, function, None)
    if not callable(builder):
        known = sorted(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))
        raise InputError(f"{file} has no function {function!r}, expected one of {known}", hint="see examples/encoder.py")
    return check_built(builder(), source)


def check_built(built: Any, source: str) -> dict[str, Any]:
    """What a builder returned, with every key present."""
    if not isinstance(built, Mapping) or not isinstance(built.get("model"), torch.nn.Module):
        raise InputError(
            f"{source} returned {type(built).__name__}, expected a mapping with a torch.nn.Module under 'model'",
            hint=f"keys: {', '.join(BUILDER_KEYS)}",
        )
    strange = sorted(set(built) - set(BUILDER_KEYS))
    if strange:
        raise InputError(f"{source} returned key {strange[0]!r}, expected {', '.join(BUILDER_KEYS)}", hint="correct its name")
    model = built["model"]
    return {"args": (), "kwargs": {}, "dynamic": {}, "points": (), "name": type(model).__name__, **built}


def store_program(captured: Captured, built: Mapping[str, Any], *, cache: Cache, source: str = "") -> Path:
    """Write a captured program with its blocks and weights into the cache; returns its folder."""
    program = captured.program
    examples = _example_tensors(captured, built)
    points = _points(captured, built, examples)
    tensors = {**lifted_weights(captured.exported), **captured.initial}
    arrays = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}
    digest = tensor_digest_of(arrays)
    stored = StoredProgram(
        cut=Cut(program=program, blocks=cut_into_blocks(program, sizes=points[0])),
        points=points,
        weight_names=tuple(lifted_weights(captured.exported)),
        weights_digest=digest,
        samples={name: _sample(value) for name, value in examples.items()},
        source=source,
    )
    if not stored.cut.blocks:
        raise UnsupportedError(f"{program.name} computes nothing that could be placed", hint="give a module with operators")
    folder = program_folder(cache, stored.key)
    if folder.is_dir():
        return folder

    def fill(target: Path) -> None:
        build_weight_map(arrays, model_digest=digest, directory=target / WEIGHTS_FOLDER)
        save_graph(captured.exported, target / GRAPH_FILE)
        (target / PROGRAM_FILE).write_bytes(msgspec.json.encode(stored))

    publish(folder, fill)
    return folder


def tensor_digest_of(arrays: Mapping[str, Any]) -> str:
    """One digest over all weights by name."""
    import hashlib

    whole = hashlib.sha256()
    for name in sorted(arrays):
        whole.update(f"{name}:{arrays[name].dtype}:{arrays[name].shape}:{tensor_digest(arrays[name])};".encode())
    return whole.hexdigest()


def lower_piece(
    exported: Any, stored: StoredProgram, piece: Piece, name: str, request: LowerRequest, cache: Cache
) -> PieceOutcome:
    found, begun = backend(name), time.monotonic()
    key = piece_key(piece, backend=found, request=request)
    directory = cache.artifact(key)
    try:
        if not directory.is_dir():
            check_piece(found, stored.cut.program, piece, target=request.target)
            code = extract_piece(exported, piece)
            interface = program_interface(stored.cut.program, inputs=piece.inputs, outputs=piece.outputs)

            def fill(folder: Path) -> None:
                manifest = found.lower(code, interface=interface, request=request, directory=folder)
                (folder / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
                contents = piece_key_contents(piece, backend=found, request=request)
                (folder / KEY_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(contents, order="sorted")))

            publish(directory, fill)
    except InlayError as error:
        return PieceOutcome(first=piece.first, end=piece.end, key=key, seconds=time.monotonic() - begun, reason=error.message)
    return PieceOutcome(first=piece.first, end=piece.end, key=key, seconds=time.monotonic() - begun)


def _example_tensors(captured: Captured, built: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The example's tensors by input name of the program, states left out."""
    states = {state.input for state in captured.program.states}
    names = [name for name in captured.program.inputs if name not in states]
    leaves = [leaf for leaf in pytree.tree_leaves(_in_order(built)) if isinstance(leaf, torch.Tensor)]
    if len(leaves) != len(names):
        raise UnsupportedError(
            f"{captured.program.name} was given {len(leaves)} example tensors and has {len(names)} inputs",
            hint="leave out those that its forward does not take",
        )
    return dict(zip(names, leaves, strict=True))


def _in_order(built: Mapping[str, Any]) -> tuple[Any, Any]:
    return tuple(built["args"]), dict(built["kwargs"])


def _points(captured: Captured, built: Mapping[str, Any], examples: Mapping[str, torch.Tensor]) -> tuple[dict[str, int], ...]:
    """The declared points, checked; the example's own sizes where none are."""
    from inlay.graph import solve_sizes

    program = captured.program
    symbols = sorted(set(captured.symbols.values()))
    declared = {name: program.inputs[name].shape for name in examples}
    own = solve_sizes(declared, {name: tuple(value.shape) for name, value in examples.items()})
    points = tuple(dict(point) for point in built["points"]) or (own,)
    for point in points:
        if sorted(point) != symbols or not all(isinstance(size, int) for size in point.values()):
            raise InputError(f"point {point} of {program.name}, expected a number for each of {symbols}", hint="see `dynamic`")
        for symbol, size in point.items():
            low, high = program.ranges.get(symbol, (1, size))
            if not low <= size <= high:
                raise InputError(f"point {point} has {symbol} = {size}, expected {low} to {high}", hint="see `dynamic`")
    return points


def _sample(value: torch.Tensor) -> Sample:
    finite = value if value.is_complex() else value[torch.isfinite(value)]  # JSON has no infinity
    if finite.numel() == 0 or finite.is_complex():
        return Sample(low=0.0, high=1.0)
    return Sample(low=float(finite.min()), high=float(finite.max()))


def torch_tensor(array: Any) -> torch.Tensor:
    """A tensor over a read-only array; nobody here writes to it."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array)
