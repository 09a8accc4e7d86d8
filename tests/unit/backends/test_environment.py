"""Environments are found without being started; versions are theirs; a broken one is told by its folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from foreign import NAME, install_plugin, make_environment, note_package

from inlay.backends import backend
from inlay.backends.environment import (
    Environment,
    environment_folders,
    environment_of,
    find_environment,
    package_version,
    python_of,
)
from inlay.backends.manifest import availability, fingerprint
from inlay.errors import DeviceLostError, UnsupportedError
from inlay.runtime.cache import tool_versions
from inlay.runtime.lowering import piece_key_contents, run_program
from inlay.specs.artifact import LowerRequest
from inlay.workers import WorkerSpec, start

ROOT = Path(__file__).parents[3]
FAULTS = ("python gone", "python is no program", "without inlay", "inlay of elsewhere", "package gone")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of environments, with `foreign` in it."""
    monkeypatch.setenv("INLAY_ENVIRONMENTS", str(tmp_path / "homes"))
    make_environment(tmp_path / "homes" / NAME, packages={"torch": "7.1", "strange-thing": "3.2.1"})
    return tmp_path / "homes"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = install_plugin(tmp_path / "plugin")
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.syspath_prepend(str(tmp_path / "plugin"))


def site_of(home: Path) -> Path:
    [site] = (home / NAME).glob("lib/python*/site-packages")
    return site


def test_it_is_found_where_the_variable_says_else_here_else_beside_the_running_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INLAY_ENVIRONMENTS", raising=False)
    work, project = tmp_path / "work", tmp_path / "project"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "prefix", str(project / ".venv"))
    assert environment_folders() == (work / ".environments", project / ".environments")
    assert find_environment("iree") is None and find_environment("") is None
    (project / ".environments" / "iree").mkdir(parents=True)
    assert find_environment("iree") == Environment("iree", project / ".environments" / "iree")
    (work / ".environments" / "iree").mkdir(parents=True)
    assert find_environment("iree") == Environment("iree", work / ".environments" / "iree")
    assert environment_folders({"INLAY_ENVIRONMENTS": "/srv/homes"}) == (Path("/srv/homes"),)
    assert find_environment("iree", {"INLAY_ENVIRONMENTS": "/srv/homes"}) is None
    monkeypatch.setattr(sys, "prefix", str(project / ".environments" / "iree"))
    assert environment_folders()[1] == project / ".environments"


def test_versions_are_those_of_the_environment_and_the_running_one_is_asked_where_there_is_none(home: Path) -> None:
    assert package_version("strange_thing", NAME) == "3.2.1" and package_version("strange-thing") is None
    assert package_version("msgspec", NAME) is None and package_version("msgspec", "nowhere") == package_version("msgspec")
    assert fingerprint(("torch",), environment=NAME)["torch"] == "7.1" != fingerprint(("torch",))["torch"]
    assert (
        tool_versions((), environment=NAME)["torch"] == "7.1"
        and tool_versions(("",), environment=NAME)["transformers"] == "absent"
    )
    found = availability("x", ("strange-thing", "torch"), environment=NAME)
    assert (found.available, found.version, found.hint) == (True, "3.2.1", "")


@pytest.mark.usefixtures("plugin")
def test_both_sides_see_the_same_and_a_new_version_changes_the_key_and_spoils_the_artifact(home: Path) -> None:
    class Cut:
        digest = "d"

    def key() -> str:
        return repr(piece_key_contents(Cut(), backend=backend(NAME), request=LowerRequest()))  # type: ignore[arg-type]

    code = (
        "from inlay.backends import backend; from inlay.backends.environment import environment_of, python_of;"
        "from inlay.runtime.lowering import piece_key_contents; from inlay.specs.artifact import LowerRequest\n"
        "class Cut: digest = 'd'\n"
        "print(backend('foreign').available().version, environment_of('foreign'));"
        "print(piece_key_contents(Cut(), backend=backend('foreign'), request=LowerRequest()))"
    )
    done = subprocess.run([home / NAME / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["7.1 None", key()]
    assert environment_of(NAME) is not None and python_of(NAME) == str(home / NAME / "bin" / "python")
    before = key()
    note_package(site_of(home), "torch", "7.2")
    assert key() != before and "7.2" in key()


@pytest.mark.usefixtures("plugin")
def test_an_absent_one_says_where_it_was_looked_for_and_what_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INLAY_ENVIRONMENTS", str(tmp_path))
    found = availability("iree", ("iree-base-runtime-of-nobody",), environment="iree")
    assert not found.available and found.hint == "make environment-iree"
    assert found.reason == (
        f"iree-base-runtime-of-nobody is not installed, and there is no environment 'iree' in {str(tmp_path)!r}"
    )
    assert environment_of(NAME) is None and python_of(NAME) == sys.executable  # it runs here, where its package is


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_one_is_told_by_its_folder(home: Path, fault: str) -> None:
    folder, site = home / NAME, site_of(home)
    python = folder / "bin" / "python"
    match fault:
        case "python gone":
            python.unlink()
            reason = f"environment {str(folder)!r} has no bin/python that can be started"
        case "python is no program":
            python.unlink()
            python.write_text("no program")
            reason = f"environment {str(folder)!r} has no bin/python that can be started"
        case "without inlay":
            next(site.glob("inlay-*.dist-info")).rename(site / "other")
            reason = f"environment {str(folder)!r} does not hold inlay"
        case "inlay of elsewhere":
            (next(site.glob("inlay-*.dist-info")) / "direct_url.json").write_text('{"url": "file:///elsewhere"}')
            reason = f"environment {str(folder)!r} holds inlay "
        case _:
            next(site.glob("torch-*.dist-info")).rename(site / "other")
            reason = f"torch is not installed in {str(folder)!r}"
    found = backend(NAME).available()
    assert not found.available and found.reason.startswith(reason) and found.hint == "make environment-foreign"
    if fault != "package gone":
        with pytest.raises(UnsupportedError, match="backend foreign cannot be started: environment") as caught:
            python_of(NAME)
        assert str(folder) in caught.value.message and "make environment-foreign" in str(caught.value.hint)


def test_a_python_that_does_not_start_is_told_by_its_path(home: Path, tmp_path: Path) -> None:
    python = home / NAME / "bin" / "python"
    python.unlink()
    python.write_text("#!/bin/sh\necho the loader is missing >&2\nexit 7\n")
    python.chmod(0o755)
    with pytest.raises(UnsupportedError, match=r"ended with status 7 under .*foreign/bin/python.*") as caught:
        run_program("inlay.runtime.compile:lower_main", {}, progress=lambda text: None, seconds=20, python=str(python))
    assert "the loader is missing" in caught.value.message
    worker = start(WorkerSpec(name="cpu:0/foreign", program="x:y", run_directory=str(tmp_path), python=str(python)))
    worker.stop()
    with pytest.raises(DeviceLostError, match=r"under .*homes/foreign/bin/python"):
        worker.check()


def test_every_environment_has_the_torch_of_the_constraints() -> None:
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.strip() for line in constraints if line.startswith(("torch=", "transformers="))}
    assert len(pinned) == 2
    found = sorted(path for path in (ROOT / "environments").glob("*.txt") if not path.stem.startswith("clients-"))
    assert {path.stem for path in found} >= {"iree", "xla", "executorch"}
    for path in found:
        lines = {line.strip() for line in path.read_text().splitlines()}
        assert pinned <= lines, f"{path.name} lowers with another torch or transformers than the cache names"
