"""Lower a model folder, whole or in pieces by layers, through its backends into the cache. A torch door: the program of a
compile process.

`main` is started by name with a config; `lower_stage` is the same as a plain function.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch

from inlay.backends import backend
from inlay.backends.targets import check_target
from inlay.errors import InlayError, InputError, UnsupportedError
from inlay.graph.capture import capture_stage, lifted_weights, without_weights
from inlay.graph.extract import extract
from inlay.graph.quantise import SCALE, WHOLE, parts_of, quantise_weights
from inlay.graph.summary import summarize
from inlay.models import Checkpoint, model_digest, open_checkpoint
from inlay.models.torch import Stage, load_stage
from inlay.models.torch_paged import paged_of
from inlay.runtime.cache import KEY_FILE, MANIFEST_FILE, Cache, artifact_key, find_artifact, key_contents
from inlay.runtime.layers import cut_layers
from inlay.runtime.publish import publish
from inlay.runtime.weights import build_weight_map, read_weight_map
from inlay.specs.artifact import Interface, LowerRequest, paged_interface, stage_interface

Progress = Callable[[dict[str, Any]], object]
QUANTISED = "int8, symmetric, a scale for each output, of {name}"


class LoweredArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact in the cache: where, the folder of its weight map, and the seconds its lowering took (0 where it was there
    already)."""

    backend: str
    key: str
    directory: str
    weights: str
    seconds: float


