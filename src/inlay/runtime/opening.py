"""From a Build to running processes: what each device loads, for the program itself and for its reference."""

from __future__ import annotations

from pathlib import Path

from inlay.backends import backend
from inlay.graph import Program, piece_of
from inlay.hardware import Cluster, Device
from inlay.runtime.build import ARTIFACTS, REFERENCES, Build, BuiltRegion, read_build_weights
from inlay.runtime.device import PieceConfig, RegionConfig
from inlay.runtime.session import Plan, Session, check_device
from inlay.runtime.store import piece_weights
from inlay.specs.artifact import WeightMap

REFERENCE = "reference"


def open_build(build: Build, cluster: Cluster) -> Session:
    """The processes of a Build on this cluster, loaded. Raises ArtifactError for a device that is gone."""
    for region in build.manifest.regions:
        check_device(cluster, region.device, region.id)
    plan = _plan(build, device_regions(build), tuple(region.id for region in build.manifest.regions))
    return Session(plan, cluster=cluster)


def device_regions(build: Build) -> dict[str, list[RegionConfig]]:
    """What each device loads, in the order in which it runs."""
    weights = read_build_weights(build.folder)
    devices: dict[str, list[RegionConfig]] = {}
    for region in build.manifest.regions:
        devices.setdefault(region.device, []).append(_region(build, region, weights))
    return devices


def open_reference(build: Build, cluster: Cluster) -> Session:
    """The same program run eagerly by torch in float32, block by block, on all cores of the cluster's first node."""
    weights = read_build_weights(build.folder)
    first = next(iter(cluster.devices.values()))
    cores = tuple(sorted({core for item in cluster.devices.values() if item.node == first.node for core in item.cores}))
    device = Device(name="reference:0", node=first.node, chip=first.chip, cores=cores)
    here = Cluster(nodes=cluster.nodes, devices={device.name: device})
    regions = []
    for index, name in enumerate(build.manifest.references):
        piece = piece_of(build.stored.cut, index, index + 1)
        config = PieceConfig(
            name=build.stored.cut.blocks[index].name,
            directory=str(build.folder / REFERENCES / name),
            weights=piece_weights(weights, piece),
            inputs=piece.inputs,
            outputs=piece.outputs,
        )
        regions.append(RegionConfig(id=f"b{index}", backend=REFERENCE, threads=max(1, len(cores)), pieces=(config,)))
    return Session(_plan(build, {device.name: regions}, tuple(region.id for region in regions)), cluster=here)


def is_static(build: Build) -> bool:
    """Whether some region runs declared points only."""
    return any(not backend(region.backend).dynamic for region in build.manifest.regions)


def _region(build: Build, region: BuiltRegion, weights: WeightMap) -> RegionConfig:
    pieces = []
    for built in region.pieces:
        piece = build.piece(built)
        pieces.append(
            PieceConfig(
                name=build.stored.cut.blocks[built.first].name,
                directory=str(Path(build.folder) / ARTIFACTS / built.artifact),
                weights=piece_weights(weights, piece),
                inputs=piece.inputs,
                outputs=piece.outputs,
            )
        )
    return RegionConfig(
        id=region.id, backend=region.backend, threads=region.threads, pieces=tuple(pieces), options=region.options
    )


def _plan(build: Build, devices: dict[str, list[RegionConfig]], order: tuple[str, ...]) -> Plan:
    program = build.stored.cut.program
    return Plan(
        devices=tuple((device, tuple(regions)) for device, regions in devices.items()),
        order=order,
        inputs=program.inputs,
        results=tuple(dict.fromkeys(program.outputs)),
        states=program.states,
        initial=initial_values(program, read_build_weights(build.folder)),
        ranges=program.ranges,
    )


def initial_values(program: Program, weights: WeightMap) -> WeightMap | None:
    """The first values of a program's states, by their names; None where it has no state."""
    if not program.states:
        return None
    return WeightMap(
        model_digest=weights.model_digest, weights={state.name: weights.weights[state.name] for state in program.states}
    )
