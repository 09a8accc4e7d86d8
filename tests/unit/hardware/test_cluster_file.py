"""Cluster files: what they say is what is read, and every fault is named."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from inlay.errors import ClusterError
from inlay.hardware import (
    Cluster,
    Device,
    Link,
    Node,
    Place,
    check_local,
    dump_cluster,
    load_cluster,
    parse_cluster,
    parse_place,
)

EXAMPLES = Path(__file__).parents[3] / "examples" / "clusters"
RAW: dict[str, Any] = {
    "nodes": {"local": {"zone": "here"}, "far": None},
    "devices": {
        "xeon:0": {"node": "local", "chip": "xeon", "cores": [0, 1], "memory": "4 GiB", "backends": ["openvino"]},
        "h200:0": {"node": "far"},
    },
    "links": [{"ends": ["xeon:0", "far"], "bandwidth": "25 GB/s", "latency": "20 us"}],
}


def test_a_file_says_what_is_read() -> None:
    cluster = parse_cluster(RAW, source="test")
    assert cluster.nodes == {"local": Node(name="local", zone="here"), "far": Node(name="far")}
    assert cluster.device("xeon:0") == Device(
        name="xeon:0", node="local", chip="xeon", cores=(0, 1), memory=4 * 2**30, backends=("openvino",)
    )
    assert cluster.device("h200:0") == Device(name="h200:0", node="far")
    assert cluster.links == (Link(ends=("xeon:0", "far"), bandwidth=25e9, latency=pytest.approx(20e-6)),)


def test_a_device_without_backends_allows_all_and_one_with_them_only_those() -> None:
    cluster = parse_cluster(RAW, source="test")
    assert cluster.device("h200:0").allows("anything")
    assert cluster.device("xeon:0").allows("openvino")
    assert not cluster.device("xeon:0").allows("onnxruntime")


@pytest.mark.parametrize("name", ["one-host.yaml", "shared-cores.yaml", "two-nodes.yaml", "b200-corsair.yaml"])
def test_examples_load_and_come_back_from_their_dump(name: str, tmp_path: Path) -> None:
    cluster = load_cluster(EXAMPLES / name)
    copied = tmp_path / "copy.yaml"
    copied.write_text(dump_cluster(cluster))
    assert load_cluster(copied) == cluster
    assert dump_cluster(load_cluster(copied)) == dump_cluster(cluster)
    check_local(cluster, usable=[0, 1])


def change(path: str, value: Any) -> dict[str, Any]:
    raw = copy.deepcopy(RAW)
    *parents, last = path.split("/")
    place: Any = raw
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    if isinstance(place, list):
        place.append(value)
    elif value is KeyError:
        del place[last]
    else:
        place[last] = value
    return raw


FAULTS = [
    ("typo", {}, r"unknown key 'typo' in the top level.*'chips', 'devices', 'fleet', 'links', 'nodes'"),
    ("nodes/local/zon", "x", r"unknown key 'zon' in nodes\.local.*'zone'"),
    (
        "devices/xeon:0/core",
        [0],
        r"unknown key 'core' in devices\.xeon:0.*'backends', 'chip', 'cores', 'memory', 'node', 'numa'",
    ),
    ("links/0/speed", 1, r"unknown key 'speed' in links\[0\].*'bandwidth', 'ends', 'latency'"),
    ("nodes", KeyError, "nodes"),
    ("nodes", {}, "nodes is empty"),
    ("devices", {}, "devices is empty"),
    ("devices/xeon:0/node", "moon", "'moon', expected one of .*'far', 'local'"),
    ("devices/xeon:0/node", KeyError, "missing required field `node`"),
    ("devices/xeon:0/cores", [-1], r"cores \[-1\]"),
    ("devices/xeon:0/cores", [1, 1], r"cores \[1, 1\]"),
    ("devices/xeon:0/cores", "0", "Expected `array`, got `str`"),
    ("devices/xeon:0/memory", "4 bananas", "'4 bananas'"),
    ("devices/xeon:0/memory", "-1 GiB", "'-1 GiB'"),
    ("devices/xeon:0/memory", 0, "memory 0"),
    ("devices/xeon:0/memory", True, "True"),
    ("devices/xeon:0/backends", ["OpenVINO"], "'OpenVINO'"),
    ("devices/xeon:0/backends", ["a", "a"], "each once"),
    ("devices/xeon:0/numa", -1, "numa -1"),
    ("devices/xeon", {"node": "local"}, "'xeon' is not a device name"),
    ("devices/xeon:01", {"node": "local"}, "'xeon:01' is not a device name"),
    ("links/0/transport", "pigeon", "transport 'pigeon', expected one of"),
    ("links/0/transport", "shared", "expected 'tcp' between two nodes"),
    ("nodes/far", {"tls": {"certificate": "c.pem"}}, "key"),
    ("links/0/bandwidth", -5, "bandwidth is -5"),
    ("links/0/bandwidth", 0, "bandwidth is 0"),
    ("links/0/bandwidth", ".inf", "bandwidth"),
    ("links/0/latency", "-1 us", "latency is '-1 us'"),
    ("links/0/ends", ["xeon:0", "mars:0"], "'mars:0' is not one of them"),
    ("links/0/ends", ["xeon:0"], "ends is"),
    ("links/0/ends", ["xeon:0", "xeon:0"], "two different ends"),
    ("fleet", {"b200": {"count": 0}}, "fleet 'b200' has count 0"),
    ("fleet", {"b200": {"count": 1, "held": "borrowed"}}, "'borrowed', expected one of owned, rentable, imagined"),
    ("fleet", {"b200": {"count": 1, "price": -1}}, "price -1"),
    ("fleet", {"b200": {"count": 1, "price": 1, "hour": 2}}, "expected one of the two"),
    ("fleet", {"b200": {"count": 1, "power": "7 horses"}}, "'7 horses'"),
    ("fleet", {"b200": {"counts": 1}}, r"unknown key 'counts' in fleet\.b200"),
    ("links/1", {"ends": ["far", "xeon:0"], "bandwidth": 1, "latency": 0}, "given before"),
]


@pytest.mark.parametrize(("path", "value", "text"), FAULTS, ids=[f"{path}={value}" for path, value, _ in FAULTS])
def test_each_fault_is_a_cluster_error_with_a_hint(path: str, value: Any, text: str) -> None:
    with pytest.raises(ClusterError, match=text) as caught:
        parse_cluster(change(path, value), source="test")
    assert caught.value.hint
    assert "test" in caught.value.message


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (yaml.safe_dump(RAW) + "nodes: {}\n", "'nodes' is given twice"),
        ("devices: {'a:0': {node: x}, 'a:0': {node: y}}", "'a:0' is given twice"),
        ("1: 2", "key 1 is not text"),
        ("? [1, 2]\n: 3", "not text"),
        ("{", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("[]", "the file is"),
        ("", "the file is None"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_what_is_not_a_cluster_file_is_a_cluster_error(content: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(content)
    with pytest.raises(ClusterError, match=text):
        load_cluster(file)


def test_a_missing_an_unreadable_and_a_huge_file_are_cluster_errors(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="cannot be read"):
        load_cluster(tmp_path / "missing.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ClusterError, match="cannot be read"):
        load_cluster(tmp_path / "bytes.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (5 * 2**20))
    with pytest.raises(ClusterError, match="at most"):
        load_cluster(tmp_path / "huge.yaml")


def test_cores_are_looked_at_only_when_asked_and_only_on_the_local_node() -> None:
    cluster = parse_cluster(change("devices/xeon:0/cores", [0, 9999]), source="test")
    with pytest.raises(ClusterError, match=r"'xeon:0' has core 9999, expected cores of this machine: \["):
        check_local(cluster)
    check_local(cluster, node="far")
    check_local(cluster, usable=[0, 9999])


def test_devices_of_one_node_share_memory_others_speak_tcp_and_a_link_may_say_otherwise() -> None:
    raw = copy.deepcopy(RAW)
    raw["nodes"]["far"] = {"address": "10.0.0.7", "tls": {"certificate": "c.pem", "key": "k.pem", "authority": "a.pem"}}
    for name in ("xeon:1", "xeon:2"):
        raw["devices"][name] = {"node": "local"}
    raw["links"].append({"ends": ["xeon:0", "xeon:1"], "bandwidth": "1 GB/s", "latency": 0, "transport": "tcp"})
    cluster = parse_cluster(raw, source="test")
    assert cluster.transport("xeon:0", "xeon:2") == "shared"
    assert cluster.transport("xeon:1", "xeon:0") == cluster.transport("xeon:0", "xeon:1") == "tcp"
    assert cluster.transport("xeon:0", "h200:0") == cluster.transport("h200:0", "xeon:2") == "tcp"
    assert cluster.nodes["far"].address == "10.0.0.7"
    assert parse_cluster(yaml.safe_load(dump_cluster(cluster)), source="dump") == cluster


def test_an_unknown_device_is_a_cluster_error_that_names_the_known() -> None:
    with pytest.raises(ClusterError, match="'h200:0', 'xeon:0'"):
        parse_cluster(RAW, source="test").device("xeon:7")


def test_a_place_is_a_device_and_a_backend() -> None:
    place = parse_place("intel-xeon:12/openvino")
    assert place == Place("intel-xeon:12", "openvino")
    assert str(place) == "intel-xeon:12/openvino"


@pytest.mark.parametrize(
    "text", ["", "xeon:0", "xeon/openvino", "xeon:0/", "/openvino", "xeon:0/a/b", "xeon:-1/a", "0:0/a", "xeon:0/A", "x:0/a\n"]
)
def test_a_place_spelled_otherwise_is_a_cluster_error(text: str) -> None:
    with pytest.raises(ClusterError, match="DEVICE/BACKEND"):
        parse_place(text)


def test_all_types_are_frozen() -> None:
    cluster: Cluster = parse_cluster(RAW, source="test")
    for thing in (cluster, cluster.links[0], cluster.device("xeon:0"), cluster.nodes["far"]):
        with pytest.raises(AttributeError):
            thing.links = ()  # type: ignore[union-attr]


def test_a_fleet_needs_no_devices_and_its_chips_are_as_written() -> None:
    cluster = load_cluster(EXAMPLES / "b200-corsair.yaml")
    assert not cluster.devices
    assert {name: (item.chip, item.count, item.held) for name, item in cluster.fleet.items()} == {
        "b200": ("b200", 8, "rentable"),
        "corsair": ("corsair", 16, "imagined"),
    }
    assert cluster.links[0].ends == ("b200", "corsair")
    mine = {"old": {"chip": "h100", "count": 4, "held": "owned", "power": "1.4 kW"}}
    found = parse_cluster({"fleet": mine}, source="test").fleet["old"]
    assert (found.chip, found.power) == ("h100", 1400.0)
