"""Holes that other stacks were found to have (docs/concepts/holes-of-peers.md), one test for each that a backend can have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance_world import COMPUTING, SLOW, absent, need
from programs import TOLERANCE, Subject, relative_error, run_arrays, subject
from torch import nn

from inlay.backends import backend
from inlay.errors import InlayError, UnsupportedError
from inlay.graph import Block, Cut, Piece, cut_into_blocks, piece_of
from inlay.runtime import lowering
from inlay.runtime.lowering import piece_key
from inlay.specs.artifact import LowerRequest
from inlay.specs.precision import Precision

QUICK = tuple(name for name in COMPUTING if name not in SLOW)
EVERY = [pytest.param(name, marks=pytest.mark.thorough if name in SLOW else ()) for name in COMPUTING]


class Of(nn.Module):
    """A function of x and y as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.function(x, y)


def of(function: Callable[..., Any], folder: Path, *, rows: int = 4, dtype: torch.dtype = torch.float32) -> Subject:
    """Captured at fixed sizes."""
    given = {"x": torch.ones(rows, 3, dtype=dtype), "y": torch.ones(rows, 3, dtype=dtype)}
    return subject(Of(function), given, {}, [{}], folder)


def whole(made: Subject) -> Piece:
    program = made.captured.program
    cut = Cut(program=program, blocks=cut_into_blocks(program, sizes={}))
    return piece_of(cut, 0, len(cut.blocks))


def key_of(made: Subject, name: str, **request: Any) -> str:
    return piece_key(whole(made), backend=backend(name), request=LowerRequest(**request))


def right(made: Subject, name: str, arrays: list[Any]) -> None:
    executable = made.lower(name).load()
    error = relative_error(run_arrays(executable, arrays, {}), made.expected(arrays))
    executable.close()
    assert error < TOLERANCE


ALIKE = {
    "operand order": (lambda x, y: x - y, lambda x, y: y - x),
    "constant argument": (lambda x, y: (x * y).softmax(0), lambda x, y: (x * y).softmax(1)),
    "changed epsilon": (
        lambda x, y: torch.nn.functional.layer_norm(x * y, (3,), eps=1e-5),
        lambda x, y: torch.nn.functional.layer_norm(x * y, (3,), eps=0.5),
    ),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("pair", ALIKE)
def test_hole_01_programs_that_differ_in_one_argument_have_two_keys_and_are_both_right(name, pair, tmp_path) -> None:
    need(name)
    arrays = [np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32) for seed in (1, 2)]
    made = [of(function, tmp_path / str(number)) for number, function in enumerate(ALIKE[pair])]
    # Ports are bound by position, so equal code with its inputs the other way round is told apart by its wiring.
    assert (key_of(made[0], name), whole(made[0]).inputs) != (key_of(made[1], name), whole(made[1]).inputs)
    assert made[0].captured.program.digest != made[1].captured.program.digest
    for item in made:
        right(item, name, arrays)


@pytest.mark.parametrize("name", EVERY)
def test_hole_02_one_program_at_two_static_shapes_has_two_keys_and_is_right_at_both(name, tmp_path) -> None:
    need(name)
    made = {rows: of(lambda x, y: (x @ y.T).sum(0), tmp_path / str(rows), rows=rows) for rows in (4, 6)}
    assert key_of(made[4], name) != key_of(made[6], name)
    for rows, item in made.items():
        random = np.random.default_rng(rows)
        right(item, name, [random.standard_normal((rows, 3)).astype(np.float32) for _ in range(2)])


@pytest.mark.parametrize("name", COMPUTING)
def test_hole_03_tools_platform_precision_and_sources_are_in_the_key_and_names_and_weights_are_not(
    name, tmp_path, monkeypatch
) -> None:
    need(name)
    made = of(lambda x, y: x + y, tmp_path)
    keys = [key_of(made, name), key_of(made, name, precision=Precision(compute="bfloat16")), key_of(made, name, points=({},))]
    with monkeypatch.context() as patch:
        patch.setattr(lowering, "tool_versions", lambda extra, environment: {"torch": "other"})
        keys.append(key_of(made, name))
    with monkeypatch.context() as patch:
        patch.setattr(lowering.platform, "machine", lambda: "riscv64")
        keys.append(key_of(made, name))
    with monkeypatch.context() as patch:
        patch.setattr(lowering, "PIECE_SOURCES", lowering.PIECE_SOURCES[1:])
        keys.append(key_of(made, name))
    assert len(set(keys)) == len(keys)
    assert key_of(of(lambda x, y: torch.add(x, y), tmp_path / "again"), name) == keys[0]


