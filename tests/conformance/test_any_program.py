"""Modules that are no language models, through every backend: at least, most and inner sizes, here and in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance_world import COMPUTING, SLOW, need
from modules import EXAMPLES
from programs import TOLERANCE, relative_error, run_arrays

from inlay.backends import backend
from inlay.errors import DeviceError, UnsupportedError

QUICK_OF_SLOW = ("layer", "tables")
CASES = [
    pytest.param(example, name, marks=pytest.mark.thorough if name in SLOW and example not in QUICK_OF_SLOW else ())
    for example in EXAMPLES
    for name in COMPUTING
]


@pytest.mark.parametrize(("example", "name"), CASES)
def test_hole_17_a_program_equals_its_module_at_the_bounds_of_every_size_and_between(
    subjects: Any, example: str, name: str
) -> None:
    need(name)
    made = subjects(example)
    executable = made.lower(name).load()
    worst = 0.0
    for point in EXAMPLES[example].points:
        arrays = made.arguments(EXAMPLES[example].inputs(**point))
        found = run_arrays(executable, arrays, made.sizes(arrays))
        worst = max(worst, relative_error(found, made.expected(arrays)))
    executable.close()
    print(f"{example} {name}: {worst:.1e}")
    assert worst < TOLERANCE


@pytest.mark.parametrize(("example", "name"), [item for item in CASES if item.values[0] in ("mlp", "layer")])
def test_hole_17_sizes_outside_the_declared_range_are_refused_by_name(subjects: Any, example: str, name: str) -> None:
    need(name)
    made = subjects(example)
    executable = made.lower(name).load()
    for size, message in ((10, r"batch.* 10"), (0, r"batch.*shape \[0")):
        sizes = {**EXAMPLES[example].points[0], "batch": size}
        with pytest.raises((UnsupportedError, DeviceError), match=message):
            run_arrays(executable, made.arguments(EXAMPLES[example].inputs(**sizes)), sizes)
    executable.close()


def test_module_and_captured_program_give_the_same(subjects: Any) -> None:
    import torch

    for example, wanted in EXAMPLES.items():
        made = subjects(example)
        program = made.captured.program
        given = wanted.inputs(**wanted.points[-1])
        expected = dict(zip((port.name for port in made.interface.outputs), made.expected(made.arguments(given)), strict=True))
        with torch.no_grad():
            results = made.module(**given)
        named = results if isinstance(results, dict) else dict(enumerate(results if isinstance(results, tuple) else [results]))
        for node, result in zip(program.outputs, named.values(), strict=True):
            found = expected[node] if node in expected else given[node].numpy()
            assert found.dtype == result.numpy().dtype
            np.testing.assert_allclose(found, result.numpy(), rtol=1e-6, atol=1e-6)


FRESH = """
import json, sys
from pathlib import Path
import numpy as np
from inlay.graph import shape_value
from inlay.runtime.load import load_executable
from inlay.runtime.weights import read_weight_map
WATCHED = ("torch", "torch._inductor", "transformers", "onnx", "modules", "openvino_telemetry")
for code, weights, name, sizes, given, result in json.loads(sys.argv[1]):
    run = load_executable(Path(code), weight_map=read_weight_map(Path(weights)), backend_name=name)
    ports, arrays = (*run.inputs, *run.outputs), np.load(given)
    buffers = [run.allocate(index, shape_value(port.shape, sizes)) for index, port in enumerate(ports)]
    for index, buffer in enumerate(buffers):
        run.bind(index, buffer)
        if index < len(run.inputs):
            buffer.write(arrays[str(index)])
    run.run(sizes)
    np.savez(result, **{str(index): buffer.read() for index, buffer in enumerate(buffers[len(run.inputs):])})
    run.close()
maps = Path("/proc/self/maps")
print(json.dumps({
    "modules": [name for name in WATCHED if sys.modules.get(name)],
    "mapped": maps.exists() and "libtorch" in maps.read_text(),
}))
"""


@pytest.mark.parametrize("name", COMPUTING)
def test_a_fresh_process_runs_saved_programs_without_the_module_and_loads_torch_only_where_it_is_needed(
    subjects: Any, tmp_path: Path, name: str
) -> None:
    need(name)
    jobs, expected = [], []
    for example in QUICK_OF_SLOW if name in SLOW else EXAMPLES:
        made = subjects(example)
        arrays = made.arguments(EXAMPLES[example].inputs(**EXAMPLES[example].points[0]))
        expected.append(made.expected(arrays))
        stem = example.replace(" ", "-")
        given, result = tmp_path / f"{stem}-in.npz", tmp_path / f"{stem}-out.npz"
        np.savez(given, **{str(index): array for index, array in enumerate(arrays)})
        lowered = made.lower(name)
        jobs.append([str(lowered.directory), str(lowered.weights), name, made.sizes(arrays), str(given), str(result)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FRESH, json.dumps(jobs)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    needs_torch = backend(name).supports(subjects("mlp").captured.program, device="cpu:0").needs_torch
    said = json.loads(done.stdout)
    if name in ("reference", "contrary"):  # reading a saved graph, torch.export imports the compiler; running code must not
        said["modules"].remove("torch._inductor")
    assert said == {"modules": ["torch"] if needs_torch else [], "mapped": needs_torch}
    for job, truth in zip(jobs, expected, strict=True):
        with np.load(job[-1]) as kept:
            assert relative_error([kept[str(index)] for index in range(len(truth))], truth) < TOLERANCE


@pytest.mark.parametrize("name", COMPUTING)
def test_one_artifact_of_a_program_serves_two_sets_of_weights(subjects: Any, name: str) -> None:
    """Small and uniform weights above all: a framework that folds them in would keep the first model's values."""
    need(name)
    import torch

    made = subjects("tables")
    lowered = made.lower(name)
    other = made.folder / f"other-{name}"
    changed = {**made.captured.exported.state_dict, **made.captured.exported.constants}
    values = {key: _changed(tensor) for key, tensor in changed.items() if isinstance(tensor, torch.Tensor)}
    executable = made.with_weights(lowered, values, other).load()
    arrays = made.arguments(EXAMPLES["tables"].inputs(batch=7))
    found = run_arrays(executable, arrays, made.sizes(arrays))
    executable.close()
    assert relative_error(found, made.expected_with(values, arrays)) < TOLERANCE
    assert relative_error(made.expected_with(values, arrays), made.expected(arrays)) > 1e-2


def _changed(tensor: Any) -> Any:
    """Other values of the same kind: indices reversed, bools turned, numbers doubled and more."""
    if tensor.ndim and tensor.numel() == 4 and not tensor.is_floating_point():
        return tensor.flip(0).clone()
    return (tensor * 2 + 1).to(tensor.dtype)
