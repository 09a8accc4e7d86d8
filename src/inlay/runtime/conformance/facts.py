"""Facts of a report: which inlay this is, and the machine it ran on. No path and no name of the machine."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from pathlib import Path

from inlay.backends.environment import package_version
from inlay.hardware import probe
from inlay.runtime.cache import tool_versions
from inlay.units import format_bytes

PATH = re.compile(r"(?:/[\w.+-]+){2,}/")


def without_paths(text: str) -> str:
    """A reason without the folders of the machine that it came up on."""
    return PATH.sub("", text)


def inlay_facts() -> dict[str, str]:
    """Version, digest of the package's sources, and the commit where it runs from a checkout."""
    root = Path(__file__).parents[2]
    whole = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        whole.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    facts = {"version": package_version("inlay") or "unknown", "sources": whole.hexdigest()[:16]}
    checkout = root.parents[1]
    if (checkout / ".git").exists():
        command = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            facts["commit"] = found.stdout.strip()
    return facts


def machine_facts() -> dict[str, str]:
    """What the figures depend on."""
    cluster = probe()
    device = next(iter(cluster.devices.values()))
    memory = sum(int(item.memory or 0) for item in cluster.devices.values())
    return {
        "chip": device.chip or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": format_bytes(memory),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version for name, version in tool_versions(()).items() if name != "inlay-lowering"},
    }
