"""A stream of inputs through a cut program: every result is its own, in order, none taken too early, failures told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from compiling import build, captured, halves, two_devices

from inlay import api
from inlay.errors import InlayError, InputError

ONE, TWO = ("cpu:0", "cpu:0"), ("cpu:0", "cpu:1")
RAGGED = [(1, 5), (8, 64), (2, 6), (3, 31), (1, 1), (8, 2)]


def inputs(opened: api.Opened, count: int, *, ragged: bool = True) -> list[dict[str, Any]]:
    sizes = [RAGGED[number % len(RAGGED)] if ragged else RAGGED[2] for number in range(count)]
    return [
        opened.random_inputs({"batch": batch, "length": length}, seed=number) for number, (batch, length) in enumerate(sizes)
    ]


@pytest.mark.parametrize(("one", "two", "devices"), [("openvino", "onnxruntime", TWO), ("onnxruntime", "openvino", ONE)])
def test_a_stream_of_ragged_inputs_gives_what_single_runs_give_in_order(one, two, devices, tmp_path) -> None:
    model = captured("encoder")
    target = build(model, tmp_path / "build", halves(model, one, two, devices=devices))
    with api.load(target, cluster=two_devices()) as opened:
        given = inputs(opened, 14)
        alone = [opened.run(item) for item in given]
        for depth in (1, 2, None, 50):
            together = list(opened.stream(iter(given), depth=depth))
            assert len(together) == len(alone)
            for mine, other in zip(together, alone, strict=True):
                assert list(mine) == list(other)
                for name in mine:
                    np.testing.assert_array_equal(mine[name], other[name])


def test_a_stream_through_a_device_with_its_own_memory_and_fixed_sizes(tmp_path) -> None:
    model = captured("stateful")
    target = build(model, tmp_path / "build", halves(model, "openvino", "contrary", devices=TWO))
    rows = [np.random.default_rng(number).standard_normal((3, 8)).astype(np.float32) for number in range(9)]
    with api.load(target, cluster=two_devices()) as opened:
        alone = [opened.run({"x": item})["output"] for item in rows]
    with api.load(target, cluster=two_devices()) as opened:  # states begin anew
        together = [item["output"] for item in opened.stream({"x": item} for item in rows)]
    for mine, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_no_more_inputs_are_taken_than_may_be_under_way_and_arrays_may_be_used_again(tmp_path) -> None:
    model = captured("encoder")
    target = build(model, tmp_path / "build", halves(model, "openvino", "onnxruntime", devices=TWO))
    with api.load(target, cluster=two_devices()) as opened:
        (first,) = inputs(opened, 1)
        wanted = [opened.run({name: np.roll(array, turn, axis=-1) for name, array in first.items()}) for turn in range(6)]
        taken = 0

        def rolled() -> Iterator[dict[str, Any]]:
            nonlocal taken
            held = {name: array.copy() for name, array in first.items()}
            for turn in range(6):
                taken += 1
                for name, array in held.items():  # one array for all sets
                    array[...] = np.roll(first[name], turn, axis=-1)
                yield held

        stream = opened.stream(rolled(), depth=2)
        for number, result in enumerate(stream):
            assert taken <= number + 3
            for name in result:
                np.testing.assert_array_equal(result[name], wanted[number][name])


def test_a_bad_set_in_a_stream_is_named_and_the_next_stream_works(tmp_path) -> None:
    model = captured("encoder")
    target = build(model, tmp_path / "build", halves(model, "openvino", "onnxruntime", devices=TWO))
    with api.load(target, cluster=two_devices()) as opened:
        given = inputs(opened, 6)
        name = next(iter(given[3]))
        bad = [*given[:3], {**given[3], name: given[3][name][..., None]}, *given[4:]]
        with pytest.raises(InputError, match="set 3: "):
            list(opened.stream(bad))
        with pytest.raises(InputError, match="depth is 0, expected at least 1"):
            list(opened.stream(given, depth=0))
        for result in opened.stream(given):  # left half way
            assert result
            break
        again = list(opened.stream(given))
        for mine, item in zip(again, given, strict=True):
            for key, value in opened.run(item).items():
                np.testing.assert_array_equal(mine[key], value)


def test_a_region_that_fails_in_a_stream_is_named_with_its_set(tmp_path) -> None:
    model = captured("stateful")
    target = build(model, tmp_path / "build", halves(model, "openvino", "contrary", devices=TWO))
    rows = [np.ones((3, 8), np.float32) for _ in range(4)]
    strange = np.ones((5, 8), np.float32)  # no size that contrary has
    with api.load(target, cluster=two_devices()) as opened:
        with pytest.raises(InlayError, match=r"set 2: region r1 on cpu:1"):
            list(opened.stream([{"x": rows[0]}, {"x": rows[1]}, {"x": strange}, {"x": rows[3]}]))
        assert opened.run({"x": rows[0]})["output"].shape == (3, 8)
