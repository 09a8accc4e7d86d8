"""Who may enter: refusals at once, placement on runners, first slots."""

from __future__ import annotations

from collections import deque

from inlay.scheduler.handoff import open_handoff
from inlay.scheduler.state import RunnerState, Sequence, State
from inlay.specs.schedule import Command, Fail, Placed, SequenceRequest


def enqueue(state: State, request: SequenceRequest) -> list[Command]:
    """Put a request at the end of the queue, or refuse it with the reason."""
    refusal = _refusal(state, request)
    if refusal is not None:
        return [refusal]
    state.waiting.append(request)
    return []


def admit(state: State, now: float) -> list[Command]:
    """Place every waiting request that fits now, in order; one that must wait does not block others elsewhere."""
    commands: list[Command] = []
    kept: deque[SequenceRequest] = deque()
    while state.waiting:
        request = state.waiting.popleft()
        unavailable = _unavailable(state, request)
        if unavailable is not None:
            commands.append(unavailable)
            continue
        places = _choose(state, request)
        if places is None:
            kept.append(request)
            continue
        commands += _place(state, request, *places, now)
    state.waiting = kept
    return commands


def _refusal(state: State, request: SequenceRequest) -> Fail | None:
    length, number = len(request.prompt), request.sequence
    if length == 0:
        return Fail(number, 400, "empty_prompt", "the prompt has 0 tokens, expected at least 1")
    if length >= state.context:
        message = f"the prompt has {length} tokens, expected at most {state.context - 1}: the context is {state.context}"
        return Fail(number, 400, "context_length_exceeded", message)
    for name, role in ((request.prefill, "prefill"), (request.decode, "decode")):
        if name is not None and (name not in state.runners or role not in state.runners[name].facts.roles):
            known = ", ".join(runner for runner, item in state.runners.items() if role in item.facts.roles)
            return Fail(number, 400, "unknown_place", f"{role} place is {name!r}, expected one of: {known}")
    if len(state.waiting) >= state.waiting_limit:
        return Fail(
            number, 503, "queue_full", f"{len(state.waiting)} requests wait already, the limit is {state.waiting_limit}"
        )
    return _unavailable(state, request)


def _unavailable(state: State, request: SequenceRequest) -> Fail | None:
    for role, name in (("prefill", request.prefill), ("decode", request.decode)):
        if not any(item.alive for item in _candidates(state, role, name)):
            return Fail(request.sequence, 503, "no_runner", f"no living runner has the role {role}")
    return None


def _candidates(state: State, role: str, name: str | None) -> list[RunnerState]:
    if name is not None:
        return [state.runners[name]]
    return [item for item in state.runners.values() if role in item.facts.roles]


def _choose(state: State, request: SequenceRequest) -> tuple[RunnerState, RunnerState] | None:
    """The decode runner with most room, and for the prompt one with room: the shortest prompt queue, itself if it may."""
    decoders = [item for item in _candidates(state, "decode", request.decode) if item.has_room()]
    if not decoders:
        return None
    decode = max(decoders, key=lambda item: item.facts.slots - len(item.holders))
    prefills = [item for item in _candidates(state, "prefill", request.prefill) if item is decode or item.has_room()]
    if not prefills:
        return None
    prefill = min(prefills, key=lambda item: (len(item.prefilling), item is not decode))
    if request.max_tokens == 1 and request.decode is None and prefill.has_room():
        decode = prefill  # one token only: nothing to hand off
    return prefill, decode


def _place(state: State, request: SequenceRequest, prefill: RunnerState, decode: RunnerState, now: float) -> list[Command]:
    sequence = Sequence(request=request, prefill=prefill.facts.runner, decode=decode.facts.runner)
    state.sequences[sequence.number] = sequence
    decode.hold(sequence, len(request.prompt) + 1)
    commands: list[Command] = [Placed(sequence.number, sequence.prefill, sequence.decode)]
    if prefill is not decode:
        prefill.hold(sequence, len(request.prompt))
        commands += open_handoff(state, sequence, now)
    prefill.prefilling.append(sequence.number)
    return commands
