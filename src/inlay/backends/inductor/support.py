"""What Inductor takes, and the compiler and the CPU that its code depends on. Imports no SDK.

A run holds Python's global lock from beginning to end (measured: another thread of the process stands still meanwhile), so
a device process runs nothing else beside it. Executing needs torch, though not torch's compiler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from inlay.backends import manifest
from inlay.backends.processor import instructions
from inlay.backends.refusal import RANDOM, Rules, argument
from inlay.graph import Node, Program, Tensor
from inlay.specs.capability import Availability, Capability

NAME = "inductor"
PACKAGES = ("torch",)
REFUSED: dict[str, str] = {}
POOLS = {
    "aten.adaptive_avg_pool1d": 1,
    "aten.adaptive_avg_pool2d": 2,
    "aten.adaptive_max_pool1d": 1,
    "aten.adaptive_max_pool2d": 2,
}
"""Operators with the number of axes they pool over."""


def compiler() -> str:
    """The command of the C++ compiler that Inductor calls: CXX, or the platform's own."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def availability() -> Availability:
    """Available where torch is installed and its C++ compiler is found."""
    found = manifest.availability(NAME, PACKAGES)
    if found.available and shutil.which(compiler()) is None:
        reason = f"C++ compiler {compiler()!r} is not found, which inductor compiles with; install it, or name another in CXX"
        return Availability(backend=NAME, available=False, framework=found.framework, version=found.version, reason=reason)
    return found


def machine() -> dict[str, str]:
    """The compiler's version, and the instructions of this CPU: compiled code is for it alone."""
    return {"c++": _compiler_version(compiler()), "instructions": instructions()}


def supports(program: Program) -> Capability:
    """Every node but those that the tables and rules refuse, in a process that loads torch."""
    return Capability(backend=NAME, nodes=RULES.judge(program), needs_torch=True)


def _special(node: Node, values: Mapping[str, Tensor]) -> str:
    """Reasons that lie in a node's arguments and sizes; found by trying, each against torch."""
    name = node.operator.rpartition(".")[0]
    if name in POOLS and node.inputs and node.inputs[0] in values:
        axes = POOLS[name]
        wanted = argument(node, 1, "output_size") or []
        dynamic = any(isinstance(size, str) for size in values[node.inputs[0]].shape[-axes:])
        if dynamic and set(wanted if isinstance(wanted, list) else [wanted]) != {1}:
            return "Inductor compiles it for the example's sizes alone"
    return ""


RULES = Rules(backend=NAME, operators={**RANDOM, **REFUSED}, dtypes={}, special=_special)


@lru_cache(maxsize=4)
def _compiler_version(command: str) -> str:
    path = shutil.which(command)
    if path is None:
        return "absent"
    found = subprocess.run([path, "-dumpfullversion", "-dumpversion"], capture_output=True, text=True, check=False)
    return f"{Path(command).name} {found.stdout.strip() or 'unknown'}"
