"""A backend with an environment of its own: lowered, timed and run by that Python, stitched to what runs in the main one."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
import zoo
from compiling import build, captured, halves, two_devices
from foreign import NAME, install_plugin, make_environment
from serving import deployment, generate, places, running

from inlay import api
from inlay.backends.environment import package_version
from inlay.runtime.cache import read_manifest
from inlay.runtime.compare import compare
from inlay.runtime.judged import build_candidate
from inlay.specs.generation import GenerationParameters, Placement


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment `foreign`, with the backend of that name and a cache of its own."""
    versions = {name: package_version(name) or "" for name in ("torch", "transformers")}
    folder = make_environment(tmp_path / "homes" / NAME, packages=versions)
    plugin = install_plugin(tmp_path / "plugin")
    monkeypatch.setenv("PYTHONPATH", plugin)
    monkeypatch.syspath_prepend(str(tmp_path / "plugin"))
    monkeypatch.setenv("INLAY_ENVIRONMENTS", str(tmp_path / "homes"))
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path / "cache"))
    return folder


def prefix_of(pid: int) -> str:
    """The folder that the process's interpreter was started from."""
    return str(Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()).parents[1])


@pytest.mark.thorough
def test_one_device_has_a_process_for_each_environment_and_they_pass_values_on(home: Path, tmp_path: Path) -> None:
    captured.cache_clear()  # into the cache of this test
    model = captured("tied_ends")
    captured.cache_clear()
    target = build(model, tmp_path / "build", halves(model, "onnxruntime", NAME, devices=("cpu:0", "cpu:0")))
    with api.load(target, cluster=two_devices()) as opened:
        assert list(opened.session.pids) == ["cpu:0", "cpu:0/foreign"]
        assert prefix_of(opened.session.pids["cpu:0/foreign"]) == str(home) != prefix_of(opened.session.pids["cpu:0"])
        cores = {frozenset(os.sched_getaffinity(pid)) for pid in opened.session.pids.values()}
        assert cores == {frozenset(two_devices().device("cpu:0").cores)}
        found = opened.verify(seed=3)
    assert found.passed and all(region.relative_error < 1e-4 for region in found.regions), found
    [made] = [
        manifest
        for region in opened.build.manifest.regions
        if region.backend == NAME
        for manifest in [read_manifest(target / "artifacts" / region.pieces[0].artifact)]
    ]
    assert made.fingerprint["lowered in"] == str(home)


@pytest.mark.thorough
def test_a_whole_build_can_be_timed_inside_of_one_process_of_its_environment(home: Path, tmp_path: Path) -> None:
    captured.cache_clear()
    model = captured("tied_ends")
    captured.cache_clear()
    target = build(model, tmp_path / "build", halves(model, "onnxruntime", NAME, devices=("cpu:0", "cpu:0")))
    inside = build(model, tmp_path / "inside", halves(model, NAME, NAME, devices=("cpu:0", "cpu:0")))
    candidates = [build_candidate("in", inside, cluster=two_devices(), inside=True)]
    assert candidates[0].python == str(home / "bin" / "python")
    assert compare([*candidates, build_candidate("out", target, cluster=two_devices())], rounds=2).failures == {}


@pytest.mark.thorough
def test_the_search_times_it_in_its_own_python(home: Path, tmp_path: Path) -> None:
    captured.cache_clear()
    model = captured("halves")
    captured.cache_clear()
    plan = api.partition(model, cluster=two_devices(), backends=[NAME], rounds=2)
    assert {region.backend for region in plan.regions} == {NAME}
    names = [msgspec.json.decode(path.read_bytes()) for path in (tmp_path / "cache" / "artifacts").glob("*/manifest.json")]
    assert names and all(item["fingerprint"]["lowered in"] == str(home) for item in names if item["backend"] == NAME)


@pytest.mark.thorough
def test_a_role_is_served_from_its_environment_with_the_same_tokens(home: Path, tmp_path: Path) -> None:
    roles = [f"prefill=cpu:0/{NAME}", "decode=cpu:1/onnxruntime", "prefill,decode=cpu:2/onnxruntime"]
    model, backends = zoo.build("llama", tmp_path / "llama"), [NAME, "onnxruntime", "onnxruntime"]
    wanted = deployment(model, backends, roles=roles, context=256, slots=2, chunk=8)
    with running(wanted) as it:
        foreign, ours, both = places(wanted)
        assert prefix_of(it.workers[foreign].pid) == str(home) != prefix_of(it.workers[ours].pid)
        prompt, alone = (5, 6, 7, 8, 9), Placement(prefill=both, decode=both)
        jobs = [(prompt, Placement(prefill=foreign, decode=ours)), (prompt, alone)]
        one, two = generate(it, jobs, parameters=GenerationParameters(max_tokens=6, temperature=0.0, ignore_eos=True))
    assert one == two and len(one) == 6
