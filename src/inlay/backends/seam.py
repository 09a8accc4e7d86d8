"""The seam to a vendor's framework: Backend lowers and loads, Executable runs, Buffer holds bytes.

Implemented once per vendor folder (support, lower, execute) and by the teaching backends; called by `runtime`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from inlay.graph import Program
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest, WeightMap
from inlay.specs.capability import Availability, Capability
from inlay.specs.stage import Port

Array = np.ndarray[Any, Any]


class Buffer(Protocol):
    """Memory of one port, in the device's own address space and layout. Freed with the last reference."""

    shape: tuple[int, ...]
    dtype: str

    def write(self, array: Array, at: tuple[int, ...] = ()) -> None:
        """Copy a host array in, its first element at index `at` (zeros where `at` is shorter than the shape).

        The array has as many axes as the buffer and is in the port's logical layout, whatever the device keeps.
        """

    def read(self, at: tuple[slice, ...] = ()) -> Array:
        """A fresh host copy, in the logical layout, of the part named by plain slices (all where shorter)."""

    def rows(self, first: int, count: int) -> Buffer:
        """A view of `count` entries of the first axis; writes go through."""

    def place(self, source: Buffer, *, rows: Sequence[int], starts: Sequence[int], counts: Sequence[int]) -> None:
        """Append KV on the device: self[rows[i], :, starts[i]:starts[i]+counts[i], :] = source[i, :, :counts[i], :].

        Both are [B, heads, tokens, dim]; a count of 0 skips that entry. `source` is a buffer of the same executable.
        """


class Executable(Protocol):
    """A loaded artifact. Not thread-safe: one device process drives it from one thread."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def allocate(self, port: int, shape: tuple[int, ...]) -> Buffer:
        """A zeroed buffer for that port (inputs first, outputs after them). Raises OutOfMemoryError."""

    def bind(self, port: int, buffer: Buffer) -> None:
        """Use this buffer (or view of rows) for the port from the next run on."""

    def run(self, sizes: Mapping[str, int]) -> None:
        """Run once with the bound buffers, whose shapes follow from `sizes` by symbol (B, T, P, R for a stage).

        Raises UnsupportedError for sizes a static executable has no bucket for, DeviceError when the framework fails.
        """

    def close(self) -> None:
        """Free the framework's objects."""


class Asynchronous(Protocol):
    """An optional ability of an Executable: completion that is waited for apart from the start."""

    def start(self, sizes: Mapping[str, int]) -> None:
        """Begin a run; bound buffers must not be touched until it is done."""

    def done(self) -> bool:
        """Whether the run begun last has ended; raises what the run raised."""


class Backend(Protocol):
    """One framework. Importing its folder imports no SDK. One that is not `dynamic` runs declared sizes only.

    Optional attributes: `environment`, the name of a Python environment of its own (`backends.environment`), in which every
    process that lowers or loads for it runs where there is one of that name; `lowered_with`, further packages that lowering
    depends on; `bakes_threads`, true where their number is part of the code; `machine()`, what else the code depends on (a
    compiler, instruction sets); `limits_memory`, true for one that takes the option `memory`; `targets`, kinds of devices
    beside this machine that `lower` makes code for (`LowerRequest.target`), each name with what it is; `runnable`, those of
    them whose code `load` takes where such a device is; `precisions`, the names of `specs.precision` that `lower` takes,
    float32 alone where nothing is said; `page`, the tokens of a KV page, for one that lowers the program `paged` too
    (`LowerRequest.page`).
    """

    name: str
    dynamic: bool

    def available(self) -> Availability:
        """Whether its framework can be used here, found without importing it."""

    def supports(self, program: Program, *, device: str) -> Capability:
        """Which nodes it takes, and why not the others; must not promise what `lower` refuses."""

    def lower(self, exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
        """Write the code of an ExportedProgram into an empty directory, weights left out, and describe it.

        Weights are the lifted parameters, buffers and constants of the program, named as in its signature targets.
        Raises UnsupportedError with node and reason. Runs in a compile process; may import torch.
        """

    def validate(self, manifest: ArtifactManifest) -> str:
        """ "optimal", "recompile" or "unsupported", judged from the manifest before anything is loaded."""

    def load(
        self, directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
    ) -> Executable:
        """Bind the mapped weights as the framework's constants and make it runnable. Raises ArtifactError."""
