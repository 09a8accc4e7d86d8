"""The operators that occur in the models of the zoo, each with how often and with its smallest call: data of `inlay conform`.

python benchmarks/operators.py [--only NAME ...] [--seconds 300]

Writes src/inlay/runtime/conformance/operators.json, one process a model. Each model is captured and run once on its own
example, so that a call is recorded with the shapes and the range of values that it has there. Outside CI.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import warnings
from pathlib import Path
from typing import Any

import model_zoo
import torch
import torch.utils._pytree as pytree
import transformers  # noqa: F401  # so that no process of a model has to
from measuring import say
from model_zoo import ZOO

from inlay.errors import InlayError
from inlay.graph.capture import capture
from inlay.runtime.compile import check_built

TARGET = Path(__file__).parents[1] / "src" / "inlay" / "runtime" / "conformance" / "operators.json"


def main() -> None:
    """Every model, merged."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", nargs="*", default=[], help="names of the zoo")
    options.add_argument("--seconds", type=float, default=300.0, help="limit for one model")
    given = options.parse_args()
    found: dict[str, dict[str, Any]] = {}
    models, absent = [], {}
    for name in given.only or [name for name, entry in ZOO.items() if not entry.refused]:
        items, reason = one(name, given.seconds)
        if reason:
            absent[name] = reason
            say(f"{name}: {reason}")
            continue
        models.append(name)
        for operator, item in items.items():
            merge(found, operator, item)
        say(f"{name}: {len(items)} operators, {len(found)} in all")
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(found.items()))
    head = json.dumps({"models": models, "absent": absent})[1:-1]
    TARGET.write_text(f'{{{head}, "operators": {{\n{rows}\n}}}}\n')
    say(f"{len(found)} operators of {len(models)} models in {TARGET.name}")


def one(name: str, seconds: float) -> tuple[dict[str, Any], str]:
    """The operators of one model, from a process of its own that begins with everything imported; or why there are none."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=tell, args=(name, there))
    process.start()
    there.close()
    try:
        if not here.poll(seconds):
            return {}, f"not done within {seconds:.0f} s"
        found: tuple[dict[str, Any], str] = here.recv()
        return found
    except EOFError:
        return {}, "its process ended"
    finally:
        process.kill()
        process.join()


def tell(name: str, pipe: Any) -> None:
    """What each process does."""
    warnings.simplefilter("ignore")
    try:
        pipe.send((operators_of(name, getattr(model_zoo, name)), ""))
    except InlayError as error:
        pipe.send(({}, error.message[:200]))


def merge(found: dict[str, dict[str, Any]], operator: str, item: dict[str, Any]) -> None:
    """Counts are added; of two calls the smaller one is kept."""
    held = found.setdefault(operator, {"count": 0, "models": 0, "elements": item["elements"], "call": item["call"]})
    held["count"] += item["count"]
    held["models"] += 1
    if item["call"] is not None and (held["call"] is None or item["elements"] < held["elements"]):
        held["elements"], held["call"] = item["elements"], item["call"]


def operators_of(name: str, builder: Any) -> dict[str, Any]:
    """Every operator of one model: how many nodes, and the smallest call of it."""
    built = check_built(builder(), name)
    captured = capture(built["model"], built["args"], built["kwargs"], dynamic=built["dynamic"], name=name)
    found: dict[str, dict[str, Any]] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            if n.op != "call_function":
                return super().run_node(n)
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            result = super().run_node(n)
            leaves = pytree.tree_leaves((args, kwargs, result))
            elements = sum(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor))
            tensors = any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(result))
            call = [described(args), described(kwargs)] if tensors and "::" in str(getattr(n.target, "name", str)()) else None
            merge(found, str(n.target), {"count": 1, "elements": elements, "call": call})
            return result

    exported = captured.exported
    store = {**exported.constants, **exported.state_dict}
    kept = [store[spec.target] for spec in exported.graph_signature.input_specs if spec.kind.name != "USER_INPUT"]
    leaves = [
        leaf for leaf in pytree.tree_leaves((tuple(built["args"]), dict(built["kwargs"]))) if isinstance(leaf, torch.Tensor)
    ]
    states = [captured.initial[state.name] for state in captured.program.states]
    with torch.no_grad():
        Recorder(exported.graph_module).run(*kept, *leaves, *states)
    return found


def described(value: Any) -> Any:
    """An argument as plain data: tensors by dtype, shape, and least and most of their values."""
    match value:
        case torch.Tensor():
            finite = value[torch.isfinite(value)] if value.is_floating_point() else value
            ends = [0.0, 0.0] if finite.numel() == 0 or value.is_complex() else [finite.min().item(), finite.max().item()]
            return {"tensor": [str(value.dtype).removeprefix("torch."), list(value.shape), *map(rounded, ends)]}
        case torch.dtype() | torch.memory_format() | torch.layout():
            return {type(value).__name__: str(value).removeprefix("torch.")}
        case torch.device():
            return {"device": "cpu"}
        case list() | tuple():
            return [described(item) for item in value]
        case dict():
            return {"named": {key: described(item) for key, item in value.items()}}
        case float() if value != value or value in (float("inf"), float("-inf")):
            return {"float": repr(value)}
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"argument {value!r} of an operator, expected a tensor or plain data")


def rounded(value: float) -> float:
    """Whole numbers as they are, others to four digits."""
    return int(value) if isinstance(value, (bool, int)) else float(f"{value:.4g}")


if __name__ == "__main__":
    main()
