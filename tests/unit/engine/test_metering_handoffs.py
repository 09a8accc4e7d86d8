"""Hand-offs as meters: what was moved between whom, what was refused and why, and nothing remembered of what is over."""

from __future__ import annotations

import pytest

from inlay.engine.metering import Label, Metering
from inlay.specs.device import AbortTransfer, KvArrived, KvFailed, OpenTransfer, SlotAddress, TransferBinding
from inlay.specs.schedule import Answered, Command, Recompute, Send, Tick
from inlay.telemetry import EngineMeters

LABELS = {"p": Label("cpu:0", "openvino"), "d": Label("cpu:1", "onnxruntime")}
PAIR = '{destination="cpu:1",source="cpu:0"}'


def opened(transfer: int) -> Command:
    binding = TransferBinding(
        transfer=transfer, request="r", sequence=1, attempt=0, nonce=b"n" * 16, source="p", source_epoch=1, destination="d",
        destination_epoch=1, tokens=3, chain=b"", lease=1.0,
    )  # fmt: skip
    return Send("p", OpenTransfer(binding=binding, slot=SlotAddress(16, 0)))


def failed(cause: str) -> Answered:
    return Answered("d", KvFailed(transfer=1, sequence=1, cause=cause, message=""))


@pytest.fixture
def metering() -> Metering:
    it = Metering(EngineMeters(), LABELS)
    it.observe(Tick(), [opened(1)], 0.0)
    return it


def values(it: Metering) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in it._meters.text().splitlines() if line.startswith("inlay_kv_"))
    return {name: float(value) for name, _, value in lines}


def test_what_arrives_is_counted_for_its_pair(metering) -> None:
    arrived = KvArrived(transfer=1, sequence=1, tokens=3, size=99, chunks=1, started=0.0, ended=0.5)
    metering.observe(Answered("d", arrived), [], 1.0)
    assert values(metering)[f"inlay_kv_transfer_bytes_total{PAIR}"] == 99


@pytest.mark.parametrize(("cause", "quarantined", "expired"), [("checksum", 0, 0), ("quarantined", 1, 0), ("lease", 0, 1)])
def test_what_is_refused_is_counted_by_cause_and_a_quarantine_by_its_pair(metering, cause, quarantined, expired) -> None:
    metering.observe(failed(cause), [Recompute(1, "d", cause)], 1.0)
    found = values(metering)
    assert found[f'inlay_kv_verify_failures_total{{cause="{cause}"}}'] == 1
    assert found.get(f"inlay_kv_quarantined_total{PAIR}", 0) == quarantined
    assert (found["inlay_kv_recompute_total"], found["inlay_kv_lease_expired_total"]) == (1, expired)


def test_nothing_is_remembered_of_a_transfer_that_arrived_failed_or_was_given_up(metering) -> None:
    assert metering._routes
    metering.observe(failed("lease"), [], 1.0)
    for number in range(2, 5):
        metering.observe(Tick(), [opened(number)], 1.0)
        metering.observe(Tick(), [Send("d", AbortTransfer(transfer=number, reason="cancelled"))], 2.0)
    assert not metering._routes
