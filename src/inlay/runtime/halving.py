"""A torch door: the process that finds the node of a region where an error enters, by lowering ever shorter beginnings of it.

Started by `runtime.bisect` in the environment of the region's backend. The truth is the captured program run eagerly.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from inlay.backends import Array, backend
from inlay.errors import InlayError
from inlay.graph import Piece, piece_of, shape_value, value_table
from inlay.graph.capture import load_exported, with_weights
from inlay.graph.extract import extract, is_number
from inlay.runtime.bisect import HalvingConfig
from inlay.runtime.cache import MANIFEST_FILE
from inlay.runtime.compile import torch_tensor
from inlay.runtime.inputs import random_inputs
from inlay.runtime.load import load_executable
from inlay.runtime.reporting import Steps, reported
from inlay.runtime.store import GRAPH_FILE, StoredProgram, read_program, read_weights
from inlay.runtime.verify import difference
from inlay.runtime.weights import map_weights
from inlay.specs.artifact import program_interface


def main(config: dict[str, Any]) -> int:
    """Halve one region; the outcome is {"node": name or "", "relative_error": of its value}."""
    parsed = msgspec.convert(config, HalvingConfig)

    def work(steps: Steps) -> dict[str, Any]:
        with steps("run the program eagerly"):
            halving = _Halving(parsed)
        return halving.search(steps)

    return reported(parsed.result, parsed.progress, work)


class _Recorder(torch.fx.Interpreter):
    """Keeps every value of a run."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[str, Any] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        value = self.values[n.name] = super().run_node(n)
        return value


class _Halving:
    """One region under test."""

    def __init__(self, config: HalvingConfig) -> None:
        self._config, folder = config, Path(config.program)
        self._stored: StoredProgram = read_program(folder)
        self._map = read_weights(folder)
        weights = {name: torch_tensor(array) for name, array in map_weights(self._map).items()}
        names = self._stored.weight_names
        self._exported = with_weights(load_exported(folder / GRAPH_FILE), {name: weights[name] for name in names})
        program = self._stored.cut.program
        self._piece: Piece = piece_of(self._stored.cut, config.first, config.end)
        inputs = random_inputs(program.inputs, sizes=config.point, samples=self._stored.samples, seed=config.seed)
        for state in program.states:
            inputs[state.input] = weights[state.name].numpy()
        recorder = _Recorder(self._exported.graph_module)
        with torch.no_grad():
            recorder.run(*(weights[name] for name in names), *(torch.from_numpy(inputs[name]) for name in program.inputs))
        self._truth = recorder.values
        self._nodes = {node.name: node for node in self._exported.graph.nodes}

    def search(self, steps: Steps) -> dict[str, Any]:
        """The last node of the shortest beginning whose values leave the tolerance; none where the whole stays within."""
        ends = self._ends()
        error = self._error(ends[-1], steps)
        if error <= self._config.tolerance:
            return {"node": "", "relative_error": error}
        good, bad, found = 0, len(ends) - 1, error
        while bad - good > 0:
            middle = (good + bad) // 2
            error = self._error(ends[middle], steps)
            if error > self._config.tolerance:
                bad, found = middle, error
            else:
                good = middle + 1
        return {"node": self._piece.nodes[ends[bad] - 1], "relative_error": found}

    def _ends(self) -> list[int]:
        """How many nodes a beginning may have: it gives at least one tensor and no tuple."""
        names = self._piece.nodes
        found = []
        for count in range(1, len(names) + 1):
            leaving = self._leaving(names[:count])
            if leaving and all(isinstance(self._truth[name], torch.Tensor) for name in leaving):
                found.append(count)
        return found

    def _leaving(self, names: Sequence[str]) -> list[str]:
        inside = set(names)
        wanted = set(self._piece.outputs)
        return [
            name
            for name in names
            if name in wanted or any(user.name not in inside for user in self._nodes[name].users if user.op != "output")
        ]

    def _error(self, count: int, steps: Steps) -> float:
        names = self._piece.nodes[:count]
        with steps(f"compare {count} of {len(self._piece.nodes)} nodes"):
            outputs = self._leaving(names)
            wanted = [self._nodes[name] for name in names if not is_number(self._nodes[name])]
            code = extract(self._exported, wanted, [self._nodes[name] for name in outputs])
            inputs = [spec.arg.name for spec in code.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
            try:
                values = self._run(code, inputs, outputs)
            except InlayError:
                return float("inf")
            return max(
                max(item.relative, float("inf") if item.non_finite else 0.0)
                for item in (difference(values[name], self._truth[name].numpy()) for name in outputs)
            )

    def _run(self, code: Any, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, Array]:
        config, program = self._config, self._stored.cut.program
        interface = program_interface(program, inputs=inputs, outputs=outputs)
        with tempfile.TemporaryDirectory(prefix="inlay-halving-") as directory:
            manifest = backend(config.backend).lower(
                code, interface=interface, request=config.request, directory=Path(directory)
            )
            (Path(directory) / MANIFEST_FILE).write_bytes(msgspec.json.encode(manifest))
            executable = load_executable(
                Path(directory), weight_map=self._map, backend_name=config.backend, threads=config.request.threads
            )
            values, buffers = value_table(program), []
            for port, name in enumerate((*inputs, *outputs)):
                buffer = executable.allocate(port, shape_value(values[name].shape, config.point))
                if port < len(inputs):
                    buffer.write(self._truth[name].contiguous().numpy())
                executable.bind(port, buffer)
                buffers.append(buffer)
            executable.run(config.point)
            found = {name: buffer.read() for name, buffer in zip(outputs, buffers[len(inputs) :], strict=True)}
            executable.close()
        return found
