"""One sequence as the scheduler sees it: its tokens, where it is in its life, what it holds on which runner."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from inlay.scheduler.speculating import Speculation
from inlay.specs.device import SlotAddress
from inlay.specs.sampling import Sampling
from inlay.specs.schedule import SequenceRequest

WAITING, PREFILL, HANDOFF, DECODE = "waiting", "prefill", "handoff", "decode"


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens` are prompt and answer, `sample` how they are chosen; the first `computed` rows of its KV are valid on the
    runner that works on it now.

    `slots` and `tables` are what it holds, by runner; on a paged one its pages in order, and a slot that only tells it apart.
    `attempt` grows whenever what was under way for it no longer counts; `chains` name its full pages, by their size, as far as
    they were needed; `order` is its place in the order of first admission (-1: never admitted). Where its prompt is computed
    elsewhere than it decodes, only the first `part` rows are (0 = all). `silent` says why it does not speculate,
    `modes` counts its tokens by how they were speculated for, `drafted` and `accepted` its drafts.
    """

    request: SequenceRequest
    sample: Sampling
    tokens: list[int]
    prefill: str = ""
    decode: str = ""
    phase: str = WAITING
    computed: int = 0
    attempt: int = 0
    order: int = -1
    transfer: int | None = None
    arrived: bool = False
    deadline: float = 0.0
    passed_over: int = 0
    part: int = 0
    slots: dict[str, SlotAddress] = field(default_factory=dict)
    tables: dict[str, list[int]] = field(default_factory=dict)
    chains: dict[int, list[bytes]] = field(default_factory=dict)
    speculation: Speculation | None = None
    silent: str = ""
    modes: dict[str, int] = field(default_factory=dict)
    drafted: int = 0
    accepted: int = 0

    @property
    def number(self) -> int:
        """The sequence's id."""
        return self.request.sequence

    @property
    def generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - len(self.request.prompt)

    def goal(self) -> int:
        """Rows that the runner of its prompt has to compute."""
        return self.part if self.part and self.prefill != self.decode else self.wanted()

    @property
    def runner(self) -> str:
        """The runner that computes it next."""
        return self.prefill if self.phase == PREFILL else self.decode

    def wanted(self) -> int:
        """Rows of KV that must be computed before decoding: all tokens, less the newest one once one is sampled."""
        length = len(self.tokens)
        return length - 1 if length > len(self.request.prompt) else length


def new_sequence(request: SequenceRequest) -> Sequence:
    """A sequence that waits. End tokens are forbidden while fewer than min_tokens are generated."""
    sample = request.sampling
    if request.min_tokens and request.stop_tokens:
        until = len(request.prompt) + request.min_tokens
        sample = msgspec.structs.replace(sample, forbidden=request.stop_tokens, until=until)
    return Sequence(request=request, sample=sample, tokens=list(request.prompt))
