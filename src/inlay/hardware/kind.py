"""What equal devices have in common: the name of their kind. Times and rooflines belong to a kind, not to a device."""

from __future__ import annotations

from inlay.hardware.cluster import Cluster


def device_kind(cluster: Cluster, device: str) -> str:
    """The chip, else the alias of the device's name, its target where it has one, and the number of cores: "AMD EPYC x2".

    Devices of equal kind share measurements. Raises ClusterError for a device that is not in the cluster.
    """
    found = cluster.device(device)
    chip = found.chip or found.name.partition(":")[0]
    return f"{chip}{found.target and f' as {found.target}'} x{max(len(found.cores), 1)}"


def memory_relation(cluster: Cluster, one: str, other: str) -> str:
    """How near two devices of one node are: "same device", "same zone" or "other zone" of memory (alike where unknown)."""
    if one == other:
        return "same device"
    zones = {cluster.device(name).numa for name in (one, other)}
    return "same zone" if len(zones - {None}) < 2 else "other zone"
