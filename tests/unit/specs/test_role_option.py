"""How roles and runs of layers are written, and that regions hold every layer once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from inlay.errors import DeploymentError
from inlay.hardware import Cluster, Place, parse_cluster
from inlay.models import read_model
from inlay.specs.deployment import (
    Deployment,
    RegionPlacement,
    Role,
    check_deployment,
    deployment_from_roles,
    dump_deployment,
    load_deployment,
)
from inlay.specs.precision import PRECISIONS, Precision
from inlay.specs.role_option import PlacedLayers, parse_role, write_region

KNOWN = ("prefill", "decode")
EXAMPLES = Path(__file__).parents[3] / "examples" / "deployments"


@pytest.fixture
def cluster() -> Cluster:
    devices = {f"cpu:{index}": {"node": "local", "cores": [index % 2]} for index in range(4)}
    return parse_cluster({"nodes": {"local": {}}, "devices": devices}, source="test")


def made(cluster: Cluster, *options: str, depth: int | None = 6) -> Deployment:
    return deployment_from_roles("m", cluster, options, context=64, depth=depth)


@pytest.mark.parametrize(
    ("text", "depth", "layers"),
    [
        ("cpu:0/x", None, [None]),
        ("cpu:0/x@0-2+cpu:1/y@3-5", 6, [(0, 3), (3, 6)]),
        ("cpu:0/x@0-2+cpu:1/y@3-", 6, [(0, 3), (3, 6)]),
        ("cpu:0/x@0+cpu:1/y@1-4+cpu:2/z@5", 6, [(0, 1), (1, 5), (5, 6)]),
        ("cpu:0/x@0-2+cpu:1/y@3-5", None, [(0, 3), (3, 6)]),
        ("cpu:0/x@0-5", 6, [None]),
        ("cpu:0/x@0-", 6, [None]),
        ("cpu:0/x@0-5", None, [(0, 6)]),
    ],
)
def test_layers_are_written_as_people_count_them(text, depth, layers) -> None:
    names, found = parse_role(f"prefill,decode={text}", known=KNOWN, depth=depth)
    assert names == ["prefill", "decode"] and [item.layers for item in found] == layers
    assert [str(item.place) for item in found] == [part.partition("@")[0] for part in text.split("+")]


def test_what_is_written_reads_back() -> None:
    for region in (PlacedLayers(Place("cpu:0", "x"), None), PlacedLayers(Place("cpu:1", "y"), (3, 6))):
        assert parse_role(f"decode={write_region(region)}", known=KNOWN, depth=9) == (["decode"], (region,))


@pytest.mark.parametrize(
    ("text", "depth", "words"),
    [
        ("cpu:0/x@", 6, "layers '', expected FIRST-LAST"),
        ("cpu:0/x@a-b", 6, "layers 'a-b'"),
        ("cpu:0/x@-3", 6, "layers '-3'"),
        ("cpu:0/x@1-2-3", 6, "layers '1-2-3'"),
        ("cpu:0/x@3-1", 6, r"layers '3-1'.*0 to 5"),
        ("cpu:0/x@0-6", 6, r"layers '0-6'.*0 to 5"),
        ("cpu:0/x@6-", 6, r"layers '6-'.*0 to 5"),
        ("cpu:0/x@0-2+cpu:1/y@3-", None, "leaves the last layer open"),
        ("cpu:0/x@0-2+", 6, "place is ''"),
        ("cpu0/x@0-2+cpu:1/y@3-", 6, "DEVICE/BACKEND"),
    ],
)
def test_faulty_layers_are_deployment_errors_with_the_value(text, depth, words) -> None:
    with pytest.raises(DeploymentError, match=words) as caught:
        parse_role(f"prefill={text}", known=KNOWN, depth=depth)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpu:0/x@1-2+cpu:1/y@3-", "expected .0, ....: layer 0 is nowhere"),
        ("cpu:0/x@0-1+cpu:1/y@3-", "layer 2 is nowhere"),
        ("cpu:0/x@0-3+cpu:1/y@3-", "layer 3 is there twice"),
        ("cpu:0/x@3-5+cpu:1/y@0-2", "layer 0 is nowhere"),
        ("cpu:0/x@0-2+cpu:1/y@3-4", "ends with layer 4, expected 5: the model has 6 layers"),
        ("cpu:0/x@0-2", "ends with layer 2, expected 5"),
        ("cpu:0/x+cpu:1/y@3-", "2 regions and no layers at cpu:0/x"),
        ("cpu:0/x+cpu:1/y", "no layers at cpu:0/x"),
    ],
)
def test_pieces_must_hold_every_layer_once_and_in_order(cluster, text, words) -> None:
    with pytest.raises(DeploymentError, match=words):
        made(cluster, f"prefill={text}")


def test_options_that_name_the_same_places_are_one_replica_and_other_cuts_are_another(cluster) -> None:
    cut = "cpu:0/x@0-2+cpu:1/y@3-"
    [role] = made(cluster, f"prefill={cut}", f"decode={cut.replace('3-', '3-5')}").roles
    assert role.roles == ("prefill", "decode") and role.runner == "cpu:0/x+cpu:1/y"
    first, second = made(cluster, f"decode={cut}", "prefill,decode=cpu:2/x@0-1+cpu:3/y@2-").roles
    assert (first.replica, second.replica) == (0, 1) and second.regions[1].layers == (2, 6)
    with pytest.raises(DeploymentError, match=r"'decode' is given twice at cpu:0/x@0-2\+cpu:1/y@3-5"):
        made(cluster, f"decode={cut}", f"decode={cut}")


def test_a_cut_role_reads_back_from_its_file_and_precision_may_differ_by_region(cluster, tmp_path) -> None:
    half = Precision(kv="bfloat16")
    deployment = deployment_from_roles(
        "m", cluster, ["prefill,decode=cpu:0/x@0-2+cpu:1/y@3-"], context=64, depth=6, precision={"cpu:1/y": half}
    )
    assert [region.precision for region in deployment.roles[0].regions] == [Precision(), half]
    file = tmp_path / "d.yaml"
    file.write_text(dump_deployment(deployment))
    assert load_deployment(file) == deployment


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.name)
def test_the_example_deployments_load_and_hold_all_layers_of_the_model_they_name(file) -> None:
    deployment = load_deployment(file)
    depth = read_model(EXAMPLES.parents[1] / deployment.model).layers
    check_deployment(deployment, source=file.name, depth=depth)


def test_a_file_that_ends_too_early_is_seen_once_the_model_is_known(cluster) -> None:
    regions = (
        RegionPlacement(device="cpu:0", backend="x", layers=(0, 3)),
        RegionPlacement(device="cpu:1", backend="y", layers=(3, 5)),
    )
    deployment = msgspec.structs.replace(made(cluster, "prefill=cpu:0/x"), roles=(Role(roles=("prefill",), regions=regions),))
    check_deployment(deployment, source="test")
    check_deployment(deployment, source="test", depth=5)
    for depth in (4, 6):
        with pytest.raises(DeploymentError, match=f"the model has {depth} layers"):
            check_deployment(deployment, source="test", depth=depth)


def test_a_precision_follows_the_place_and_reads_back(cluster, tmp_path) -> None:
    made_here = made(cluster, "prefill=cpu:0/x", "decode=cpu:1/y:int8@0-2+cpu:2/z:bfloat16@3-")
    found = [[region.precision for region in role.regions] for role in made_here.roles]
    assert found == [[Precision()], [PRECISIONS["int8"], PRECISIONS["bfloat16"]]]
    path = tmp_path / "deployment.yaml"
    path.write_text(dump_deployment(made_here))
    assert load_deployment(path) == made_here
    region = PlacedLayers(Place("cpu:1", "y"), (3, 6), "int8-weights")
    assert parse_role(f"decode={write_region(region)}", known=KNOWN, depth=9) == (["decode"], (region,))
    for region in (
        PlacedLayers(Place("cpu:1", "y"), None, "int8", "paged"),
        PlacedLayers(Place("cpu:1", "y"), None, "", "paged"),
    ):
        assert parse_role(f"decode={write_region(region)}", known=KNOWN, depth=9) == (["decode"], (region,))
    assert parse_role("decode=cpu:1/y:paged:int8", known=KNOWN, depth=9)[1][0].runner == "paged"
    everywhere = deployment_from_roles(
        "m", cluster, ["prefill=cpu:0/x", "decode=cpu:1/y:float32"], context=64, precision=PRECISIONS["int8"]
    )
    assert [role.regions[0].precision for role in everywhere.roles] == [PRECISIONS["int8"], Precision()]


@pytest.mark.parametrize("text", ["cpu:1/y:int3", "cpu:1/y:", "cpu:1/y:int8:int8", "cpu:1/y:paged:paged", "cpu:1/y:int3@0-2"])
def test_an_unknown_precision_of_a_place_is_refused_with_the_known_ones(text) -> None:
    with pytest.raises(DeploymentError, match=r"has precision '.*', expected one of: float32, bfloat16, .*int8"):
        parse_role(f"decode={text}", known=KNOWN, depth=6)
