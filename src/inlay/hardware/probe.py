"""Reading the local machine from /proc and /sys: what a Cluster of it looks like. Runs no program, times nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from inlay.errors import ClusterError
from inlay.hardware.cluster import Chip, Cluster, Device, Memory, Node
from inlay.units import Bytes

# What the kernel calls a feature, and what frameworks choose their kernels by.
_FEATURES = {
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx512f": "avx512",
    "avx512_bf16": "bf16",
    "avx512_fp16": "fp16",
    "avx512_vnni": "vnni",
    "avx_vnni": "vnni",
    "amx_tile": "amx",
    "amx_bf16": "amx_bf16",
    "amx_int8": "amx_int8",
    "asimd": "neon",
    "asimddp": "dotprod",
    "bf16": "bf16",
    "i8mm": "i8mm",
    "sve": "sve",
}


def probe(*, root: Path = Path("/"), cores: Iterable[int] | None = None) -> Cluster:
    """The local machine: node `local` and one device `cpu:<core>` for each core this process may use.

    A core is what the kernel schedules on: two hyper-threads are two. Memory is the host's or the control
    group's limit, whichever is less, shared out equally; links are left out, since nothing was measured.
    """
    usable = sorted(os.sched_getaffinity(0) if cores is None else cores)
    if not usable:
        raise ClusterError("this process may use no core, expected at least one", hint="widen its CPU affinity")
    chip_name, instruction_sets = _chip(root)
    total = _memory(root)
    share = None if total is None else Bytes(total // len(usable))
    devices = {
        f"cpu:{core}": Device(
            name=f"cpu:{core}", node="local", chip=chip_name, cores=(core,), memory=share, numa=_numa(root, core)
        )
        for core in usable
    }
    memories = () if total is None else (Memory(name="main", size=total),)
    chip = Chip(name=chip_name, kind="cpu", instruction_sets=instruction_sets, memories=memories)
    return Cluster(nodes={"local": Node(name="local")}, devices=devices, chips={chip_name: chip})


def local_chip(*, root: Path = Path("/")) -> str:
    """What the machine calls its chip."""
    return _chip(root)[0]


def last_cache(cores: Iterable[int], *, root: Path = Path("/")) -> Bytes:
    """The size of the largest cache of these cores (of all where none is named), 0 where the kernel does not say."""
    folder = root / "sys/devices/system/cpu"
    named = [folder / f"cpu{core}" for core in cores] or sorted(folder.glob("cpu[0-9]*"))
    texts = [_text(file).strip() for core in named for file in core.glob("cache/index*/size")]
    units = {"K": 1024, "M": 1024**2, "G": 1024**3}
    sizes = [int(text[:-1]) * units[text[-1]] for text in texts if text[:-1].isdigit() and text[-1] in units]
    return Bytes(max(sizes, default=0))


def _chip(root: Path) -> tuple[str, tuple[str, ...]]:
    """Name and instruction sets, from the first processor that says so."""
    fields: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", "")).split()
    found = {name for flag, name in _FEATURES.items() if flag in flags}
    return fields.get("model name", "") or "unknown CPU", tuple(sorted(found))


def _memory(root: Path) -> Bytes | None:
    """The least of the host's memory and the limits of the control groups this process is in."""
    match = re.search(r"^MemTotal:\s+([0-9]+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    limits = [int(match.group(1)) * 1024] if match else []
    for line in _text(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and (parts[1] == "" or "memory" in parts[1].split(",")):
            limits.extend(_group_limits(root, unified=parts[1] == "", path=parts[2]))
    return Bytes(min(limits)) if limits else None


def _group_limits(root: Path, *, unified: bool, path: str) -> list[int]:
    """Limits of a control group and of those above it. Inside a container its own group is mounted at the top."""
    base = root / "sys/fs/cgroup" if unified else root / "sys/fs/cgroup/memory"
    name = "memory.max" if unified else "memory.limit_in_bytes"
    group = base / path.strip("/")
    folders = [base, *(folder for folder in (group, *group.parents) if base in folder.parents)]
    texts = (_text(folder / name).strip() for folder in folders)
    return [int(text) for text in texts if text.isdigit()]


def _numa(root: Path, core: int) -> int | None:
    """The memory zone of a core, where the kernel says."""
    folder = root / f"sys/devices/system/cpu/cpu{core}"
    zones = [entry.name[4:] for entry in folder.glob("node[0-9]*")]
    return int(zones[0]) if zones and zones[0].isdigit() else None


def _text(path: Path) -> str:
    """The file's text, or nothing where this kernel has no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
