"""One call of a client: its choices, each a sequence of the scheduler, from tokens back to text."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic
from typing import Any

from inlay.engine.stops import StopFilter
from inlay.errors import RequestError
from inlay.models import DefaultSampling, ModelSpec, TextStream, Tokenizer
from inlay.specs.generation import Delta, EngineToClient, Failed, Finished, Generate, GenerationParameters, Started
from inlay.specs.sampling import SampledToken, Sampling
from inlay.specs.schedule import SequenceRequest

Reply = Callable[[EngineToClient], None]


class Choice:
    """Turns one sequence's tokens into deltas; a Listener of the engine's loop."""

    def __init__(self, call: Call, *, index: int, sequence: int, stream: TextStream, request: SequenceRequest) -> None:
        self._call = call
        self._index = index
        self._stream = stream
        self._stops = StopFilter(call.message.parameters.stop)
        self.sequence = sequence
        self.request = request
        self.tokens = 0
        self.finish_reason: str | None = None

    def placed(self, prefill: str, decode: str, cached: int) -> None:
        """See Listener."""
        self._call.placed(prefill, decode, cached)

    def token(self, sampled: SampledToken) -> None:
        """See Listener. End tokens count but have no text."""
        if self.finish_reason is not None:
            return
        self.tokens += 1
        self._call.token_seen()
        ends = sampled.token in self.request.stop_tokens
        text = "" if ends else self._stops.feed(self._stream.feed(sampled.token))
        if self._stops.stopped:
            self._end("stop", text, sampled)
            self._call.cancel(self.sequence)
        else:
            self._call.reply(self._delta(text, sampled, None))

    def finished(self, reason: str) -> None:
        """See Listener."""
        if self.finish_reason is None:
            rest = self._stops.feed(self._stream.flush())
            self._end("stop" if self._stops.stopped else reason, rest + self._stops.flush(), None)

    def failed(self, status: int, code: str, message: str) -> None:
        """See Listener."""
        if self.finish_reason is None:
            self.finish_reason = "error"
            self._call.fail(status, code, message)

    def _end(self, reason: str, text: str, sampled: SampledToken | None) -> None:
        self.finish_reason = reason
        self._call.reply(self._delta(text, sampled, reason))
        self._call.choice_ended()

    def _delta(self, text: str, sampled: SampledToken | None, reason: str | None) -> Delta:
        tokens = () if sampled is None else (sampled.token,)
        logprobs = () if sampled is None or sampled.logprob is None else (self._call.describe(sampled),)
        return Delta(
            call=self._call.message.call, index=self._index, text=text, tokens=tokens, logprobs=logprobs, finish_reason=reason
        )


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
        self._first: float | None = None
        self._last = self._began

    def reply(self, message: EngineToClient) -> None:
        """Send to the client, unless the call has ended."""
        if not self.ended:
            self._reply(message)

    def placed(self, prefill: str, decode: str, cached: int) -> None:
        """The first choice to be placed tells the client."""
        if self._placed is None:
            self._placed = monotonic()
            self._cached = cached
            self.reply(Started(call=self.message.call, prompt_tokens=len(self.prompt), prefill=prefill, decode=decode))

    def token_seen(self) -> None:
        """Keep the times of the first and of the last token."""
        self._last = monotonic()
        if self._first is None:
            self._first = self._last

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
            )
        )
        self.ended = True

    def fail(self, status: int, code: str, message: str) -> None:
        """One failed choice fails the call; the others are cancelled."""
        self.reply(Failed(call=self.message.call, status=status, code=code, message=message))
        self.abandon()

    def abandon(self) -> None:
        """Nobody listens any more: end what still runs."""
        self.ended = True
        for choice in self.choices:
            if choice.finish_reason is None:
                choice.finish_reason = "cancelled"
                self.cancel(choice.sequence)


def sequence_requests(
    message: Generate, prompt: tuple[int, ...], spec: ModelSpec, *, context: int, first: int
) -> list[SequenceRequest]:
    """The sequences of a call, numbered from `first`: one per choice, seeds one apart. Raises RequestError."""
    parameters = message.parameters
    room = context - len(prompt)
    if room < 1:
        raise RequestError(
            f"the prompt has {len(prompt)} tokens, expected at most {context - 1}: the context is {context}",
            param="prompt",
            code="context_length_exceeded",
            hint="shorten the prompt",
        )
    wanted = room if parameters.max_tokens is None else parameters.max_tokens
    if wanted > room:
        raise RequestError(
            f"prompt ({len(prompt)}) and max_tokens ({wanted}) are {len(prompt) + wanted} tokens, the context is {context}",
            param="max_tokens",
            code="context_length_exceeded",
            hint=f"ask for at most {room} tokens",
        )
    seed = int.from_bytes(os.urandom(7), "little") if parameters.seed is None else parameters.seed
    sampling = _sampling(parameters, spec.sampling)
    return [
        SequenceRequest(
            sequence=first + index,
            request=message.request or f"call-{first}",
            prompt=prompt,
            max_tokens=wanted,
            min_tokens=parameters.min_tokens,
            stop_tokens=() if parameters.ignore_eos else spec.eos_ids,
            sampling=Sampling(
                temperature=sampling.temperature or 0.0,
                top_p=1.0 if sampling.top_p is None else sampling.top_p,
                top_k=sampling.top_k or 0,
                seed=(seed + index) % 2**63,
                top_n=parameters.logprobs,
            ),
            entropy=os.urandom(16),
            prefill=message.placement.prefill,
            decode=message.placement.decode,
            tenant=message.tenant,
            speculation=parameters.speculation,
        )
        for index in range(parameters.n)
    ]


def _sampling(asked: GenerationParameters, default: DefaultSampling) -> DefaultSampling:
    """What was asked for, else the model's own default, else plain sampling at temperature 1."""
    own = default.temperature if default.do_sample is not False else None
    fallback = 1.0 if own is None else own
    return DefaultSampling(
        temperature=fallback if asked.temperature is None else asked.temperature,
        top_p=default.top_p if asked.top_p is None else asked.top_p,
        top_k=default.top_k if asked.top_k is None else asked.top_k,
    )
