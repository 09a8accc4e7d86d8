"""A torch door: capture an example whole, with inputs and truth at every size it is tried at, into the cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree

from inlay.backends import Array
from inlay.backends.tensors import array_of
from inlay.graph.capture import capture
from inlay.runtime.cache import Cache
from inlay.runtime.compile import check_built, store_program
from inlay.runtime.conformance.models import EXAMPLES, Example, pair_examples
from inlay.runtime.conformance.trials import Subject, Trial
from inlay.runtime.conformance.units import save_values


def make_subject(name: str, *, cache: Cache, folder: Path) -> Subject:
    """Capture the example of this name; every size that it is tried at is a declared point of the program."""
    example = {**EXAMPLES, **pair_examples()}[name]
    torch.manual_seed(sum(name.encode()))
    model = example.make().eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    given = example.inputs(**example.typical)
    sizes = tried_sizes(example)
    dynamic = {key: dict(axes) for key, axes in example.dynamic.items()}
    captured = capture(model, (), given, dynamic=dynamic, name=name.replace(" ", "_"))
    built = check_built({"model": model, "kwargs": given, "dynamic": dynamic, "points": sizes}, name)
    home = store_program(captured, built, cache=cache)
    model.load_state_dict(state)
    folder.mkdir(parents=True, exist_ok=True)
    trials = []
    steps = [example.typical] * example.steps if example.steps > 1 else sizes
    for number, point in enumerate(steps):
        inputs = given if number == 0 else example.inputs(**point)
        path = folder / f"{name.replace(' ', '-')}-{number}.npz"
        save_values(path, _values(model, captured.program, inputs))
        trials.append(Trial(sizes=dict(point), values=str(path)))
    return Subject(name=name, folder=str(home), trials=tuple(trials))


def tried_sizes(example: Example) -> list[dict[str, int]]:
    """The typical sizes; then each size at its least, at two inner ones and at its most, the others as they are."""
    found = [dict(example.typical)]
    bounds = {size[0]: size[1:] for axes in example.dynamic.values() for size in axes.values()}
    for name, (low, high) in bounds.items():
        inner = (low + (high - low) // 3, low + 2 * (high - low) // 3)
        found += [{**example.typical, name: size} for size in (low, *inner, high)]
    return [dict(item) for item in dict.fromkeys(tuple(sorted(point.items())) for point in found)]


def _values(model: torch.nn.Module, program: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, Array]:
    """Inputs and results of one call by the names of the program's values."""
    states = {state.input for state in program.states}
    names = [name for name in program.inputs if name not in states]
    with torch.no_grad():
        results = [item for item in pytree.tree_leaves(model(**inputs)) if isinstance(item, torch.Tensor)]
    made = {node.name for node in program.nodes}
    arrays = {f"in {name}": array_of(tensor.clone()) for name, tensor in zip(names, inputs.values(), strict=True)}
    pairs = zip(program.outputs, results, strict=True)
    return arrays | {f"out {name}": array_of(tensor.clone()) for name, tensor in pairs if name in made}
