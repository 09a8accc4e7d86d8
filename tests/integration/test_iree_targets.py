"""IREE's code for Vulkan, run where there is such a device, and for devices that are not here: built, not run."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from commands import run
from compiling import captured, plan_of, source, two_devices

from inlay import api
from inlay.backends import backend
from inlay.errors import ArtifactError, DeviceError
from inlay.hardware import Cluster, Device
from inlay.runtime.store import read_program


@pytest.fixture(autouse=True)
def there() -> None:
    found = backend("iree").available()
    if not found.available:
        pytest.skip(f"{found.reason}: {found.hint}")


def cluster_with(name: str, target: str) -> Cluster:
    """cpu:0 and cpu:1, and a device of that target driven from the first core."""
    here = two_devices()
    cores = here.device("cpu:0").cores
    made = Device(name=name, node="local", cores=cores, backends=("iree",), target=target)
    return msgspec.structs.replace(here, devices={**here.devices, name: made})


def build_on(model: api.CapturedModel, folder: Path, cluster: Cluster, device: str) -> Path:
    blocks = len(read_program(model.folder).cut.blocks)
    plan = msgspec.structs.replace(plan_of(model, [(0, blocks, device, "iree")]), cluster=cluster)
    api.compile(model, folder, plan=plan, cluster=cluster)
    return folder


@pytest.mark.parametrize("name", ["halves", "convolutions"])
def test_a_program_runs_on_vulkan_and_equals_the_reference(name: str, tmp_path: Path) -> None:
    cluster = cluster_with("lavapipe:0", "vulkan")
    folder = build_on(captured(name), tmp_path / "build", cluster, "lavapipe:0")
    try:
        opened = api.load(folder, cluster=cluster)
    except DeviceError as error:
        if "finds no device" not in error.message:
            raise
        pytest.skip(error.message)
    with opened:
        assert opened.session.loaded["lavapipe:0/iree"].reports["r0"]["driver"].startswith("vulkan: ")
        found = opened.verify(seed=2)
    print(f"{name} on lavapipe: relative error {found.regions[0].relative_error:.1e}")
    assert found.passed and found.regions[0].relative_error < 1e-4


def test_a_region_for_a_device_that_is_not_here_is_built_and_not_run(tmp_path: Path) -> None:
    cluster = cluster_with("apple:0", "metal")
    folder = build_on(captured("halves"), tmp_path / "build", cluster, "apple:0")
    with pytest.raises(ArtifactError, match=r"region r0 on apple:0 is for target 'metal' .*: built, not run"):
        api.load(folder, cluster=cluster)


def test_the_command_builds_for_a_target_and_says_that_nothing_was_run(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    found = run("compile", source("halves"), "--target", "rocm-gfx942", "-o", str(folder), "--json")
    assert found.returncode == 0, found.stderr
    facts = json.loads(found.stdout)
    assert facts["state"] == "built, not run" and facts["backend"] == "iree" and facts["figures"]["dispatches"] > 0
    assert json.loads((folder / "built.json").read_text())["target"] == "rocm-gfx942"
    assert (folder / "artifact" / "module.vmfb").stat().st_size == facts["code_bytes"]
    wrong = run("compile", source("halves"), "--target", "toaster", "-o", str(tmp_path / "other"))
    assert wrong.returncode == 2 and "expected one of: cpu-aarch64" in wrong.stderr and not (tmp_path / "other").exists()
