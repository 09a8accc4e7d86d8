"""One call of a client: its choices, each a sequence of the scheduler, from tokens back to text."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from inlay.engine.stops import StopFilter
from inlay.engine.tools import Read, ToolReader
from inlay.models import TextStream, Tokenizer
from inlay.specs.choice import Drafted
from inlay.specs.generation import CallPiece, Delta, EngineToClient, Failed, Finished, Generate, Started
from inlay.specs.sampling import SampledToken
from inlay.specs.schedule import Placed, SequenceRequest

Reply = Callable[[EngineToClient], None]


class Choice:
    """Turns one sequence's tokens into deltas; a Listener of the engine's loop.

    `spelled` are special tokens that count as text (tags of calls); `reader` takes calls of functions out of the text.
    """

    def __init__(
        self,
        call: Call,
        *,
        index: int,
        sequence: int,
        stream: TextStream,
        request: SequenceRequest,
        reader: ToolReader | None = None,
        spelled: dict[int, str] | None = None,
    ) -> None:
        self._call = call
        self.index = index
        self._stream = stream
        self._stops = StopFilter(call.message.parameters.stop)
        self._reader = reader
        self._spelled = spelled or {}
        self._is_mute = call.message.parameters.max_tokens == 0
        self.sequence = sequence
        self.request = request
        self.tokens = 0
        self.finish_reason: str | None = None

    def placed(self, placed: Placed) -> None:
        """See Listener."""
        self._call.placed(placed)

    def scored(self, scores: tuple[SampledToken, ...]) -> None:
        """See Listener. The echoed prompt goes out with its log-probabilities; its first token has none."""
        if self.finish_reason is None:
            self._call.reply(self._call.echo(self.index, scores))

    def token(self, sampled: SampledToken) -> None:
        """See Listener. End tokens count but have no text; where none were asked for, the one that came with the prompt is
        nobody's."""
        if self.finish_reason is not None or self._is_mute:
            return
        self.tokens += 1
        self._call.token_seen()
        read = Read() if sampled.token in self.request.stop_tokens else self._read(self._text(sampled.token))
        if self._stops.stopped:
            self._finish("stop", read, sampled)
        elif self._reader is not None and self._reader.is_full:
            self._finish("tool_calls", read, sampled)
        else:
            self._call.reply(self._delta(read, sampled, None))

    def completed(self) -> None:
        """See Listener."""
        if self.finish_reason is None:
            self._finish("stop", self._rest(), None)

    def finished(self, reason: str, drafted: Drafted | None) -> None:
        """See Listener."""
        if self.finish_reason is None:
            self._call.speculated(drafted)
            read = Read() if self._is_mute else self._rest()
            stopped = self._stops.stopped
            self._end("length" if self._is_mute else "stop" if stopped else reason, read, None)

    def failed(self, status: int, code: str, message: str, hint: str = "") -> None:
        """See Listener."""
        if self.finish_reason is None:
            self.finish_reason = "error"
            self._call.fail(status, code, message, hint)

    def _text(self, token: int) -> str:
        spelled = self._spelled.get(token)
        return self._stream.feed(token) if spelled is None else self._stream.flush() + spelled

    def _read(self, text: str) -> Read:
        """New text less what a stop string takes, and less calls. The first `min_tokens` tokens stop nothing."""
        text = self._stops.feed(text) if self.tokens > self.request.min_tokens else text
        return Read(text) if self._reader is None else self._reader.feed(text)

    def _rest(self) -> Read:
        """All that was held back."""
        read = self._read(self._stream.flush())
        last = self._stops.flush()
        if self._reader is None:
            return Read(read.text + last)
        for more in (self._reader.feed(last), self._reader.flush()):
            read = Read(read.text + more.text, [*read.calls, *more.calls])
        return read

    def _finish(self, reason: str, read: Read, sampled: SampledToken | None) -> None:
        """End what the scheduler would go on with."""
        self._end(reason, read, sampled)
        self._call.cancel(self.sequence)

    def _end(self, reason: str, read: Read, sampled: SampledToken | None) -> None:
        if reason == "stop" and self._reader is not None and self._reader.calls:
            reason = "tool_calls"
        self.finish_reason = reason
        self._call.reply(self._delta(read, sampled, reason))
        self._call.choice_ended()

    def _delta(self, read: Read, sampled: SampledToken | None, reason: str | None) -> Delta:
        tokens = () if sampled is None else (sampled.token,)
        logprobs = () if sampled is None or sampled.logprob is None else (self._call.describe(sampled),)
        return Delta(
            call=self._call.message.call,
            index=self.index,
            text=read.text,
            tokens=tokens,
            logprobs=logprobs,
            calls=tuple(_joined(read.calls)),
            finish_reason=reason,
        )


