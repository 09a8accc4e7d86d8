"""Every installed backend computes what Hugging Face's own forward pass computes, on ragged batches with garbage behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance_world import ARCHITECTURES, COMPUTING, QUICK, SLOW, need, relative_error, run_case

TOLERANCE = 1e-4
SHAPES = (
    {"pasts": (10, 14, 3), "width": 5, "capacity": 16},
    {"pasts": (10, 14, 3), "width": 1, "capacity": 32},
    {"pasts": (10, 3), "width": 7, "capacity": 48, "rows": "all"},
    {"pasts": (0,), "width": 5, "capacity": 16},
    {"pasts": (14,), "width": 1, "capacity": 16},
)
PAIRS = [
    pytest.param(architecture, name, marks=() if architecture in QUICK[: 1 if name in SLOW else None] else pytest.mark.thorough)
    for architecture in ARCHITECTURES
    for name in COMPUTING
]


@pytest.mark.parametrize(("architecture", "name"), PAIRS)
def test_a_lowered_stage_equals_the_plain_forward_pass(world: Any, plain: Any, architecture: str, name: str) -> None:
    need(name)
    folder = world.model(architecture)
    executable = world.load(folder, name)
    worst = (0.0, 0.0)
    for shape in SHAPES:
        case = plain(folder, **shape)
        error = relative_error(run_case(executable, case), case.expected)
        worst = (max(worst[0], error[0]), max(worst[1], error[1]))
    executable.close()
    print(f"{architecture} {name}: logits {worst[0]:.1e}, new keys and values {worst[1]:.1e}")
    assert max(worst) < TOLERANCE


@pytest.mark.parametrize("name", COMPUTING)
def test_one_artifact_serves_two_sets_of_weights(world: Any, plain: Any, name: str) -> None:
    need(name)
    first, second = world.model("llama"), world.model("llama", seed=1)
    case = plain(second, **SHAPES[0])
    artifacts = [world.lower(folder, name).artifacts[0] for folder in (first, second)]
    assert artifacts[0].key == artifacts[1].key
    executable = world.load(second, name)
    assert max(relative_error(run_case(executable, case), case.expected)) < TOLERANCE
    executable.close()


@pytest.mark.parametrize("name", COMPUTING)
def test_results_of_two_runs_can_be_kept_side_by_side(world: Any, plain: Any, name: str) -> None:
    need(name)
    folder = world.model("llama")
    executable = world.load(folder, name)
    cases = [plain(folder, **shape) for shape in (SHAPES[0], SHAPES[2], SHAPES[0])]
    found = [run_case(executable, case) for case in cases]
    for result, case in zip(found, cases, strict=True):
        assert max(relative_error(result, case.expected)) < TOLERANCE
    np.testing.assert_array_equal(found[0][0], found[2][0])
    executable.close()
