"""The process that loads and runs lowered pieces for the kit, in the backend's own environment. No torch of its own.

It loads and runs as a device process does (`runtime.load`, `runtime.stitch`), many pieces one after another.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from inlay.errors import InlayError
from inlay.runtime.conformance.jobs import Job, serve
from inlay.runtime.conformance.units import load_values, save_values
from inlay.runtime.load import load_executable
from inlay.runtime.stitch import LoadedPiece, Stitched
from inlay.specs.artifact import WeightMap

WATCHED = ("torch", "transformers", "onnx", "inlay.runtime.conformance.models", "inlay.runtime.conformance.capturing")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a loaded piece: sizes, the file of its inputs, and where its results go. With `refused` the run must be
    refused with an error; what it says is the result. Inputs are then made of zeros, of the shapes that the sizes give."""

    sizes: dict[str, int] = {}
    values: str = ""
    results: str = ""
    refused: bool = False


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """A job: one artifact, its weights, the values that pass its ports, and runs."""

    name: str
    directory: str
    backend: str
    weights: WeightMap
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    runs: tuple[Run, ...]


def main(config: dict[str, Any]) -> int:
    """Each result is {"runs": [{error} or {}], "modules": what is loaded, "needs": ports}."""

    def work(job: Job) -> dict[str, Any]:
        return execute(msgspec.convert(job, Execution))

    return serve(config, work)


def execute(job: Execution) -> dict[str, Any]:
    """Load the artifact and do its runs. An error of loading is raised, one of a run is its result."""
    executable = load_executable(Path(job.directory), weight_map=job.weights, backend_name=job.backend, threads=1)
    stitched = Stitched([LoadedPiece(job.name, executable, job.inputs, job.outputs)])
    try:
        runs = [_run(stitched, job, item) for item in job.runs]
    finally:
        stitched.close()
    return {"runs": runs, "modules": [name for name in WATCHED if sys.modules.get(name)]}


def _run(stitched: Stitched, job: Execution, item: Run) -> dict[str, Any]:
    try:
        stitched.arrange(item.sizes)
        if not item.refused:
            given = load_values(Path(item.values), [f"in {name}" for name in job.inputs])
            for name in job.inputs:
                stitched.write(name, given[f"in {name}"])
        stitched.run()
    except InlayError as error:
        return {"error": {"code": error.code, "message": error.message}}
    if item.results:
        save_values(Path(item.results), {f"out {name}": stitched.read(name) for name in job.outputs})
    return {}


def described(result: Mapping[str, Any]) -> str:
    """What went wrong with a job or a run, in one line; "" where nothing did."""
    if "lost" in result:
        return str(result["lost"])
    if "error" in result:
        message = " ".join(str(result["error"]["message"]).split())
        return f"{result['error']['code']}: {message}" if result["error"]["code"] == "internal_error" else message
    return ""
