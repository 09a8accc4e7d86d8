"""step(state, event, now) -> commands: the one entry of the scheduler. No clock, socket or randomness inside."""

from __future__ import annotations

from inlay.scheduler import admission, handoff, verifying
from inlay.scheduler.batching import next_batch
from inlay.scheduler.choosing import Rows
from inlay.scheduler.drafting import DRAFT, draft_failed, drafted, end
from inlay.scheduler.keeping import keep
from inlay.scheduler.rounds import interrupt_if_changed
from inlay.scheduler.sequence import DECODE, PREFILL, WAITING, Sequence
from inlay.scheduler.state import RunnerState, State
from inlay.scheduler.turns import chunk_done
from inlay.specs.choice import Drafted
from inlay.specs.device import BatchDone, BatchFailed, DraftDone, KvArrived, KvFailed, RowResult
from inlay.specs.sampling import SampledToken
from inlay.specs.schedule import Answered, Arrived, Cancelled, Command, Emit, Event, Fail, Finish, Lost, Tick


def step(state: State, event: Event, now: float) -> list[Command]:
    """Take one event in and return what must be done about it, in order. `now` is in monotonic seconds."""
    if state.shunned:
        handoff.forgive(state, now)
    commands = _take(state, event, now)
    if state.admissible:
        commands += admission.admit(state, now)
    for runner in state.runners.values():
        if runner.flight is None:
            commands += next_batch(state, runner, now)
        elif runner.flight.rounds > 1:
            commands += interrupt_if_changed(runner, now)
    for runner in state.drafters:
        if runner.flight is None:  # a verify step that has just begun may be run ahead of
            commands += next_batch(state, runner, now)
    return commands


def _take(state: State, event: Event, now: float) -> list[Command]:
    match event:
        case Answered(runner=runner, message=BatchDone() as done):
            return _batch_done(state, state.runners[runner], done, now)
        case Arrived(request=request):
            return admission.enqueue(state, request)
        case Answered(runner=runner, message=BatchFailed() as failed):
            return _batch_failed(state, state.runners[runner], failed)
        case Answered(runner=runner, message=DraftDone() as guessed):
            drafted(state, state.runners[runner], guessed)
            return []
        case Answered(message=KvArrived(transfer=transfer, tokens=tokens)):
            handoff.kv_arrived(state, transfer, tokens)
            return []
        case Answered(message=KvFailed(transfer=transfer, cause=cause)):
            return handoff.kv_failed(state, transfer, cause, now)
        case Lost(runner=runner, reason=reason):
            return _lost(state, state.runners[runner], reason)
        case Cancelled(sequence=number):
            return _cancelled(state, number)
        case Tick():
            return handoff.expired(state, now)
        case _:
            return []


def _batch_done(state: State, runner: RunnerState, done: BatchDone, now: float) -> list[Command]:
    flight = runner.flight
    if flight is None or flight.batch != done.batch:
        return []
    if not done.more:
        runner.flight = None
    if flight.phase == PREFILL and runner.paging is None:
        chunk_done(runner, done.ended - done.started, now)
    commands: list[Command] = []
    rows = Rows(max((added for _, added in flight.rows.values()), default=1), flight.rounds > 1 or runner.facts.rounds == 1)
    for result in done.results:
        sequence = state.sequences.get(result.sequence)
        attempt, added = flight.rows[result.sequence]
        if sequence is not None and sequence.attempt == attempt and sequence.runner == runner.name:
            _row_done(state, runner, sequence, added, rows, result, commands, now)
    return commands


