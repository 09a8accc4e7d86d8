"""What a search asks for, in which order, and what it makes of the answers."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from chain_world import Bench, make_cluster, make_program, offer, places, run_digest, search_through

from inlay.cost.links import STAGING
from inlay.errors import ClusterError, InputError, OutOfMemoryError, PartitionError, UnsupportedError
from inlay.hardware import Place
from inlay.partitioner import Search, best_plans, floor_plans, learn, new_search, parse_pin, propose, reprice
from inlay.partitioner.build import Offering, build
from inlay.specs.partition import Partition, PlannedRegion
from inlay.specs.profile import Failure, LinkProfile, Profile, Roofline, Wanted

POINT = {"B": 8}
CPU, NPU = Place("cpu:0", "openvino"), Place("npu:0", "onnxruntime")
SPLIT = {"openvino": [1.0, 1.0, 1.0, 9.0, 9.0, 9.0], "onnxruntime": [9.0, 9.0, 9.0, 1.0, 1.0, 1.0]}


def two_places(count: int = 6, *, memory: dict[str, int | None] | None = None, kinds=None, **options) -> Search:
    program, blocks = make_program(count, kinds=kinds)
    cluster = make_cluster(memory or {"cpu:0": None, "npu:0": None})
    offers = {place: offer(program, place.backend) for place in (CPU, NPU)}
    return new_search(program, blocks, cluster=cluster, points=[POINT], offers=offers, **options)


def spans(partition: Partition) -> list[tuple[int, int, str]]:
    return [(region.first, region.end, str(region.place)) for region in partition.regions]


def test_each_unique_block_is_asked_for_once_at_each_kind_of_place() -> None:
    program, blocks = make_program(5, kinds=["a", "b", "b", "b", "c"])
    cluster = make_cluster({"cpu:0": None, "cpu:1": None}, chips={"cpu:0": "xeon", "cpu:1": "xeon"})
    spots = places("cpu:0/openvino", "cpu:1/openvino", "cpu:1/onnxruntime")
    offers = {place: offer(program, place.backend) for place in spots}
    search = new_search(program, blocks, cluster=cluster, points=[{"B": 1}, {"B": 4}], offers=offers)
    wanted = propose(search)
    assert isinstance(wanted, Wanted) and wanted.stage == "blocks"
    keys = [key for item in wanted.measurements for key in item.keys]
    assert len(keys) == len(set(keys)) == 3 * 2 * 2
    assert [(item.first, str(item.place)) for item in wanted.measurements[:3]] == [
        (0, "cpu:0/openvino"),
        (1, "cpu:0/openvino"),
        (4, "cpu:0/openvino"),
    ]


def test_floors_are_asked_for_after_blocks_and_the_best_plans_regions_last() -> None:
    bench = Bench(SPLIT)
    search_through(two_places(), bench)
    assert bench.stages[:2] == ["blocks", "floors"]
    assert set(bench.stages[2:]) == {"regions"}


def test_each_framework_gets_the_blocks_it_is_faster_on() -> None:
    partition = search_through(two_places(), Bench(SPLIT))
    assert spans(partition) == [(0, 3, str(CPU)), (3, 6, str(NPU))]
    size = 4 * 64 * 8
    assert [(item.value, item.size, item.source, item.destination) for item in partition.transfers] == [
        ("mm_2", size, "r0", "r1")
    ]
    moved = 1e-4 + size / 1e9 + STAGING.seconds(size).value
    assert partition.value is not None and partition.value.value == pytest.approx(6 + moved)
    assert partition.bound == pytest.approx(6 + moved)
    assert partition.bound <= partition.value.value and partition.gap == pytest.approx(0)
    assert "beyond the noise" in partition.reason and "optimum" in partition.method
    assert [floor.seconds.value for floor in partition.floors if floor.seconds] == [30.0, 30.0]


def test_every_region_says_why_and_what_the_next_best_place_would_cost() -> None:
    first, _ = search_through(two_places(), Bench(SPLIT)).regions
    assert "fastest here with 3.00 s" in first.reason and "next best is npu:0/onnxruntime with 27.00 s" in first.reason
    assert [item.place for item in first.alternatives] == [str(NPU)]
    assert first.alternatives[0].seconds is not None and first.alternatives[0].seconds.value == pytest.approx(27, rel=1e-5)
    assert first.alternatives[0].seconds.grade == "calibrated"


def test_the_next_best_place_is_not_the_same_thing_on_an_equal_device() -> None:
    program, blocks = make_program(2)
    spots = places("cpu:0/openvino", "cpu:1/openvino", "cpu:1/onnxruntime")
    cluster = make_cluster({"cpu:0": None, "cpu:1": None}, chips={"cpu:0": "xeon", "cpu:1": "xeon"})
    search = new_search(program, blocks, cluster=cluster, points=[POINT], offers={p: offer(program, p.backend) for p in spots})
    region = search_through(search, Bench({"openvino": [1.0, 1.0], "onnxruntime": [2.0, 2.0]})).regions[0]
    assert region.device == "cpu:0" and "next best is cpu:1/onnxruntime with 4.00 s" in region.reason


def test_a_split_within_the_noise_of_a_single_place_goes_to_the_single_place() -> None:
    near = {"openvino": [1.0, 1.0, 1.0, 1.05, 1.05, 1.05], "onnxruntime": [1.05, 1.05, 1.05, 1.0, 1.0, 1.0]}
    search = two_places()
    partition = search_through(search, Bench(near, noise=0.04))
    assert spans(partition) == [(0, 6, str(CPU))]
    assert "ties go to one place" in partition.reason
    assert partition.value is not None and partition.bound < partition.value.value
    assert partition.gap > 0
    assert partition.unused == ("npu:0",)
    assert len(search_through(two_places(), Bench(near, noise=0.001)).regions) == 2


@pytest.mark.parametrize(("less", "regions"), [(0.5, 1), (1.5, 2)])
def test_a_split_that_saves_less_than_a_hundredth_is_a_tie_however_quiet_it_was(less, regions) -> None:
    small = {"openvino": [98.0, 2.0], "onnxruntime": [150.0, 2.0 - less]}
    partition = search_through(two_places(2), Bench(small, noise=1e-6))
    assert len(partition.regions) == regions
    assert ("within 1 % of the 100.00 s" in partition.reason) == (regions == 1)


def test_equal_places_are_a_tie_and_the_first_one_has_it() -> None:
    same = {"openvino": [1.0] * 4, "onnxruntime": [1.0] * 4}
    partition = search_through(two_places(4), Bench(same))
    assert spans(partition) == [(0, 4, str(CPU))]
    assert "takes all of it" in partition.reason


def test_what_both_plans_have_in_common_does_not_count_as_noise() -> None:
    shared = {"openvino": [50.0, 1.0, 1.0], "onnxruntime": [90.0, 0.5, 0.5]}
    search = two_places(3, repairs=0)
    partition = search_through(search, Bench(shared, noise=0.1, broken=WHOLE_BROKEN))
    assert spans(partition) == [(0, 1, str(CPU)), (1, 3, str(NPU))]


WHOLE_BROKEN = {(backend, 0, 3): "not whole" for backend in ("openvino", "onnxruntime")}


def test_a_failed_lowering_leads_to_another_plan_with_the_reason() -> None:
    good = search_through(two_places(), Bench(SPLIT))
    assert spans(good) == [(0, 3, str(CPU)), (3, 6, str(NPU))]
    broken = {("onnxruntime", 4, 5): "no kernel for that shape"}
    partition = search_through(two_places(), Bench(SPLIT, broken=broken))
    assert spans(partition) == [(0, 3, str(CPU)), (3, 4, str(NPU)), (4, 5, str(CPU)), (5, 6, str(NPU))]
    lone = partition.regions[2]
    assert "no kernel for that shape" in lone.reason and "no kernel for that shape" in lone.alternatives[0].reason
    floor = next(item for item in partition.floors if item.place == str(NPU))
    assert floor.seconds is None and "no kernel for that shape" in floor.reason


def test_a_region_that_fails_when_measured_is_cut_in_another_way() -> None:
    broken = {("onnxruntime", 3, 6): "out of memory while running"}
    partition = search_through(two_places(), Bench(SPLIT, broken=broken))
    assert (3, 6, str(NPU)) not in spans(partition)


def test_a_run_that_is_faster_lowered_whole_is_lowered_whole() -> None:
    partition = search_through(two_places(), Bench(SPLIT, saved={"onnxruntime": 0.5}))
    assert [region.fused for region in partition.regions] == [False, True]
    assert partition.regions[1].seconds is not None and partition.regions[1].seconds.value == pytest.approx(2.0)
    assert partition.regions[1].seconds.grade == "measured"


def test_fused_lengths_between_measured_ones_are_interpolated() -> None:
    seconds = {"openvino": [1.0] * 12, "onnxruntime": [1.0] * 12}
    room = 9 * 2**14 + 2**13
    search = two_places(12, kinds=["same"] * 12, memory={"cpu:0": room, "npu:0": None}, repairs=0)
    bench = Bench(seconds, saved={"openvino": 0.75, "onnxruntime": 0.5}, noise=0.01)
    partition = search_through(search, bench)
    assert {len(key.program) for key in bench.asked} == {64}
    assert len({key.program for key in bench.asked}) == 4  # lengths 1, 2, 4 and 12
    first = partition.regions[0]
    assert spans(partition)[0][2] == str(CPU) and first.fused
    assert "interpolated from fused runs of 1, 2, 4 equal blocks" in first.reason
    assert first.seconds is not None and first.seconds.grade == "calibrated"
    assert first.seconds.low < first.seconds.value < first.seconds.high
    assert first.seconds.value == pytest.approx(0.75 + 0.25 * first.end)


@pytest.mark.parametrize(("noise", "regions"), [(0.15, 1), (0.001, 2)])
def test_one_place_is_one_region_unless_several_are_faster_beyond_the_noise(noise: float, regions: int) -> None:
    program, blocks = make_program(4)
    offers = {CPU: offer(program, "openvino")}
    search = new_search(program, blocks, cluster=make_cluster({"cpu:0": None}), points=[POINT], offers=offers)
    bench = Bench({"openvino": [1.0] * 4}, noise=noise, broken={("openvino", 0, 4): "not whole"})
    search.consider(0, 3)
    for key in search.prices().keys(0, 3, CPU, fused=True):
        low, high = 2.6 * (1 - noise), 2.6 * (1 + noise)
        learn(search, [Profile(key=key, median=2.6, low=low, high=high, rounds=9)])
    whole = search.prices().keys(0, 4, CPU, fused=False)
    learn(search, [Profile(key=key, median=4.0, low=4 * (1 - noise), high=4 * (1 + noise), rounds=9) for key in whole])
    floor = search_through(search, bench)
    assert len(floor.regions) == regions


def test_what_a_backend_refuses_or_keeps_together_is_not_overruled_by_a_guess() -> None:
    program, blocks = make_program(4)
    cluster = make_cluster({"cpu:0": None, "npu:0": None})
    guess = Roofline(kind="npu:0 x1", peaks={"float32": 1e15}, bandwidth=1e15, launch=0.0)
    for answer in (
        offer(program, "onnxruntime", refused={"mm_2": "unknown operator"}),
        offer(program, "onnxruntime", group=["mm_2", "mm_3"]),
    ):
        search = new_search(
            program,
            blocks,
            cluster=cluster,
            points=[POINT],
            offers={CPU: offer(program, "openvino"), NPU: answer},
            rooflines=[guess],
            measurable=["cpu:0"],
        )
        partition = search_through(search, Bench({"openvino": [1.0] * 4}))
        owner = next(region for region in partition.regions if region.first <= 2 < region.end)
        assert owner.place == CPU and partition.regions[0].place == NPU


def test_what_is_summed_up_quickly_is_what_the_prices_say() -> None:
    within = LinkProfile(source="cpu:0 x1", destination="cpu:0 x1", latency=0.5, bandwidth=1e9, grade="measured", way="within")
    search = two_places(links=[within])
    search_through(search, Bench(SPLIT))
    offering = Offering(search)
    problem = build(offering)
    steps = [step for held in problem.steps for step in held]
    assert len(steps) > 42
    for step in steps:
        ways = dict(offering.options(step.first, step.end, problem.places[step.place]))
        assert step.seconds == pytest.approx(ways[step.fused].seconds.value) and step.memory == ways[step.fused].memory


@pytest.mark.parametrize("repairs", [0, 1, 2])
def test_surprises_are_followed_only_so_often(repairs: int) -> None:
    class Surprising(Bench):
        def answer(self, wanted: Wanted) -> tuple[list[Profile], list[Failure]]:
            profiles, failures = super().answer(wanted)
            slower = [msgspec.structs.replace(item, median=item.median + 5, high=item.high + 5) for item in profiles]
            return (profiles if wanted.stage == "blocks" else slower), failures

    bench = Surprising(SPLIT)
    search_through(two_places(repairs=repairs), bench)
    assert bench.stages.count("regions") == repairs


def test_a_run_that_is_looked_for_is_looked_for_wherever_it_stands() -> None:
    search = two_places(5, kinds=["a", "b", "b", "b", "c"])
    search.consider(1, 3)
    assert search.runs == {(0, 5), (1, 3), (2, 4)}


def test_unanswered_measurements_are_failures_and_are_not_asked_for_again() -> None:
    search = two_places(2)
    first = propose(search)
    assert isinstance(first, Wanted)
    profiles, _ = Bench({"openvino": [1.0, 1.0], "onnxruntime": [1.0, 1.0]}).answer(first)
    learn(search, [profile for profile in profiles if profile.key.backend == "openvino"])
    partition = search_through(search, Bench({"openvino": [1.0, 1.0], "onnxruntime": [1.0, 1.0]}))
    assert spans(partition) == [(0, 2, str(CPU))]
    assert "no answer came" in partition.floors[1].reason


def test_kept_profiles_are_not_measured_again() -> None:
    first = two_places()
    search_through(first, Bench(SPLIT))
    second = two_places(profiles=first.profiles)
    answer = propose(second)
    assert isinstance(answer, Partition)
    assert spans(answer) == [(0, 3, str(CPU)), (3, 6, str(NPU))]


def test_devices_that_cannot_be_timed_here_are_priced_by_their_roofline() -> None:
    roofline = Roofline(kind="npu:0 x1", peaks={"float32": 1e12}, bandwidth=1e12, launch=1e-6)
    search = two_places(measurable=["cpu:0"], rooflines=[roofline])
    bench = Bench({"openvino": [1.0] * 6})
    partition = search_through(search, bench)
    assert {key.backend for key in bench.asked} == {"openvino"}
    assert spans(partition) == [(0, 6, str(NPU))]
    assert partition.value is not None and partition.value.grade == "modelled"
    assert partition.value.low < partition.value.value < partition.value.high
    without = search_through(two_places(measurable=["cpu:0"]), bench2 := Bench({"openvino": [1.0] * 6}))
    assert spans(without) == [(0, 6, str(CPU))] and bench2.asked
    assert "no roofline" in without.floors[1].reason


def test_pins_are_obeyed_and_named() -> None:
    pin = parse_pin(r"layers\.[45]\.=cpu:0/openvino")
    partition = search_through(two_places(pins=[pin]), Bench(SPLIT))
    assert spans(partition)[-1] == (4, 6, str(CPU))
    assert "pinned here by" in partition.regions[-1].reason
    assert "forbids it" in partition.regions[-1].alternatives[0].reason
    assert partition.pins == (r"layers\.[45]\.=cpu:0/openvino",)
    floors = {floor.place: floor for floor in partition.floors}
    assert "forbids it" in floors[str(NPU)].reason and floors[str(NPU)].seconds is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers", "expected REGEX=DEVICE/BACKEND"),
        ("=cpu:0/openvino", "expected REGEX=DEVICE/BACKEND"),
        ("lay(=cpu:0/openvino", "no valid pattern"),
        ("layers=cpu0", "expected DEVICE/BACKEND"),
    ],
)
def test_a_pin_that_is_spelled_wrong_is_refused(text: str, message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        parse_pin(text)


def test_a_pin_to_nowhere_one_that_matches_nothing_and_two_that_disagree_are_refused_by_name() -> None:
    with pytest.raises(PartitionError, match=r"names gpu:0/tensorrt, expected one of cpu:0/openvino, npu:0/onnxruntime"):
        two_places(pins=[parse_pin("layers=gpu:0/tensorrt")])
    with pytest.raises(PartitionError, match=r"'decoder=cpu:0/openvino' matches no block, .* layers\.0"):
        two_places(pins=[parse_pin("decoder=cpu:0/openvino")])
    with pytest.raises(PartitionError, match=r"block 'layers\.1' is pinned to cpu:0/openvino by .* and to npu:0/onnxruntime"):
        two_places(pins=[parse_pin("layers=cpu:0/openvino"), parse_pin(r"layers\.1=npu:0/onnxruntime")])


def test_a_pin_to_a_place_that_refuses_the_block_says_both() -> None:
    program, blocks = make_program(3)
    offers = {CPU: offer(program, "openvino", refused={"mm_1": "too wide"}), NPU: offer(program, "onnxruntime")}
    cluster = make_cluster({"cpu:0": None, "npu:0": None})
    pins = [parse_pin(r"layers\.1=cpu:0/openvino")]
    search = new_search(program, blocks, cluster=cluster, points=[POINT], offers=offers, pins=pins)
    with pytest.raises(UnsupportedError, match=r"block 'layers\.1' can run nowhere where .* pins it: .*too wide"):
        search_through(search, Bench({"openvino": [1.0] * 3, "onnxruntime": [1.0] * 3}))


def test_an_operator_that_one_backend_refuses_goes_to_the_other_and_the_reason_is_told() -> None:
    program, blocks = make_program(4)
    offers = {CPU: offer(program, "openvino", refused={"mm_2": "unknown operator"}), NPU: offer(program, "onnxruntime")}
    cluster = make_cluster({"cpu:0": None, "npu:0": None})
    search = new_search(program, blocks, cluster=cluster, points=[POINT], offers=offers)
    partition = search_through(search, Bench({"openvino": [1.0] * 4, "onnxruntime": [5.0] * 4}))
    assert spans(partition) == [(0, 2, str(CPU)), (2, 3, str(NPU)), (3, 4, str(CPU))]
    assert "unknown operator" in partition.regions[1].reason
    assert "unknown operator" in partition.floors[0].reason


def test_a_block_that_no_place_takes_is_an_error_with_every_reason() -> None:
    program, blocks = make_program(2)
    offers = {
        CPU: offer(program, "openvino", refused={"mm_1": "one reason"}),
        NPU: offer(program, "onnxruntime", refused={"mm_1": "another"}),
    }
    cluster = make_cluster({"cpu:0": None, "npu:0": None})
    search = new_search(program, blocks, cluster=cluster, points=[POINT], offers=offers)
    with pytest.raises(UnsupportedError, match=r"layers\.1.*one reason.*another"):
        search_through(search, Bench({"openvino": [1.0] * 2, "onnxruntime": [1.0] * 2}))


def test_memory_that_no_device_has_alone_is_had_by_two() -> None:
    per_block = 4 * 64 * 64 + 2 * 4 * 64 * 8
    search = two_places(memory={"cpu:0": 4 * per_block, "npu:0": 4 * per_block})
    partition = search_through(search, Bench({"openvino": [1.0] * 6, "onnxruntime": [2.0] * 6}))
    assert spans(partition) == [(0, 4, str(CPU)), (4, 6, str(NPU))]
    assert all("it needs" in floor.reason for floor in partition.floors)
    assert "it needs" in partition.regions[1].alternatives[0].reason
    with pytest.raises(OutOfMemoryError, match="no cut of 'chain' fits"):
        search_through(
            two_places(memory={"cpu:0": 2 * per_block, "npu:0": 2 * per_block}),
            Bench({"openvino": [1.0] * 6, "onnxruntime": [2.0] * 6}),
        )


def test_an_atomic_group_across_blocks_is_lowered_whole_or_goes_elsewhere() -> None:
    program, blocks = make_program(4)
    offers = {CPU: offer(program, "openvino", group=["mm_1", "mm_2"]), NPU: offer(program, "onnxruntime")}
    cluster = make_cluster({"cpu:0": None, "npu:0": None})
    search = new_search(program, blocks, cluster=cluster, points=[POINT], offers=offers)
    bench = Bench({"openvino": [1.0] * 4, "onnxruntime": [5.0] * 4})
    partition = search_through(search, bench)
    assert spans(partition) == [(0, 4, str(CPU))] and partition.regions[0].fused
    asked = [key for key in bench.asked if key.backend == "openvino" and not key.fused]
    assert asked == []


def test_a_state_is_never_cut_in_two() -> None:
    program, blocks = make_program(6, states={"memory": (2, 4)})
    offers = {place: offer(program, place.backend) for place in (CPU, NPU)}
    cluster = make_cluster({"cpu:0": None, "npu:0": None})
    search = new_search(program, blocks, cluster=cluster, points=[POINT], offers=offers)
    partition = search_through(search, Bench(SPLIT))
    assert spans(partition) == [(0, 2, str(CPU)), (2, 6, str(NPU))]
    assert partition.states == {"memory": "r1"}


def test_the_best_plans_are_in_order_differ_in_places_and_include_the_answer() -> None:
    search = two_places()
    answer = search_through(search, Bench(SPLIT))
    plans = best_plans(search, 5)
    seconds = [plan.value.value for plan in plans if plan.value]
    assert seconds == pytest.approx(sorted(seconds)) and len(plans) == 5
    assert len({tuple(spans(plan)) for plan in plans}) == 5
    assert spans(plans[0]) == spans(answer)
    assert [spans(plan) for plan in floor_plans(search)] == [[(0, 6, str(CPU))], [(0, 6, str(NPU))]]


def test_an_edited_partition_is_priced_as_it_is() -> None:
    search = two_places()
    answer = search_through(search, Bench(SPLIT))
    regions = (
        PlannedRegion(id="front", first=0, end=2, device="cpu:0", backend="openvino"),
        PlannedRegion(id="rest", first=2, end=6, device="npu:0", backend="onnxruntime"),
    )
    edited = reprice(
        search, Partition(program=answer.program, name="x", blocks=(), points=(POINT,), cluster=answer.cluster, regions=regions)
    )
    assert [region.id for region in edited.regions] == ["front", "rest"]
    assert edited.value is not None and edited.value.value == pytest.approx(
        2 + 12 + 1e-4 + 2048 / 1e9 + STAGING.seconds(2048).value
    )
    assert "edited by hand" in edited.reason and edited.gap > 0.5
    elsewhere = [PlannedRegion(id="r0", first=0, end=6, device="gpu:0", backend="tensorrt")]
    with pytest.raises(PartitionError, match="gpu:0/tensorrt, expected one of"):
        reprice(
            search,
            Partition(program="", name="x", blocks=(), points=(POINT,), cluster=answer.cluster, regions=tuple(elsewhere)),
        )


def test_a_measured_link_is_believed_before_the_cluster_file() -> None:
    slow = LinkProfile(source="cpu:0 x1", destination="npu:0 x1", latency=100.0, bandwidth=1e9, grade="measured")
    partition = search_through(two_places(links=[slow]), Bench(SPLIT))
    assert len(partition.regions) == 1


def test_one_device_with_two_frameworks_pays_for_handovers_only() -> None:
    program, blocks = make_program(6)
    spots = places("cpu:0/onnxruntime", "cpu:0/openvino")
    cluster = make_cluster({"cpu:0": None})
    search = new_search(program, blocks, cluster=cluster, points=[POINT], offers={p: offer(program, p.backend) for p in spots})
    partition = search_through(search, Bench(SPLIT))
    assert len(partition.regions) == 2 and partition.transfers == ()
    assert partition.handovers is not None and partition.handovers.grade == "modelled"
    assert partition.value is not None
    parts = sum(region.seconds.value for region in partition.regions if region.seconds) + partition.handovers.value
    assert partition.value.value == pytest.approx(parts)


def test_what_cannot_be_is_refused_at_the_start() -> None:
    program, blocks = make_program(2)
    cluster = make_cluster({"cpu:0": None})
    offers = {CPU: offer(program, "openvino")}
    with pytest.raises(PartitionError, match="B = 100, expected a size from 1 to 64"):
        new_search(program, blocks, cluster=cluster, points=[{"B": 100}], offers=offers)
    with pytest.raises(PartitionError, match="no point"):
        new_search(program, blocks, cluster=cluster, points=[], offers=offers)
    with pytest.raises(PartitionError, match="no place"):
        new_search(program, blocks, cluster=cluster, points=[POINT], offers={})
    with pytest.raises(PartitionError, match="no blocks"):
        new_search(program, (), cluster=cluster, points=[POINT], offers=offers)
    with pytest.raises(ClusterError, match="npu:0"):
        new_search(program, blocks, cluster=cluster, points=[POINT], offers={NPU: offer(program, "onnxruntime")})
    with pytest.raises(InputError, match=r"block 'layers\.1' has index 1, expected 0"):
        new_search(program, (blocks[1], blocks[0]), cluster=cluster, points=[POINT], offers=offers)
    strange = msgspec.structs.replace(blocks[1], inputs=("mm_7",))
    with pytest.raises(InputError, match=r"reads 'mm_7', which no block before it makes"):
        new_search(program, (blocks[0], strange), cluster=cluster, points=[POINT], offers=offers)
    early = msgspec.structs.replace(blocks[0], inputs=("mm_1",))
    with pytest.raises(InputError, match=r"reads 'mm_1', which no block before it makes"):
        new_search(program, (early, blocks[1]), cluster=cluster, points=[POINT], offers=offers)


def test_a_late_profile_clears_an_earlier_failure() -> None:
    search = two_places(1)
    wanted = propose(search)
    assert isinstance(wanted, Wanted)
    profiles, _ = Bench({"openvino": [1.0], "onnxruntime": [2.0]}).answer(wanted)
    learn(search, [], [Failure(key=profiles[0].key, reason="busy")])
    learn(search, profiles)
    answer = propose(search)
    assert isinstance(answer, Partition) and spans(answer) == [(0, 1, str(CPU))]


CLOSE_RACE = {"openvino": [1.0, 1.0, 1.0, 1.2, 1.2, 1.2], "onnxruntime": [1.2, 1.2, 1.2, 1.0, 1.0, 1.0]}


@pytest.mark.parametrize(("bias", "regions", "said"), [(1.0, 2, "in turn it took 0.909"), (1.1, 1, "ties go to one place")])
def test_a_close_race_is_decided_by_running_both_in_turn(bias: float, regions: int, said: str) -> None:
    bench = Bench(CLOSE_RACE, noise=0.01, bias=bias)
    partition = search_through(two_places(), bench)
    assert len(bench.trials) == 1, "the same two plans are run in turn once"
    assert len(bench.trials[0].plan.regions) == 2 and len(bench.trials[0].rival.regions) == 1
    assert len(partition.regions) == regions and said in partition.reason and "measured" in partition.reason


def test_a_trial_that_cannot_be_run_leaves_one_place() -> None:
    partition = search_through(two_places(), Bench(CLOSE_RACE, noise=0.01, bias=None))
    assert len(partition.regions) == 1 and "could not be run in turn" in partition.reason


def test_no_trial_where_the_race_is_not_close_or_a_device_is_not_here() -> None:
    bench = Bench(SPLIT)
    search_through(two_places(), bench)
    assert bench.trials == []
    known = Bench(CLOSE_RACE, noise=0.01)
    first = two_places()
    search_through(first, known)
    absent = Bench(CLOSE_RACE, noise=0.01)
    partition = search_through(two_places(profiles=first.profiles, measurable=["cpu:0"]), absent)
    assert absent.trials == [] and len(partition.regions) == 2 and "beyond the noise" in partition.reason


class WorseWhole(Bench):
    """All of it in one process takes longer than its parts did apart, by a share."""

    def __init__(self, share: float) -> None:
        super().__init__({"openvino": [1.0] * 8, "onnxruntime": [9.0] * 8}, noise=1e-4, saved={"openvino": 0.1})
        self.share = share

    def answer(self, wanted: Wanted) -> tuple[list[Profile], list[Failure]]:
        profiles, failures = super().answer(wanted)
        whole = {key for item in wanted.measurements if (item.first, item.end) == (0, 8) for key in item.keys}
        more = 1 + self.share
        return [
            msgspec.structs.replace(item, median=item.median * more, low=item.low * more, high=item.high * more)
            if item.key in whole
            else item
            for item in profiles
        ], failures


@pytest.mark.parametrize(("share", "several"), [(0.03, False), (0.2, True)])
def test_at_one_place_several_regions_are_taken_only_where_they_are_clearly_faster(share: float, several: bool) -> None:
    partition = search_through(two_places(8, kinds=["layer"] * 8), WorseWhole(share))
    assert {str(region.place) for region in partition.regions} == {str(CPU)}
    assert (len(partition.regions) > 1) == several


def test_longer_fused_runs_are_looked_at_only_where_pairs_pay() -> None:
    kinds = ["layer"] * 8
    for saved, looked_at in ((0.0, False), (0.3, True)):
        bench = Bench({"openvino": [1.0] * 8, "onnxruntime": [1.01] * 8}, saved={"onnxruntime": saved})
        search_through(two_places(8, kinds=kinds), bench)
        program, blocks = make_program(8, kinds=kinds)
        asked = {key.program for key in bench.asked if key.backend == "onnxruntime" and key.fused}
        assert (run_digest(program, blocks, 0, 4) in asked) == looked_at


def test_of_plans_that_are_a_tie_the_one_with_fewer_places_is_taken() -> None:
    program, blocks = make_program(4)
    spots = places("cpu:0/inductor", "cpu:0/openvino", "npu:0/onnxruntime")
    cluster = make_cluster({"cpu:0": None, "npu:0": None})
    pins = [parse_pin("layers.[23].*=npu:0/onnxruntime")]
    for first, taken in ((0.999, 2), (0.9, 3)):
        search = new_search(
            program, blocks, cluster=cluster, points=[POINT], offers={p: offer(program, p.backend) for p in spots}, pins=pins
        )
        times = {"inductor": [first, 2.0, 9.0, 9.0], "openvino": [1.0] * 4, "onnxruntime": [9.0, 9.0, 1.0, 1.0]}
        partition = search_through(search, Bench(times, noise=1e-4))
        assert len(partition.regions) == taken
        assert partition.value is not None and partition.bound <= partition.value.value
