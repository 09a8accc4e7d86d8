"""What goes into the scheduler and what comes out: events and commands, all of it data that can be logged."""

from __future__ import annotations

import msgspec

from inlay.specs.choice import Drafted, Drafting, Weighed
from inlay.specs.device import DeviceToEngine, EngineToDevice
from inlay.specs.latency import LatencyTable
from inlay.specs.sampling import SampledToken, Sampling
from inlay.specs.speculation import AUTO, SpeculationSetup


class RunnerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler knows of one runner. `chunk` is the widest prompt piece it is given at once;
    `batches` are the only batch sizes it runs (empty = any). It takes at most `slots` sequences at once; `rooms` says how
    many slots each capacity has (empty = `slots` each). `pages` pages of `page` tokens keep prefixes (0 = none). `device` is
    where it runs, `kv_bytes` what one token's KV takes, `table` how long its batches take, where that is known. It decodes up
    to `rounds` steps in a row without being told.

    A `paged` runner has no slots: sequences lie in its `pages`, `slots` of them at most, and a batch holds rows of any width
    and length together, up to `chunk` tokens beside one for each sequence that decodes. With `keeps` pages that nobody uses
    keep prefixes."""

    runner: str
    epoch: int
    roles: tuple[str, ...]
    capacities: tuple[int, ...]
    slots: int
    chunk: int
    batches: tuple[int, ...] = ()
    rooms: tuple[int, ...] = ()
    page: int = 0
    pages: int = 0
    device: str = ""
    kv_bytes: int = 0
    paged: bool = False
    keeps: bool = True
    table: LatencyTable | None = None
    rounds: int = 1


class SchedulerSetup(msgspec.Struct, frozen=True, kw_only=True):
    """All that a scheduler is started with, so that a replay needs nothing else. `context` is the most tokens of one
    sequence, `lease` seconds; `salt` names the model in the names of kept prefixes."""

    facts: tuple[RunnerFacts, ...]
    context: int
    waiting_limit: int = 1024
    lease: float = 10.0
    salt: str = ""
    speculation: SpeculationSetup = SpeculationSetup()


class SequenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to generate. `entropy` is 16 random bytes from outside: nonces are derived from it.

    `prefill` and `decode` name the runners it must use; None leaves the choice to the scheduler. A higher `priority` is
    served first and may take the slots of a lower one; among equals tenants share. Kept prefixes are never shared between
    tenants. `speculation` is one of MODES, "auto" that of the deployment; `draft` names the draft runner it must use, `drafts`
    how many tokens are drafted at most (0 = as the deployment says).
    `whole` is for prompts whose every row is wanted for itself: no kept prefix stands in for any of it. `guided`: something
    outside must see each token before the next one is sampled.
    """

    sequence: int
    request: str
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    entropy: bytes
    stop_tokens: tuple[int, ...] = ()
    min_tokens: int = 0
    prefill: str | None = None
    decode: str | None = None
    tenant: str = ""
    priority: int = 0
    speculation: str = AUTO
    draft: str | None = None
    drafts: int = 0
    whole: bool = False
    guided: bool = False


class Arrived(msgspec.Struct, frozen=True, tag="arrived"):
    """A new sequence."""

    request: SequenceRequest


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """A runner's device process said something."""

    runner: str
    message: DeviceToEngine


class Lost(msgspec.Struct, frozen=True, tag="lost"):
    """A runner's device process has ended or stopped answering."""

    runner: str
    reason: str


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    """Nobody wants the rest of a sequence (hung up, or a stop string was found)."""

    sequence: int
    reason: str


class Tick(msgspec.Struct, frozen=True, tag="tick"):
    """Time has passed; deadlines are looked at."""


Event = Arrived | Answered | Lost | Cancelled | Tick


class Send(msgspec.Struct, frozen=True, tag="send"):
    """Give a runner's device process this message."""

    runner: str
    message: EngineToDevice


class Wake(msgspec.Struct, frozen=True, tag="wake"):
    """Give a Tick at this time, in seconds of the clock that `now` is read from, whatever else happens."""

    at: float


class Placed(msgspec.Struct, frozen=True, tag="placed"):
    """A sequence left the queue: its prompt runs on `prefill`, its tokens on `decode`; the first `cached` tokens of it
    need not be computed, a kept prefix holds them. `way` says how its prompt is computed: "whole" where it decodes, "split"
    elsewhere, "part" the first part elsewhere. `weighed` are the best of each kind of way with predicted times, the chosen one
    first (empty where no times are known); `asked`: the request named a place."""

    sequence: int
    prefill: str
    decode: str
    cached: int = 0
    way: str = "whole"
    weighed: tuple[Weighed, ...] = ()
    asked: bool = False
    drafting: Drafting | None = None


class Preempted(msgspec.Struct, frozen=True, tag="preempted"):
    """A sequence lost its slot on `runner` to another one and waits again, with the tokens it has."""

    sequence: int
    runner: str


class Emit(msgspec.Struct, frozen=True, tag="emit"):
    """One token of a sequence, computed on `runner`."""

    sequence: int
    runner: str
    sampled: SampledToken


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    """A sequence has ended: "stop" (an end token), "length", or "cancelled"; and how it speculated, if it did."""

    sequence: int
    reason: str
    drafted: Drafted | None = None


class Fail(msgspec.Struct, frozen=True, tag="fail"):
    """A sequence cannot go on; `status` is the HTTP status that says so, `hint` what to do about it."""

    sequence: int
    status: int
    code: str
    message: str
    hint: str = ""


class Recompute(msgspec.Struct, frozen=True, tag="recompute"):
    """A hand-off failed (`cause`): the prompt is computed again on `runner`."""

    sequence: int
    runner: str
    cause: str


Command = Send | Wake | Placed | Preempted | Emit | Finish | Fail | Recompute
