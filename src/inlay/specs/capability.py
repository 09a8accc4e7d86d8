"""What a backend says it can do with a Program: per node, with the reason; and how it wants to be called."""

from __future__ import annotations

import msgspec


class NodeSupport(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a Program: supported or not, why not, and the atomic group it must stay in (None = alone)."""

    node: str
    supported: bool
    reason: str = ""
    group: str | None = None


class Capability(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `Backend.supports`.

    `dynamic` is false for a framework that runs declared buckets only; `bakes_weights` is true for one that
    cannot bind weights by reference; `needs_torch` is true where its executable loads torch.
    """

    backend: str
    nodes: tuple[NodeSupport, ...]
    dynamic: bool = True
    bakes_weights: bool = False
    needs_torch: bool = False

    @property
    def complete(self) -> bool:
        """Whether every node is supported."""
        return all(node.supported for node in self.nodes)


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a backend can be used on this machine: the version of its framework, or why it is absent and what helps."""

    backend: str
    available: bool
    framework: str = ""
    version: str = ""
    reason: str = ""
    hint: str = ""
