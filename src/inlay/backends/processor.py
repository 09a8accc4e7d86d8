"""The instructions of this machine's CPU, for backends whose code is for it alone. Shared by the backends; imports no SDK."""

from __future__ import annotations

import platform
import re
from functools import lru_cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
# Flags that name instructions; others (mitigations, power, virtualisation) come and go with kernels.
INSTRUCTIONS = re.compile(r"^(fma|f16c|sse|ssse|avx|amx|bmi|abm|popcnt|movbe|adx|v?aes|v?pclmul|gfni|sha_ni)")


def instructions(text: str | None = None) -> str:
    """The instruction sets in the text of a /proc/cpuinfo (this machine's), sorted; the architecture where it names none."""
    line = re.search(r"^(flags|Features)\s*:(.*)$", _cpu_text() if text is None else text, re.MULTILINE)
    if line is None:
        return platform.machine()
    flags = line.group(2).split()
    return " ".join(sorted(flag for flag in flags if line.group(1) == "Features" or INSTRUCTIONS.match(flag)))


@lru_cache(maxsize=1)
def _cpu_text() -> str:
    try:
        return CPU_INFO.read_text(errors="replace")
    except OSError:
        return ""
