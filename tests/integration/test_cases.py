"""The four shipped cases, with small models: searched by measured costs, built, run and verified; and how they are judged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inlay import api
from inlay.api import programs
from inlay.api.programs import device_options, search_partition
from inlay.backends import backend
from inlay.cost import ProfileStore
from inlay.errors import InputError, OutOfMemoryError, PartitionError
from inlay.hardware import Cluster, load_cluster
from inlay.partitioner import Search, best_plans, floor_plans
from inlay.runtime import Cache
from inlay.runtime.assemble import compile_partition
from inlay.runtime.compare import compare
from inlay.runtime.judged import build_candidate
from inlay.runtime.obtain import obtain
from inlay.runtime.store import read_program
from inlay.specs.partition import Partition, PlannedRegion, dump_partition
from inlay.specs.profile import Failure, Profile, Wanted
from inlay.specs.verification import Verification
from inlay.units import Bytes

pytestmark = pytest.mark.alone

CASES = Path(__file__).parents[2] / "examples" / "cases"
TWO = ("openvino", "onnxruntime")
HOMES = {"look.": "openvino", "read.": "onnxruntime"}
"""What suits the blocks whose names start so, in the case of two specialists."""


@pytest.fixture(scope="module", autouse=True)
def frameworks() -> None:
    for name in TWO:
        found = backend(name).available()
        if not found.available:
            pytest.skip(found.reason)


@cache
def captured(name: str) -> api.CapturedModel:
    """A shipped case with its small model; of the decoder, one whose memory is nearly all weights of its layers."""
    return api.capture_file(f"{CASES / name}.py:build_{'medium' if name == 'decoder' else 'small'}")


def searched(name: str, cluster: Cluster | str = "local", backends: Sequence[str] = TWO) -> tuple[Partition, Search]:
    return search_partition(captured(name), cluster=cluster, backends=backends, rounds=3)


def cluster(name: str, *, memory: int | None = None) -> Cluster:
    """A shipped cluster; with `memory` in place of what its devices state, since the model is smaller too."""
    found = load_cluster(CASES / f"{name}.yaml")
    if memory is None:
        return found
    devices = {key: msgspec.structs.replace(item, memory=Bytes(memory)) for key, item in found.devices.items()}
    return msgspec.structs.replace(found, devices=devices)


def without_limit(name: str) -> Cluster:
    found = cluster(name)
    devices = {key: msgspec.structs.replace(item, memory=None) for key, item in found.devices.items()}
    return msgspec.structs.replace(found, devices=devices)


def proven(name: str, plan: Partition, where: Cluster | str, folder: Path) -> tuple[Verification, dict[str, int]]:
    """Build it, verify it, run it once; what went between devices in that run."""
    api.compile(captured(name), folder, plan=plan, cluster=where)
    with api.load(folder, cluster=where) as opened:
        found = opened.verify(seed=5, points=plan.points)
        outcome = opened.session.run(opened.random_inputs(plan.points[0]))
    assert found.passed and 0 < max(region.relative_error for region in found.regions) < 1e-4
    return found, outcome.moved


def test_case_one_a_single_place_takes_all_and_ties_go_to_it(tmp_path) -> None:
    plan, search = searched("single")
    assert len({region.place for region in plan.regions}) == 1, plan.reason
    assert "ties go to one place" in plan.reason or "takes all of it" in plan.reason
    assert len(plan.unused) == len(plan.cluster.devices) - 1
    assert any(len({region.place for region in other.regions}) > 1 for other in best_plans(search, 5))
    proven("single", plan, "local", tmp_path / "build")


def test_case_two_a_model_that_fits_neither_device_is_split_and_moves_what_the_plan_says(tmp_path) -> None:
    _, free = searched("decoder", without_limit("memory"))
    least = min(sum(region.memory for region in floor.regions) for floor in floor_plans(free))
    limited = cluster("memory", memory=int(0.7 * least))
    plan, _ = searched("decoder", limited)
    assert {region.device for region in plan.regions} == {"cpu:0", "cpu:1"} and plan.transfers
    assert all(item.seconds is None and "which has" in item.reason for item in plan.floors), plan.floors
    for name, device in limited.devices.items():
        assert sum(region.memory for region in plan.regions if region.device == name) <= (device.memory or 0)
    _, moved = proven("decoder", plan, limited, tmp_path / "build")
    planned: dict[str, int] = {}
    for transfer in plan.transfers:
        planned[transfer.value] = planned.get(transfer.value, 0) + transfer.size
    assert moved == planned


@pytest.mark.thorough
def test_case_two_with_a_device_that_enforces_its_memory(tmp_path) -> None:
    free = without_limit("memory-contrary")
    whole, _ = searched("decoder", free, ("openvino", "contrary"))
    limited = cluster("memory-contrary", memory=int(0.7 * sum(region.memory for region in whole.regions)))
    plan, _ = searched("decoder", limited, ("openvino", "contrary"))
    assert {str(region.place) for region in plan.regions} == {"cpu:0/openvino", "cpu:1/contrary"}
    proven("decoder", plan, limited, tmp_path / "build")

    everything = PlannedRegion(id="r0", first=0, end=len(plan.blocks), device="cpu:1", backend="contrary")
    overfull = msgspec.structs.replace(plan, regions=(everything,), transfers=())
    small = cluster("memory-contrary", memory=8 << 20)
    with pytest.raises(PartitionError, match=r"region r0 need .* but cpu:1 has 8.0 MiB"):
        api.compile(captured("decoder"), tmp_path / "refused", plan=overfull, cluster=small)
    compile_partition(  # past the check: the device itself must refuse
        overfull,
        captured("decoder").folder,
        tmp_path / "overfull",
        partition_text=dump_partition(overfull).encode(),
        cache=Cache.default(),
        options=device_options(small),
    )
    with pytest.raises(OutOfMemoryError, match="cpu:1"):
        api.load(tmp_path / "overfull", cluster=small)


def test_case_three_two_devices_because_each_framework_refuses_an_operator_which_the_plan_names(tmp_path) -> None:
    where = cluster("unsupported")
    plan, _ = searched("unsupported", where, ())
    assert {str(region.place) for region in plan.regions} == {"cpu:0/onnxruntime", "cpu:1/openvino"}
    reasons = {item.place: item.reason for item in plan.floors}
    assert all(item.seconds is None for item in plan.floors)
    assert "aten.scatter_reduce" in reasons["cpu:1/openvino"] and "aten.adaptive_max_pool2d" in reasons["cpu:0/onnxruntime"]
    first, last = plan.regions[0], plan.regions[-1]
    assert first.backend == "onnxruntime" and "aten.scatter_reduce" in first.reason
    assert last.backend == "openvino" and "aten.adaptive_max_pool2d" in last.reason
    assert "aten.scatter_reduce" in api.explain_plan(plan)
    proven("unsupported", plan, where, tmp_path / "build")


class Planted:
    """What is measured, with times in place of the clock's: a block takes ten times as long where it is not at home.

    Which framework is faster on this machine is what `benchmarks/` tells; here the plan has to follow the times it is given.
    """

    def __init__(self, names: Sequence[str], kept: Path) -> None:
        self.names, self.kept = names, kept

    def seconds(self, first: int, end: int, backend_name: str) -> float:
        homes = [next((home for start, home in HOMES.items() if name.startswith(start)), "") for name in self.names]
        return sum(1e-3 if home in ("", backend_name) else 1e-2 for home in homes[first:end])

    def obtain(self, wanted: Wanted, *args: Any, **options: Any) -> tuple[list[Profile], list[Failure]]:
        found, failures = obtain(wanted, *args, **options)
        taken = {key: self.seconds(item.first, item.end, item.backend) for item in wanted.measurements for key in item.keys}
        times = {key: {"median": value, "low": 0.99 * value, "high": 1.01 * value} for key, value in taken.items()}
        return [msgspec.structs.replace(profile, **times[profile.key]) for profile in found], failures

    def store(self, folder: Path) -> ProfileStore:
        return ProfileStore(self.kept)


def test_case_four_each_framework_takes_the_blocks_it_is_faster_at(tmp_path, monkeypatch) -> None:
    planted = Planted([block.name for block in read_program(captured("specialists").folder).cut.blocks], tmp_path / "profiles")
    monkeypatch.setattr(programs, "obtain", planted.obtain)
    monkeypatch.setattr(programs, "ProfileStore", planted.store)
    plan, _ = searched("specialists")
    assert {region.device for region in plan.regions} == {plan.regions[0].device}
    owner = {plan.blocks[at].name: region.backend for region in plan.regions for at in range(region.first, region.end)}
    assert {owner[name] for name in owner if name.startswith("look.")} == {"openvino"}
    assert {owner[name] for name in owner if name.startswith("read.")} == {"onnxruntime"}
    assert plan.value is not None
    assert all(plan.value.high < item.seconds.low for item in plan.floors if item.seconds is not None)
    proven("specialists", plan, "local", tmp_path / "build")


def test_a_build_is_judged_in_processes_of_its_own_served_or_inside_one(tmp_path) -> None:
    plan, _ = searched("single")
    api.compile(captured("single"), tmp_path / "build", plan=plan)
    where = plan.cluster
    candidates = [
        build_candidate("served", tmp_path / "build", cluster=where),
        build_candidate("inside", tmp_path / "build", cluster=where, inside=True),
        build_candidate("twice", tmp_path / "build", cluster=where, inside=True, passes=20),
        build_candidate("wrong size", tmp_path / "build", cluster=where, inside=True, points=({"batch": 2, "length": 999},)),
    ]
    found = compare(candidates, rounds=6)
    assert found.samples.keys() == {"served", "inside", "twice"}
    assert "999" in found.failures["wrong size"]
    assert min(found.samples["twice"]) > 5 * min(found.samples["inside"])
    assert min(found.samples["served"]) > min(found.samples["inside"])


def test_a_build_of_two_devices_does_not_run_inside_one_process(tmp_path) -> None:
    where = cluster("unsupported")
    plan, _ = searched("unsupported", where, ())
    api.compile(captured("unsupported"), tmp_path / "build", plan=plan, cluster=where)
    with pytest.raises(InputError, match=r"has processes \['cpu:0', 'cpu:1'\], expected one"):
        build_candidate("inside", tmp_path / "build", cluster=where, inside=True)
