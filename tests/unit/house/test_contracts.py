"""The import contracts turn red when a wall is broken, and processes load what they may and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROOMS = sorted(path.name for path in (ROOT / "src" / "inlay").iterdir() if (path / "__init__.py").exists())


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    script = "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run([sys.executable, "-c", script, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("runtime/region.py", "import inlay.cost", "Doers never import deciders"),
        ("scheduler/state.py", "import torch", "Torch and Ray stay behind their doors"),
        ("cost/__init__.py", "import inlay.transport", "Deciders never import doers"),
        ("specs/kv.py", "import inlay.engine", "Imports only go down the floors"),
        ("backends/openvino/execute.py", "import inlay.backends.onnxruntime", "No vendor folder imports another"),
        ("gateway/app.py", "def late() -> None:\n    import inlay.orchestrator", "Imports only go down the floors"),
    ],
)
def test_a_planted_import_breaks_its_contract(copy, file, line, contract) -> None:
    path = copy / "src" / "inlay" / file
    before = path.read_text()
    path.write_text(f"{before}\n\n{line}\n")
    try:
        found = lint(copy)
    finally:
        path.write_text(before)
    assert found.returncode != 0
    assert re.search(rf"{contract} BROKEN", found.stdout), found.stdout + found.stderr


def test_the_house_as_it_stands_keeps_its_contracts(copy) -> None:
    found = lint(copy)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_faces_are_sorted_small_and_true(room) -> None:
    module = __import__(f"inlay.{room}", fromlist=["__all__"])
    assert len(module.__all__) <= 25
    key = str if room == "specs" else lambda name: (not name.isupper(), name[0].islower(), name)
    assert sorted(module.__all__, key=key) == module.__all__
    assert all(hasattr(module, name) for name in module.__all__)
    assert module.__doc__


@pytest.mark.parametrize(
    "entry",
    [
        "inlay.engine.device",
        "inlay.engine.main",
        "inlay.api",
        "inlay.api.conformance",
        "inlay.runtime.conformance.executing",
        "inlay.cli.main",
        "inlay.workers.entry",
        "inlay.gateway",
        "inlay.runtime",
        "inlay.backends",
    ],
)
def test_entries_load_no_framework(entry) -> None:
    script = (
        f"import sys, {entry}\n"
        "from inlay.backends import backend, backend_names\n"
        "[backend(name).available() for name in backend_names()]\n"
        "print(sorted({'torch', 'transformers', 'openvino', 'onnxruntime', 'onnx', 'ray'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_importing_the_package_loads_nothing_and_an_unknown_name_lists_the_known_ones() -> None:
    script = "import sys; import inlay; print(sorted(name for name in sys.modules if name.startswith('inlay')))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['inlay']"
    import inlay

    with pytest.raises(AttributeError, match="AsyncLLM"):
        _ = inlay.nonsense
    assert "LLM" in dir(inlay)


def test_no_pickle_anywhere() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(import|from) (pickle|cloudpickle|dill|shelve|marshal)\b|torch\.load\(", text, re.M), path
