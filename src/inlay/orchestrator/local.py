"""Makes a Deployment true on this machine: lower what is missing, start the device processes, start the engine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from inlay.errors import DeploymentError, DeviceLostError, UnsupportedError
from inlay.hardware import check_local
from inlay.models import check_vocabulary, model_digest, open_checkpoint, read_model, read_template, read_tokenizer
from inlay.orchestrator.compiling import Lowered, check_available, ensure_lowered
from inlay.orchestrator.fitting import check_memory
from inlay.orchestrator.running import Running
from inlay.specs.deployment import Deployment, RegionPlacement, Role
from inlay.transport import create_key
from inlay.workers import WorkerSpec

Progress = Callable[[str], None]
LOAD_SECONDS = 600.0


def start_local(
    deployment: Deployment,
    *,
    name: str | None = None,
    progress: Progress = lambda text: None,
    event_log: Path | None = None,
    faults: Mapping[str, str] | None = None,
) -> Running:
    """Everything up to a serving engine; returns when it answers. On any failure nothing is left running.

    `progress` is told what is being done, a short text at a time. `faults` plants a fault by place (tests only).
    """
    places = {str(role.regions[0].place): role for role in deployment.roles}
    _check(deployment, places)
    _check_model(deployment)
    lowered = ensure_lowered(deployment, progress=progress)
    running = Running(deployment, directory=Path(tempfile.mkdtemp(prefix="inlay-")), key=create_key())
    try:
        digest = model_digest(deployment.model)
        progress("loading " + ", ".join(places))
        for place, role in places.items():
            running.spawn(
                _device(running, deployment, role, lowered[place], digest=digest, fault=(faults or {}).get(place, "none"))
            )
        running.spawn(
            _engine(running, deployment, places, name=name or Path(deployment.model).resolve().name, event_log=event_log)
        )
        running.wait_for(running.engine_socket, needs=[*places, "engine"], seconds=LOAD_SECONDS)
    except DeviceLostError as error:
        running.stop()
        raise DeviceLostError(error.message, hint="above is the end of its log; mend the cause and start again") from error
    except BaseException:
        running.stop()
        raise
    return running


def _check_model(deployment: Deployment) -> None:
    """Everything about the model folder that can be told without loading a framework."""
    spec = read_model(deployment.model)
    open_checkpoint(deployment.model)
    check_vocabulary(read_tokenizer(deployment.model), spec)
    read_template(deployment.model)
    check_memory(deployment, spec)


def _check(deployment: Deployment, places: Mapping[str, Role]) -> None:
    """What this version cannot make true, by name and before anything starts."""
    check_local(deployment.cluster)
    if len(places) != len(deployment.roles):
        raise DeploymentError("two roles entries name the same place", hint="list both role names in one entry")
    devices: dict[str, str] = {}
    for place, role in places.items():
        if len(role.regions) != 1 or role.regions[0].layers is not None:
            raise UnsupportedError(
                f"{place} has {len(role.regions)} regions or named layers; one region of all layers is served"
            )
        if (role.parallel.tp, role.parallel.ep) != (1, 1):
            raise UnsupportedError(f"{place} has parallel {role.parallel.tp}x{role.parallel.ep}, expected 1x1 in this version")
        check_available(role.regions[0])
        unknown = [item for item in role.roles if item not in ("prefill", "decode")]
        if unknown:
            raise UnsupportedError(f"{place} has role {unknown[0]!r}; prefill and decode are served")
        device = role.regions[0].device
        if device in devices:
            raise DeploymentError(
                f"{device} runs {devices[device]} and {place}; a device process runs one backend",
                hint="give each its own device",
            )
        devices[device] = place
    for role_name in ("prefill", "decode"):
        if not any(role_name in role.roles for role in places.values()):
            raise DeploymentError(f"no place has the role {role_name}", hint=f"add --role {role_name}=DEVICE/BACKEND")


def socket_name(place: str) -> str:
    """The file name of a device's socket."""
    return place.replace("/", "-").replace(":", "-") + ".sock"


def _device(running: Running, deployment: Deployment, role: Role, lowered: Lowered, *, digest: str, fault: str) -> WorkerSpec:
    region = role.regions[0]
    place = str(region.place)
    others = [str(item.regions[0].place) for item in deployment.roles if item is not role]
    cores = deployment.cluster.device(region.device).cores
    threads = region_threads(deployment, region)
    config: dict[str, Any] = {
        "runner": place,
        "epoch": 1,
        "key": running.key,
        "socket": str(running.directory / socket_name(place)),
        "peers": {other: str(running.directory / socket_name(other)) for other in others},
        "model_digest": digest,
        "artifact": str(lowered.directory),
        "weights": str(lowered.weights),
        "backend": region.backend,
        "framework_version": lowered.framework_version,
        "threads": threads,
        "capacities": deployment.capacities,
        "slots": deployment.slots,
        "options": {},
        "fault": fault,
    }
    return WorkerSpec(
        name=place,
        program="inlay.engine.device:main",
        run_directory=str(running.directory),
        config=config,
        cores=cores,
        threads=threads,
        epoch=1,
    )


def region_threads(deployment: Deployment, region: RegionPlacement) -> int:
    """One thread a core of the device."""
    return max(1, len(deployment.cluster.device(region.device).cores))


def _engine(
    running: Running, deployment: Deployment, places: Mapping[str, Role], *, name: str, event_log: Path | None
) -> WorkerSpec:
    runners = [
        {
            "runner": place,
            "socket": str(running.directory / socket_name(place)),
            "pid": running.workers[place].pid,
            "roles": role.roles,
        }
        for place, role in places.items()
    ]
    config = {
        "model": deployment.model,
        "name": name,
        "key": running.key,
        "socket": str(running.engine_socket),
        "runners": runners,
        "context": deployment.context,
        "chunk": deployment.chunk,
        "load_seconds": LOAD_SECONDS,
        "event_log": None if event_log is None else os.fspath(event_log),
    }
    return WorkerSpec(
        name="engine",
        program="inlay.engine.main:main",
        run_directory=str(running.directory),
        config=msgspec.to_builtins(config, builtin_types=(bytes,)),
    )
