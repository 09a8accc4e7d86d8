"""Quantities as people write them, and the error tree."""

from __future__ import annotations

import pytest

from inlay import errors
from inlay.errors import InlayError, InputError
from inlay.units import format_bytes, format_seconds, parse_bandwidth, parse_bytes, parse_seconds


def test_quantities_are_read_with_their_units() -> None:
    assert parse_bytes("16 GiB") == 16 * 2**30
    assert parse_bytes("1.5kB") == 1500
    assert parse_bytes(7) == 7
    assert parse_bandwidth("25 GB/s") == 25e9
    assert parse_seconds("20 us") == pytest.approx(2e-5)


@pytest.mark.parametrize("value", ["-1 GiB", "x", "3 parsecs", None, True, float("nan"), float("inf"), [], "1 GiB GiB"])
def test_other_things_are_refused_with_value_and_expectation(value) -> None:
    with pytest.raises(InputError, match=r"memory is .* expected") as found:
        parse_bytes(value, name="memory")
    assert repr(value) in str(found.value) and "hint:" in str(found.value)


def test_a_bandwidth_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match="above zero"):
        parse_bandwidth("0 GB/s")


def test_figures_are_printed_short() -> None:
    assert [format_bytes(n) for n in (12, 2048, 3 * 2**30)] == ["12 B", "2.0 KiB", "3.0 GiB"]
    assert [format_seconds(n) for n in (2e-5, 0.0032, 1.5)] == ["20.0 us", "3.2 ms", "1.50 s"]


def test_every_error_of_the_tree_is_drawn_at_the_top_of_its_file() -> None:
    pending, names = [InlayError], []
    while pending:
        item = pending.pop()
        names.append(item.__name__)
        pending += item.__subclasses__()
    drawn = errors.__doc__ or ""
    assert all(name in drawn for name in names if name in vars(errors))
