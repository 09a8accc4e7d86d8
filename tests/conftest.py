"""Options and paths of all tests."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("INLAY_CACHE", os.path.join(tempfile.gettempdir(), f"inlay-test-cache-{os.getuid()}"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-models", action="store_true", help="every model of the zoo, not only the quick ones")


@pytest.fixture(scope="session")
def all_models(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--all-models"))
