"""From a deployment file to a simulation, and the command that does it."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from simulator_world import TABLE, facts, setup

from inlay.cli.main import app
from inlay.engine.journal import write_start
from inlay.errors import InlayError, InputError
from inlay.hardware import parse_cluster
from inlay.simulator import describe
from inlay.specs.deployment import Deployment, deployment_from_roles, dump_deployment

CLUSTER = {
    "nodes": {"one": {}, "two": {}},
    "devices": {name: {"node": name.partition(":")[0]} for name in ("one:0", "one:1", "two:0")},
    "links": [{"ends": ["one", "two"], "bandwidth": "10 GB/s", "latency": "20 us"}],
}
ROLES = ("prefill=one:0/null", "prefill=one:1/null", "decode=two:0/null")
LOAD = "isl=64,osl=8,rate=5,requests=20"


def deployed(**changes: object) -> Deployment:
    cluster = parse_cluster(CLUSTER, source="test")
    made = deployment_from_roles("demo/target", cluster, ROLES, context=1024, slots=4, chunk=64)
    return msgspec.structs.replace(made, **changes)


def test_runners_links_and_their_sharing_are_those_of_the_deployment() -> None:
    found = describe(deployed(), dict.fromkeys(("one:0/null", "one:1/null", "two:0/null"), TABLE), kv_bytes=4096)
    assert [item.runner for item in found.scheduler.facts] == ["one:0/null", "one:1/null", "two:0/null"]
    assert all(item.rounds == 16 and item.kv_bytes == 4096 and item.slots == 4 for item in found.scheduler.facts)
    ways = {(item.source, item.destination): item for item in found.links}
    far = [ways[f"one:{i}/null", "two:0/null"] for i in (0, 1)]
    assert far[0].name == far[1].name != ways["two:0/null", "one:0/null"].name
    assert (far[0].bandwidth, far[0].latency) == (1e10, pytest.approx(20e-6 + 150e-6))
    assert far[0].grade == "vendor"
    assert ways["one:0/null", "one:1/null"].name == "memory one"


def test_a_place_without_a_table_is_named() -> None:
    with pytest.raises(InputError, match="two:0/null has no latency table"):
        describe(deployed(), dict.fromkeys(("one:0/null", "one:1/null"), TABLE), kv_bytes=1)


def files(folder: Path, *, digest: str | None = None) -> Path:
    table = folder / "table.json"
    table.write_bytes(msgspec.json.encode(TABLE))
    reference = {"path": "table.json", "digest": digest or hashlib.sha256(table.read_bytes()).hexdigest()}
    places = dict.fromkeys(("one:0/null", "one:1/null", "two:0/null"), reference)
    path = folder / "deployment.yaml"
    made = deployed(model=str(Path(__file__).parents[3] / "demo" / "target"))
    path.write_text(dump_deployment(made).replace("tables: {}", f"tables: {json.dumps(places)}"))
    return path


def test_the_command_simulates_a_deployment_file(tmp_path) -> None:
    arguments = ["simulate", str(files(tmp_path)), "--workload", LOAD, "--goodput", "ttft:5000", "--json", "--each"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout)
    assert (result["requests"], result["completed"], result["output_tokens"], result["grade"]) == (20, 20, 160, "vendor")
    assert result["goodput_share"] == 1.0
    assert {item["decode"] for item in result["each"]} == {"two:0/null"}
    assert result["transferred"] > 0


def test_the_command_simulates_the_engine_of_an_event_log(tmp_path) -> None:
    log = tmp_path / "events.jsonl"
    with log.open("wb") as file:
        write_start(file, setup(facts(table=msgspec.structs.replace(TABLE, grade="measured"))).scheduler)
    found = CliRunner().invoke(app, ["simulate", str(log), "--workload", LOAD, "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["grade"] == "measured"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--workload", "rate=1"], "no end"),
        (["--workload", LOAD, "--fail", "nobody=1"], "what fails is 'nobody', expected one of one:0/null"),
        (["--workload", LOAD, "--fail", "one:0/null=soon"], "'soon', expected seconds"),
        (["--workload", LOAD, "--acceptance", "7"], "acceptance is 7"),
        (["--workload", LOAD, "--table", "one:0/null"], "expected PLACE=FILE"),
        (["--workload", LOAD, "--table", "one:0/null=nothing.json"], "'nothing.json' is not a latency table"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, more, said) -> None:
    found = CliRunner().invoke(app, ["simulate", str(files(tmp_path)), *more])
    assert isinstance(found.exception, InlayError)
    assert said in found.exception.message


def test_a_table_that_has_changed_is_refused(tmp_path) -> None:
    found = CliRunner().invoke(app, ["simulate", str(files(tmp_path, digest="0" * 64)), "--workload", LOAD])
    assert isinstance(found.exception, InputError)
    assert "expected 000000000000: it has changed" in found.exception.message
