"""Deployment: which roles of a model run on which devices, as a file that stands alone.

Made from `--role` options or by the planner, made true by the orchestrator. It describes; it checks only what can
be told from the file itself and its inline cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from inlay.errors import ClusterError, DeploymentError
from inlay.hardware import (
    Cluster,
    Place,
    convert_document,
    describe_cluster,
    load_cluster,
    parse_cluster,
    read_document,
)
from inlay.specs.kv import KV_DTYPES, PAGE, STORED, KvTransfer
from inlay.specs.precision import DTYPES, PRECISIONS, Precision
from inlay.specs.role_option import EXTEND, RUNNERS, PlacedLayers, parse_role, write_region
from inlay.specs.speculation import AUTO, ENUMERATED, MODES, RULES, SpeculationSetup

ROLES = ("prefill", "decode", "draft", "target")
DEPLOYMENT_VERSION = 1


class FileReference(msgspec.Struct, frozen=True, kw_only=True):
    """A file beside the deployment: its path and the sha256 of its bytes."""

    path: str
    digest: str


class Parallel(msgspec.Struct, frozen=True, kw_only=True):
    """Degrees of tensor and expert parallelism inside a region; 1 for now."""

    tp: int = 1
    ep: int = 1


class RegionPlacement(msgspec.Struct, frozen=True, kw_only=True):
    """A run of layers on one device: `layers` is [first, end), the end not included (None = all). `runner` is one of RUNNERS:
    "extend" keeps KV in slots of buckets, on every backend; "paged" in pages, on one that has attention over them."""

    device: str
    backend: str
    layers: tuple[int, int] | None = None
    precision: Precision = Precision()
    runner: str = EXTEND

    @property
    def place(self) -> Place:
        """Where it runs."""
        return Place(self.device, self.backend)


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """One replica: what it does (one or several of ROLES) and the regions it runs, in order of the layers.

    Each region is a process of its own and owns the KV of its layers. Together they hold every layer once, in order.
    """

    roles: tuple[str, ...]
    regions: tuple[RegionPlacement, ...]
    replica: int = 0
    parallel: Parallel = Parallel()

    @property
    def drafts(self) -> bool:
        """Whether it runs the draft model."""
        return self.roles == ("draft",)

    def process(self, region: RegionPlacement) -> str:
        """What the process of one of its regions is called: the place, marked where it runs the draft model, since that may
        share a device with the target."""
        return f"{region.place}:draft" if self.drafts else str(region.place)

    @property
    def runner(self) -> str:
        """What the scheduler and requests call it: its processes joined by "+"."""
        return "+".join(self.process(region) for region in self.regions)


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What shall run. `model` is a folder; `context` the most tokens of a sequence, `slots` the sequences a replica
    holds at once, `chunk` the prompt tokens of one prefill step, `capacities` the KV buckets in ascending order, `rooms`
    how many slots each of them has (empty = `slots` each), `pages` how many pages of PAGE tokens a replica keeps for
    prompts that begin alike. The role draft runs `draft_model`, a folder of the same vocabulary; `speculation` says how.

    `kv_transfer` is what hand-offs may do to KV. `tables` and `artifacts` are files by place ("xeon:0/openvino"). Reserved:
    adapter, tenant_salt, generation,
    digest, draining.
    """

    model: str
    cluster: Cluster
    roles: tuple[Role, ...]
    context: int
    slots: int
    chunk: int
    capacities: tuple[int, ...]
    rooms: tuple[int, ...] = ()
    pages: int = 0
    draft_model: str = ""
    speculation: SpeculationSetup = SpeculationSetup()
    kv_transfer: KvTransfer = KvTransfer()
    tables: dict[str, FileReference] = {}
    artifacts: dict[str, FileReference] = {}
    adapter: str = ""
    tenant_salt: str = ""
    generation: int = 0
    digest: str = ""
    draining: bool = False
    version: int = DEPLOYMENT_VERSION

    def folder(self, role: Role) -> str:
        """The model that a role runs."""
        return self.draft_model if role.drafts else self.model

    def slots_of(self, role: Role) -> int:
        """How many slots each capacity of a role may have: one for a sequence, on a draft runner one for each of its outcomes
        that are drafted ahead."""
        outcomes = self.speculation.breadth if self.speculation.mode in (AUTO, ENUMERATED) else 0
        return self.slots * (1 + outcomes) if role.drafts else self.slots

    def rooms_of(self, role: Role) -> tuple[int, ...]:
        """How many slots each capacity of a role has."""
        return (self.slots_of(role),) * len(self.capacities) if role.drafts else tuple(self.slots_by_capacity.values())

    @property
    def slots_by_capacity(self) -> dict[int, int]:
        """How many slots each capacity has."""
        return dict(zip(self.capacities, self.rooms or (self.slots,) * len(self.capacities), strict=True))

    def paged_pool(self, page: int) -> int:
        """How many pages of so many tokens a paged runner has: for all sequences at their longest, or for as many as `rooms`
        has slots of each capacity. Those that no sequence uses keep prefixes, unless `pages` is 0."""
        longest = self.slots * -(-self.capacities[-1] // page)
        return min(longest, sum(-(-capacity // page) * count for capacity, count in self.slots_by_capacity.items()))


class _DeploymentEntry(msgspec.Struct, kw_only=True):
    """The file: as Deployment, except that the cluster is a path or the content of a cluster file."""

    model: str
    cluster: dict[str, Any] | str
    roles: tuple[Role, ...]
    context: int
    slots: int
    chunk: int
    capacities: tuple[int, ...]
    version: int
    rooms: tuple[int, ...] = ()
    pages: int = 0
    draft_model: str = ""
    speculation: SpeculationSetup = SpeculationSetup()
    kv_transfer: KvTransfer = KvTransfer()
    tables: dict[str, FileReference] = {}
    artifacts: dict[str, FileReference] = {}
    adapter: str = ""
    tenant_salt: str = ""
    generation: int = 0
    digest: str = ""
    draining: bool = False


def load_deployment(path: str | Path) -> Deployment:
    """The deployment in a YAML file; a cluster given as a path (from the file's folder) is read into it.

    Every fault is a DeploymentError with the value, what was expected and a hint.
    """
    file = Path(path)
    entry = convert_document(
        read_document(file, error=DeploymentError), _DeploymentEntry, source=str(file), error=DeploymentError
    )
    try:
        if isinstance(entry.cluster, str):
            cluster = load_cluster(file.parent / entry.cluster)
        else:
            cluster = parse_cluster(entry.cluster, source=f"{file}: cluster")
    except ClusterError as cause:
        raise DeploymentError(cause.message, hint=cause.hint) from cause
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    deployment = Deployment(**{**fields, "cluster": cluster})
    check_deployment(deployment, source=str(file))
    return deployment


def dump_deployment(deployment: Deployment) -> str:
    """The text of a deployment file, the cluster inline, in a stable order; reading it gives an equal deployment."""
    described = msgspec.to_builtins(deployment)
    described["cluster"] = describe_cluster(deployment.cluster)
    ordered = {"version": described.pop("version"), **described}
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=120)


def deployment_from_roles(
    model: str,
    cluster: Cluster,
    roles: Sequence[str],
    *,
    context: int,
    slots: int = 8,
    chunk: int = 256,
    capacities: Sequence[int] | None = None,
    rooms: Sequence[int] = (),
    pages: int | None = None,
    draft_model: str = "",
    speculation: SpeculationSetup = SpeculationSetup(),
    precision: Precision | Mapping[str, Precision] = Precision(),
    depth: int | None = None,
) -> Deployment:
    """A deployment of `--role` options such as "prefill=cpu:0/openvino:int8", or "decode=cpu:0/openvino@0-11+cpu:1/null@12-".

    Options that name the same places are one replica with several roles; a role at two places is two replicas.
    `precision` is that of places whose option names none, and may differ by place. `depth` is the number of layers of the
    model. `pages` are by default as many as half of the sequences' context fills. Raises DeploymentError.
    """
    wanted: dict[tuple[tuple[PlacedLayers, ...], bool], list[str]] = {}  # by places, the draft model apart
    for option in roles:
        names, placed = parse_role(option, known=ROLES, depth=depth)
        others = wanted.setdefault((placed, names == ["draft"]), [])
        for name in names:
            if name in others:
                where = "+".join(map(write_region, placed))
                raise DeploymentError(f"role {name!r} is given twice at {where}", hint="remove one, or choose another device")
            others.append(name)
    entries: list[Role] = []
    for (placed, _), names in wanted.items():
        ordered = tuple(name for name in ROLES if name in names)
        replica = sum(1 for entry in entries if set(entry.roles) & set(ordered))
        regions = tuple(_placement(item, precision) for item in placed)
        entries.append(Role(roles=ordered, regions=regions, replica=replica))
    deployment = Deployment(
        model=model,
        cluster=cluster,
        roles=tuple(entries),
        context=context,
        slots=slots,
        chunk=min(chunk, context),
        capacities=tuple(capacities) if capacities is not None else choose_capacities(context),
        rooms=tuple(rooms),
        pages=slots * context // (2 * PAGE) if pages is None else pages,
        draft_model=draft_model,
        speculation=speculation,
    )
    check_deployment(deployment, source="the roles given", depth=depth)
    return deployment


def _placement(item: PlacedLayers, precision: Precision | Mapping[str, Precision]) -> RegionPlacement:
    others = precision if isinstance(precision, Precision) else precision.get(str(item.place), Precision())
    chosen = PRECISIONS[item.precision] if item.precision else others
    return RegionPlacement(
        device=item.place.device, backend=item.place.backend, layers=item.layers, precision=chosen, runner=item.runner
    )


def choose_capacities(context: int) -> tuple[int, ...]:
    """KV buckets for a context: 256 and its fourfolds, the last one the context itself, up to a multiple of 16."""
    sizes, size = [], 256
    while size < context:
        sizes.append(size)
        size *= 4
    return (*sizes, -(-context // 16) * 16)


def check_deployment(deployment: Deployment, *, source: str, depth: int | None = None) -> None:
    """Raise DeploymentError for what cannot be true: names not in its cluster, roles twice, sizes that do not fit, layers
    of a role missing or double. `depth` is the number of layers of the model, where it is known."""
    if deployment.version != DEPLOYMENT_VERSION:
        raise DeploymentError(f"{source}: version is {deployment.version}, expected {DEPLOYMENT_VERSION}", hint="write it anew")
    _check_sizes(deployment, source)
    if not deployment.roles:
        raise DeploymentError(f"{source}: roles is empty, expected at least one", hint="for example prefill=xeon:0/openvino")
    seen: set[tuple[str, int]] = set()
    for index, role in enumerate(deployment.roles):
        where = f"{source}: roles[{index}]"
        for name in role.roles:
            if name not in ROLES:
                raise DeploymentError(f"{where} has role {name!r}, expected one of {list(ROLES)}", hint="correct its name")
            if (name, role.replica) in seen:
                raise DeploymentError(
                    f"{where} is a second {name} with replica {role.replica}", hint="number replicas 0, 1, ..."
                )
            seen.add((name, role.replica))
        if not role.roles or not role.regions or role.replica < 0 or min(role.parallel.tp, role.parallel.ep) < 1:
            raise DeploymentError(
                f"{where} has {len(role.roles)} roles, {len(role.regions)} regions, replica {role.replica} and parallel "
                f"{role.parallel.tp}x{role.parallel.ep}, expected at least one of each and replica from 0",
                hint="see docs for an example",
            )
        for region in role.regions:
            _check_region(deployment.cluster, region, where)
        _check_layers(role, where, None if role.drafts else depth)
    _check_speculation(deployment, source)


def _check_sizes(deployment: Deployment, source: str) -> None:
    for name in ("context", "slots", "chunk"):
        value = getattr(deployment, name)
        if value < 1:
            raise DeploymentError(f"{source}: {name} is {value}, expected at least 1", hint=f"raise {name}")
    buckets = deployment.capacities
    if list(buckets) != sorted(set(buckets)) or not buckets or buckets[0] < 1 or buckets[-1] < deployment.context:
        raise DeploymentError(
            f"{source}: capacities is {list(buckets)}, expected sizes in ascending order, the last at least the context "
            f"{deployment.context}",
            hint=f"for example {list(choose_capacities(deployment.context))}",
        )
    rooms = deployment.rooms
    if rooms and (len(rooms) != len(buckets) or not all(1 <= count <= deployment.slots for count in rooms)):
        raise DeploymentError(
            f"{source}: rooms is {list(rooms)}, expected one number for each of the capacities {list(buckets)}, from 1 to "
            f"slots ({deployment.slots})",
            hint="leave it out for as many slots in each",
        )
    if deployment.pages < 0:
        raise DeploymentError(f"{source}: pages is {deployment.pages}, expected 0 or more", hint="0 keeps no prefixes")
    wire, lossy = deployment.kv_transfer.dtype, deployment.kv_transfer.lossy
    if wire not in (STORED, *KV_DTYPES) or (wire == "int8" and not lossy):
        raise DeploymentError(
            f"{source}: kv_transfer has dtype {wire!r} and lossy {lossy}, "
            f"expected one of {[STORED, *KV_DTYPES]}, int8 only with lossy",
            hint="leave it out: pages then travel in the dtype of the pool they come from",
        )
    if deployment.chunk > deployment.context:
        raise DeploymentError(
            f"{source}: chunk is {deployment.chunk}, expected at most the context {deployment.context}", hint="lower chunk"
        )


def _check_speculation(deployment: Deployment, source: str) -> None:
    setup = deployment.speculation
    for name, value, known in (("mode", setup.mode, MODES), ("rule", setup.rule, RULES)):
        if value not in known:
            raise DeploymentError(
                f"{source}: speculation {name} is {value!r}, expected one of {list(known)}", hint="correct it"
            )
    numbers = (("drafts", setup.drafts, 1), ("breadth", setup.breadth, 0), ("truncate", setup.truncate, 1))
    for name, number, least in numbers:
        if number < least:
            raise DeploymentError(
                f"{source}: speculation {name} is {number}, expected at least {least}", hint="leave it out for the default"
            )
    for index, role in enumerate(deployment.roles):
        if "draft" not in role.roles:
            continue
        if not role.drafts or len(role.regions) != 1:
            raise DeploymentError(
                f"{source}: roles[{index}] has roles {list(role.roles)} and {len(role.regions)} regions, expected draft alone "
                "and one region",
                hint="the draft model is another model than that of the other roles, and runs as a whole",
            )
        if not deployment.draft_model:
            raise DeploymentError(
                f"{source}: roles[{index}] is draft and there is no draft_model", hint="name one: --draft-model FOLDER"
            )


def _check_region(cluster: Cluster, region: RegionPlacement, where: str) -> None:
    if region.device not in cluster.devices:
        raise DeploymentError(
            f"{where} names device {region.device!r}, expected one of {sorted(cluster.devices)}",
            hint="`inlay devices` shows the cluster",
        )
    device = cluster.devices[region.device]
    if not device.allows(region.backend):
        raise DeploymentError(
            f"{where} wants backend {region.backend!r} on {device.name}, expected one of {list(device.backends or ())}",
            hint="choose one of them, or add it to `backends` of that device",
        )
    if region.layers is not None and not 0 <= region.layers[0] < region.layers[1]:
        raise DeploymentError(f"{where} has layers {list(region.layers)}, expected [first, end)", hint="for example [0, 12]")
    for name in region.precision.__struct_fields__:
        value = getattr(region.precision, name)
        if value not in DTYPES:
            raise DeploymentError(f"{where}: precision {name} is {value!r}, expected one of {list(DTYPES)}", hint="correct it")
    if region.runner not in RUNNERS:
        raise DeploymentError(f"{where}: runner is {region.runner!r}, expected one of {list(RUNNERS)}", hint="correct it")
    if region.runner == "paged" and region.layers is not None:
        raise DeploymentError(
            f"{where} has layers {list(region.layers)} on a paged runner, expected all of them", hint="pieces run as extend"
        )


def _check_layers(role: Role, where: str, depth: int | None) -> None:
    """The regions of a role hold every layer once, in order."""
    hint = "for example [0, 12] and [12, 24]: each region begins where the one before ends"
    if len(role.regions) == 1 and role.regions[0].layers is None:
        return
    at = 0
    for region in role.regions:
        if region.layers is None:
            raise DeploymentError(f"{where} has {len(role.regions)} regions and no layers at {region.place}", hint=hint)
        first, end = region.layers
        if first != at:
            missing = f"layer {at} is nowhere" if first > at else f"layer {first} is there twice"
            raise DeploymentError(
                f"{where} has layers {[first, end]} at {region.place}, expected [{at}, ...]: {missing}", hint=hint
            )
        at = end
    if depth is not None and at != depth:
        raise DeploymentError(
            f"{where} ends with layer {at - 1}, expected {depth - 1}: the model has {depth} layers", hint=hint
        )