def _joined(pieces: list[CallPiece]) -> list[CallPiece]:
    """Pieces of one call that came together, as one."""
    found: list[CallPiece] = []
    for piece in pieces:
        if found and found[-1].index == piece.index:
            before = found.pop()
            arguments = before.arguments + piece.arguments
            found.append(CallPiece(index=before.index, id=before.id, name=before.name, arguments=arguments))
        else:
            found.append(piece)
    return found


class Call:
    """One Generate message: admitted, streamed, ended once, whatever happens to its choices."""

    def __init__(
        self, message: Generate, prompt: tuple[int, ...], *, tokenizer: Tokenizer, reply: Reply, cancel: Callable[[int], None]
    ) -> None:
        self.message = message
        self.prompt = prompt
        self._tokenizer = tokenizer
        self._reply = reply
        self.cancel = cancel
        self.choices: list[Choice] = []
        self.ended = False
        self._began = monotonic()
        self._placed: float | None = None
        self._cached = 0
        self._drafted: Drafted | None = None
        self._first: float | None = None
        self._last = self._began

    def reply(self, message: EngineToClient) -> None:
        """Send to the client, unless the call has ended."""
        if not self.ended:
            self._reply(message)

    def placed(self, placed: Placed) -> None:
        """The first choice to be placed tells the client."""
        if self._placed is None:
            self._placed = monotonic()
            self._cached = placed.cached
            self.reply(
                Started(
                    call=self.message.call,
                    prompt_tokens=len(self.prompt),
                    prefill=placed.prefill,
                    decode=placed.decode,
                    way=placed.way,
                    weighed=placed.weighed,
                    asked=placed.asked,
                    drafting=placed.drafting,
                )
            )

    def speculated(self, drafted: Drafted | None) -> None:
        """How one of its choices did; they are added up."""
        before = self._drafted
        if drafted is None or before is None:
            self._drafted = drafted or before
            return
        modes = {mode: before.modes.get(mode, 0) + drafted.modes.get(mode, 0) for mode in {**before.modes, **drafted.modes}}
        self._drafted = Drafted(modes=modes, drafts=before.drafts + drafted.drafts, accepted=before.accepted + drafted.accepted)

    def token_seen(self) -> None:
        """Keep the times of the first and of the last token."""
        self._last = monotonic()
        if self._first is None:
            self._first = self._last

    def echo(self, index: int, scores: tuple[SampledToken, ...] | None = None) -> Delta:
        """The prompt as text of a choice; with `scores`, log-probabilities of all of its tokens but the first."""
        message, text = self.message, self._tokenizer.token_text
        said = self._tokenizer.decode(list(self.prompt)) if message.text is None else message.text
        rows: tuple[Any, ...] = ()
        if scores is not None:
            rows = ([self.prompt[0], text(self.prompt[0]), None, []], *(self.describe(item) for item in scores))
        return Delta(call=message.call, index=index, text=said, logprobs=rows)

    def describe(self, sampled: SampledToken) -> list[Any]:
        """[id, text, log-probability, [[id, text, log-probability], ...]]."""
        text = self._tokenizer.token_text
        top = [[token, text(token), value] for token, value in sampled.top]
        return [sampled.token, text(sampled.token), sampled.logprob, top]

    def choice_ended(self) -> None:
        """When the last choice has ended, so has the call."""
        if any(choice.finish_reason is None for choice in self.choices):
            return
        completion = sum(choice.tokens for choice in self.choices)
        first = self._last if self._first is None else self._first
        timing = {
            "queue": (self._placed or self._began) - self._began,
            "first_token": first - self._began,
            "total": self._last - self._began,
        }
        self.reply(
            Finished(
                call=self.message.call,
                prompt_tokens=len(self.prompt),
                completion_tokens=completion,
                cached_tokens=min(self._cached, len(self.prompt)),
                timing=timing,
                drafted=self._drafted,
            )
        )
        self.ended = True

    def fail(self, status: int, code: str, message: str, hint: str = "") -> None:
        """One failed choice fails the call; the others are cancelled."""
        self.reply(Failed(call=self.message.call, status=status, code=code, message=message, hint=hint or None))
        self.abandon()

    def abandon(self) -> None:
        """Nobody listens any more: end what still runs."""
        self.ended = True
        for choice in self.choices:
            if choice.finish_reason is None:
                choice.finish_reason = "cancelled"
                self.cancel(choice.sequence)