class Lowered(msgspec.Struct, frozen=True, kw_only=True):
    """What a lowering left: artifacts in the order asked, the folder of the first one's weight map, seconds by step."""

    artifacts: tuple[LoweredArtifact, ...]
    weights: str
    model_digest: str
    seconds: dict[str, float]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The config of `main`: model folder, what to lower, cache folder, and the files to report to."""

    model: str
    wanted: tuple[tuple[str, LowerRequest], ...]
    cache: str
    result: str
    progress: str = ""
    experts: str = "batched_mm"


def main(config: dict[str, Any]) -> int:
    """Run one lowering and write its outcome to `result`: {"lowered": ...} or {"error": {code, message, hint}}.

    Steps are appended to `progress` as JSON lines {step, state, seconds}. Returns the process's exit code.
    """
    try:
        parsed = msgspec.convert(config, Config)
    except msgspec.ValidationError as error:
        raise InputError(
            f"config of the compile process: {error}; known fields: {', '.join(Config.__struct_fields__)}"
        ) from error
    outcome: dict[str, Any]
    code = 0
    try:
        with _progress_file(parsed.progress) as progress:
            lowered = lower_stage(
                Path(parsed.model),
                wanted=parsed.wanted,
                cache=Cache(Path(parsed.cache)),
                experts=parsed.experts,
                progress=progress,
            )
        outcome = {"lowered": msgspec.to_builtins(lowered)}
    except InlayError as error:
        outcome, code = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}, error.exit_code
    except Exception as error:  # noqa: BLE001  # process edge: the parent gets a reason, not a traceback
        outcome, code = {"error": {"code": "internal_error", "message": f"{type(error).__name__}: {error}", "hint": None}}, 1
    target = Path(parsed.result)
    temporary = target.with_name(f".{target.name}.part")
    temporary.write_text(json.dumps(outcome))
    temporary.replace(target)
    return code


def lower_stage(
    folder: Path,
    *,
    wanted: Sequence[tuple[str, LowerRequest]],
    cache: Cache,
    experts: str = "batched_mm",
    progress: Progress | None = None,
) -> Lowered:
    """Capture the model once, lower what the cache lacks for each (backend, request), publish artifacts and weight map.

    Does nothing but look where everything is cached. Errors name the backend, the node where known, and the reason.
    """
    seconds: dict[str, float] = {}
    step = _Steps(seconds, progress)
    with step("look up"):
        checkpoint = open_checkpoint(folder)
        digest = model_digest(folder)
        keys = [
            artifact_key(folder, backend=backend(name), request=request, checkpoint=checkpoint, experts=experts)
            for name, request in wanted
        ]
        weights = [cache.weights(digest, dtype=request.precision.weights) for _, request in wanted]
        for name, request in wanted:
            _check_page(name, request)
        missing = {key for key in keys if find_artifact(cache, key) is None}
        complete = not missing and all(read_weight_map(item) is not None for item in set(weights))
    spent: dict[str, float] = {}
    if not complete:
        with step("load"):
            stage = load_stage(folder, experts=experts)
        with step("capture"):
            exported = {"float32": capture_stage(stage)}
        for directory, dtype in dict(zip(weights, (request.precision.weights for _, request in wanted), strict=True)).items():
            if dtype == "int8" and dtype not in exported:
                with step("quantise"):
                    exported[dtype] = quantise_weights(exported["float32"])
            with step("weights"):
                # Of another type no backend lowers: it refuses below, by name.
                _publish_weights(stage, exported.get(dtype), checkpoint=checkpoint, digest=digest, directory=directory)
        for key, (name, request) in zip(keys, wanted, strict=True):
            if key in missing and key not in spent:
                begun = time.monotonic()
                with step(_step_name(name, request)):
                    contents = key_contents(
                        folder, backend=backend(name), request=request, checkpoint=checkpoint, experts=experts
                    )
                    program, interface = _program(stage, exported, request)
                    _lower_one(
                        stage, program, interface, name=name, request=request, directory=cache.artifact(key), contents=contents
                    )
                spent[key] = time.monotonic() - begun
    artifacts = tuple(
        LoweredArtifact(
            backend=name, key=key, directory=str(cache.artifact(key)), weights=str(folder), seconds=spent.get(key, 0.0)
        )
        for key, folder, (name, _) in zip(keys, weights, wanted, strict=True)
    )
    return Lowered(artifacts=artifacts, weights=str(weights[0]), model_digest=digest, seconds=seconds)


def _check_page(name: str, request: LowerRequest) -> None:
    """Raise UnsupportedError for a paged program that this backend has not, or that would have to be cut."""
    if not request.page:
        return
    offered = getattr(backend(name), "page", 0)
    if request.page != offered:
        expected = offered or "none, it has no paged program"
        raise UnsupportedError(
            f"backend {name} is asked for KV pages of {request.page} tokens, expected {expected}",
            hint="use runner extend",
        )
    if request.layers is not None:
        raise UnsupportedError(
            f"the paged program is asked for layers {request.layers[0]} to {request.layers[1] - 1}, expected all of them",
            hint="pieces of a model run as extend",
        )


def _program(stage: Stage, exported: dict[str, Any], request: LowerRequest) -> tuple[Any, Interface]:
    """What is asked for, with its outside: `extend` or a piece of it, or `paged`, which is captured when first asked for."""
    dtype = request.precision.weights
    if not request.page:
        return _piece(stage, exported.get(dtype, exported["float32"]), request)
    if "paged" not in exported:
        exported["paged"] = _capture_paged(stage, exported["float32"], page=request.page)
    program, interface = exported["paged"]
    return (quantise_weights(program) if dtype == "int8" else program), interface


def _capture_paged(stage: Stage, exported: Any, *, page: int) -> tuple[Any, Interface]:
    """The paged program of the stage, whose weights must be those of its `extend`; the stage can not be run afterwards."""
    paged = paged_of(stage, page=page)
    program = capture_stage(paged)
    known, read = lifted_weights(exported), set(without_weights(program)[1])
    for name, tensor in lifted_weights(program).items():
        if name in read and not (name in known and torch.equal(known[name], tensor)):
            raise UnsupportedError(
                f"model type {stage.model_type!r}: weight {name!r} of its paged program is not that of its stage program",
                hint="use runner extend",
            )
    return program, paged_interface(paged.shape)


def _piece(stage: Stage, exported: Any, request: LowerRequest) -> tuple[Any, Interface]:
    """The stage itself, or what is cut out of it for the layers asked for, with its outside."""
    if request.layers is None:
        return exported, stage_interface(stage.shape)
    first, end = request.layers
    program = summarize(exported, f"model type {stage.model_type!r}")
    piece = cut_layers(program, stage.shape, first=first, end=end)
    by_name = {node.name: node for node in exported.graph.nodes}
    nodes, inputs, outputs = ([by_name[name] for name in names] for names in (piece.nodes, piece.inputs, piece.outputs))
    return extract(exported, nodes, outputs, inputs=inputs), stage_interface(piece.shape)


def _step_name(name: str, request: LowerRequest) -> str:
    if request.page:
        return f"lower {name} paged"
    return f"lower {name}" if request.layers is None else f"lower {name} layers {request.layers[0]} to {request.layers[1] - 1}"


def _lower_one(
    stage: Stage,
    exported: Any,
    interface: Interface,
    *,
    name: str,
    request: LowerRequest,
    directory: Path,
    contents: Mapping[str, Any],
) -> None:
    """Lower through one backend into a temporary folder and publish it with its manifest."""
    found = backend(name)
    check_target(found, request.target)
    availability = found.available()
    if not availability.available:
        raise UnsupportedError(f"backend {name} cannot lower here: {availability.reason}", hint=availability.hint or None)
    refused = [
        node for node in found.supports(summarize(exported, stage.model_type), device="cpu:0").nodes if not node.supported
    ]
    if refused:
        raise UnsupportedError(f"backend {name} does not take node {refused[0].node!r}: {refused[0].reason}")

    def fill(folder: Path) -> None:
        manifest = found.lower(exported, interface=interface, request=request, directory=folder)
        (folder / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        (folder / KEY_FILE).write_text(json.dumps(contents, indent=1, sort_keys=True))

    publish(directory, fill)


def _publish_weights(stage: Stage, exported: Any, *, checkpoint: Checkpoint, digest: str, directory: Path) -> None:
    """Map every lifted weight to the checkpoint or to a file of its own."""
    if exported is None or read_weight_map(directory) is not None:
        return
    tensors = lifted_weights(exported)
    arrays = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}
    same: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for name, tensor in tensors.items():
        same.setdefault((tensor.data_ptr(), tuple(tensor.shape)), []).append(name)
    base = f"{getattr(stage.model, 'base_model_prefix', '')}."
    candidates = {}
    for name, tensor in tensors.items():
        tied = same[tensor.data_ptr(), tuple(tensor.shape)]
        plain = [item.removeprefix(stage.prefix) for item in (name, *tied)]
        candidates[name] = list(dict.fromkeys([*plain, *(item.removeprefix(base) for item in plain)]))
    transforms = {
        made: QUANTISED.format(name=name) for name in parts_of(tensors) for made in (f"{name}{WHOLE}", f"{name}{SCALE}")
    }
    build_weight_map(
        arrays, candidates=candidates, checkpoint=checkpoint, model_digest=digest, directory=directory, transforms=transforms
    )


class _Steps:
    """Times named steps and reports their begin and end."""

    def __init__(self, seconds: dict[str, float], progress: Progress | None) -> None:
        self._seconds, self._progress = seconds, progress

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._tell({"step": name, "state": "begun"})
        begun = time.monotonic()
        try:
            yield
        except BaseException:
            self._tell({"step": name, "state": "failed", "seconds": time.monotonic() - begun})
            raise
        self._seconds[name] = time.monotonic() - begun
        self._tell({"step": name, "state": "done", "seconds": self._seconds[name]})

    def _tell(self, event: dict[str, Any]) -> None:
        if self._progress is not None:
            self._progress(event)


@contextmanager
def _progress_file(path: str) -> Iterator[Progress | None]:
    if not path:
        yield None
        return
    with open(path, "a", buffering=1) as file:
        yield lambda event: file.write(json.dumps(event) + "\n")
