"""A pytest plugin by which ExecuTorch's own backend test suite tests a backend of inlay, and not ExecuTorch.

The suite is a third party's: models, inputs, truth (the exported program, run eagerly) and comparison are its own. Ours are
the flow, tighter bounds, and a line of JSON for each test. Used by `executorch_suite.py`:

pytest -p suite_flow --pyargs executorch.backends.test.suite.operators.test_add, with the backend in INLAY_SUITE_BACKEND
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from executorch.backends.test.harness import Tester
from executorch.backends.test.harness.stages import Stage, StageType
from executorch.backends.test.suite import flow, reporting, runner

from inlay.errors import InlayError, UnsupportedError
from inlay.graph import piece_of, solve_sizes
from inlay.graph.capture import capture
from inlay.runtime.cache import Cache
from inlay.runtime.compile import check_built, lower_piece, store_program
from inlay.runtime.load import load_executable
from inlay.runtime.obtain import request_for
from inlay.runtime.stitch import LoadedPiece, Stitched
from inlay.runtime.store import piece_weights, read_program, read_weights
from inlay.specs.precision import Precision

BACKEND = os.environ["INLAY_SUITE_BACKEND"]
RECORDS = Path(os.environ["INLAY_SUITE_RECORDS"])
SECONDS = float(os.environ.get("INLAY_SUITE_SECONDS", "300"))
TOLERANCE = 1e-4
"""Absolute and relative, where the suite itself asks for 1e-1 and 4e-2."""
SEED = 20260


@dataclass
class Runs:
    """What really happened in the test that is on: runs of an executable of ours, and how it was refused."""

    count: int = 0
    refused: list[str] = field(default_factory=list)


runs = Runs()


class ThroughInlay(Stage):
    """Takes the place of ExecuTorch's lowering: capture, summary, supports, lower, load, all as `inlay compile` does."""

    def __init__(self, module: torch.nn.Module, inputs: Sequence[Any], dynamic: Any) -> None:
        self._module, self._inputs, self._dynamic = module, tuple(inputs), dynamic
        self._exported: Any = None
        self._folder: Any = None
        self._run: Callable[[Sequence[Any]], list[torch.Tensor]] | None = None

    def stage_type(self) -> StageType:
        return StageType.TO_EDGE_TRANSFORM_AND_LOWER

    def run(self, artifact: Any, inputs: Any = None, generate_etrecord: bool = False) -> None:
        """Make it runnable. Raises what inlay raises."""
        self._exported = artifact
        self._folder = tempfile.TemporaryDirectory(prefix="inlay-suite-")
        try:
            self._run = runnable(self._module, self._inputs, self._dynamic, Path(self._folder.name))
        except InlayError as error:
            runs.refused.append(error.message)
            raise

    @property
    def artifact(self) -> Any:
        """What the suite's runner looks at after lowering: it counts operators, all of which are ours."""
        return SimpleNamespace(_etrecord=SimpleNamespace(edge_dialect_program=self._exported), _edge_programs={})

    @property
    def graph_module(self) -> Any:
        return self._exported.graph_module

    def run_artifact(self, inputs: Sequence[Any]) -> list[torch.Tensor]:
        """One run of our executable."""
        assert self._run is not None
        found = self._run(inputs)
        runs.count += 1
        return found


