"""Makes a Deployment true on this machine: lower what is missing, start a process for each region, start the engine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from inlay.backends import backend
from inlay.backends.environment import python_of
from inlay.errors import DeploymentError, DeviceLostError, UnsupportedError
from inlay.hardware import check_local
from inlay.models import ModelSpec, check_vocabulary, model_digest, open_checkpoint, read_model, read_template, read_tokenizer
from inlay.orchestrator.addresses import Address, assign_addresses, peers_of
from inlay.orchestrator.compiling import Lowered, check_available, ensure_lowered, lowered_regions
from inlay.orchestrator.fitting import check_memory
from inlay.orchestrator.rope import rope_of
from inlay.orchestrator.running import Running
from inlay.specs.deployment import Deployment, RegionPlacement, Role, check_deployment
from inlay.specs.kv import PAGE
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
    seconds: Mapping[str, float] | None = None,
) -> Running:
    """Everything up to a serving engine; returns when it answers. On any failure nothing is left running.

    `progress` is told what is being done, a short text at a time. `faults` plants a fault by place (tests only). `seconds`
    are the engine's limits by name: "lease" of a hand-off, "silence" of a device, "load_seconds".
    """
    _check(deployment)
    _check_model(deployment)
    lowered = ensure_lowered(deployment, progress=progress)
    predicted = check_memory(deployment, read_model(deployment.model), lowered=lowered_regions(lowered))
    directory = Path(tempfile.mkdtemp(prefix="inlay-"))
    running = Running(deployment, directory=directory, key=create_key(), predicted=predicted)
    places = [role.process(region) for role in deployment.roles for region in role.regions]
    try:
        addresses = assign_addresses(deployment, running.directory)
        progress("loading " + ", ".join(role.runner for role in deployment.roles))
        for role in deployment.roles:
            for index, region in enumerate(role.regions):
                name_of = role.process(region)
                config = _device_config(running, deployment, role, index, lowered[name_of], addresses)
                config["fault"] = (faults or {}).get(name_of, "none")
                running.spawn(_device(running, deployment, name_of, region, config))
        name = name or Path(deployment.model).resolve().name
        running.spawn(_engine(running, deployment, addresses, name=name, event_log=event_log, seconds=seconds or {}))
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
    check_deployment(deployment, source="the deployment", depth=spec.layers)
    open_checkpoint(deployment.model)
    check_vocabulary(read_tokenizer(deployment.model), spec)
    read_template(deployment.model)
    check_memory(deployment, spec)
    if any(role.drafts for role in deployment.roles):
        _check_draft(deployment, spec)


def _check_draft(deployment: Deployment, spec: ModelSpec) -> None:
    """The draft model must speak of the same tokens: as many, each with the same text."""
    draft = read_model(deployment.draft_model)
    open_checkpoint(deployment.draft_model)
    if draft.vocabulary != spec.vocabulary:
        raise DeploymentError(
            f"draft model {deployment.draft_model!r} has a vocabulary of {draft.vocabulary}, expected that of "
            f"{deployment.model!r}, {spec.vocabulary}",
            hint="a draft model drafts token ids, so it must share the tokenizer",
        )
    theirs, ours = read_tokenizer(deployment.draft_model), read_tokenizer(deployment.model)
    other = next((token for token in range(spec.vocabulary) if theirs.token_text(token) != ours.token_text(token)), None)
    if other is not None:
        raise DeploymentError(
            f"draft model {deployment.draft_model!r}: token {other} is {theirs.token_text(other)!r}, expected "
            f"{ours.token_text(other)!r} as in {deployment.model!r}",
            hint="a draft model drafts token ids, so it must share the tokenizer",
        )


def _check(deployment: Deployment) -> None:
    """What this version cannot make true, by name and before anything starts."""
    check_local(deployment.cluster)
    devices: dict[tuple[str, bool], str] = {}
    for role in deployment.roles:
        if (role.parallel.tp, role.parallel.ep) != (1, 1):
            raise UnsupportedError(
                f"{role.runner} has parallel {role.parallel.tp}x{role.parallel.ep}, expected 1x1 in this version"
            )
        if "target" in role.roles:
            raise UnsupportedError(
                f"{role.runner} has role 'target'", hint="a place with the role decode verifies what is drafted for it"
            )
        for region in role.regions:
            check_available(region)
            if region.runner == "paged" and role.drafts:
                raise UnsupportedError(
                    f"{region.place} asks for a paged runner with the role draft, which drafts in slots",
                    hint="leave :paged out there",
                )
            if (region.device, role.drafts) in devices:
                other = devices[region.device, role.drafts]
                raise DeploymentError(
                    f"{region.device} runs {other} and {region.place} of {role.runner}; a device process runs one backend",
                    hint="give each its own device, or list both role names in one entry",
                )
            devices[region.device, role.drafts] = str(region.place)
    for role_name in ("prefill", "decode"):
        if not any(role_name in role.roles for role in deployment.roles):
            raise DeploymentError(f"no place has the role {role_name}", hint=f"add --role {role_name}=DEVICE/BACKEND")


def _device_config(
    running: Running, deployment: Deployment, role: Role, index: int, lowered: Lowered, addresses: dict[str, Address]
) -> dict[str, Any]:
    """What the process of one region is started with; `before` and `after` are its neighbours in the replica."""
    region = role.regions[index]
    places = [role.process(item) for item in role.regions]
    folder = deployment.folder(role)
    address = addresses[places[index]]
    return {
        "place": places[index],
        "epoch": 1,
        "key": running.key,
        "socket": str(address.socket),
        "tcp": address.tcp,
        "tls": address.tls,
        "peers": peers_of(deployment, places[index], addresses),
        "artifact": str(lowered.directory),
        "weights": str(lowered.weights),
        "backend": region.backend,
        "framework_version": lowered.framework_version,
        "threads": region_threads(deployment, region),
        "capacities": deployment.capacities,
        "rooms": deployment.rooms_of(role),
        "slots": deployment.slots_of(role),
        **_pages(deployment, role, region),
        "model_digest": model_digest(folder),
        "rope": rope_of(read_model(folder)),
        "kv_transfer": deployment.kv_transfer,
        "before": places[index - 1] if index else "",
        "after": places[index + 1] if index + 1 < len(places) else "",
        "options": region_options(deployment, region),
    }


def _pages(deployment: Deployment, role: Role, region: RegionPlacement) -> dict[str, int | bool]:
    """The pages of a process: beside its slots those that keep prefixes, on a paged runner all there are."""
    if region.runner == "paged":
        page: int = getattr(backend(region.backend), "page", 0)
        return {"page": page, "pages": deployment.paged_pool(page), "keeps": deployment.pages > 0}
    return {"page": PAGE, "pages": 0 if role.drafts else deployment.pages}


def _device(running: Running, deployment: Deployment, name: str, region: RegionPlacement, config: dict[str, Any]) -> WorkerSpec:
    return WorkerSpec(
        name=name,
        program="inlay.engine.device:main",
        run_directory=str(running.directory),
        config=msgspec.to_builtins(config, builtin_types=(bytes,)),
        python=python_of(region.backend),
        cores=deployment.cluster.device(region.device).cores,
        threads=region_threads(deployment, region),
        epoch=1,
    )


def region_threads(deployment: Deployment, region: RegionPlacement) -> int:
    """One thread a core of the device."""
    return max(1, len(deployment.cluster.device(region.device).cores))


def region_options(deployment: Deployment, region: RegionPlacement) -> dict[str, str]:
    """The device's stated memory, for a backend that holds itself to it."""
    memory = deployment.cluster.device(region.device).memory
    if memory is None or not getattr(backend(region.backend), "limits_memory", False):
        return {}
    return {"memory": str(int(memory))}


def _engine(
    running: Running,
    deployment: Deployment,
    addresses: dict[str, Address],
    *,
    name: str,
    event_log: Path | None,
    seconds: Mapping[str, float],
) -> WorkerSpec:
    runners = [
        {
            "runner": role.runner,
            "roles": role.roles,
            "processes": [
                {
                    "place": role.process(region),
                    "socket": str(addresses[role.process(region)].socket),
                    "pid": running.workers[role.process(region)].pid,
                }
                for region in role.regions
            ],
        }
        for role in deployment.roles
    ]
    config = {
        "model": deployment.model,
        "name": name,
        "key": running.key,
        "socket": str(running.engine_socket),
        "runners": runners,
        "context": deployment.context,
        "chunk": deployment.chunk,
        "speculation": deployment.speculation,
        "load_seconds": LOAD_SECONDS,
        "salt": deployment.tenant_salt + model_digest(deployment.model),
        "event_log": None if event_log is None else os.fspath(event_log),
        **seconds,
    }
    return WorkerSpec(
        name="engine",
        program="inlay.engine.main:main",
        run_directory=str(running.directory),
        config=msgspec.to_builtins(config, builtin_types=(bytes,)),
    )
