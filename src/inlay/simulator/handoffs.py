"""KV on its way between runners: rows leave as soon as their chunk is computed, and arrive with the last of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inlay.errors import InputError
from inlay.simulator.links import LinkSetup, SharedLink
from inlay.specs.device import KvArrived, Row, TransferBinding


@dataclass(slots=True)
class HandOff:
    """One transfer: the rows up to `sent` are on their way or there; `committed` once its last row is."""

    binding: TransferBinding
    link: SharedLink
    sent: int
    began: float
    size: int = 0
    chunks: int = 0
    committed: bool = False


class HandOffs:
    """All transfers of one run. `kv_bytes` by runner: what one token's KV takes."""

    def __init__(self, links: Iterable[LinkSetup], kv_bytes: dict[str, int]) -> None:
        self.links: list[SharedLink] = []
        self.open: dict[int, HandOff] = {}
        self._kv_bytes = kv_bytes
        self._ways: dict[tuple[str, str], SharedLink] = {}
        named: dict[str, SharedLink] = {}
        for item in links:
            if item.name not in named:
                named[item.name] = SharedLink(len(self.links), item.latency, item.bandwidth)
                self.links.append(named[item.name])
            self._ways[item.source, item.destination] = named[item.name]

    @property
    def carried(self) -> float:
        """Bytes that went over all links."""
        return sum(link.carried for link in self.links)

    def begin(self, binding: TransferBinding, now: float) -> None:
        """The source is told of a transfer."""
        link = self._ways.get((binding.source, binding.destination))
        if link is None:
            known = ", ".join(f"{source} to {destination}" for source, destination in self._ways) or "none"
            raise InputError(
                f"there is no link from {binding.source} to {binding.destination}, expected one of: {known}",
                hint="add it to `links` of the cluster",
            )
        self.open[binding.transfer] = HandOff(binding, link, binding.start, now)

    def computed(self, row: Row, now: float) -> SharedLink | None:
        """A row of a prompt is there: what was not sent yet of it goes. The link that this changes."""
        found = None if row.transfer is None else self.open.get(row.transfer)
        if found is None:
            return None
        end = min(row.past_length + len(row.tokens), found.binding.tokens)
        rows = max(0, end - found.sent)
        size = rows * self._kv_bytes[found.binding.destination]
        found.sent, found.size, found.chunks = max(found.sent, end), found.size + size, found.chunks + 1
        found.committed = found.committed or row.commit
        found.link.add(found.binding.transfer, size, now)
        return found.link

    def drop(self, transfer: int, now: float) -> SharedLink | None:
        """A transfer is given up."""
        found = self.open.pop(transfer, None)
        if found is None:
            return None
        found.link.drop(transfer, now)
        return found.link

    def drop_of(self, runner: str, now: float) -> list[SharedLink]:
        """A runner is lost, and with it every transfer that it is an end of."""
        gone = [number for number, item in self.open.items() if runner in (item.binding.source, item.binding.destination)]
        return [link for number in gone if (link := self.drop(number, now)) is not None]

    def arrived(self, transfer: int, now: float) -> tuple[str, KvArrived] | None:
        """Nothing is left to send of a transfer: who is told what, once all of it was sent."""
        found = self.open.get(transfer)
        if found is None or not found.committed:
            return None
        del self.open[transfer]
        binding = found.binding
        return binding.destination, KvArrived(
            transfer=transfer,
            sequence=binding.sequence,
            tokens=binding.tokens,
            size=found.size,
            chunks=found.chunks,
            started=found.began,
            ended=now,
        )