def runnable(
    module: torch.nn.Module, inputs: Sequence[Any], dynamic: Any, folder: Path
) -> Callable[[Sequence[Any]], list[torch.Tensor]]:
    """The module through inlay's own path, as one piece on one backend."""
    built = check_built({"model": module, "args": tuple(inputs), "dynamic": dynamic}, "the suite")
    captured = capture(module, inputs, {}, dynamic=dynamic, name=type(module).__name__)
    cache = Cache(folder / "cache")
    home = store_program(captured, built, cache=cache)
    stored, weights = read_program(home), read_weights(home)
    piece = piece_of(stored.cut, 0, len(stored.cut.blocks))
    request = request_for(stored, BACKEND, precision=Precision(), threads=1)
    outcome = lower_piece(captured.exported, stored, piece, BACKEND, request, cache)
    if outcome.reason:
        raise UnsupportedError(outcome.reason)
    executable = load_executable(
        cache.artifact(outcome.key), weight_map=piece_weights(weights, piece), backend_name=BACKEND, threads=1
    )
    program = stored.cut.program
    stitched = Stitched([LoadedPiece(program.name, executable, piece.inputs, piece.outputs)], states=program.states)
    states = {state.input: captured.initial[state.name].numpy() for state in program.states}
    users = [name for name in program.inputs if name not in states]
    held = {name: program.inputs[name].shape for name in users}

    def run(given: Sequence[Any]) -> list[torch.Tensor]:
        tensors = [item for item in pytree.tree_leaves(tuple(given)) if isinstance(item, torch.Tensor)]
        arrays = {name: item.detach().contiguous().numpy() for name, item in zip(users, tensors, strict=True)}
        stitched.arrange(solve_sizes(held, {name: array.shape for name, array in arrays.items()}))
        for name, array in {**states, **arrays}.items():
            stitched.write(name, array)
        stitched.run()
        made = set(piece.outputs)
        return [torch.from_numpy(stitched.read(name) if name in made else arrays[name]) for name in program.outputs]

    return run


class InlayTester(Tester):
    """The suite's tester with our stage in it and bounds of our own."""

    def __init__(self, module: torch.nn.Module, inputs: Sequence[Any], dynamic_shapes: Any = None) -> None:
        super().__init__(module, inputs, dynamic_shapes=dynamic_shapes)

    def to_edge_transform_and_lower(self, stage: Any = None, generate_etrecord: bool = False) -> Any:
        shapes = getattr(self.stages[StageType.EXPORT], "dynamic_shapes", None)
        return self._run_stage(ThroughInlay(self.original_module, self.example_inputs, named_sizes(self, shapes)))

    def to_executorch(self, stage: Any = None) -> Any:
        """Nothing: what was lowered is run as it is."""
        return self

    def run_method_and_compare_outputs(self, *args: Any, atol: Any = None, rtol: Any = None, **kwargs: Any) -> Any:
        return super().run_method_and_compare_outputs(*args, atol=TOLERANCE, rtol=TOLERANCE, **kwargs)


def named_sizes(tester: Any, shapes: Any) -> dict[str, Any]:
    """torch's dynamic shapes of a test as inlay writes them: the argument's name, the axis, and (name, least, most)."""
    if not shapes:
        return {}
    import inspect

    names = list(inspect.signature(tester.original_module.forward).parameters)
    given = dict(zip(names, shapes, strict=False)) if isinstance(shapes, (tuple, list)) else dict(shapes)
    return {
        name: {axis: (dim.__name__, max(1, dim.min), dim.max) for axis, dim in axes.items()}
        for name, axes in given.items()
        if isinstance(axes, dict) and axes
    }


FLOW = flow.TestFlow(
    f"inlay_{BACKEND}", backend="inlay", tester_factory=InlayTester, is_delegated=False, supports_serialize=False
)
flow.all_flows = lambda: {FLOW.name: FLOW}  # before the suite's conftest asks for them
# The suite skips what ExecuTorch's own kernels lack. These kernels are not what is tested here.
runner.UNSUPPORTED_PORTABLE_OPS = set()
runner._graph_has_unsupported_patterns = lambda program: False
reporting.begin_test_session(None, seed=SEED)


def record(**facts: Any) -> None:
    """Append one line."""
    with open(RECORDS, "a") as file:
        file.write(json.dumps(facts) + "\n")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """A limit of our own: the suite's is for one process on a quiet machine."""
    for item in items:
        item.add_marker(pytest.mark.timeout(SECONDS), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: Any) -> None:
    runs.count, runs.refused = 0, []
    record(test=item.nodeid, state="begun")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    outcome = yield
    report = outcome.get_result()
    if report.when != "call" and report.passed:
        return
    cases = [
        {"result": case.result.name, "error": str(case.error or "")[:600]}
        for case in getattr(item.funcargs.get("test_runner"), "_results", ())
    ]
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr or "")[-600:]
    record(
        test=item.nodeid, state="done", outcome=report.outcome, cases=cases, runs=runs.count, refused=runs.refused,
        reason=reason[:600], seconds=round(report.duration, 1),
    )  # fmt: skip
