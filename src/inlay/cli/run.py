"""`inlay run` and `inlay verify`: a Build at work on its devices, and compared with its float32 reference."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from inlay import api
from inlay.cli.bars import progress_bar
from inlay.cli.builds import artifacts_line, show_verification, verification_facts
from inlay.cli.starting import ended_by_signals
from inlay.errors import InputError
from inlay.units import format_bytes, format_seconds

FAILED = 7
"""The exit code of a verification that found a region outside its tolerance."""


def run(
    build: Annotated[Path, typer.Argument(help="a folder that `inlay compile` wrote")],
    inputs: Annotated[
        Path | None, typer.Option(help="an .npz file with an array for each input; random ones without it")
    ] = None,
    outputs: Annotated[Path | None, typer.Option(help="write the results to this .npz file")] = None,
    size: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER, sizes of random inputs")] = None,
    cluster: Annotated[str, typer.Option(help="'local' to probe this machine, or a cluster.yaml")] = "local",
    repeat: Annotated[int, typer.Option(help="run so often, and tell the median time")] = 5,
    stream: Annotated[int, typer.Option(help="also run so many in a stream, devices at work on different ones at once")] = 0,
    check: Annotated[bool, typer.Option("--verify", help="compare every region with the float32 reference")] = False,
    seed: Annotated[int, typer.Option(help="of random inputs")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Run a Build once loaded in fresh processes; with --verify, also say how far each region is from the reference."""
    sizes = read_sizes(size or [])
    with ended_by_signals():
        with progress_bar() as tell:
            tell("load")
            opened = api.load(build, cluster=cluster)
        with opened:
            given = read_arrays(inputs) if inputs is not None else opened.random_inputs(sizes or None, seed=seed)
            results = opened.run(given)
            timings = [opened.session.run(given) for _ in range(max(1, repeat))]
            if outputs is not None:
                np.savez(outputs, **{name: np.asarray(value) for name, value in results.items()})  # type: ignore[arg-type]
            found = None
            if check:
                with progress_bar() as tell:
                    found = opened.verify(seed=seed + 1, points=[sizes] if sizes else None, progress=tell)
            facts = _facts(opened, results, timings)
            if stream > 0:
                facts["stream"] = stream_facts(opened, given, stream)
    if as_json:
        print(json.dumps({**facts, **({"verification": verification_facts(found)} if found is not None else {})}))
    else:
        _show(opened, facts)
        if found is not None:
            show_verification(Console(), found)
    if found is not None and not found.passed:
        sys.exit(FAILED)


def verify(
    build: Annotated[Path, typer.Argument(help="a folder that `inlay compile` wrote")],
    cluster: Annotated[str, typer.Option(help="'local' to probe this machine, or a cluster.yaml")] = "local",
    size: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER, check at these sizes only")] = None,
    seed: Annotated[int, typer.Option(help="of random inputs")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Compare every region of a Build with the float32 reference on fresh random inputs."""
    sizes = read_sizes(size or [])
    with ended_by_signals(), progress_bar() as tell:
        tell("load")
        with api.load(build, cluster=cluster) as opened:
            found = opened.verify(seed=seed, points=[sizes] if sizes else None, progress=tell)
    if as_json:
        print(json.dumps(verification_facts(found)))
    else:
        show_verification(Console(), found)
    if not found.passed:
        sys.exit(FAILED)


def stream_facts(opened: api.Opened, given: dict[str, Any], count: int) -> dict[str, Any]:
    """How long so many sets of inputs took in a stream, from the first sent to the last received."""
    begun = time.perf_counter()
    received = sum(1 for _ in opened.stream(given for _ in range(count)))
    seconds = time.perf_counter() - begun
    return {"count": received, "seconds": seconds, "seconds_between_results": seconds / received, "grade": "measured"}


def read_sizes(given: list[str]) -> dict[str, int]:
    """`["batch=2"]` as {"batch": 2}. Raises InputError."""
    sizes = {}
    for text in given:
        name, equals, number = text.partition("=")
        if not equals or not name or not number.isdigit():
            raise InputError(f"size is {text!r}, expected NAME=NUMBER", hint="for example --size batch=2")
        sizes[name] = int(number)
    return sizes


def read_arrays(path: Path) -> dict[str, Any]:
    """Arrays of an .npz file, nothing in it unpickled. Raises InputError."""
    try:
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except (OSError, ValueError) as error:
        raise InputError(f"inputs {str(path)!r} cannot be read: {error}", hint="write them with numpy.savez") from error


def _facts(opened: api.Opened, results: dict[str, Any], timings: list[Any]) -> dict[str, Any]:
    names = timings[0].regions
    return {
        "build": str(opened.build.folder),
        "regions": [
            {
                "id": region.id,
                "device": region.device,
                "backend": region.backend,
                "seconds": float(np.median([item.regions[region.id] for item in timings])) if region.id in names else None,
            }
            for region in opened.build.manifest.regions
        ],
        "seconds": float(np.median([item.seconds for item in timings])),
        "grade": "measured",
        "results": {name: {"dtype": value.dtype.name, "shape": list(value.shape)} for name, value in results.items()},
        "processes": [
            {"device": device, "load_seconds": item.seconds, "memory": item.memory, "reports": item.reports}
            for device, item in opened.session.loaded.items()
        ],
    }


def _show(opened: api.Opened, facts: dict[str, Any]) -> None:
    print(artifacts_line(opened.build))
    for process in facts["processes"]:
        print(f"{process['device']}: loaded in {process['load_seconds']:.2f} s, {format_bytes(process['memory'])} resident")
    for region in facts["regions"]:
        print(f"{region['id']} {region['device']}/{region['backend']}: {format_seconds(region['seconds'])} (measured)")
    print(f"one run with transfers: {format_seconds(facts['seconds'])} (measured)")
    if "stream" in facts:
        apart = format_seconds(facts["stream"]["seconds_between_results"])
        print(f"a stream of {facts['stream']['count']}: a result every {apart} (measured)")
    for name, result in facts["results"].items():
        print(f"{name}: {result['dtype']} {result['shape']}")
