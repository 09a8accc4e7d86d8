"""A torch door: capture samples, several in one program, with their truth by eager torch, into the cache.

`main` is the program of a process that `run_jobs` starts; its jobs name cases, its results are `Gathered`. What is captured
depends on no backend, so it is done once for all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from inlay.backends import Array
from inlay.backends.tensors import array_of
from inlay.errors import InlayError
from inlay.graph.capture import capture, load_exported
from inlay.runtime.cache import Cache
from inlay.runtime.compile import check_built, store_program
from inlay.runtime.conformance.calls import call_sample
from inlay.runtime.conformance.filters import FILTERED, RANDOM, UNDEFINED, filtered
from inlay.runtime.conformance.jobs import Job, serve
from inlay.runtime.conformance.opinfo import case_names, samples_of
from inlay.runtime.conformance.samples import Sample, Together, unfit
from inlay.runtime.conformance.stages import make_stage
from inlay.runtime.conformance.subjects import make_subject
from inlay.runtime.conformance.units import Gathered, Group, Unit, save_values
from inlay.runtime.store import GRAPH_FILE

GIVES_INPUT = "it gives its input back, nothing is computed"
MORE = " float32"  # what models compute in: tried with more than one sample in a full run
NOT_CAPTURED = "torch.export does not capture it: "


def main(config: dict[str, Any]) -> int:
    """Jobs {name, list: full or sample} give the names of cases; {name, cases, samples, calls} give `Gathered`;
    {name, example, stage} give a `Subject` or a `StageSubject`."""
    torch.set_num_threads(1)
    cache, folder = Cache(Path(config["cache"])), Path(config["folder"])

    def work(job: Job) -> dict[str, Any]:
        if "list" in job:
            return {"cases": case_names(full=job["list"] == "full")}
        if "example" in job:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = make_stage if job["stage"] else partial(make_subject, cache=cache)
                return dict(msgspec.to_builtins(made(job["example"], folder=folder)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = gather(job, cache=cache, folder=folder)
        done: dict[str, Any] = msgspec.to_builtins(found)
        return done

    return serve(config, work)


def gather(job: Job, *, cache: Cache, folder: Path) -> Gathered:
    """The samples of a job's cases in as few programs as torch.export allows."""
    samples: list[Sample] = []
    left_out: dict[str, str] = {}
    for case in job["cases"]:
        if case in job["calls"]:
            fit, reasons = _call(case)
        elif reason := filtered(case.rpartition(" ")[0]):
            fit, reasons = [], [reason]
        else:
            fit, reasons = samples_of(case, job["samples"] if case.endswith(MORE) else 1)
        samples += fit
        left_out |= {f"{case} !{number}": reason for number, reason in enumerate(reasons)}
        if not fit and not reasons:
            left_out[f"{case} !0"] = "PyTorch has no sample of it in this dtype"
    groups, refused = _captured(samples, job["name"], cache, folder)
    return Gathered(groups=tuple(groups), left_out={**left_out, **refused})


def _call(operator: str) -> tuple[list[Sample], list[str]]:
    """The sample of an operator's call in the models, or why there is none."""
    name = operator.split(".")[1]
    for reason in (UNDEFINED, RANDOM):
        if name in FILTERED[reason]:
            return [], [reason]
    try:
        sample = call_sample(operator)
    except Exception as error:  # noqa: BLE001  # process edge: whatever torch raises is the reason
        return [], [
            error.message if isinstance(error, InlayError) else f"its call cannot be made: {type(error).__name__}: {error}"
        ]
    reason = unfit(sample)
    return ([], [reason]) if reason else ([sample], [])


def _captured(samples: Sequence[Sample], name: str, cache: Cache, folder: Path) -> tuple[list[Group], dict[str, str]]:
    """Groups of what can be captured; a group that cannot is halved until the sample at fault is alone."""
    if not samples:
        return [], {}
    try:
        return _group(samples, name, cache, folder)
    except Exception as error:  # noqa: BLE001  # process edge: torch.export and torch raise whatever they like
        if len(samples) == 1:
            text = error.message if isinstance(error, InlayError) else f"{type(error).__name__}: {error}"
            return [], {samples[0].name: NOT_CAPTURED + _cause(text)}
    half = len(samples) // 2
    one, two = (
        _captured(part, f"{name}{mark}", cache, folder) for part, mark in ((samples[:half], "a"), (samples[half:], "b"))
    )
    return [*one[0], *two[0]], {**one[1], **two[1]}


def _group(samples: Sequence[Sample], name: str, cache: Cache, folder: Path) -> tuple[list[Group], dict[str, str]]:
    tensors = [tensor for sample in samples for tensor in sample.tensors]
    module = Together(samples)
    captured = capture(module, tuple(tensors), name="samples")
    program = captured.program
    arrays: dict[str, Array] = {f"in {key}": array_of(tensor) for key, tensor in zip(program.inputs, tensors, strict=True)}
    made, at, units = {node.name for node in program.nodes}, 0, []
    left_out: dict[str, str] = {}
    for sample in samples:
        with torch.no_grad():
            truth = sample.call([tensor.clone() for tensor in sample.tensors])
        names = program.outputs[at : at + len(truth)]
        at += len(truth)
        computed = {key: value for key, value in zip(names, truth, strict=True) if key in made}
        if computed:
            units.append(Unit(name=sample.name, case=sample.case, outputs=tuple(computed)))
            arrays |= {f"out {key}": array_of(value) for key, value in computed.items()}
        else:
            left_out[sample.name] = GIVES_INPUT
    if not units:
        return [], left_out
    built = check_built({"model": module, "args": tuple(tensors)}, "samples")
    home = store_program(captured, built, cache=cache)
    load_exported(home / GRAPH_FILE)  # what torch cannot read again is told here, of the sample at fault
    folder.mkdir(parents=True, exist_ok=True)
    values = folder / f"{name}.npz"
    save_values(values, arrays)
    return [Group(name=name, folder=str(home), values=str(values), units=tuple(units))], left_out


def _cause(text: str) -> str:
    """What torch.export said, without where in torch it happened and what changes from run to run."""
    line = " ".join(text.split())
    _, colon, rest = line.partition("by torch.export")
    return (rest.lstrip(" :") if colon else line)[:140]
