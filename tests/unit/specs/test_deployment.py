"""Deployment files and the roles they are made from."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from inlay.errors import DeploymentError
from inlay.hardware import Cluster, dump_cluster, parse_cluster
from inlay.specs.deployment import (
    Deployment,
    FileReference,
    Parallel,
    RegionPlacement,
    Role,
    check_deployment,
    choose_capacities,
    deployment_from_roles,
    dump_deployment,
    load_deployment,
)
from inlay.specs.kv import KvTransfer
from inlay.specs.precision import Precision
from inlay.specs.speculation import SpeculationSetup

ROLES = ["prefill=xeon:0/openvino", "decode=xeon:1/onnxruntime"]


@pytest.fixture
def cluster() -> Cluster:
    return parse_cluster(
        {
            "nodes": {"local": {"zone": "here"}},
            "devices": {
                "xeon:0": {"node": "local", "cores": [0], "memory": "1 GiB", "backends": ["openvino", "onnxruntime"]},
                "xeon:1": {"node": "local", "cores": [1]},
            },
            "links": [{"ends": ["xeon:0", "xeon:1"], "bandwidth": "3.3 GB/s", "latency": "17 us"}],
        },
        source="test",
    )


@pytest.fixture
def deployment(cluster: Cluster) -> Deployment:
    return deployment_from_roles("models/demo", cluster, ROLES, context=1024, slots=4, chunk=128)


def save(folder: Path, deployment: Deployment) -> Path:
    file = folder / "deployment.yaml"
    file.write_text(dump_deployment(deployment))
    return file


def test_roles_become_replicas_on_their_devices(deployment: Deployment) -> None:
    prefill, decode = deployment.roles
    assert (prefill.roles, prefill.replica, prefill.regions[0].place.device) == (("prefill",), 0, "xeon:0")
    assert (decode.roles, decode.replica, str(decode.regions[0].place)) == (("decode",), 0, "xeon:1/onnxruntime")
    assert prefill.regions[0].layers is None
    assert (deployment.context, deployment.slots, deployment.chunk, deployment.capacities) == (1024, 4, 128, (256, 1024))


def test_a_place_named_for_several_roles_is_one_replica_with_all_of_them(cluster: Cluster) -> None:
    for options in (["decode=xeon:0/openvino", "prefill=xeon:0/openvino"], ["prefill,decode=xeon:0/openvino"]):
        made = deployment_from_roles("m", cluster, options, context=64)
        assert [(role.roles, role.replica) for role in made.roles] == [(("prefill", "decode"), 0)]


def test_a_role_at_two_places_is_two_replicas(cluster: Cluster) -> None:
    options = ["prefill=xeon:0/openvino", "decode=xeon:0/openvino", "decode=xeon:1/null"]
    made = deployment_from_roles("m", cluster, options, context=64)
    assert [(role.roles, role.replica) for role in made.roles] == [(("prefill", "decode"), 0), (("decode",), 1)]


def test_precision_may_differ_by_place(cluster: Cluster) -> None:
    half = Precision(kv="bfloat16")
    made = deployment_from_roles("m", cluster, ROLES, context=64, precision={"xeon:1/onnxruntime": half})
    assert [role.regions[0].precision for role in made.roles] == [Precision(), half]
    made = deployment_from_roles("m", cluster, ROLES, context=64, precision=half)
    assert [role.regions[0].precision for role in made.roles] == [half, half]


@pytest.mark.parametrize(
    ("context", "expected"), [(1, (16,)), (256, (256,)), (257, (256, 272)), (5000, (256, 1024, 4096, 5008))]
)
def test_capacities_hold_the_context(context: int, expected: tuple[int, ...]) -> None:
    assert choose_capacities(context) == expected


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("prefill=xeon:9/openvino", "'xeon:9', expected one of .'xeon:0', 'xeon:1'."),
        ("prefill=xeon:0/tensorrt", "'tensorrt' on xeon:0, expected one of .'openvino', 'onnxruntime'."),
        ("cook=xeon:0/openvino", "'cook=xeon:0/openvino'.*'prefill', 'decode', 'draft', 'target'"),
        ("prefill", "ROLE=DEVICE/BACKEND"),
        ("prefill=xeon:0", "DEVICE/BACKEND"),
        ("=xeon:0/openvino", "ROLE=DEVICE/BACKEND"),
        ("prefill,=xeon:0/openvino", "ROLE=DEVICE/BACKEND"),
        ("prefill,prefill=xeon:0/openvino", "twice"),
        ("decode=xeon:1/onnxruntime", "twice"),
    ],
)
def test_each_faulty_role_is_a_deployment_error(cluster: Cluster, option: str, text: str) -> None:
    with pytest.raises(DeploymentError, match=text) as caught:
        deployment_from_roles("m", cluster, ["decode=xeon:1/onnxruntime", option], context=64)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"context": 0}, "context is 0"),
        ({"slots": 0}, "slots is 0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"capacities": (64,)}, "at least the context 1024"),
        ({"capacities": (2048, 1024)}, "ascending"),
        ({"capacities": ()}, "ascending"),
        ({"roles": ()}, "roles is empty"),
        ({"version": 2}, "version is 2"),
        ({"chunk": 2000}, "chunk is 2000"),
        ({"kv_transfer": KvTransfer(dtype="float8", lossy=True)}, "kv_transfer has dtype 'float8'"),
        ({"kv_transfer": KvTransfer(dtype="int8")}, "int8 only with lossy"),
        ({"roles": (Role(roles=("cook",), regions=()),)}, "'cook'"),
        ({"roles": (Role(roles=("decode",), regions=()),)}, "0 regions"),
        ({"roles": (Role(roles=(), regions=(RegionPlacement(device="xeon:0", backend="openvino"),)),)}, "0 roles"),
        ({"roles": (Role(roles=("decode",), regions=(RegionPlacement(device="a:0", backend="b"),)),)}, "'a:0'"),
    ],
)
def test_what_cannot_be_true_is_a_deployment_error(deployment: Deployment, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(DeploymentError, match=text):
        check_deployment(msgspec.structs.replace(deployment, **settings), source="test")


def test_two_replicas_of_one_number_unknown_precision_and_empty_layers_are_refused(deployment: Deployment) -> None:
    region = RegionPlacement(device="xeon:1", backend="null")
    for role, text in [
        (Role(roles=("prefill", "decode"), regions=(region,)), "second prefill with replica 0"),
        (Role(roles=("draft",), regions=(msgspec.structs.replace(region, precision=Precision(kv="int3")),)), "'int3'"),
        (Role(roles=("draft",), regions=(msgspec.structs.replace(region, layers=(4, 4)),)), r"layers \[4, 4\]"),
        (Role(roles=("draft",), regions=(msgspec.structs.replace(region, runner="fast"),)), "runner is 'fast'"),
        (Role(roles=("draft",), regions=(msgspec.structs.replace(region, runner="paged", layers=(0, 4)),)), "a paged runner"),
        (Role(roles=("draft",), regions=(region,), parallel=Parallel(tp=0)), "0x1"),
        (Role(roles=("draft",), regions=(region,), replica=-1), "replica -1"),
    ]:
        with pytest.raises(DeploymentError, match=text):
            check_deployment(msgspec.structs.replace(deployment, roles=(*deployment.roles, role)), source="test")


def test_a_dump_reads_back_as_the_same_deployment_and_the_same_text(deployment: Deployment, tmp_path: Path) -> None:
    region = RegionPlacement(device="xeon:0", backend="openvino", layers=(0, 3), precision=Precision(kv="bfloat16"))
    after = RegionPlacement(device="xeon:1", backend="null", layers=(3, 5))
    full = msgspec.structs.replace(
        deployment,
        roles=(*deployment.roles, Role(roles=("target",), regions=(region, after), parallel=Parallel(tp=2))),
        tables={"xeon:0/openvino": FileReference(path="tables/a.json", digest="ab" * 32)},
        artifacts={"xeon:0/openvino": FileReference(path="artifacts/é", digest="cd" * 32)},
        draft_model="draft",
        speculation=SpeculationSetup(mode="free", drafts=3),
        rooms=tuple(1 for _ in deployment.capacities),
        pages=7,
        adapter="a",
        tenant_salt="no",
        generation=3,
        digest="1e5",
        draining=True,
    )
    for each in (deployment, full):
        file = save(tmp_path, each)
        assert load_deployment(file) == each
        assert dump_deployment(load_deployment(file)) == file.read_text()
    assert re.match("version: 1\nmodel: ", dump_deployment(full))


def test_a_cluster_given_by_path_is_read_from_the_files_folder_and_dumped_inline(
    deployment: Deployment, tmp_path: Path
) -> None:
    (tmp_path / "cluster.yaml").write_text(dump_cluster(deployment.cluster))
    raw = yaml.safe_load(dump_deployment(deployment))
    raw["cluster"] = "cluster.yaml"
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(raw))
    loaded = load_deployment(tmp_path / "deployment.yaml")
    assert loaded == deployment
    assert dump_deployment(loaded) == dump_deployment(deployment)


FAULTS: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("modle",), 1, "unknown key 'modle' in the top level.*'adapter', 'artifacts', 'capacities', 'chunk'"),
    (("roles", 0, "device"), 1, r"unknown key 'device' in roles\[0\].*'parallel', 'regions', 'replica', 'roles'"),
    (("roles", 0, "regions", 0, "chip"), 1, r"unknown key 'chip' in roles\[0\]\.regions\[0\].*'precision'"),
    (("roles", 0, "regions", 0, "precision", "sums"), 1, r"unknown key 'sums' in .*precision.*'accumulate'"),
    (("roles", 0, "parallel", "pp"), 1, "unknown key 'pp' in .*'ep', 'tp'"),
    (("cluster", "racks"), 1, "unknown key 'racks'.*'nodes'"),
    (("tables", "x"), {"file": "a"}, r"unknown key 'file' in tables\.x.*'digest', 'path'"),
    (("slots",), "many", "slots is 'many'.*Expected `int`"),
    (("slots",), True, "slots is True"),
    (("roles", 0, "regions", 0, "device"), "mars:0", "'mars:0'"),
    (("roles", 1, "roles", 0), "cook", "'cook'"),
    (("cluster",), "missing.yaml", "missing.yaml cannot be read"),
    (("cluster",), 3, "cluster is 3"),
]


@pytest.mark.parametrize(("path", "value", "text"), FAULTS, ids=[".".join(map(str, path)) for path, _, _ in FAULTS])
def test_each_fault_of_a_file_is_a_deployment_error(
    deployment: Deployment, tmp_path: Path, path: tuple[str | int, ...], value: Any, text: str
) -> None:
    raw = copy.deepcopy(yaml.safe_load(dump_deployment(deployment)))
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(DeploymentError, match=text) as caught:
        load_deployment(tmp_path / "deployment.yaml")
    assert caught.value.hint


def test_a_file_without_what_serving_needs_is_a_deployment_error(deployment: Deployment, tmp_path: Path) -> None:
    for name in ("model", "cluster", "roles", "context", "slots", "chunk", "capacities", "version"):
        raw = yaml.safe_load(dump_deployment(deployment))
        del raw[name]
        (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(raw))
        with pytest.raises(DeploymentError, match=f"missing required field `{name}`"):
            load_deployment(tmp_path / "deployment.yaml")