@pytest.mark.parametrize("name", QUICK)
def test_hole_04_an_error_in_lowering_names_backend_and_reason_and_nothing_else_is_run(name, tmp_path, monkeypatch) -> None:
    need(name)
    import importlib

    made = of(lambda x, y: x * y, tmp_path)
    module = importlib.import_module(f"inlay.backends.{name}.lower")

    def broken(*_: Any, **__: Any) -> Any:
        raise UnsupportedError(f"{name} cannot lower node 'mul': planted")

    monkeypatch.setattr(module, "lower", broken)
    with pytest.raises(UnsupportedError, match=f"{name}.*planted"):
        made.lower(name)
    assert not list((tmp_path / name / "code").iterdir())


@pytest.mark.parametrize("name", QUICK)
def test_hole_05_the_precision_that_is_used_is_the_one_asked_for_or_an_error(name, tmp_path) -> None:
    need(name)
    for wanted in ("float32", "bfloat16", "int8"):
        made = of(lambda x, y: x @ y.T, tmp_path / wanted)
        try:
            loaded = made.lower(name, precision=Precision(compute=wanted)).load()
        except InlayError as error:
            assert wanted in error.message
        else:
            assert loaded.report["precision"] == wanted  # type: ignore[attr-defined]
            loaded.close()


def test_hole_13_attention_stays_whole_in_the_program_and_every_backend_decomposes_it_as_it_likes(tmp_path) -> None:
    def attend(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        q, k = x.reshape(1, 1, 4, 3), y.reshape(1, 1, 4, 3)
        return torch.nn.functional.scaled_dot_product_attention(q, k, k)

    made = of(attend, tmp_path)
    assert any(node.operator.startswith("aten.scaled_dot_product_attention") for node in made.captured.program.nodes)
    arrays = [np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32) for seed in (3, 4)]
    for name in QUICK:
        if not absent(name):
            right(made, name, arrays)


def test_hole_15_factories_with_a_device_burned_in_run_on_devices_with_memory_of_their_own(tmp_path) -> None:
    def made_here(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(4, device=x.device, dtype=x.dtype).unsqueeze(1)
        return x * steps + torch.zeros(4, 3, device=torch.device("cpu")) + torch.full((4, 3), 0.5) * y

    made = of(made_here, tmp_path)
    arrays = [np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32) for seed in (5, 6)]
    for name in QUICK:
        if not absent(name):
            right(made, name, arrays)


def test_hole_16_a_tied_weight_is_one_weight_in_both_pieces_and_sizes_are_rebuilt_in_each(tmp_path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.mixed = nn.Embedding(11, 8), nn.Linear(8, 8)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.mixed(self.words(ids))) @ self.words.weight.T / ids.shape[1]

    made = subject(
        Tied(), {"ids": torch.ones(2, 5, dtype=torch.long)}, {"ids": {1: ("length", 1, 9)}}, [{"length": 5}], tmp_path
    )
    blocks: tuple[Block, ...] = cut_into_blocks(made.captured.program, sizes={"length": 5})
    holders = [block.name for block in blocks if "words.weight" in block.weights]
    assert len(blocks) > 1 and len(holders) == 2
    for name in QUICK:
        if not absent(name):
            executable = made.lower(name).load()
            ids = np.arange(10).reshape(2, 5) % 11
            assert relative_error(run_arrays(executable, [ids], {"length": 5}), made.expected([ids])) < TOLERANCE
            executable.close()


DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")


@pytest.mark.parametrize("name", QUICK)
def test_hole_19_every_dtype_comes_back_as_it_went_in_or_is_refused_by_name(name, tmp_path) -> None:
    need(name)
    carried = []
    for dtype in DTYPES:
        kind = getattr(torch, dtype)
        array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
        if dtype.startswith("int") and dtype != "int8":
            array[0, 0] = np.iinfo(dtype).max - 1
        if dtype.startswith("float"):
            array[0, 0] = 0.1
        made = of(lambda x, y: torch.cat([x, y]), tmp_path / dtype, rows=2, dtype=kind)
        try:
            executable = made.lower(name).load()
            (found,) = run_arrays(executable, [array, array], {})
        except InlayError as error:
            assert dtype in error.message, error.message
            continue
        executable.close()
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, np.concatenate([array, array]))
        carried.append(dtype)
    print(f"{name} carries {', '.join(carried)}")
    assert {"bool", "float32"} <= set(carried) and ("int64" in carried or name == "openvino")
