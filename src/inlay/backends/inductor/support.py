"""What Inductor takes, and the compiler and the CPU that its code depends on. Imports no SDK.

A run holds Python's global lock from beginning to end (measured: another thread of the process stands still meanwhile), so
a device process runs nothing else beside it. Executing needs torch, though not torch's compiler.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from inlay.backends import manifest
from inlay.graph import Program
from inlay.specs.capability import Availability, Capability, NodeSupport

NAME = "inductor"
PACKAGES = ("torch",)
REFUSED: dict[str, str] = {}
CPU_INFO = Path("/proc/cpuinfo")
# Flags that name instructions; others (mitigations, power, virtualisation) come and go with kernels.
INSTRUCTIONS = re.compile(r"^(fma|f16c|sse|ssse|avx|amx|bmi|abm|popcnt|movbe|adx|v?aes|v?pclmul|gfni|sha_ni)")


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
    return {"c++": _compiler_version(compiler()), "instructions": instructions(_cpu_text())}


def instructions(text: str) -> str:
    """The instruction sets in the text of a /proc/cpuinfo, sorted; the architecture where it names none."""
    line = re.search(r"^(flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if line is None:
        return platform.machine()
    flags = line.group(2).split()
    return " ".join(sorted(flag for flag in flags if line.group(1) == "Features" or INSTRUCTIONS.match(flag)))


def supports(program: Program) -> Capability:
    """Every node but those refused by name, in a process that loads torch."""
    nodes = tuple(
        NodeSupport(node=node.name, supported=node.operator not in REFUSED, reason=REFUSED.get(node.operator, ""))
        for node in program.nodes
    )
    return Capability(backend=NAME, nodes=nodes, needs_torch=True)


@lru_cache(maxsize=4)
def _compiler_version(command: str) -> str:
    path = shutil.which(command)
    if path is None:
        return "absent"
    found = subprocess.run([path, "-dumpfullversion", "-dumpversion"], capture_output=True, text=True, check=False)
    return f"{Path(command).name} {found.stdout.strip() or 'unknown'}"


@lru_cache(maxsize=1)
def _cpu_text() -> str:
    try:
        return CPU_INFO.read_text(errors="replace")
    except OSError:
        return ""
