"""The published table of devices and the published formulas of tasks, as printed and as corrected.

Source: Asgar, Nguyen, Katti, arXiv 2507.19635, tables 3 and 5, section 2 (July 2025). Errata are ours and are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class PublishedDevice:
    """One row: dollars (resellers, June 2025), GB, GB/s, TFLOPS in "FP16", operating dollars an hour; `kilowatts` is the power
    that its operating cost fits. `erratum` says what is wrong with the row."""

    name: str
    price: float
    memory: float
    bandwidth: float
    teraflops: float
    operating: float
    kilowatts: float
    erratum: str = ""


AS_PUBLISHED = (
    PublishedDevice("A40", 3_000, 48, 696, 75, 0.15, 0.30),
    PublishedDevice("A100", 8_000, 80, 2_039, 322, 0.25, 0.40, "the data sheet has 312 TFLOPS"),
    PublishedDevice("Gaudi 3", 12_500, 128, 3_700, 1_678, 0.49, 0.90),
    PublishedDevice("MI300X", 20_000, 192, 5_300, 1_307, 0.52, 0.75),
    PublishedDevice(
        "H100", 25_000, 80, 3_350, 1_979, 0.60, 0.70,
        "1,979 TFLOPS is with sparsity, dense is 989; operating cost fits a price of 30,000 only",
    ),
    PublishedDevice("B200", 40_000, 192, 8_000, 2_250, 0.83, 1.00),
)  # fmt: skip
_DENSE = {"A100": 312.0, "H100": 989.0}
_OPERATING = {"H100": 0.548}
CORRECTED = tuple(
    replace(
        device,
        teraflops=_DENSE.get(device.name, device.teraflops),
        operating=_OPERATING.get(device.name, device.operating),
    )
    for device in AS_PUBLISHED
)


@dataclass(frozen=True)
class TaskOnDevice:
    """One task on one class of hardware: amounts used by resource, seconds of static latency, of transfer from the task
    before and of synchronisation."""

    used: Mapping[str, float]
    static: float = 0.0
    transfer: float = 0.0
    synchronisation: float = 0.0


def task_seconds(task: TaskOnDevice, rates: Mapping[str, float]) -> float:
    """max over resources of amount / rate, and the rest added. (The legend says a maximum over tasks: an erratum.)"""
    busiest = max((amount / rates[resource] for resource, amount in task.used.items()), default=0.0)
    return busiest + task.static + task.transfer + task.synchronisation


def task_cost(task: TaskOnDevice, prices: Mapping[str, float], *, transfer_price: float = 0.0) -> float:
    """Dollars: amounts times price per unit, and seconds of transfer times their weight."""
    return sum(amount * prices[resource] for resource, amount in task.used.items()) + transfer_price * task.transfer
