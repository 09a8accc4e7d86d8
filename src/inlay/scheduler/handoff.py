"""The hand-off of a sequence's KV between runners, as bookkeeping: bindings, leases, and what happens on doubt."""

from __future__ import annotations

import hashlib

from inlay.scheduler.prefix import name_of
from inlay.scheduler.sequence import DECODE, HANDOFF, PREFILL, Sequence
from inlay.scheduler.state import State
from inlay.specs.device import AbortTransfer, ExpectTransfer, OpenTransfer, TransferBinding
from inlay.specs.kv import PAGE, QUARANTINED
from inlay.specs.schedule import Command, Recompute, Send

SHUNNED_SECONDS = 600.0
"""How long no hand-off is tried from a source that its destination has put into quarantine: as long as that holds."""


def open_handoff(state: State, sequence: Sequence, now: float, *, start: int = 0) -> list[Command]:
    """Tell both ends about the transfer before the first chunk of the prompt runs; the destination has `start` rows."""
    transfer = state.next_transfer
    state.next_transfer += 1
    request = sequence.request
    attempt = sequence.attempt.to_bytes(4, "little")
    binding = TransferBinding(
        transfer=transfer,
        request=request.request,
        sequence=sequence.number,
        attempt=sequence.attempt,
        nonce=hashlib.blake2b(request.entropy + attempt, digest_size=16).digest(),
        source=sequence.prefill,
        source_epoch=state.runners[sequence.prefill].facts.epoch,
        destination=sequence.decode,
        destination_epoch=state.runners[sequence.decode].facts.epoch,
        tokens=sequence.goal(),
        start=start,
        chain=name_of(sequence.tokens[: sequence.goal()], page=PAGE, salt=state.salt_of(sequence)),
        lease=state.setup.lease,
        tenant=request.tenant,
    )
    sequence.transfer = transfer
    sequence.deadline = float("inf")
    state.handoffs[transfer] = sequence.number
    pages = tuple(sequence.tables.get(sequence.decode, ()))
    return [
        Send(sequence.decode, ExpectTransfer(binding=binding, slot=sequence.slots[sequence.decode], pages=pages)),
        Send(sequence.prefill, OpenTransfer(binding=binding, slot=sequence.slots[sequence.prefill])),
    ]


def prompt_done(state: State, sequence: Sequence, now: float) -> None:
    """The prompt is computed and its last rows are on their way: wait for the destination, until the lease ends."""
    state.runners[sequence.prefill].release(sequence)
    state.admissible = True
    if sequence.arrived:
        _begin_decoding(state, sequence)
    else:
        sequence.phase = HANDOFF
        sequence.deadline = now + state.setup.lease


def kv_arrived(state: State, transfer: int, tokens: int) -> None:
    """The destination holds the whole prompt's KV, verified."""
    sequence = _sequence_of(state, transfer)
    if sequence is None:
        return
    sequence.arrived = True
    if sequence.phase == HANDOFF:
        _begin_decoding(state, sequence)


def close_handoff(state: State, sequence: Sequence, reason: str) -> list[Command]:
    """Forget the transfer of a sequence at both ends, if it is still open."""
    transfer = sequence.transfer
    if transfer is None:
        return []
    sequence.transfer = None
    state.handoffs.pop(transfer, None)
    if sequence.arrived:
        return []
    ends = (sequence.prefill, sequence.decode)
    return [Send(end, AbortTransfer(transfer=transfer, reason=reason)) for end in ends if state.runners[end].alive]


def kv_failed(state: State, transfer: int, cause: str, now: float) -> list[Command]:
    """On any doubt the destination computes the prompt itself; nothing that came over is used. Where it takes nothing of that
    source any more, no way between the two is chosen for a while."""
    sequence = _sequence_of(state, transfer)
    if sequence is None or sequence.arrived:
        return []
    if cause == QUARANTINED:
        state.shunned[sequence.prefill, sequence.decode] = now + SHUNNED_SECONDS
    return recompute(state, sequence, cause)


def forgive(state: State, now: float) -> None:
    """Try hand-offs again between runners whose time is over."""
    for pair in [pair for pair, until in state.shunned.items() if until <= now]:
        del state.shunned[pair]


def recompute(state: State, sequence: Sequence, cause: str) -> list[Command]:
    """Start the sequence's KV over on its decode runner, in the slot it holds there, or after the pages that it shares."""
    commands = close_handoff(state, sequence, cause)
    if sequence.prefill != sequence.decode:
        state.runners[sequence.prefill].release(sequence)
        state.admissible = True
    sequence.prefill, sequence.part = sequence.decode, 0
    sequence.arrived = False
    sequence.attempt += 1
    decode = state.runners[sequence.decode]
    paging = decode.paging
    sequence.computed = 0 if paging is None else paging.named(sequence.tables[sequence.decode]) * paging.page
    sequence.phase = PREFILL
    decode.prefilling.append(sequence)
    commands.append(Recompute(sequence.number, sequence.decode, cause))
    return commands


def expired(state: State, now: float) -> list[Command]:
    """Hand-offs whose lease has ended without an answer are given up and computed again."""
    late = [item for item in state.sequences.values() if item.phase == HANDOFF and now > item.deadline]
    return [command for sequence in late for command in recompute(state, sequence, "lease")]


def _begin_decoding(state: State, sequence: Sequence) -> None:
    sequence.computed = sequence.goal()
    if sequence.transfer is not None:
        state.handoffs.pop(sequence.transfer, None)
        sequence.transfer = None
    decode = state.runners[sequence.decode]
    if sequence.part:  # the rest of the prompt is computed where it decodes
        sequence.prefill, sequence.part, sequence.phase = sequence.decode, 0, PREFILL
        decode.prefilling.append(sequence)
    else:
        sequence.phase = DECODE
        decode.start_decoding(sequence)


def _sequence_of(state: State, transfer: int) -> Sequence | None:
    number = state.handoffs.get(transfer)
    return None if number is None else state.sequences.get(number)
