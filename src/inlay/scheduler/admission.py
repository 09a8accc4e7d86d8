"""Who may enter: refusals at once, placement on runners, first slots, and what a kept prefix saves."""

from __future__ import annotations

import math

from inlay.scheduler.handoff import open_handoff
from inlay.scheduler.keeping import enter, has_room
from inlay.scheduler.placing import Way, choose_way
from inlay.scheduler.preempting import take_room
from inlay.scheduler.sequence import PREFILL, Sequence, new_sequence
from inlay.scheduler.state import RunnerState, State
from inlay.scheduler.verifying import begin, drafting_of
from inlay.specs.schedule import Command, Fail, Placed, SequenceRequest
from inlay.specs.speculation import MODES


def enqueue(state: State, request: SequenceRequest) -> list[Command]:
    """Let a request wait for its turn, or refuse it with the reason."""
    refusal = _refusal(state, request)
    if refusal is not None:
        return [refusal]
    sequence = new_sequence(request)
    state.sequences[sequence.number] = sequence
    state.waiting.add(sequence)
    state.admissible = True
    return []


def admit(state: State, now: float) -> list[Command]:
    """Place every waiting sequence that fits now, in fair order; one that must wait does not block others elsewhere."""
    if not state.admissible:
        return []
    state.admissible = False
    all_alive = all(item.alive for item in state.runners.values())
    held = _lowest_held(state)
    lowest = before = held if _is_full(state) else -math.inf
    if all_alive and state.waiting.highest() <= lowest:
        return []
    commands: list[Command] = []
    for sequence in state.waiting.in_order():
        unavailable = None if all_alive else _unavailable(state, sequence.request)
        if unavailable is not None:
            state.waiting.remove(sequence)
            del state.sequences[sequence.number]
            commands.append(unavailable)
            continue
        if sequence.request.priority <= lowest:
            if all_alive:
                break  # who comes after it has no higher priority
            continue
        known = len(commands)
        way = _choose(state, sequence)
        if way is None and sequence.request.priority > held and _prompt_has_room(state, sequence):
            commands += take_room(state, sequence, _candidates(state, "decode", sequence.request.decode))
            way = _choose(state, sequence) if len(commands) > known else None
        if way is not None:
            commands += _place(state, sequence, way, now)
        if len(commands) > known:  # where all was full, a slot that was taken from one is not for others of its rank
            held = _lowest_held(state)
            lowest = max(before, held if _is_full(state) else -math.inf)
    return commands


def _prompt_has_room(state: State, sequence: Sequence) -> bool:
    """Whether its prompt could be computed if it had room where it decodes: else nobody gives way for it in vain."""
    decoders = _candidates(state, "decode", sequence.request.decode)
    prefills = [item for item in _candidates(state, "prefill", sequence.request.prefill) if item.alive]
    return any(item in decoders or has_room(state, sequence, item, len(sequence.tokens)) for item in prefills)


def _is_full(state: State) -> bool:
    """Whether every runner has as many sequences as it takes: only one of higher priority than some of them may then enter."""
    return not any(item.alive and len(item.holders) < item.facts.slots for item in state.runners.values())


def _lowest_held(state: State) -> float:
    """The lowest priority of those who hold something, infinity where there is nobody to give way."""
    living = [item for item in state.runners.values() if item.alive]
    return min([item.request.priority for runner in living for item in runner.holders.values()], default=math.inf)


def _refusal(state: State, request: SequenceRequest) -> Fail | None:
    length, number, context = len(request.prompt), request.sequence, state.setup.context
    if length == 0:
        message = "the prompt has 0 tokens, expected at least 1"
        return Fail(number, 400, "empty_prompt", message, "give a prompt with text, or one token id")
    if length >= context:
        message = f"the prompt has {length} tokens, expected at most {context - 1}: the context is {context}"
        return Fail(number, 400, "context_length_exceeded", message, "shorten it, or serve with a larger --context")
    if request.speculation not in MODES:
        message = f"speculation is {request.speculation!r}, expected one of {', '.join(MODES)}"
        return Fail(number, 400, "unknown_mode", message, "leave it out to have it chosen")
    for name, role in ((request.prefill, "prefill"), (request.decode, "decode"), (request.draft, "draft")):
        if name is not None and (name not in state.runners or role not in state.runners[name].facts.roles):
            known = ", ".join(runner for runner, item in state.runners.items() if role in item.facts.roles) or "none"
            message = f"{role} place is {name!r}, expected one of: {known}"
            return Fail(number, 400, "unknown_place", message, "leave it out to have it chosen")
    if len(state.waiting) >= state.setup.waiting_limit:
        message = f"{len(state.waiting)} requests wait already, the limit is {state.setup.waiting_limit}"
        return Fail(number, 503, "queue_full", message, "try again later, or serve with more places or slots")
    return _unavailable(state, request)


def _unavailable(state: State, request: SequenceRequest) -> Fail | None:
    for role, name in (("prefill", request.prefill), ("decode", request.decode)):
        if not any(item.alive for item in _candidates(state, role, name)):
            message = f"no living runner has the role {role}" + (f" at {name}" if name else "")
            return Fail(request.sequence, 503, "no_runner", message, "its device was lost: see the log, then start it again")
    return None


def _candidates(state: State, role: str, name: str | None) -> list[RunnerState]:
    if name is not None:
        return [state.runners[name]]
    return [item for item in state.runners.values() if role in item.facts.roles]


def _choose(state: State, sequence: Sequence) -> Way | None:
    request = sequence.request
    prefills = [item for item in _candidates(state, "prefill", request.prefill) if item.alive]
    decoders = [item for item in _candidates(state, "decode", request.decode) if item.alive]
    return choose_way(state, sequence, prefills, decoders)


def _place(state: State, sequence: Sequence, way: Way, now: float) -> list[Command]:
    state.waiting.remove(sequence)
    if sequence.order < 0:
        sequence.order, state.next_order = state.next_order, state.next_order + 1
        state.waiting.serve(sequence.request.tenant, len(sequence.tokens))
    prefill, decode = way.prefill, way.decode
    sequence.prefill, sequence.decode, sequence.phase = prefill.name, decode.name, PREFILL
    sequence.part, sequence.arrived, sequence.passed_over = way.part, False, 0
    filled, known = enter(state, sequence, decode, len(sequence.tokens) + 1)
    if prefill is decode:
        sequence.computed = known
        commands = filled
    else:
        more, sequence.computed = enter(state, sequence, prefill, sequence.part or len(sequence.tokens))
        sequence.computed = min(sequence.computed, sequence.goal() - 1)
        commands = [*filled, *more, *open_handoff(state, sequence, now, start=min(known, sequence.goal() - 1))]
    prefill.prefilling.append(sequence)
    begin(state, sequence, now)
    return [_placed(state, sequence, way), *commands]


def _placed(state: State, sequence: Sequence, way: Way) -> Placed:
    request = sequence.request
    return Placed(
        sequence.number,
        way.prefill.name,
        way.decode.name,
        sequence.computed,
        way.name,
        weighed=way.weighed,
        asked=request.prefill is not None or request.decode is not None,
        drafting=drafting_of(state, sequence),
    )