def _row_done(
    state: State,
    runner: RunnerState,
    sequence: Sequence,
    added: int,
    rows: Rows,
    result: RowResult,
    commands: list[Command],
    now: float,
) -> None:
    given = len(result.sampled)
    sequence.computed += given if given and sequence.phase == DECODE else added
    decoded = sequence.phase == DECODE
    for count, sampled in enumerate(result.sampled, 1):
        sequence.tokens.append(sampled.token)
        commands.append(Emit(sequence.request.sequence, runner.name, sampled))
        reason = _finish_reason(state, sequence, sampled)
        if reason is not None:
            if decoded:
                verifying.count(sequence, count)  # what was sampled after its end is nobody's
            commands += _end(state, sequence, Finish(sequence.number, reason))
            return
    if decoded and given:
        verifying.count(sequence, given)
    if sequence.speculation is not None and given:
        commands += verifying.judged(state, sequence, given, now, rows)
    if sequence.phase == PREFILL and sequence.computed >= sequence.goal():
        runner.prefilling.remove(sequence)
        commands += keep(state, sequence, runner)
        if sequence.prefill != sequence.decode:
            handoff.prompt_done(state, sequence, now)
        else:
            sequence.phase = DECODE
            runner.start_decoding(sequence)


def _finish_reason(state: State, sequence: Sequence, sampled: SampledToken) -> str | None:
    request, length = sequence.request, len(sequence.tokens)
    generated = length - len(request.prompt)
    if sampled.token in request.stop_tokens and generated >= request.min_tokens:
        return "stop"
    if generated >= request.max_tokens or length >= state.setup.context:
        return "length"
    return None


def _batch_failed(state: State, runner: RunnerState, failed: BatchFailed) -> list[Command]:
    flight = runner.flight
    if flight is None or flight.batch != failed.batch:
        return []
    if flight.phase == DRAFT:
        draft_failed(state, runner)
        return []
    runner.flight = None
    commands: list[Command] = []
    for number, (attempt, _) in flight.rows.items():
        sequence = state.sequences.get(number)
        if sequence is not None and sequence.attempt == attempt:
            message = f"{runner.name}: {failed.message}"
            commands += _end(state, sequence, Fail(number, 500, failed.code, message, "see the log of that device"))
    return commands


def _lost(state: State, runner: RunnerState, reason: str) -> list[Command]:
    """Sequences that decode there end with an error; those that only had their prompt there compute it elsewhere."""
    runner.alive = False
    runner.flight = None
    runner.pages.clear()
    if runner.paging is not None:
        runner.paging.clear()
    state.admissible = True
    name = runner.name
    verifying.drafter_lost(state, runner)
    commands: list[Command] = []
    for sequence in list(state.sequences.values()):
        if name not in sequence.slots and not (sequence.prefill == name and sequence.phase not in (DECODE, WAITING)):
            continue
        if sequence.decode == name:
            message = f"{name} was lost: {reason}"
            commands += _end(
                state, sequence, Fail(sequence.number, 503, "device_lost", message, "send it again: others may serve it")
            )
        else:
            commands += handoff.recompute(state, sequence, "source_lost")
    return commands


def _cancelled(state: State, number: int) -> list[Command]:
    sequence = state.sequences.get(number)
    return [] if sequence is None else _end(state, sequence, Finish(number, "cancelled"))


def _end(state: State, sequence: Sequence, final: Finish | Fail) -> list[Command]:
    """Slots and transfers are free at once: devices obey in order, so a later batch cannot overtake an older one."""
    commands = handoff.close_handoff(state, sequence, "ended") + end(state, sequence)
    if sequence.phase == WAITING:
        state.waiting.remove(sequence)
    elif isinstance(final, Finish):
        commands += keep(state, sequence, state.runners[sequence.runner])
        state.answered(sequence.generated)
    for name in list(sequence.slots):
        state.runners[name].release(sequence)
    del state.sequences[sequence.number]
    state.admissible = True
    state.waiting.serve(sequence.request.tenant, sequence.generated)
    if len(state.sequences) == 0:
        state.waiting.forget(set())
    return [*commands, _with_drafts(final, sequence)]


def _with_drafts(final: Finish | Fail, sequence: Sequence) -> Finish | Fail:
    if isinstance(final, Fail) or not sequence.modes:
        return final
    drafted = Drafted(modes=sequence.modes, drafts=sequence.drafted, accepted=sequence.accepted)
    return Finish(final.sequence, final.reason, drafted)
