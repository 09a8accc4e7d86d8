"""Any PyTorch module: capture it, partition it over a cluster, compile the partition, run and verify the Build.

Wiring only: the partitioner says what it wants to know, the runtime measures it, and the plan is compiled as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay.backends import Array, backend, backend_names
from inlay.backends.targets import runnable_of
from inlay.cost import ProfileStore
from inlay.errors import InputError, PartitionError
from inlay.graph import Program
from inlay.hardware import Cluster, Place, load_cluster, probe
from inlay.partitioner import (
    Search,
    check_partition,
    difference,
    draw,
    explain,
    learn,
    learn_trial,
    new_search,
    parse_pin,
    propose,
)
from inlay.runtime import Cache
from inlay.runtime.assemble import compile_partition
from inlay.runtime.bisect import find_culprit
from inlay.runtime.build import PARTITION_FILE, Build, read_build
from inlay.runtime.inputs import random_inputs
from inlay.runtime.lowering import capture_program
from inlay.runtime.machine import kept_figures
from inlay.runtime.obtain import obtain
from inlay.runtime.opening import open_build, open_reference
from inlay.runtime.session import Session
from inlay.runtime.store import program_folder, read_program
from inlay.runtime.trial import run_trial
from inlay.runtime.verify import verify
from inlay.specs.capability import Capability
from inlay.specs.partition import Partition, Trial, dump_partition, parse_partition
from inlay.specs.verification import Verification

Progress = Callable[[str], None]
TEACHING = ("contrary", "null", "reference")
LOCAL_NODE = "local"
MEASURING_SECONDS = 20.0
"""Of one measuring process: rounds stop there, the first always whole. Long runs need fewer rounds than short ones."""


def quiet(text: str) -> None:
    """Progress that nobody wants to see."""


@dataclass(frozen=True)
class CapturedModel:
    """A captured module in the cache. `folder` holds it; `program` is its torch-free summary."""

    folder: Path
    program: Program
    points: tuple[dict[str, int], ...]


def capture(
    model: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: Mapping[str, Any] | None = None,
    points: Sequence[Mapping[str, int]] = (),
    name: str = "",
) -> CapturedModel:
    """Capture a torch module in this process, by an example call. `dynamic` gives names to sizes: {"x": {0: ("batch", 1, 64)}};
    `points` are the sizes it will be used at (the example's by default). Raises UnsupportedError with the source line."""
    from inlay.graph.capture import capture as capture_module
    from inlay.runtime.compile import check_built, store_program

    built = check_built(
        {"model": model, "args": tuple(args), "kwargs": dict(kwargs or {}), "dynamic": dict(dynamic or {}), "points": points},
        "capture",
    )
    captured = capture_module(model, built["args"], built["kwargs"], dynamic=built["dynamic"], name=name or built["name"])
    return _captured(store_program(captured, built, cache=Cache.default()))


def capture_file(source: str, *, progress: Progress = quiet) -> CapturedModel:
    """Capture what a builder FILE.py:FUNCTION gives, in a process of its own; this one loads no torch."""
    return _captured(capture_program(source, cache=Cache.default(), progress=progress))


def partition(
    model: CapturedModel,
    *,
    cluster: Cluster | str | Path = "local",
    pins: Sequence[str] = (),
    backends: Sequence[str] = (),
    rounds: int = 10,
    progress: Progress = quiet,
) -> Partition:
    """The cut of a captured module over a cluster, chosen by measured times; see `search_partition`."""
    return search_partition(model, cluster=cluster, pins=pins, backends=backends, rounds=rounds, progress=progress)[0]


def search_partition(
    model: CapturedModel,
    *,
    cluster: Cluster | str | Path = "local",
    pins: Sequence[str] = (),
    backends: Sequence[str] = (),
    rounds: int = 10,
    progress: Progress = quiet,
) -> tuple[Partition, Search]:
    """The partition and the search that found it, from which other plans can be had (`partitioner.best_plans`).

    `pins` are REGEX=DEVICE/BACKEND; `backends` limits what is offered (by default every framework that is here, without
    the teaching ones). Raises PartitionError for a pin that cannot be, UnsupportedError where a block can run nowhere.
    """
    found, cache = cluster_of(cluster), Cache.default()
    stored = read_program(model.folder)
    parsed = [parse_pin(text) for text in pins]
    places = offers(model.program, found, backends=backends, pinned=[pin.place for pin in parsed])
    store, figures = ProfileStore(cache.root / "profiles"), kept_figures(found, cache=cache)
    search = new_search(
        model.program,
        stored.cut.blocks,
        cluster=found,
        points=model.points,
        offers=places,
        versions={place.backend: backend(place.backend).available().version for place in places},
        pins=parsed,
        profiles=store.read().profiles,
        links=figures.link_profiles(),
        rooflines=figures.rooflines(),
    )
    options = device_options(found)
    while not isinstance(wanted := propose(search), Partition):
        if isinstance(wanted, Trial):
            ratio = run_trial(wanted, model.folder, cache=cache, cluster=found, options=options, progress=progress)
            learn_trial(search, wanted, ratio)
            continue
        profiles, failures = obtain(
            wanted,
            model.folder,
            cache=cache,
            cluster=found,
            options=options,
            progress=progress,
            rounds=rounds,
            seconds=MEASURING_SECONDS,
        )
        store.append(profiles)
        learn(search, profiles, failures)
    return wanted, search


def compile(
    model: CapturedModel,
    target: str | Path,
    *,
    plan: Partition | None = None,
    cluster: Cluster | str | Path = "local",
    pins: Sequence[str] = (),
    backends: Sequence[str] = (),
    progress: Progress = quiet,
) -> Build:
    """Lower a partition of a captured module into the folder `target`; the partition is made first where none is given.

    A plan of one's own is checked against the module and the cluster, and then obeyed.
    """
    stored, cache = read_program(model.folder), Cache.default()
    chosen = plan or partition(model, cluster=cluster, pins=pins, backends=backends, progress=progress)
    check_partition(
        chosen, program=model.program, blocks=stored.cut.blocks, cluster=chosen.cluster if plan is None else cluster_of(cluster)
    )
    compile_partition(
        chosen,
        model.folder,
        Path(target),
        partition_text=dump_partition(chosen).encode(),
        cache=cache,
        options=device_options(chosen.cluster),
        progress=progress,
    )
    return read_build(Path(target))


class Opened:
    """A Build with its processes. Use as `with`, or call `close`. Values are numpy arrays by name."""

    def __init__(self, build: Build, session: Session, cluster: Cluster) -> None:
        self.build, self.session, self._cluster = build, session, cluster

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The results by their names in what the module returned. Raises InputError for inputs that do not fit."""
        values = self.session.run(inputs).values
        program = self.build.stored.cut.program
        return {key: values[name] for key, name in zip(program.results, program.outputs, strict=True)}

    def random_inputs(self, sizes: Mapping[str, int] | None = None, *, seed: int = 0) -> dict[str, Array]:
        """Inputs that look like the example's, at these sizes (by default the first point of the Build)."""
        stored = self.build.stored
        states = {state.input for state in stored.cut.program.states}
        wanted = {name: tensor for name, tensor in stored.cut.program.inputs.items() if name not in states}
        point = dict(sizes) if sizes is not None else stored.points[0]
        missing = sorted(set(stored.points[0]) - set(point))
        if missing or set(point) - set(stored.points[0]):
            raise InputError(f"sizes are {point}, expected a number for each of {sorted(stored.points[0])}", hint="NAME=NUMBER")
        return random_inputs(wanted, sizes=point, samples=stored.samples, seed=seed)

    def verify(
        self, *, seed: int = 0, points: Sequence[Mapping[str, int]] | None = None, progress: Progress = quiet
    ) -> Verification:
        """Compare every region with the float32 reference on fresh random inputs; name the node where an error enters."""
        progress("load the reference")
        with open_reference(self.build, self._cluster) as reference:
            found = verify(self.build, self.session, reference, seed=seed, points=points, progress=progress)
        home = program_folder(Cache.default(), self.build.stored.key)
        return find_culprit(self.build, found, program=home if home.is_dir() else None, progress=progress)

    def close(self) -> None:
        """End its processes; safe to call twice."""
        self.session.close()


def load(folder: str | Path, *, cluster: Cluster | str | Path = "local") -> Opened:
    """Open a Build: check it, start its processes, load its code. Neither the model's class nor torch is needed."""
    build, found = read_build(Path(folder)), cluster_of(cluster)
    return Opened(build, open_build(build, found), found)


def read_plan(path: str | Path) -> Partition:
    """The partition in a file, or of a Build's folder. Raises PartitionError."""
    file = Path(path) / PARTITION_FILE if Path(path).is_dir() else Path(path)
    try:
        text = file.read_bytes()
    except OSError as error:
        raise PartitionError(
            f"partition {str(file)!r} cannot be read: {error}", hint="give a Build or a partition.json"
        ) from error
    return parse_partition(text, source=str(file))


def explain_plan(plan: Partition) -> str:
    """Where each region runs and why, as text."""
    return explain(plan)


def draw_plan(plan: Partition) -> str:
    """Where each region runs and when, as an SVG."""
    return draw(plan)


def compare_plans(one: Partition, two: Partition) -> str:
    """What differs from one plan to another of the same program, as text. Raises PartitionError for different programs."""
    return difference(one, two)


def cluster_of(given: Cluster | str | Path) -> Cluster:
    """A cluster from itself, "local" (this machine) or the path of a cluster file."""
    if isinstance(given, Cluster):
        return given
    return probe() if str(given) == "local" else load_cluster(given)


def offers(
    program: Program, cluster: Cluster, *, backends: Iterable[str] = (), pinned: Iterable[Place] = ()
) -> dict[Place, Capability]:
    """Every place that may be used, with what its backend supports of the program.

    Teaching backends are offered only where they are asked for by name: in `backends`, by a pin, or by the cluster file.
    Where no framework takes some node, the reference (eager torch) is offered too, and the plan says so.
    """
    asked, wanted_places = list(backends), set(pinned)
    for name in asked:
        backend(name)  # an unknown one is told
    found: dict[Place, Capability] = {}
    for device in cluster.devices.values():
        if device.node != LOCAL_NODE:
            continue
        for name in backend_names():
            place = Place(device.name, name)
            named = name in (device.backends or ()) or name in asked or place in wanted_places
            allowed = device.allows(name) and (not asked or name in asked or place in wanted_places)
            allowed = allowed and (not device.target or device.target in runnable_of(backend(name)))
            if allowed and (named or name not in TEACHING) and backend(name).available().available:
                found[place] = backend(name).supports(program, device=device.name)
    refused = [node for node in program.nodes if not _taken(node.name, found.values())]
    if refused and not asked:
        for device in cluster.devices.values():
            ours = device.node == LOCAL_NODE and not device.target
            if ours and device.allows("reference") and backend("reference").available().available:
                found[Place(device.name, "reference")] = backend("reference").supports(program, device=device.name)
    return found


def device_options(cluster: Cluster) -> dict[str, dict[str, str]]:
    """Options of executables by device: the contrary device keeps to the memory that the cluster states."""
    return {
        name: {"memory": str(int(device.memory))}
        for name, device in cluster.devices.items()
        if device.memory is not None and device.backends == ("contrary",)
    }


def _taken(node: str, capabilities: Iterable[Capability]) -> bool:
    return any(item.supported for capability in capabilities for item in capability.nodes if item.node == node)


def _captured(folder: Path) -> CapturedModel:
    stored = read_program(folder)
    return CapturedModel(folder=folder, program=stored.cut.program, points=stored.points)
