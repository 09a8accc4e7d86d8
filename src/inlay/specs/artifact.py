"""What `lower` is asked for and what it leaves behind: LowerRequest, the Artifact's manifest, weight references."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from inlay.graph import Program, value_table
from inlay.specs.precision import Precision
from inlay.specs.stage import PagedShape, Port, StageShape

MANIFEST_VERSION = 2


class ShapeBuckets(msgspec.Struct, frozen=True, kw_only=True):
    """The only sizes that a static framework runs: batch sizes, row widths T, past capacities P. Ascending."""

    batches: tuple[int, ...]
    widths: tuple[int, ...]
    capacities: tuple[int, ...]


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """The outside of a program: its inputs and outputs in the order of its signature, without its weights.

    A size in a shape is a number, a symbol, or an expression of symbols (`graph.sizes`). `stage` is set where the program
    is a language model's `extend` or a piece of it; `page` too where it is its `paged`.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    stage: StageShape | None = None
    page: int = 0


def paged_interface(shape: PagedShape) -> Interface:
    """The outside of `paged`."""
    inputs, outputs = shape.ports()
    return Interface(inputs=inputs, outputs=outputs, stage=shape.stage, page=shape.page)


def stage_interface(stage: StageShape) -> Interface:
    """The outside of `extend`, or of a piece of it."""
    inputs, outputs = stage.ports()
    return Interface(inputs=inputs, outputs=outputs, stage=stage)


def program_interface(program: Program, *, inputs: Sequence[str], outputs: Sequence[str]) -> Interface:
    """The outside of a piece of a program, its ports named by the values that pass through them."""
    values = value_table(program)

    def ports(names: Sequence[str]) -> tuple[Port, ...]:
        return tuple(Port(name=name, dtype=values[name].dtype, shape=values[name].shape) for name in names)

    return Interface(inputs=ports(inputs), outputs=ports(outputs))


def whole_interface(program: Program) -> Interface:
    """The outside of the whole flat program: all its inputs; its computed outputs, each once, as capture orders them."""
    computed = [*program.outputs, *(state.output for state in program.states)]
    made = {node.name for node in program.nodes}
    return program_interface(
        program, inputs=tuple(program.inputs), outputs=tuple(name for name in dict.fromkeys(computed) if name in made)
    )


class LowerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a lowering must produce: precision, the sizes it must run, the threads it will be given.

    For a framework that runs declared sizes only, `buckets` are those of a stage and `points` those of any other
    program, each a size by symbol. `ranges` bounds each symbol, both ends included, where the program does. `layers` asks
    for the piece of a stage that owns layers first to end, not included (None = all of them). `page` asks for the program
    `paged` over pages of so many tokens in place of `extend` (0), of a backend that offers it. `target` names the kind of
    device that the code is for, by a name that the backend lists; empty for this machine.
    """

    precision: Precision = Precision()
    buckets: ShapeBuckets | None = None
    points: tuple[dict[str, int], ...] = ()
    ranges: dict[str, tuple[int, int]] = {}
    threads: int = 1
    layers: tuple[int, int] | None = None
    page: int = 0
    target: str = ""


class WeightReference(msgspec.Struct, frozen=True, kw_only=True):
    """Where one weight lies: tensor `tensor` of the safetensors file `file`; sha256 of its bytes.

    `transform` says what was done to the checkpoint's tensor to get it: "none" when it is the checkpoint's own.
    """

    file: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    digest: str
    transform: str = "none"


class WeightMap(msgspec.Struct, frozen=True, kw_only=True):
    """All weights of one model in one compute precision, by the name the lowered code knows them by."""

    model_digest: str
    weights: dict[str, WeightReference]


class ArtifactManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The description that lies beside the code of an Artifact as `manifest.json`.

    `fingerprint` maps package and platform names to the versions lowered with; `weights` are the names that
    `load` binds from a WeightMap, in the order of the code; `files` maps each code file to its sha256.
    `precision` is what was really used. `target` is what kind of device the code is for, empty for the machine that made
    it; `page` is how many tokens a page holds where the code is the program `paged` (0: it is not); `figures` is what the
    compiler says of its own code, by name ("temporary bytes", "FLOPs").
    """

    version: int
    backend: str
    fingerprint: dict[str, str]
    precision: Precision
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights: tuple[str, ...]
    files: dict[str, str]
    stage: StageShape | None = None
    buckets: ShapeBuckets | None = None
    points: tuple[dict[str, int], ...] = ()
    ranges: dict[str, tuple[int, int]] = {}
    page: int = 0
    target: str = ""
    figures: dict[str, int | float] = {}
