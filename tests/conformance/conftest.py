"""The fixtures of the conformance suite; see conformance_world and programs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from conformance_world import plain, world
from subjects import subjects

__all__ = ["plain", "subjects", "world"]
