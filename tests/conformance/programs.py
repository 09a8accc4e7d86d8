"""Lower, load and run any captured module through a backend, as runtime does, and compare with the module itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inlay.backends import Array, Executable, backend
from inlay.backends.tensors import array_of
from inlay.graph import shape_value, solve_sizes
from inlay.graph.capture import Captured, capture, lifted_weights, with_weights, without_weights
from inlay.runtime.load import load_executable
from inlay.runtime.weights import build_weight_map, read_weight_map
from inlay.specs.artifact import Interface, LowerRequest, whole_interface

TOLERANCE = 1e-5


@dataclass
class Lowered:
    """One artifact of one program: where it lies, and its weights."""

    directory: Path
    weights: Path
    backend: str

    def load(self, *, threads: int = 1, **options: str) -> Executable:
        weight_map = read_weight_map(self.weights)
        assert weight_map is not None
        return load_executable(
            self.directory, weight_map=weight_map, backend_name=self.backend, threads=threads, options=options
        )


@dataclass
class Subject:
    """A captured module with the folder its artifacts go to."""

    module: Any
    captured: Captured
    points: tuple[dict[str, int], ...]
    folder: Path
    done: dict[str, Lowered] = field(default_factory=dict)

    @property
    def interface(self) -> Interface:
        return whole_interface(self.captured.program)

    def lower(self, name: str, **changes: Any) -> Lowered:
        """The artifact of a backend, made once; `changes` are fields of the request and make a new one."""
        label = name if not changes else f"{name}-{len(self.done)}"
        if label not in self.done:
            self.done[label] = lower_exported(
                self.captured.exported,
                self.interface,
                name,
                self.folder / label,
                points=self.points,
                ranges=self.captured.program.ranges,
                **changes,
            )
        return self.done[label]

    def arguments(self, given: Mapping[str, Any]) -> list[Array]:
        """Arrays for all inputs: those given, and the first values of the states."""
        first = {state.input: self.captured.initial[state.name] for state in self.captured.program.states}
        return [array_of({**first, **given}[port.name]) for port in self.interface.inputs]

    def sizes(self, arrays: Sequence[Array]) -> dict[str, int]:
        ports = self.interface.inputs
        return solve_sizes(
            {port.name: port.shape for port in ports},
            {port.name: array.shape for port, array in zip(ports, arrays, strict=True)},
        )

    def expected(self, arrays: Sequence[Array]) -> list[Array]:
        """What torch gives for the captured program at these inputs."""
        return run_eagerly(self.captured.exported, arrays)

    def expected_with(self, values: Mapping[str, Any], arrays: Sequence[Array]) -> list[Array]:
        """The same with other weights."""
        bare, names = without_weights(self.captured.exported)
        return run_eagerly(with_weights(bare, {name: values[name] for name in names}), arrays)

    def with_weights(self, lowered: Lowered, values: Mapping[str, Any], folder: Path) -> Lowered:
        """The same code over other weights, saved below `folder`."""
        save_weights(values, folder)
        return Lowered(lowered.directory, folder, lowered.backend)


def subject(
    module: Any, inputs: Mapping[str, Any], dynamic: Mapping[str, Any], points: Sequence[dict[str, int]], folder: Path
) -> Subject:
    """Capture a module; artifacts go below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return Subject(module.eval(), capture(module, (), dict(inputs), dynamic=dynamic), tuple(points), folder)


def lower_exported(
    exported: Any, interface: Interface, name: str, folder: Path, *, points: Sequence[dict[str, int]] = (), **request: Any
) -> Lowered:
    """Lower an ExportedProgram and save its weights; folders `code` and `weights`."""
    code, weights = folder / "code", folder / "weights"
    code.mkdir(parents=True)
    found = backend(name)
    asked = LowerRequest(points=() if found.dynamic else tuple(points) or ({},), **request)
    manifest = found.lower(exported, interface=interface, request=asked, directory=code)
    (code / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    save_weights(lifted_weights(exported), weights)
    return Lowered(code, weights, name)


def save_weights(tensors: Mapping[str, Any], folder: Path) -> None:
    """Write tensors by name, with the map that `load` wants."""
    arrays = {key: array_of(tensor) for key, tensor in tensors.items()}
    build_weight_map(arrays, candidates=dict.fromkeys(arrays, ()), model_digest="conformance", directory=folder)


def run_eagerly(exported: Any, arrays: Sequence[Array]) -> list[Array]:
    """The program by torch itself, its asserts left out."""
    import torch

    from inlay.backends.tensors import tensor_of

    with torch.no_grad():
        results = exported.module(check_guards=False)(*(tensor_of(np.array(array)) for array in arrays))
    return [np.array(array_of(item)) for item in results]


def run_arrays(executable: Executable, arrays: Sequence[Array], sizes: Mapping[str, int]) -> list[Array]:
    """Allocate, write, bind, run and read back."""
    buffers = []
    for port, spec in enumerate((*executable.inputs, *executable.outputs)):
        buffers.append(executable.allocate(port, shape_value(spec.shape, sizes)))
        executable.bind(port, buffers[-1])
    for buffer, array in zip(buffers, arrays, strict=False):
        buffer.write(array)
    executable.run(sizes)
    return [buffer.read() for buffer in buffers[len(executable.inputs) :]]


def relative_error(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest error of a value by its largest number; infinite where dtype, shape or a whole number differs."""
    worst = 0.0
    for one, two in zip(found, expected, strict=True):
        if one.dtype != two.dtype or one.shape != two.shape:
            return float("inf")
        if two.dtype.kind in "biu":
            worst = max(worst, 0.0 if np.array_equal(one, two) else float("inf"))
            continue
        gap = np.abs(one.astype(np.float64) - two.astype(np.float64)).max(initial=0.0)
        worst = max(worst, float(gap / max(np.abs(two.astype(np.float64)).max(initial=0.0), 1e-30)) if gap else 0.0)
        if not np.isfinite(gap):
            return float("inf")
    return worst
