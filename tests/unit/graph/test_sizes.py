"""Sizes of tensors: expressions as torch prints them, and the symbols solved from real shapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.errors import InputError
from inlay.graph import shape_value, solve_sizes
from inlay.graph.sizes import size_value, symbols_of

POSITIVE = st.integers(1, 4096)


@given(POSITIVE, POSITIVE)
def test_expressions_are_worked_out_as_torch_means_them(batch: int, length: int) -> None:
    given_sizes = {"B": batch, "T": length}
    assert size_value("2*B", given_sizes) == 2 * batch
    assert size_value("((T - 1)//2) + 1", given_sizes) == (length - 1) // 2 + 1
    assert size_value("Max(B, T) - Min(B, T)", given_sizes) == abs(batch - length)
    assert size_value("CeilDiv(T, 8)", given_sizes) == -(-length // 8)
    assert size_value("Mod(T, 7) + FloorDiv(B, 3)", given_sizes) == length % 7 + batch // 3
    assert size_value("T**2", given_sizes) == length**2
    assert size_value("-B + B*T", given_sizes) == batch * (length - 1)
    assert shape_value(("B", 3, "B*T"), given_sizes) == (batch, 3, batch * length)


def test_symbols_are_names_that_are_not_called() -> None:
    assert symbols_of("Max(B, 2*T) + 1") == {"B", "T"}
    assert symbols_of(7) == symbols_of("3") == frozenset()


@given(POSITIVE, POSITIVE)
def test_symbols_are_solved_from_shapes_and_the_rest_is_checked(batch: int, length: int) -> None:
    declared = {"x": ("B", "T"), "y": ("B", "2*T", 5)}
    assert solve_sizes(declared, {"x": (batch, length), "y": (batch, 2 * length, 5)}) == {"B": batch, "T": length}
    with pytest.raises(InputError, match=rf"input 'y' has shape \[{batch}, {2 * length + 1}, 5\], expected"):
        solve_sizes(declared, {"x": (batch, length), "y": (batch, 2 * length + 1, 5)})
    with pytest.raises(InputError, match=rf"'y' has B = {batch + 1}, expected {batch} as in another input"):
        solve_sizes(declared, {"x": (batch, length), "y": (batch + 1, 2 * length, 5)})
    with pytest.raises(InputError, match="expected 2 axes"):
        solve_sizes(declared, {"x": (batch,), "y": (batch, 2 * length, 5)})


@pytest.mark.parametrize(
    ("size", "message"),
    [("2*Q", "needs a value for 'Q', given are: B"), ("B +", "cannot be read"), ("__import__('os')", "expected numbers"),
     ("B.real", "expected numbers"), ("B << 2", "operator that sizes do not have")],
)  # fmt: skip
def test_what_cannot_be_a_size_is_told_and_never_carried_out(size: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        size_value(size, {"B": 2})
