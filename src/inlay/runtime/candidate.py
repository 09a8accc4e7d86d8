"""What is timed: a MeasureJob, and its artifacts loaded, bound to filled buffers and ready to run. It has no clock.

Used inside a measuring process (`runtime.measure`), which maps only the framework of this one job.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from inlay.backends import Array, Buffer, Executable
from inlay.errors import ArtifactError, InputError
from inlay.graph import shape_value
from inlay.models import numpy_dtype
from inlay.runtime.cache import read_manifest
from inlay.runtime.load import load_stage_executable
from inlay.runtime.weights import read_weight_map
from inlay.specs.artifact import ArtifactManifest, WeightMap
from inlay.specs.profile import ProfileKey
from inlay.specs.stage import Port

DEFAULT_BOUND = 2  # of whole numbers nobody gave a bound for: 0 and 1 are in range almost anywhere
NO_WEIGHTS = WeightMap(model_digest="", weights={})


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Input port `input` reads output `output` (counted from 0) of an earlier piece, in the same buffer."""

    input: int
    piece: int
    output: int


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact: its folder, its weights (a map, or the folder of a published one), what its inputs are wired to.

    `bounds` are for whole numbers by the name of their port: values are drawn from 0 to below it.
    """

    directory: str
    weights: WeightMap | str = NO_WEIGHTS
    wires: tuple[Wire, ...] = ()
    bounds: dict[str, int] = {}


class MeasureJob(msgspec.Struct, frozen=True, kw_only=True):
    """Pieces that run in order as one thing, timed at the sizes of each of its keys. Keys differ in nothing but sizes."""

    keys: tuple[ProfileKey, ...]
    pieces: tuple[Piece, ...]
    options: dict[str, str] = {}

    @property
    def backend(self) -> str:
        """The name of the framework that runs it."""
        return self.keys[0].backend


class LoadedJob:
    """The executables of a job. The caller closes it."""

    def __init__(self, job: MeasureJob) -> None:
        self._job = job
        self._manifests = [read_manifest(Path(piece.directory)) for piece in job.pieces]
        self._executables: list[Executable] = []
        self.bound: LoadedPoint | None = None
        try:
            for piece, manifest in zip(job.pieces, self._manifests, strict=True):
                self._executables.append(_load(piece, manifest, job))
        except BaseException:
            self.close()
            raise

    def point(self, key: ProfileKey) -> LoadedPoint:
        """Buffers for the sizes of this key, inputs filled; not bound yet."""
        sizes = dict(key.sizes)
        generator = np.random.default_rng(0)
        buffers: list[list[Buffer]] = []
        for number, (piece, executable) in enumerate(zip(self._job.pieces, self._executables, strict=True)):
            wired = {wire.input: wire for wire in piece.wires}
            held: list[Buffer] = []
            bounds = _bounds(piece, self._manifests[number], sizes)
            for port, spec in enumerate((*executable.inputs, *executable.outputs)):
                if port in wired:
                    wire = _checked(wired[port], number, self._executables)
                    held.append(buffers[wire.piece][len(self._executables[wire.piece].inputs) + wire.output])
                    continue
                buffer = executable.allocate(port, shape_value(spec.shape, sizes))
                if port < len(executable.inputs):
                    buffer.write(plausible(spec, buffer.shape, bound=bounds.get(spec.name, DEFAULT_BOUND), generator=generator))
                held.append(buffer)
            buffers.append(held)
        return LoadedPoint(self, self._executables, buffers, sizes)

    def close(self) -> None:
        """Free the executables; safe to call twice."""
        self.bound = None
        for executable in self._executables:
            executable.close()
        self._executables = []


class LoadedPoint:
    """A job at one size. `bind` once, then `run` as often as wanted."""

    def __init__(
        self, job: LoadedJob, executables: list[Executable], buffers: list[list[Buffer]], sizes: Mapping[str, int]
    ) -> None:
        self._job, self._executables, self._buffers, self._sizes = job, executables, buffers, sizes

    @property
    def is_bound(self) -> bool:
        """Whether the executables have these buffers and not those of another size."""
        return self._job.bound is self

    def bind(self) -> None:
        """Give the executables these buffers."""
        self._job.bound = self
        for executable, buffers in zip(self._executables, self._buffers, strict=True):
            for port, buffer in enumerate(buffers):
                executable.bind(port, buffer)

    def run(self) -> None:
        """All pieces once. An asynchronous executable is waited for: that is what `run` of the seam means."""
        for executable in self._executables:
            executable.run(self._sizes)


def plausible(port: Port, shape: tuple[int, ...], *, bound: int, generator: np.random.Generator) -> Array:
    """Values that a model may see: floats standard normal, truths at random, whole numbers from 0 to below `bound`.

    Raises InputError for a bound that the dtype does not hold.
    """
    dtype = numpy_dtype(port.dtype)
    if dtype == np.bool_:
        return np.asarray(generator.integers(0, 2, shape)).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        limit = min(np.iinfo(dtype).max + 1, 2**63)
        if not 1 <= bound <= limit:
            raise InputError(f"port {port.name!r} of {port.dtype} has bound {bound}, expected 1 to {limit}")
        return np.asarray(generator.integers(0, bound, shape)).astype(dtype)
    values = np.asarray(generator.standard_normal(shape, np.float32))
    if np.issubdtype(dtype, np.complexfloating):
        return (values + 1j * np.asarray(generator.standard_normal(shape, np.float32))).astype(dtype)
    return values.astype(dtype)


def private_bytes() -> int:
    """Memory of this process that no file stands behind, so beside mapped weights; 0 where the kernel does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) * 1024
    return 0


