"""What only XLA has: declared sizes, code without weights, whole numbers of 64 bits, memory read in place, absent platforms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from conformance_world import need, relative_error, run_case
from modules import EXAMPLES
from programs import relative_error as error_of
from programs import run_arrays, subject
from torch import nn

from inlay.backends import backend
from inlay.backends.environment import package_version
from inlay.errors import ArtifactError, UnsupportedError
from inlay.runtime.cache import read_manifest
from inlay.runtime.lower import lower_stage
from inlay.specs.artifact import LowerRequest, ShapeBuckets


class Wide(nn.Module):
    """A matrix of a megabyte, and whole numbers beyond 32 bits as weights, constants and results."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(512, 512) / 20)
        self.register_buffer("large", torch.tensor([2**40, -(2**33), 3]))

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tanh(x @ self.matrix), ids * 2**31 + self.large


def wide(folder: Path) -> Any:
    given = {"x": torch.randn(2, 512), "ids": torch.tensor([[5, 6, 7]] * 2)}
    return subject(Wide(), given, {"x": {0: ("batch", 1, 4)}, "ids": {0: "batch"}}, [{"batch": 2}, {"batch": 4}], folder)


def test_whole_numbers_beyond_32_bits_and_matrices_come_through_and_the_code_holds_no_weight(tmp_path: Path) -> None:
    need("xla")
    made = wide(tmp_path)
    lowered = made.lower("xla")
    assert sum(path.stat().st_size for path in lowered.directory.iterdir()) < 512 * 512
    executable = lowered.load()
    arrays = [np.random.default_rng(0).standard_normal((4, 512)).astype(np.float32), np.full((4, 3), 2**29 + 1)]
    found = run_arrays(executable, arrays, {"batch": 4})
    expected = made.expected(arrays)
    assert error_of(found, expected) < 1e-5 and np.abs(expected[1]).max() > 2**60
    executable.close()


def test_declared_sizes_only_and_the_others_are_listed(tmp_path: Path) -> None:
    need("xla")
    made = wide(tmp_path)
    executable = made.lower("xla").load()
    with pytest.raises(UnsupportedError, match=r"no bucket for batch = 3, expected one of \[2, 4\]"):
        run_arrays(executable, [np.zeros((3, 512), np.float32), np.zeros((3, 3), np.int64)], {"batch": 3})
    executable.close()
    with pytest.raises(UnsupportedError, match="declared sizes"):
        backend("xla").lower(
            made.captured.exported, interface=made.interface, request=LowerRequest(), directory=tmp_path / "none"
        )


def test_an_operator_without_a_row_is_refused_alike_by_supports_and_by_lower(tmp_path: Path) -> None:
    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.matrix_exp(x @ x.T) + 1

    made = subject(Strange(), {"x": torch.randn(3, 3)}, {}, [{}], tmp_path)
    answers = backend("xla").supports(made.captured.program, device="cpu:0").nodes
    refused = {answer.node: answer.reason for answer in answers if not answer.supported}
    assert list(refused) == ["linalg_matrix_exp"] and "no row" in refused["linalg_matrix_exp"]
    need("xla")
    with pytest.raises(UnsupportedError, match=r"linalg_matrix_exp.*no row"):
        made.lower("xla")


def test_rows_of_a_buffer_that_cannot_be_read_in_place_are_read_at_each_run(tmp_path: Path) -> None:
    """Views of 12 bytes a row: the second one begins between two multiples of 64."""
    need("xla")

    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 + 1

    made = subject(Twice(), {"x": torch.randn(2, 3)}, {"x": {0: ("batch", 1, 4)}}, [{"batch": 1}], tmp_path)
    executable = made.lower("xla").load()
    whole, result = executable.allocate(0, (4, 3)), executable.allocate(1, (1, 3))
    executable.bind(1, result)
    for step in range(3):
        values = np.arange(12, dtype=np.float32).reshape(4, 3) + step
        whole.write(values)
        for row in (0, 1, 3, 0):
            executable.bind(0, whole.rows(row, 1))
            executable.run({"batch": 1})
            np.testing.assert_array_equal(result.read(), values[row : row + 1] * 2 + 1)
    executable.close()


def test_a_platform_that_is_not_here_is_refused_with_its_reason(tmp_path: Path) -> None:
    need("xla")
    lowered = wide(tmp_path).lower("xla")
    with pytest.raises(UnsupportedError, match=r"no device of platform 'tpu'"):
        lowered.load(platform="tpu")


def test_code_whose_ports_are_not_those_of_the_manifest_is_refused(tmp_path: Path) -> None:
    need("xla")
    lowered = wide(tmp_path).lower("xla")
    path = lowered.directory / "manifest.json"
    manifest = msgspec.json.decode(path.read_bytes())
    manifest["inputs"][1]["dtype"] = "int32"
    path.write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(ArtifactError, match=r"types .*int64.*expected .*int32"):
        lowered.load()


def test_two_programs_in_one_process_keep_their_own_sizes_and_weights(tmp_path: Path, subjects: Any) -> None:
    need("xla")
    one, two = subjects("layer").lower("xla").load(), subjects("mlp").lower("xla").load()
    for name, executable in (("layer", one), ("mlp", two), ("layer", one)):
        arrays = subjects(name).arguments(EXAMPLES[name].inputs(**EXAMPLES[name].points[1]))
        found = run_arrays(executable, arrays, subjects(name).sizes(arrays))
        assert error_of(found, subjects(name).expected(arrays)) < 1e-5
    one.close()
    two.close()


def test_a_stage_has_code_for_one_row_of_each_sequence_and_for_all_rows(world: Any, plain: Any) -> None:
    need("xla")
    folder = world.model("llama")
    buckets = ShapeBuckets(batches=(2,), widths=(1, 5), capacities=(32,))
    lowered = lower_stage(folder, wanted=[("xla", LowerRequest(buckets=buckets))], cache=world.cache)
    directory = Path(lowered.artifacts[0].directory)
    assert len([name for name in read_manifest(directory).files if name.endswith(".stablehlo")]) == 1 + 2
    executable = world.load(folder, "xla", artifact=directory)
    for rows in ("last", "all"):
        case = plain(folder, pasts=(9, 2), width=5, capacity=32, rows=rows)
        assert max(relative_error(run_case(executable, case), case.expected)) < 1e-4
    with pytest.raises(UnsupportedError, match=r"no bucket for P = 20, expected one of \[32\]"):
        run_case(executable, plain(folder, pasts=(3, 4), width=5, capacity=20))
    executable.close()


@pytest.mark.parametrize("target", ["tpu-v5e", "tpu-v6e"])
def test_code_for_a_chip_that_is_not_here_has_its_compilers_figures_and_is_not_loaded(target: str, tmp_path: Path) -> None:
    need("xla")
    if package_version("libtpu", "xla") is None:
        pytest.skip("libtpu is not installed")
    lowered = wide(tmp_path).lower("xla", target=target)
    manifest = read_manifest(lowered.directory)
    figures = {name.partition(",")[0]: value for name, value in manifest.figures.items() if name.endswith("batch 4")}
    assert manifest.target == target and not any(name.endswith("-cache") for name in manifest.files)
    assert figures["argument bytes"] >= 4 * 512 * 512 and figures["output bytes"] >= 4 * 512 * 4
    assert figures["FLOPs"] >= 2 * 4 * 512 * 512 and figures["temporary bytes"] >= 0
    with pytest.raises(ArtifactError, match="built, not run"):
        lowered.load()
