"""What moving costs, by which evidence; and sums of figures with their intervals and grades."""

from __future__ import annotations

import msgspec
import pytest

from inlay.cost import NOTHING, Links, beats, fit_runs, predicted, roofline_seconds, scaled, total, weakest
from inlay.cost.links import STAGING
from inlay.errors import ClusterError
from inlay.hardware import Cluster, Device, Link, Node
from inlay.specs.profile import Estimate, LinkProfile, Roofline
from inlay.units import BytesPerSecond, Seconds


def make_cluster(*links: Link) -> Cluster:
    nodes = {name: Node(name=name) for name in ("one", "two")}
    spots = {"cpu:0": "one", "cpu:1": "one", "cpu:2": "two"}
    devices = {name: Device(name=name, node=node, chip="xeon", cores=(0,)) for name, node in spots.items()}
    return Cluster(nodes=nodes, devices=devices, links=links)


def staged(*sizes: int) -> Estimate:
    """What the runtime adds to messages of these sizes."""
    return total(STAGING.seconds(size) for size in sizes)


def figure(value: float, *, spread: float = 0.1, grade: str = "measured") -> Estimate:
    return Estimate(value=value, low=value * (1 - spread), high=value * (1 + spread), grade=grade)


def test_without_evidence_the_default_is_modelled_and_its_interval_wide() -> None:
    links = Links(make_cluster())
    assert [links.way("cpu:0", name) for name in ("cpu:0", "cpu:1", "cpu:2")] == ["within", "memory", "network"]
    prices = [links.transfer("cpu:0", name, [2**20]) for name in ("cpu:1", "cpu:2")]
    assert all(price.grade == "modelled" and price.low < price.value < price.high for price in prices)
    assert prices[0].value < prices[1].value
    assert links.transfer("cpu:0", "cpu:0", [2**20]) == NOTHING
    handover = links.handover("cpu:0", 3)
    assert handover.grade == "modelled" and handover.value == pytest.approx(3 * 15e-6)


def test_a_link_of_the_cluster_file_is_believed_before_the_default_by_device_and_then_by_node() -> None:
    by_node = Link(ends=("one", "two"), bandwidth=BytesPerSecond(1e9), latency=Seconds(1e-3))
    by_device = Link(ends=("cpu:2", "cpu:0"), bandwidth=BytesPerSecond(2e9), latency=Seconds(1e-3))
    links = Links(make_cluster(by_node, by_device))
    assert links.transfer("cpu:1", "cpu:2", [10**9]).value == pytest.approx(1.001 + staged(10**9).value)
    assert links.transfer("cpu:0", "cpu:2", [10**9]).value == pytest.approx(0.501 + staged(10**9).value)
    assert links.transfer("cpu:0", "cpu:2", [10**9]).grade == "vendor"
    assert links.transfer("cpu:0", "cpu:1", [0]).grade == "modelled"


def test_a_measured_link_is_believed_before_all_else_in_both_directions() -> None:
    stated = Link(ends=("cpu:0", "cpu:1"), bandwidth=BytesPerSecond(1e9), latency=Seconds(1e-3))
    measured = LinkProfile(source="xeon x1", destination="xeon x1", latency=1e-5, bandwidth=4e9, grade="measured", spread=0.5)
    links = Links(make_cluster(stated), [measured])
    price, added = links.transfer("cpu:1", "cpu:0", [4 * 10**9, 0]), staged(4 * 10**9, 0)
    assert price.value - added.value == pytest.approx(1 + 2e-5)
    assert price.low - added.low == pytest.approx((1 + 2e-5) * 0.5) and price.high - added.high == pytest.approx(
        (1 + 2e-5) * 1.5
    )
    assert price.grade == "modelled" and links.price("cpu:1", "cpu:0").grade == "measured"
    within = msgspec.structs.replace(measured, way="within", latency=3e-6)
    assert Links(make_cluster(), [within]).handover("cpu:0", 2).value == pytest.approx(6e-6)
    assert Links(make_cluster(), [within]).transfer("cpu:0", "cpu:1", [0]).grade == "modelled"


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ClusterError, match="gpu:0"):
        Links(make_cluster()).price("cpu:0", "gpu:0")


def test_sums_keep_the_whole_interval_and_the_weakest_grade_that_matters() -> None:
    held = total([figure(1.0), figure(2.0, grade="modelled", spread=0.5)])
    assert held.value == 3.0 and held.low == pytest.approx(1.9) and held.high == pytest.approx(4.1)
    assert held.grade == "modelled"
    assert total([figure(1.0), figure(0.005, grade="vendor")]).grade == "measured"
    assert total([figure(1.0), figure(0.006, grade="modelled"), figure(0.006, grade="vendor")]).grade == "modelled"
    assert total([]) == NOTHING
    assert weakest(["measured", "vendor", "calibrated"]) == "vendor"
    assert scaled(figure(2.0), 3).high == pytest.approx(6.6)
    assert predicted(figure(1.0)).grade == "calibrated" and predicted(figure(1.0, grade="vendor")).grade == "vendor"


def test_one_plan_beats_another_only_beyond_the_noise_of_what_they_do_not_share() -> None:
    shared = figure(100.0, spread=0.3)
    assert beats({"a": shared, "b": figure(1.0)}, {"a": shared, "c": figure(2.0)})
    assert not beats({"b": figure(1.0, spread=0.3)}, {"c": figure(1.5, spread=0.3)})
    assert not beats({"a": shared}, {"a": shared})
    assert not beats({"a": shared, "b": figure(1.0)}, {"a": figure(101.0, spread=0.3)})


def test_a_line_through_lengths_one_two_and_four_predicts_the_others() -> None:
    fit = fit_runs({length: figure(3.0 + 2.0 * length, spread=0.01) for length in (1, 2, 4)})
    assert fit is not None and fit.predict(7).value == pytest.approx(17.0)
    assert fit.predict(7).grade == "calibrated" and fit.error == pytest.approx(0, abs=1e-12)
    assert fit_runs({1: figure(1.0), 2: figure(2.0)}) is None


def test_a_length_that_the_line_misses_widens_the_interval() -> None:
    line = {length: figure(3.0 + 2.0 * length, spread=0.0) for length in (1, 2, 4)}
    fit = fit_runs({**line, 8: figure(38.0, spread=0.0)})
    assert fit is not None and fit.error == pytest.approx(0.5)
    assert fit.predict(8).low < 19.0 < fit.predict(8).high


def test_a_roofline_gives_the_longer_of_computing_and_moving() -> None:
    roofline = Roofline(kind="xeon x1", peaks={"float32": 1e11}, bandwidth=1e10, launch=0.0)
    computing = roofline_seconds(roofline, flops=1e11, traffic=10, dtype="float32")
    moving = roofline_seconds(roofline, flops=10, traffic=10**10, dtype="float32")
    assert computing is not None and moving is not None
    assert computing.value == moving.value == pytest.approx(2.0) and computing.low == pytest.approx(1.0)
    assert computing.grade == "modelled"
    assert roofline_seconds(roofline, flops=1, traffic=1, dtype="int8") is None
