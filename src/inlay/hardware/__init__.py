"""Chips, devices, links, nodes and clusters: what there is to run on, described or probed. Executes nothing."""

from __future__ import annotations

from inlay.hardware.cluster import Chip, Cluster, Device, FleetChips, Link, Memory, Node, Place, parse_place
from inlay.hardware.cluster_file import check_local, describe_cluster, dump_cluster, load_cluster, parse_cluster
from inlay.hardware.document import convert_document, parse_document, read_document
from inlay.hardware.kind import device_kind, memory_relation
from inlay.hardware.probe import last_cache, local_chip, probe

__all__ = [
    "Chip",
    "Cluster",
    "Device",
    "FleetChips",
    "Link",
    "Memory",
    "Node",
    "Place",
    "check_local",
    "convert_document",
    "describe_cluster",
    "device_kind",
    "dump_cluster",
    "last_cache",
    "load_cluster",
    "local_chip",
    "memory_relation",
    "parse_cluster",
    "parse_document",
    "parse_place",
    "probe",
    "read_document",
]