def weight_bytes(job: MeasureJob) -> int:
    """The bytes of the weights that the pieces name, each piece counted. Raises ArtifactError."""
    total = 0
    for piece in job.pieces:
        manifest, weights = read_manifest(Path(piece.directory)), _weight_map(piece)
        for name in manifest.weights:
            reference = weights.weights.get(name)
            if reference is not None:
                total += int(np.prod(reference.shape, dtype=np.int64)) * numpy_dtype(reference.dtype).itemsize
    return total


def _load(piece: Piece, manifest: ArtifactManifest, job: MeasureJob) -> Executable:
    asked = job.keys[0].precision
    if manifest.precision != asked:
        raise ArtifactError(f"artifact {piece.directory!r} computes in {manifest.precision}, expected {asked}")
    return load_stage_executable(
        Path(piece.directory),
        manifest=manifest,
        weight_map=_weight_map(piece),
        backend_name=job.backend,
        threads=job.keys[0].threads,
        options=job.options,
    )


def _weight_map(piece: Piece) -> WeightMap:
    if isinstance(piece.weights, WeightMap):
        return piece.weights
    found = read_weight_map(Path(piece.weights))
    if found is None:
        raise ArtifactError(f"weight map in {piece.weights!r} is absent or names files that are gone", hint="lower it again")
    return found


def _bounds(piece: Piece, manifest: ArtifactManifest, sizes: Mapping[str, int]) -> dict[str, int]:
    """Bounds by port: those given, and before them what a language model's stage needs."""
    names = {port.name for port in manifest.inputs}
    unknown = sorted(set(piece.bounds) - names)
    if unknown:
        raise InputError(f"bound for port {unknown[0]!r}, expected one of: {', '.join(sorted(names))}")
    bounds: dict[str, int] = {}
    stage = manifest.stage
    if stage is not None:
        bounds[manifest.inputs[stage.past_lengths].name] = sizes["P"] + 1
        if stage.begins:
            bounds[manifest.inputs[stage.entry].name] = stage.vocabulary
        if stage.ends:
            bounds[manifest.inputs[stage.logit_rows].name] = sizes["B"] * sizes["T"]
    return {**bounds, **piece.bounds}


def _checked(wire: Wire, number: int, executables: list[Executable]) -> Wire:
    if not 0 <= wire.piece < number or not 0 <= wire.output < len(executables[wire.piece].outputs):
        raise InputError(f"piece {number} is wired to output {wire.output} of piece {wire.piece}, expected an earlier piece's")
    return wire
