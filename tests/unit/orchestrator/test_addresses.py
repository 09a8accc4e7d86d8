"""How processes reach one another, told from the cluster alone; and how a model's keys are turned."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from inlay.errors import DeploymentError, UnsupportedError
from inlay.hardware import parse_cluster
from inlay.orchestrator.addresses import assign_addresses, peers_of
from inlay.orchestrator.rope import INTERLEAVED
from inlay.specs.deployment import Deployment, deployment_from_roles
from inlay.transport import Tls

FILES = {"certificate": "c.pem", "key": "k.pem", "authority": "a.pem"}


def placed(nodes: dict[str, Any], *, links: list[dict[str, Any]] | None = None) -> Deployment:
    """One device on each node; the first does prompts, the others answers."""
    devices = {f"cpu:{number}": {"node": name} for number, name in enumerate(nodes)}
    cluster = parse_cluster({"nodes": nodes, "devices": devices, "links": links or []}, source="test")
    roles = ["prefill=cpu:0/null", *(f"decode=cpu:{number}/null" for number in range(1, len(nodes)))]
    return deployment_from_roles("model", cluster, roles, context=64)


def one_node(count: int, links: list[dict[str, Any]]) -> Deployment:
    devices = {f"cpu:{number}": {"node": "local"} for number in range(count)}
    cluster = parse_cluster({"nodes": {"local": None}, "devices": devices, "links": links}, source="test")
    roles = ["prefill=cpu:0/null", *(f"decode=cpu:{number}/null" for number in range(1, count))]
    return deployment_from_roles("model", cluster, roles, context=64)


def test_within_a_node_there_are_sockets_only_and_no_port_is_open(tmp_path) -> None:
    wanted = one_node(2, [])
    found = assign_addresses(wanted, tmp_path)
    assert {item.tcp for item in found.values()} == {""} and {item.tls for item in found.values()} == {None}
    assert peers_of(wanted, "cpu:0/null", found) == {"cpu:1/null": str(tmp_path / "cpu-1-null.sock")}


def test_a_link_that_says_tcp_takes_it_and_the_others_do_not(tmp_path) -> None:
    wanted = one_node(3, [{"ends": ["cpu:0", "cpu:2"], "bandwidth": "1 GB/s", "latency": 0, "transport": "tcp"}])
    found = assign_addresses(wanted, tmp_path)
    assert [bool(found[f"cpu:{number}/null"].tcp) for number in range(3)] == [True, False, True]
    peers = peers_of(wanted, "cpu:0/null", found)
    assert peers == {"cpu:1/null": str(tmp_path / "cpu-1-null.sock"), "cpu:2/null": found["cpu:2/null"].tcp}
    assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+", peers["cpu:2/null"])


def test_nodes_speak_tcp_at_their_addresses_inside_of_tls_where_both_have_files(tmp_path) -> None:
    wanted = placed({name: {"address": "localhost", "tls": FILES} for name in ("left", "right")})
    found = assign_addresses(wanted, tmp_path)
    assert all(item.tcp.startswith("tcp://localhost:") and item.tls == Tls(**FILES) for item in found.values())
    assert len({item.tcp for item in found.values()}) == 2


def test_tls_at_one_end_only_and_a_node_that_is_not_here_are_refused_by_name(tmp_path) -> None:
    with pytest.raises(DeploymentError, match="node left has TLS files and node right has none"):
        assign_addresses(placed({"left": {"tls": FILES}, "right": None}), tmp_path)
    with pytest.raises(UnsupportedError, match=r"node right has address '192\.0\.2\.1', expected one of this machine"):
        assign_addresses(placed({"left": None, "right": {"address": "192.0.2.1"}}), tmp_path)


def test_the_model_types_said_to_pair_neighbours_do_so_in_their_own_code() -> None:
    found = importlib.util.find_spec("transformers")
    if found is None or found.origin is None:
        pytest.skip("transformers is not installed")
    for name in INTERLEAVED:
        file = Path(found.origin).parent / "models" / name / f"modeling_{name}.py"
        text = file.read_text()
        rotate = text[text.index("def rotate") :][:400]
        assert "::2]" in rotate and "1::2]" in rotate, name
    for name in ("llama", "qwen2", "qwen3", "gemma2", "mistral", "phi3", "olmo2"):
        text = (Path(found.origin).parent / "models" / name / f"modeling_{name}.py").read_text()
        assert name not in INTERLEAVED and "::2]" not in text
