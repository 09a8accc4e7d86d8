"""Memory of a run of blocks, and its price by the best evidence there is."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "partitioner"))
from chain_world import WEIGHT, make_cluster, make_program, run_digest

from inlay.cost import Chain, Evidence, Links, Price, Prices, Refusal, region_memory
from inlay.graph import Block, Node, Program, Tensor
from inlay.hardware import Place
from inlay.specs.precision import Precision
from inlay.specs.profile import LinkProfile, Profile, ProfileKey, Roofline

PLACE = Place("cpu:0", "openvino")
ROW = 4 * 64


def one_block(nodes: list[Node], outputs: tuple[str, ...]) -> Chain:
    tensor = Tensor(dtype="float32", shape=("B", 64))
    program = Program(name="p", inputs={"x": tensor}, weights={}, nodes=tuple(nodes), outputs=outputs, digest="d")
    names = tuple(node.name for node in nodes)
    block = Block(index=0, name="b", digest="d", nodes=names, replicated=(), inputs=("x",), outputs=outputs, weights=())
    return Chain(program=program, blocks=(block,), points=({"B": 2}, {"B": 10}))


def step(name: str, *inputs: str, operator: str = "aten.relu.default", width: int = 64) -> Node:
    return Node(name=name, operator=operator, inputs=inputs, outputs=(Tensor(dtype="float32", shape=("B", width)),))


def test_what_is_live_is_freed_after_its_last_use_and_views_take_no_room() -> None:
    line = [step("a", "x"), step("b", "a"), step("c", "b"), step("d", "c")]
    assert region_memory(one_block(line, ("d",)), 0, 1) == 10 * ROW * 3  # the input, one that is read, one that is made
    fork = [step("a", "x"), step("b", "a"), step("c", "b"), step("d", "c", "a")]
    assert region_memory(one_block(fork, ("d",)), 0, 1) == 10 * ROW * 4
    seen = [step("a", "x"), step("v", "a", operator="aten.view.default"), step("b", "v", "a"), step("c", "b")]
    assert region_memory(one_block(seen, ("c",)), 0, 1) == 10 * ROW * 3
    shown = [step("a", "x"), step("v", "a", operator="aten.view.default"), step("b", "v"), step("c", "b")]
    assert region_memory(one_block(shown, ("v", "c")), 0, 1) == 10 * ROW * 4
    wide = [step("a", "x", width=640), step("b", "a")]
    assert region_memory(one_block(wide, ("b",)), 0, 1) == 10 * ROW * 12


def test_memory_is_weights_state_and_the_greater_of_live_and_measured() -> None:
    program, blocks = make_program(3, states={"cache": (1, 1)})
    chain = Chain(program=program, blocks=blocks, points=({"B": 1}, {"B": 8}))
    live, state = 2 * 8 * ROW, 2 * 8 * ROW
    assert region_memory(chain, 0, 1) == WEIGHT + live
    assert region_memory(chain, 1, 2) == WEIGHT + live + state
    assert region_memory(chain, 0, 1, measured=10**6) == WEIGHT + 10**6
    assert region_memory(chain, 0, 3) == 3 * WEIGHT + state + 3 * 8 * ROW


def test_a_weight_that_two_blocks_share_counts_once_in_one_region() -> None:
    program, blocks = make_program(2)
    tied = (blocks[0], msgspec.structs.replace(blocks[1], weights=blocks[0].weights))
    assert Chain(program=program, blocks=tied, points=({"B": 1},)).weight_bytes(0, 2) == WEIGHT


class World:
    """A chain of equal blocks at one place, with the evidence given."""

    def __init__(self, count: int = 4, **options: object) -> None:
        self.program, self.blocks = make_program(count, kinds=["same"] * count)
        self.chain = Chain(program=self.program, blocks=self.blocks, points=({"B": 1}, {"B": 8}))
        self.cluster = make_cluster({"cpu:0": None})
        self.profiles: dict[ProfileKey, Profile] = {}
        self.failures: dict[ProfileKey, str] = {}
        self.rooflines: dict[str, Roofline] = {}
        self.runs: set[tuple[int, int]] = set()
        self.links: list[LinkProfile] = []

    def prices(self) -> Prices:
        held = Evidence(profiles=self.profiles, failures=self.failures, rooflines=self.rooflines, runs=self.runs)
        return Prices(
            self.chain,
            cluster=self.cluster,
            links=Links(self.cluster, self.links),
            evidence=held,
            precision=Precision(),
            versions={"openvino": "1"},
        )

    def measure(self, first: int, end: int, seconds: float, *, fused: bool = True, memory: int = 0) -> None:
        self.runs.add((first, end))
        for key in self.prices().keys(first, end, PLACE, fused=fused):
            low, high = seconds * 0.9, seconds * 1.2
            self.profiles[key] = Profile(key=key, median=seconds, low=low, high=high, rounds=5, memory=memory)


def priced(answer: Price | Refusal) -> Price:
    assert isinstance(answer, Price), answer
    return answer


def test_a_measured_block_costs_the_sum_over_the_points_with_its_interval() -> None:
    world = World()
    world.measure(0, 1, 2.0, memory=10**6)
    price = priced(world.prices().block(3, PLACE))
    assert (price.seconds.value, price.seconds.low, price.seconds.high) == pytest.approx((4.0, 3.6, 4.8))
    assert price.seconds.grade == price.source == "measured"
    assert price.memory == WEIGHT + 10**6


def test_blocks_in_order_cost_their_sum_and_the_cuts_between_until_they_are_measured_so() -> None:
    world = World()
    world.links = [
        LinkProfile(source="cpu:0 x1", destination="cpu:0 x1", latency=0.5, bandwidth=1e9, grade="measured", way="within")
    ]
    world.measure(0, 1, 2.0)
    price = priced(world.prices().sequence(0, 4, PLACE))
    assert price.seconds.value == pytest.approx(4 * 4.0 + 3 * 2 * 0.5)
    assert price.seconds.grade == "calibrated" and price.source == "the sum of 4 blocks"
    world.measure(0, 4, 7.0, fused=False)
    measured = priced(world.prices().sequence(0, 4, PLACE))
    assert measured.seconds.value == 14.0 and measured.seconds.grade == "measured"
    assert priced(world.prices().sequence(0, 3, PLACE)).source == "the sum of 3 blocks"


def test_a_run_lowered_whole_is_interpolated_between_lengths_one_two_and_four() -> None:
    world = World(6)
    world.measure(0, 1, 2.0)
    assert isinstance(world.prices().fused(0, 6, PLACE), Refusal)
    world.measure(0, 2, 3.0)
    world.measure(0, 4, 5.0)
    price = priced(world.prices().fused(1, 6, PLACE))
    assert price.seconds.value == pytest.approx(2 * 6.0) and price.seconds.grade == "calibrated"
    world.measure(0, 6, 9.0)
    assert priced(world.prices().fused(0, 6, PLACE)).seconds.value == 18.0
    wider = priced(world.prices().fused(1, 6, PLACE)).seconds
    assert wider.high - wider.low > price.seconds.high - price.seconds.low


def test_a_failure_refuses_with_its_reason_and_one_missing_point_is_no_measurement() -> None:
    world = World()
    world.measure(0, 1, 2.0)
    keys = world.prices().keys(0, 1, PLACE, fused=True)
    del world.profiles[keys[1]]
    missing = world.prices().block(0, PLACE)
    assert isinstance(missing, Refusal) and "never measured at cpu:0/openvino" in missing.reason
    assert world.prices().unknown(keys) == (keys[1],)
    world.failures[keys[1]] = "no kernel"
    assert world.prices().unknown(keys) == ()
    for answer in (world.prices().block(0, PLACE), world.prices().sequence(0, 3, PLACE)):
        assert isinstance(answer, Refusal) and answer.reason == "no kernel"


def test_an_unmeasured_block_is_guessed_from_the_roofline_of_its_kind_of_device() -> None:
    world = World()
    world.rooflines["cpu:0 x1"] = Roofline(kind="cpu:0 x1", peaks={"float32": 1e9}, bandwidth=1e15, launch=0.0)
    price = priced(world.prices().block(0, PLACE))
    flops = 2 * 64 * 64 * 9
    assert price.seconds.value == pytest.approx(flops / 1e9 / 0.5)
    assert price.seconds.grade == "modelled" and price.source == "roofline only"
    world.rooflines["cpu:0 x1"] = Roofline(kind="cpu:0 x1", peaks={"int8": 1e9}, bandwidth=1e15)
    refused = world.prices().block(0, PLACE)
    assert isinstance(refused, Refusal) and "no peak for float32" in refused.reason


def test_keys_name_structure_sizes_backend_version_kind_and_threads() -> None:
    world = World()
    key = world.prices().keys(1, 3, PLACE, fused=False)[1]
    assert key.program == run_digest(world.program, world.blocks, 1, 3)
    assert key.sizes == (("B", 8),) and (key.backend, key.version, key.kind, key.threads) == ("openvino", "1", "cpu:0 x1", 1)
    assert not key.fused and world.prices().keys(1, 2, PLACE, fused=False)[0].fused


def test_equal_runs_are_alike_wherever_they_stand() -> None:
    world = World(5)
    assert world.chain.equal_stretches == ((0, 5),)
    assert world.chain.alike(0, 2) == ((0, 2), (1, 3), (2, 4), (3, 5))
    program, blocks = make_program(5, kinds=["a", "b", "b", "c", "b"])
    chain = Chain(program=program, blocks=blocks, points=({"B": 1},))
    assert chain.equal_stretches == ((1, 3),) and chain.alike(1, 2) == ((1, 2), (2, 3), (4, 5))
    assert chain.share(0, 5) == pytest.approx(1.0) and chain.share(1, 2) == pytest.approx(0.2)
