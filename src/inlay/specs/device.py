"""Messages between the engine and one device process. Sequences are numbers; text never gets this far.

The scheduler speaks of runners. Where several processes make one runner, each owns a run of layers, all of them are told
the same, and `engine.replica` joins what they answer.
"""

from __future__ import annotations

import msgspec

from inlay.specs.precision import Precision
from inlay.specs.sampling import History, SampledToken, Sampling
from inlay.specs.stage import StageShape


class SlotAddress(msgspec.Struct, frozen=True, order=True):
    """One row of the KV pool of a runner: the capacity of its bucket and the index in that bucket.

    A page of a runner that keeps pages is moved as the slot of that index in a bucket whose capacity is the page's size.
    """

    capacity: int
    index: int


KvPlace = SlotAddress | tuple[int, ...]
"""Where the KV of a sequence lies on one runner: in a slot, or in pages, in order."""


Proposal = tuple[tuple[int, float], ...]
"""What one drafted token was drawn from: (token id, probability) pairs, of mass 1 together."""


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sequence in a batch: its slot, the tokens to add after `past_length` valid rows.

    `sample` asks for a token after the last row; `transfer` names the transfer that the new rows are sent on as
    soon as they are written; `commit` ends that transfer with this row. `prompt` counts how many of the tokens
    are prompt tokens (a runner that decodes only must never see any, unless it recomputes).

    The last `drafts` tokens are guesses: the runner samples after the token before them, keeps guesses as long as they
    equal what it sampled, and answers with the tokens it sampled, one more than it kept. `proposals` are the truncated
    distributions that the guesses were drawn from, where rejection sampling is wanted, and empty for the coupled rule.

    `masks` has one mask for each of the `drafts` + 1 positions that are sampled, a bit for each token of the vocabulary,
    lowest first; an empty one allows all; no masks at all do too. `history` is what came before the first of these
    positions, there where `sample` looks back: see `History.then`.

    `targets` are tokens whose log-probabilities are wanted, the i-th after the row's i-th token, each with the
    `target_top` likeliest tokens at its place.

    `ends` are tokens after which the rounds of its batch end.

    `pages` is the row's block table on a runner of the ability "paged": page ids in order, as many as its past and its new
    tokens need, those of all rounds. `slot` then only tells sequences apart.
    """

    sequence: int
    slot: int
    tokens: tuple[int, ...]
    past_length: int
    sample: Sampling | None = None
    prompt: int = 0
    transfer: int | None = None
    commit: bool = False
    drafts: int = 0
    proposals: tuple[Proposal, ...] = ()
    masks: tuple[bytes, ...] = ()
    history: History | None = None
    targets: tuple[int, ...] = ()
    target_top: int = 0
    ends: tuple[int, ...] = ()
    pages: tuple[int, ...] = ()


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag="submit"):
    """Run one batch: slots first .. first+count-1 of the bucket `capacity`. Slots without a row are idle.

    Rows are homogeneous in bucket; shorter ones are padded on the right to `width` tokens by the runner. A paged runner takes
    any rows together, whatever their widths and lengths, and looks at them only.

    With `rounds` the batch is run so many times, each row fed with the token it sampled last, and answered as it goes. It ends
    earlier after a row's end token, when it is interrupted, and when another message waits.
    """

    batch: int
    phase: str
    capacity: int
    first: int
    count: int
    width: int
    rows: tuple[Row, ...]
    rounds: int = 1


class Move(msgspec.Struct, frozen=True, kw_only=True, tag="move"):
    """Copy the first `length` rows of a sequence's KV from one slot to another of the same runner."""

    sequence: int
    source: SlotAddress
    destination: SlotAddress
    length: int


class Keep(msgspec.Struct, frozen=True, kw_only=True, tag="keep"):
    """Copy rows of a slot, from `start` on, into these pages of the runner's page store, one page after another."""

    slot: SlotAddress
    start: int
    pages: tuple[int, ...]


class Fill(msgspec.Struct, frozen=True, kw_only=True, tag="fill"):
    """Copy these pages of the page store into a slot, one after another, from its first row on."""

    slot: SlotAddress
    pages: tuple[int, ...]


class DraftRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One guess to be made in a draft batch: feed `tokens` after `past_length` valid rows of the slot, then sample
    `count` tokens one after another, each fed to the next (0: only feed). `guess` numbers it among the batch's rows."""

    sequence: int
    guess: int
    slot: int
    tokens: tuple[int, ...]
    past_length: int
    count: int
    sample: Sampling


class Draft(msgspec.Struct, frozen=True, kw_only=True, tag="draft"):
    """Run one draft batch of several steps: slots first .. first+count-1 of the bucket `capacity`, as in Submit.

    `alternatives` asks, at each position, for so many next best tokens beside the sampled one (where the target is
    likely to go instead); `proposals` for the distribution each was drawn from, truncated to that many tokens
    (0 = the coupled rule, which needs none).
    """

    batch: int
    capacity: int
    first: int
    count: int
    rows: tuple[DraftRow, ...]
    alternatives: int = 0
    proposals: int = 0


class Interrupt(msgspec.Struct, frozen=True, kw_only=True, tag="interrupt"):
    """End a draft batch, or the rounds of a batch, after the step in progress: it answers with what it has."""

    batch: int


