"""Which devices and pairs are measured, how figures are kept, and that impossible ones are refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from inlay.errors import ArtifactError, ClusterError, OutOfMemoryError
from inlay.hardware import Chip, Cluster, Device, Node, device_kind, last_cache, local_chip, memory_relation
from inlay.runtime import machine
from inlay.runtime.cache import Cache
from inlay.runtime.kept import link_path, profile_path, read_figures, write_figures
from inlay.runtime.machine import kept_figures, measure_figures
from inlay.runtime.roofline import array_size, product_rates, rate_spread
from inlay.specs.roofline import DeviceProfile, MachineFigures, MeasuredLink, Spread

pytestmark = pytest.mark.alone

RATE = Spread(best=9.0, median=7.0, low=6.0, high=8.0, samples=5)
TIME = Spread(best=1e-5, median=2e-5, low=1.5e-5, high=3e-5, samples=31)
PROFILE = DeviceProfile(
    kind="Abacus x1", device="cpu:0", chip="Abacus", cores=1, threads=1, products={"float32": RATE}, sides={"float32": 256},
    memory={"read": RATE, "copy": msgspec.structs.replace(RATE, best=20.0)}, array=1 << 28, cache=1 << 20,
    absent={"int8": "not measured: torch is not installed"}, versions={"numpy": "2"}, load=0.5,
    taken="2026-01-02T03:04:05+00:00",
)  # fmt: skip
LINK = MeasuredLink(
    ends=("cpu:0", "cpu:1"), kinds=("Abacus x1", "Abacus x1"), relation="same zone", small_bytes=32768, small=TIME,
    large_bytes=8 << 20, large=msgspec.structs.replace(TIME, median=2.4e-5), latency=1e-5, bandwidth=5e9, load=0.0,
    taken="2026-01-02T03:04:05+00:00",
)  # fmt: skip


def cluster_of(*devices: Device, chips: dict[str, Chip] | None = None) -> Cluster:
    nodes = {device.node: Node(name=device.node) for device in devices}
    return Cluster(nodes=nodes, devices={device.name: device for device in devices}, chips=chips or {})


def cpu(index: int, *cores: int, node: str = "local", numa: int | None = None, chip: str = "Abacus") -> Device:
    return Device(name=f"cpu:{index}", node=node, chip=chip, cores=cores, numa=numa)


def test_a_kind_is_chip_and_cores_and_the_alias_where_the_chip_is_unknown() -> None:
    cluster = cluster_of(cpu(0, 0), cpu(1, 1), cpu(2, 0, 1), cpu(3), cpu(4, 0, chip=""))
    kinds = [device_kind(cluster, name) for name in cluster.devices]
    assert kinds == ["Abacus x1", "Abacus x1", "Abacus x2", "Abacus x1", "cpu x1"]
    with pytest.raises(ClusterError, match="cpu:9"):
        device_kind(cluster, "cpu:9")


def test_how_near_devices_are_is_told_by_their_zones() -> None:
    cluster = cluster_of(cpu(0, 0, numa=0), cpu(1, 1, numa=0), cpu(2, 2, numa=1), cpu(3, 3))
    pairs = [("cpu:0", "cpu:0"), ("cpu:0", "cpu:1"), ("cpu:0", "cpu:2"), ("cpu:2", "cpu:3")]
    assert [memory_relation(cluster, *pair) for pair in pairs] == ["same device", "same zone", "other zone", "same zone"]


def test_the_last_cache_is_the_largest_that_the_kernel_names(tmp_path: Path) -> None:
    for core, sizes in ((0, ("48K", "2048K")), (1, ("48K", "32M"))):
        for index, size in enumerate(sizes):
            file = tmp_path / f"sys/devices/system/cpu/cpu{core}/cache/index{index}/size"
            file.parent.mkdir(parents=True)
            file.write_text(size + "\n")
    assert last_cache([0], root=tmp_path) == 2048 << 10 and last_cache([0, 1], root=tmp_path) == 32 << 20
    assert last_cache([], root=tmp_path) == 32 << 20 and last_cache([7], root=tmp_path) == 0


def test_one_device_of_each_kind_and_one_pair_of_each_way_is_measured() -> None:
    cluster = cluster_of(cpu(0, 0, numa=0), cpu(1, 1, numa=0), cpu(2, 2, numa=1), cpu(3, 3, numa=1), cpu(4, 0, 1, numa=0))
    found = machine._Machine(cluster, Cache(Path("nowhere")))
    assert {kind: device.name for kind, device in found.kinds.items()} == {"Abacus x1": "cpu:0", "Abacus x2": "cpu:4"}
    ways = {(way.kinds, way.relation): (a.name, b.name) for way, (a, b) in found.ways.items()}
    one, two = "Abacus x1", "Abacus x2"
    assert ways == {
        ((one, one), "same device"): ("cpu:0", "cpu:0"), ((one, one), "same zone"): ("cpu:0", "cpu:1"),
        ((one, one), "other zone"): ("cpu:0", "cpu:2"), ((two, two), "same device"): ("cpu:4", "cpu:4"),
        ((one, two), "same zone"): ("cpu:0", "cpu:4"), ((one, two), "other zone"): ("cpu:2", "cpu:4"),
    }  # fmt: skip


def test_a_pair_that_shares_no_core_is_measured_where_there_is_one() -> None:
    cluster = cluster_of(cpu(0, 0), cpu(1, 0), cpu(2, 1))
    found = machine._Machine(cluster, Cache(Path("nowhere")))
    assert [(a.name, b.name) for way, (a, b) in found.ways.items() if way.relation == "same zone"] == [("cpu:0", "cpu:2")]


def test_devices_that_cannot_be_measured_here_say_why(tmp_path: Path) -> None:
    chips = {"Abacus": Chip(name="Abacus"), "Loom": Chip(name="Loom", kind="gpu")}
    gpu = Device(name="gpu:0", node="local", chip="Loom")
    figures = kept_figures(cluster_of(cpu(0, 0), cpu(1, 1, node="far"), gpu, chips=chips), cache=Cache(tmp_path))
    assert figures.absent == {
        "cpu:1": "not measured: it is on node far, not on this machine",
        "gpu:0": "not measured: it is a gpu, and only CPUs are measured here",
        "cpu:0": "not measured yet",
    }
    with pytest.raises(ClusterError, match="has core 4096"):
        measure_figures(cluster_of(cpu(0, 4096)), cache=Cache(tmp_path))
    assert not any(tmp_path.iterdir())


def test_kept_figures_come_back_equal_for_every_device_of_the_kind(tmp_path: Path) -> None:
    cluster, chip = cluster_of(cpu(0, 0), cpu(1, 1), cpu(2, 0, 1)), local_chip()
    write_figures(profile_path(tmp_path, kind="Abacus x1", chip=chip), PROFILE)
    write_figures(link_path(tmp_path, kinds=LINK.kinds, relation=LINK.relation, chip=chip), LINK)
    figures = kept_figures(cluster, cache=Cache(tmp_path))
    assert figures == MachineFigures(
        profiles={"cpu:0": PROFILE, "cpu:1": PROFILE}, links=(LINK,), absent={"cpu:2": "not measured yet"}
    )
    assert [item.name for item in (tmp_path / "profiles").rglob(".*")] == []


def test_figures_of_another_machine_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    write_figures(profile_path(tmp_path, kind="Abacus x1", chip="another chip"), PROFILE)
    assert kept_figures(cluster_of(cpu(0, 0)), cache=Cache(tmp_path)).absent == {"cpu:0": "not measured yet"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "truncated"),
        ('{"kind": "Abacus x1"}', "missing required field"),
        (msgspec.json.encode(PROFILE).decode().replace('"kind"', '"kinds"', 1), "unknown field|missing required field"),
        (msgspec.json.encode(PROFILE).decode().replace('"version":1', '"version":2', 1), "version 2"),
        (msgspec.json.encode(PROFILE).decode().replace('"best":9.0', '"best":-9.0', 1), "'float32' has best -9.0"),
    ],
)
def test_a_damaged_file_is_told_by_name_and_counts_as_not_measured(tmp_path: Path, text: str, reason: str) -> None:
    path = profile_path(tmp_path, kind="Abacus x1", chip=local_chip())
    write_figures(path, PROFILE)
    path.write_text(text)
    figures = kept_figures(cluster_of(cpu(0, 0)), cache=Cache(tmp_path))
    assert figures.profiles == {} and figures.absent == {"cpu:0": "not measured yet"} and len(figures.damaged) == 1
    assert str(path) in figures.damaged[0]
    with pytest.raises(ArtifactError, match=f"(?i){reason}"):
        read_figures(path, DeviceProfile)
    assert read_figures(tmp_path / "nothing.json", MeasuredLink) is None


@pytest.mark.parametrize(
    "wrong",
    [
        msgspec.structs.replace(PROFILE, threads=0),
        msgspec.structs.replace(PROFILE, grade="guessed"),
        msgspec.structs.replace(PROFILE, products={"float31": RATE}),
        msgspec.structs.replace(PROFILE, memory={"read": msgspec.structs.replace(RATE, low=float("nan"))}),
        msgspec.structs.replace(PROFILE, memory={"read": msgspec.structs.replace(RATE, high=float("inf"), best=float("inf"))}),
        msgspec.structs.replace(PROFILE, memory={"read": msgspec.structs.replace(RATE, best=7.5)}),
        msgspec.structs.replace(PROFILE, memory={"read": msgspec.structs.replace(RATE, samples=0)}),
        msgspec.structs.replace(LINK, relation="cousins"),
        msgspec.structs.replace(LINK, latency=-1.0),
        msgspec.structs.replace(LINK, bandwidth=0.0),
        msgspec.structs.replace(LINK, bandwidth=float("inf")),
        msgspec.structs.replace(LINK, small=msgspec.structs.replace(TIME, best=4e-5)),
        msgspec.structs.replace(LINK, large=msgspec.structs.replace(TIME, low=0.0)),
    ],
)
def test_figures_that_no_machine_has_are_refused(tmp_path: Path, wrong: DeviceProfile | MeasuredLink) -> None:
    with pytest.raises(ArtifactError, match="expected"):
        write_figures(tmp_path / "figures.json", wrong)
    assert not any(tmp_path.iterdir())


def test_deciders_get_rooflines_and_the_links_between_different_devices() -> None:
    inside = msgspec.structs.replace(LINK, relation="same device", large=msgspec.structs.replace(TIME, median=2.9e-5))
    across = msgspec.structs.replace(
        LINK, relation="other zone", latency=3e-5, large=msgspec.structs.replace(TIME, median=2.6e-5)
    )
    figures = MachineFigures(profiles={"cpu:0": PROFILE, "cpu:1": PROFILE}, links=(inside, across, LINK))
    (roofline,) = figures.rooflines()
    assert (roofline.kind, roofline.peaks, roofline.bandwidth, roofline.grade) == (
        "Abacus x1",
        {"float32": 9.0},
        9.0,
        "measured",
    )
    (link,) = figures.link_profiles()
    assert msgspec.structs.replace(figures, links=(LINK, across, inside)).link_profiles() == (link,)
    assert (link.source, link.latency, link.bandwidth, link.way, link.grade) == ("Abacus x1", 3e-5, 5e9, "memory", "measured")
    assert link.spread == pytest.approx(0.5)
    bare = msgspec.structs.replace(PROFILE, memory={})
    assert bare.roofline() is None and bare.peak("int8") is None and PROFILE.peak("float32") == 9.0


def test_arrays_are_many_times_the_last_cache_or_not_measured() -> None:
    assert array_size(0, 64 << 30) == 256 << 20
    assert array_size(64 << 20, 64 << 30) == 512 << 20
    assert array_size(400 << 20, 64 << 30) == 2 << 30 and array_size(1 << 30, 64 << 30) == 4 << 30
    assert array_size(32 << 20, 600 << 20) == 150 << 20
    with pytest.raises(OutOfMemoryError, match=r"400\d+ bytes of memory are free, expected 536870912"):
        array_size(32 << 20, 400 * 10**6)


def test_the_rate_of_a_product_that_takes_a_stated_time_is_that_rate() -> None:
    sides: list[int] = []

    def prepare(side: int):  # type: ignore[no-untyped-def]
        sides.append(side)
        return lambda: time.sleep(2e-9 * side**3)

    side, rates = product_rates(prepare)
    assert sides == [256, 512] and side == 512
    assert 0.5e9 < rates.best <= 1.0e9 and rates.samples == 9


def test_rates_are_best_where_seconds_are_least() -> None:
    found = rate_spread(12.0, [1.0, 2.0, 3.0, 4.0, 6.0])
    assert found == Spread(best=12.0, median=4.0, low=3.0, high=6.0, samples=5)


def test_without_torch_its_figures_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    core = min(os.sched_getaffinity(0))
    found = machine._Machine(cluster_of(cpu(0, core)), Cache(Path("nowhere")))
    steps = [step for step in machine._device_steps("cpu:0") if "torch" in step[0]]
    monkeypatch.setattr(machine, "_device_steps", lambda name: steps)
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    profile = machine._measure_device(found, found.kinds["Abacus x1"], machine._Counter(1, lambda text: None))
    assert profile.absent == dict.fromkeys(("bfloat16", "int8"), "not measured: torch is not installed")
    assert profile.products == {} and profile.chip == local_chip()
    profile.check()


def test_a_figure_whose_process_fails_is_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    core = min(os.sched_getaffinity(0))
    found = machine._Machine(cluster_of(cpu(0, core)), Cache(Path("nowhere")))
    monkeypatch.setattr(machine, "_device_steps", lambda name: [("text", "inlay.runtime.roofline:main", ("float33",))])
    profile = machine._measure_device(found, found.kinds["Abacus x1"], machine._Counter(1, lambda text: None))
    assert list(profile.absent) == ["float33"] and "ended with status 1 (TypeError" in profile.absent["float33"]


def test_a_dtype_that_torch_does_not_multiply_is_absent_in_its_words(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from inlay.runtime.roofline import Measured
    from inlay.runtime.torch_products import main

    assert main({"figures": ["float4_e2m1fn_x2"], "result": str(tmp_path / "result.json"), "threads": 1}) == 0
    found = msgspec.json.decode((tmp_path / "result.json").read_bytes(), type=Measured)
    assert (
        list(found.absent) == ["float4_e2m1fn_x2"]
        and found.absent["float4_e2m1fn_x2"].startswith("torch 2")
        and not found.rates
    )


@pytest.mark.parametrize("entry", ["measure", "compare", "machine", "roofline", "messages"])
def test_programs_of_measuring_load_no_framework(entry: str) -> None:
    script = (
        f"import sys, inlay.runtime.{entry}; print(sorted({{'torch', 'openvino', 'onnxruntime', 'onnx'}} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
