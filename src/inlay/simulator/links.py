"""Links that hand-offs share: each transfer under way gets an equal part of the bandwidth."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec


class LinkSetup(msgspec.Struct, frozen=True, kw_only=True):
    """The way from one runner to another: seconds and bytes per second. Ways of one `name` share the bandwidth."""

    source: str
    destination: str
    name: str
    latency: float
    bandwidth: float
    grade: str


@dataclass(slots=True, eq=False)
class SharedLink:
    """Bytes left of each transfer, as of the time that it was looked at last. `expected` is when it is looked at next."""

    index: int
    latency: float
    bandwidth: float
    left: dict[int, float] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)
    now: float = 0.0
    expected: float | None = None
    carried: float = 0.0

    def add(self, transfer: int, size: float, now: float) -> None:
        """More bytes of a transfer are ready to go."""
        self.advance(now)
        self.left[transfer] = self.left.get(transfer, 0.0) + size

    def drop(self, transfer: int, now: float) -> None:
        """A transfer is given up."""
        self.advance(now)
        self.left.pop(transfer, None)

    def advance(self, now: float) -> None:
        """Let time pass; transfers of which nothing is left are `done`. Half a byte is nothing: sums of floats err."""
        elapsed, self.now = now - self.now, now
        if not self.left:
            return
        each = elapsed * self.bandwidth / len(self.left)
        done = [transfer for transfer, size in self.left.items() if size - each < 0.5]
        for transfer, size in self.left.items():
            self.carried += min(size, each)
            self.left[transfer] = size - each
        for transfer in done:
            del self.left[transfer]
        self.done += done

    def take_done(self) -> list[int]:
        """The transfers that are done and were not asked for yet."""
        done, self.done = self.done, []
        return done

    def next_end(self) -> float | None:
        """When the next transfer has nothing left, if nothing is added; None where nothing is under way."""
        if self.done:
            return self.now
        if not self.left:
            return None
        return self.now + min(self.left.values()) * len(self.left) / self.bandwidth
