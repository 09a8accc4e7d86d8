"""probe on the real machine and on machines made of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inlay.errors import ClusterError
from inlay.hardware import check_local, dump_cluster, load_cluster, probe

CPUINFO = """\
processor\t: 0
model name\t: Imaginary Xeon 9000
flags\t\t: fpu avx2 fma avx512f avx512_bf16 avx512_vnni amx_tile amx_int8

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_the_local_machine_has_a_device_for_each_core_this_process_may_use(tmp_path: Path) -> None:
    cluster = probe()
    usable = sorted(os.sched_getaffinity(0))
    assert list(cluster.devices) == [f"cpu:{core}" for core in usable]
    check_local(cluster)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    shares = [device.memory for device in cluster.devices.values()]
    assert all(share and share > 0 for share in shares)
    assert sum(share or 0 for share in shares) <= total
    (tmp_path / "cluster.yaml").write_text(dump_cluster(cluster))
    assert load_cluster(tmp_path / "cluster.yaml") == cluster


def test_a_pinned_process_sees_only_its_own_cores() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    try:
        os.sched_setaffinity(0, {core})
        assert [device.cores for device in probe().devices.values()] == [(core,)]
    finally:
        os.sched_setaffinity(0, before)


def test_chip_instruction_sets_memory_and_zone_come_from_the_kernels_files(tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/cpuinfo": CPUINFO, "proc/meminfo": "MemTotal:       8000 kB\nMemFree: 1 kB\n"})
    (root / "sys/devices/system/cpu/cpu2/node1").mkdir(parents=True)
    cluster = probe(root=root, cores=[0, 2])
    chip = cluster.chips["Imaginary Xeon 9000"]
    assert chip.instruction_sets == ("amx", "amx_int8", "avx2", "avx512", "bf16", "fma", "vnni")
    assert chip.memories[0].size == 8000 * 1024
    first, second = cluster.device("cpu:0"), cluster.device("cpu:2")
    assert (first.numa, second.numa) == (None, 1)
    assert first.memory == second.memory == 4000 * 1024
    assert first.chip == "Imaginary Xeon 9000"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/a/b/memory.max": "max\n"},
            1000,
        ),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/memory.max": "3000\n", "sys/fs/cgroup/a/memory.max": "2000\n"}, 2000),
        ({"proc/self/cgroup": "4:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "500\n"}, 500),
        ({"proc/self/cgroup": "4:memory:/x\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "600\n"}, 600),
        ({"proc/self/cgroup": "4:cpu:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "500\n"}, 8000 * 1024),
        ({"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/memory.max": "9223372036854771712\n"}, 8000 * 1024),
        ({}, 8000 * 1024),
    ],
)
def test_memory_is_the_least_of_the_host_and_the_groups_above(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    root = machine(tmp_path, {"proc/meminfo": "MemTotal:  8000 kB\n", **files})
    assert probe(root=root, cores=[0]).device("cpu:0").memory == expected


def test_a_machine_that_says_nothing_is_still_described(tmp_path: Path) -> None:
    device = probe(root=tmp_path, cores=[3]).device("cpu:3")
    assert (device.chip, device.memory, device.numa) == ("unknown CPU", None, None)


def test_a_process_without_cores_is_a_cluster_error(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no core"):
        probe(root=tmp_path, cores=[])
