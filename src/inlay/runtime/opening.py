"""From a Build to running processes: what each loads, for the program itself and for its reference."""

from __future__ import annotations

from pathlib import Path

import msgspec

from inlay.backends import backend
from inlay.backends.environment import environment_of, python_of
from inlay.backends.targets import check_loadable
from inlay.graph import Program, piece_of
from inlay.hardware import Cluster, Device
from inlay.runtime.build import ARTIFACTS, REFERENCES, Build, BuiltRegion, read_build_weights
from inlay.runtime.cache import read_manifest
from inlay.runtime.device import PieceConfig, RegionConfig
from inlay.runtime.session import Plan, Process, Session, check_device
from inlay.runtime.store import piece_weights
from inlay.specs.artifact import WeightMap

REFERENCE = "reference"


def open_build(build: Build, cluster: Cluster) -> Session:
    """The processes of a Build on this cluster, loaded. Raises ArtifactError for a device that is gone, and for a region
    whose code is for a device that is not here."""
    for region in build.manifest.regions:
        check_device(cluster, region.device, region.id)
        for piece in region.pieces if region.id in build.manifest.built_not_run else ():
            manifest = read_manifest(build.folder / ARTIFACTS / piece.artifact)
            check_loadable(manifest, backend(region.backend), where=f"region {region.id} on {region.device}")
    plan = _plan(build, build_processes(build), tuple(region.id for region in build.manifest.regions))
    return Session(plan, cluster=cluster)


def build_processes(build: Build) -> list[Process]:
    """The processes of a Build, one for each device and environment, with what each loads in the order in which it runs."""
    weights = read_build_weights(build.folder)
    found: dict[str, Process] = {}
    for region in build.manifest.regions:
        place = environment_of(region.backend)
        name = region.device if place is None else f"{region.device}/{place.name}"
        held = found.get(name) or Process(name=name, device=region.device, python=python_of(region.backend))
        found[name] = msgspec.structs.replace(held, regions=(*held.regions, _region(build, region, weights)))
    return list(found.values())


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
    process = Process(name=device.name, device=device.name, regions=tuple(regions))
    return Session(_plan(build, [process], tuple(region.id for region in regions)), cluster=here)


def is_static(build: Build) -> bool:
    """Whether some region runs declared points only."""
    devices = build.partition.cluster.devices
    return any(devices[region.device].target or not backend(region.backend).dynamic for region in build.manifest.regions)


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


def _plan(build: Build, processes: list[Process], order: tuple[str, ...]) -> Plan:
    program = build.stored.cut.program
    return Plan(
        processes=tuple(processes),
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