class TransferBinding(msgspec.Struct, frozen=True, kw_only=True):
    """What ties a KV transfer to one attempt of one request: both ends must hold the same values.

    `nonce` is 16 random bytes; `chain` the salted hash of the `tokens` tokens whose KV the destination will hold; `lease`
    seconds. Rows before `start` do not travel: the destination has them already.

    The scheduler knows runners and whole transfers. Between the processes of two runners travel parts of one: for each
    pair of regions that have layers in common a transfer of its own, whose binding names the two processes with their
    epochs, the common `layers` (first to end, not included) and, as `part_of`, the scheduler's transfer. Rows go on
    naming the latter. The digest that ends a part covers its binding, and with it all of this. Where the processes of a
    region share the heads of its layers, `heads` says which of them travel: of all cut in `of` equal parts, those from
    `first` to `end`, not included.
    """

    transfer: int
    request: str
    sequence: int
    attempt: int
    nonce: bytes
    source: str
    source_epoch: int
    destination: str
    destination_epoch: int
    tokens: int
    chain: bytes
    lease: float
    tenant: str = ""
    adapter: str = ""
    part_of: int | None = None
    layers: tuple[int, int] | None = None
    heads: tuple[int, int, int] | None = None
    start: int = 0


class OpenTransfer(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """To the source: reserve room at the destination; rows that carry this transfer are then sent on it."""

    binding: TransferBinding
    slot: SlotAddress


class ExpectTransfer(msgspec.Struct, frozen=True, kw_only=True, tag="expect"):
    """To the destination: accept this transfer, and only with this binding, into this slot, or into these pages of a paged
    runner, which the slot then only tells apart."""

    binding: TransferBinding
    slot: SlotAddress
    pages: tuple[int, ...] = ()

    @property
    def place(self) -> KvPlace:
        """Where the rows go."""
        return self.pages or self.slot


class AbortTransfer(msgspec.Struct, frozen=True, kw_only=True, tag="abort"):
    """To either end: forget the transfer; its pages are free again."""

    transfer: int
    reason: str


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Answered by Beat as soon as the batch in flight allows."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End the process in order."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """A device process has loaded, is connected with its neighbours, and can take batches. `place` is its own; `stage`
    the layers it owns; `rooms` how many slots each capacity has; `pages` how many pages of `page` tokens it keeps: beside its
    slots, or in their place on a runner of the ability "paged", whose pages keep prefixes too where it `keeps`; `memory` the
    bytes that it holds, by name."""

    place: str
    epoch: int
    framework: str
    framework_version: str
    stage: StageShape
    precision: Precision
    capacities: tuple[int, ...]
    slots: int
    rooms: tuple[int, ...] = ()
    page: int = 0
    pages: int = 0
    keeps: bool = True
    batches: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    abilities: tuple[str, ...] = ("extend", "verify", "export_kv", "top_n")
    load_seconds: float = 0.0
    memory: dict[str, int] = {}


class RowResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one row of a batch gave: the sampled token where one was asked for; for a row with drafts those that were
    kept and the one after them; and its targets' log-probabilities."""

    sequence: int
    sampled: tuple[SampledToken, ...] = ()
    targets: tuple[SampledToken, ...] = ()


class BatchDone(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """A batch ended. Times are of the monotonic clock of the host; `prompt_tokens` is the runner's own count.

    Results of a process whose layers do not end the model hold no tokens. `more`: another round of it has begun. Quick
    rounds are reported several at once: `steps` says how many, a row's tokens are those of all of them."""

    batch: int
    results: tuple[RowResult, ...]
    started: float
    ended: float
    prompt_tokens: int
    more: bool = False
    steps: int = 1


class Guess(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one row of a draft batch gave: tokens, and by position what was asked for beside them."""

    sequence: int
    guess: int
    tokens: tuple[int, ...] = ()
    alternatives: tuple[tuple[int, ...], ...] = ()
    proposals: tuple[Proposal, ...] = ()


class DraftDone(msgspec.Struct, frozen=True, kw_only=True, tag="drafted"):
    """A draft batch ended, interrupted or not. Times as in BatchDone; `steps` is how many were run."""

    batch: int
    guesses: tuple[Guess, ...]
    started: float
    ended: float
    steps: int


class BatchFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """A batch could not be run; the device goes on with the next one."""

    batch: int
    code: str
    message: str


class KvSent(msgspec.Struct, frozen=True, kw_only=True, tag="sent"):
    """The source has seen the destination's final answer: its slot may be used again."""

    transfer: int
    sequence: int
    size: int


class KvArrived(msgspec.Struct, frozen=True, kw_only=True, tag="arrived", omit_defaults=True):
    """The destination has verified and committed a transfer: `tokens` rows are in its slot.

    `conversion` names what was done to the numbers on their way ("" = nothing), `inexact` counts those it changed where
    they are counted."""

    transfer: int
    sequence: int
    tokens: int
    size: int
    chunks: int
    started: float
    ended: float
    conversion: str = ""
    inexact: int = 0


class KvFailed(msgspec.Struct, frozen=True, kw_only=True, tag="kv_failed"):
    """A transfer failed at one end; nothing computed from it may leave. `cause` is a short fixed word."""

    transfer: int
    sequence: int
    cause: str
    message: str


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """The answer to Ping: memory in bytes by name, and counters of the runner."""

    memory: dict[str, int]
    counters: dict[str, int]


EngineToDevice = Submit | Draft | Interrupt | Move | Keep | Fill | OpenTransfer | ExpectTransfer | AbortTransfer | Ping | Stop
DeviceToEngine = Ready | BatchDone | DraftDone | BatchFailed | KvSent | KvArrived | KvFailed | Beat
