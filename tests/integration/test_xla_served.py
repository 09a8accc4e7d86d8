"""XLA in its own environment: a language model's decode role, a Build, and code for a TPU by the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zoo
from commands import run
from comparing import compare
from compiling import captured, plan_of, source, two_devices
from serving import cluster, generate, running
from truth import continuations, load, prompts

from inlay import api
from inlay.backends import backend
from inlay.backends.environment import python_of
from inlay.runtime.store import read_program
from inlay.specs.deployment import deployment_from_roles
from inlay.specs.generation import GenerationParameters, Placement

GREEDY = GenerationParameters(max_tokens=12, temperature=0.0, ignore_eos=True)


@pytest.fixture(autouse=True)
def there() -> None:
    found = backend("xla").available()
    if not found.available:
        pytest.skip(f"{found.reason}: {found.hint}")


def test_tokens_decoded_by_xla_after_a_hand_over_are_those_of_the_reference(tmp_path: Path) -> None:
    folder = zoo.build("llama", tmp_path / "llama")
    roles = ["prefill=cpu:0/reference", "decode=cpu:1/xla"]
    here = cluster(("reference", "xla"))
    wanted = deployment_from_roles(str(folder), here, roles, context=64, slots=2, chunk=8, capacities=(64,), depth=4)
    truths = continuations(load(folder), prompts(6, vocabulary=4096, longest=40), new_tokens=12)
    with running(wanted) as it:
        jobs = [(item.prompt, Placement(prefill="cpu:0/reference", decode="cpu:1/xla")) for item in truths]
        found = generate(it, jobs, parameters=GREEDY, at_once=4)
    different = compare(truths, found, logit_error=1e-5)
    print(f"{len(truths) - len(different)} of {len(truths)} continuations equal")
    assert not [item for item in different if not item.excused]


def test_a_build_runs_there_and_equals_the_reference(tmp_path: Path) -> None:
    model = captured("convolutions")
    blocks = len(read_program(model.folder).cut.blocks)
    plan = plan_of(model, [(0, blocks // 2, "cpu:0", "reference"), (blocks // 2, blocks, "cpu:1", "xla")])
    api.compile(model, tmp_path / "build", plan=plan, cluster=two_devices())
    with api.load(tmp_path / "build", cluster=two_devices()) as opened:
        pid = next(pid for name, pid in opened.session.pids.items() if name.startswith("cpu:1"))
        assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode() == python_of("xla")
        found = opened.verify(seed=3)
    print(f"convolutions: relative errors {[f'{region.relative_error:.1e}' for region in found.regions]}")
    assert found.passed and max(region.relative_error for region in found.regions) < 1e-4


def test_code_for_a_tpu_is_built_with_figures_and_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "built"
    done = run("compile", source("convolutions"), "--target", "tpu-v5e", "-o", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["state"] == "built, not run" and told["backend"] == "xla"
    assert all(
        any(name.startswith(start) for name in told["figures"]) for start in ("argument bytes", "temporary bytes", "FLOPs")
    )
    assert list((folder / "artifact").glob("*.stablehlo"))
