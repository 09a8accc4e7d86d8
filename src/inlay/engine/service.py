"""The server end of the engine's protocol: clients connect over a unix socket, ask, and are streamed to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from inlay.engine.calling import calling_constraint
from inlay.engine.calls import Call, Choice
from inlay.engine.grammar import GrammarCompiler, Matcher
from inlay.engine.guidance import Guide
from inlay.engine.links import DeviceLink
from inlay.engine.loop import EngineLoop
from inlay.engine.sequences import scores_prompt, sequence_requests
from inlay.engine.tools import ToolReader
from inlay.errors import InlayError, RequestError, TransferError
from inlay.models import ChatEncoder, ModelSpec, Tokenizer
from inlay.specs.generation import (
    Cancel,
    ClientToEngine,
    Delta,
    Describe,
    Description,
    Detokenize,
    EngineToClient,
    Failed,
    Finished,
    Generate,
    ReadMeters,
    RegionDescription,
    RunnerDescription,
    Started,
    Text,
    Tokenize,
    Tokens,
)
from inlay.specs.schedule import Arrived, Cancelled, RunnerFacts, SequenceRequest
from inlay.transport import FrameWriter, read_frame, shake_hands_async

CLIENT_FRAME = 1
MANY_CHARACTERS = 10_000
PREFIX_TOKENS = 8
"""How much of the prompt the text of the answer is decoded after, for tokenizers that treat a first word apart."""
log = logging.getLogger("inlay.engine")


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of the service when asked."""

    name: str
    context: int
    created: int
    facts: tuple[RunnerFacts, ...]
    places: dict[str, list[str]]
    pids: dict[str, int]
    tokenizer: dict[str, Any] = {}


class Service:
    """All clients of one engine."""

    def __init__(
        self,
        loop: EngineLoop,
        *,
        spec: ModelSpec,
        tokenizer: Tokenizer,
        chat: ChatEncoder | None,
        served: Served,
        links: dict[str, DeviceLink],
        meters: Callable[[], str],
        key: bytes,
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._tokenizer = tokenizer
        self._chat = chat
        self._served = served
        self._links = links
        self._meters = meters
        self._key = key
        self._grammars = GrammarCompiler(tokenizer, vocabulary=spec.vocabulary, ends=spec.eos_ids)
        self._next_sequence = 1

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client from handshake to hang-up; its unfinished calls end with it. What takes long to begin holds nobody up."""
        calls: dict[int, Call] = {}
        starting: dict[int, asyncio.Task[None]] = {}
        answers = FrameWriter(writer)
        decode = msgspec.msgpack.Decoder(ClientToEngine).decode
        try:
            await shake_hands_async(reader, writer, key=self._key, name="engine", connects=False)
            while True:
                frame = await read_frame(reader)
                message = decode(frame.header)
                if isinstance(message, Cancel) and message.call in starting:
                    starting.pop(message.call).cancel()
                elif isinstance(message, Generate) and _takes_long(message):
                    task = asyncio.create_task(self._take(message, calls, answers))
                    starting[message.call] = task
                    task.add_done_callback(partial(_started, starting, message.call, writer))
                else:
                    await self._take(message, calls, answers)
        except (TransferError, msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
            log.debug("a client has gone: %s", error)
        finally:
            for task in list(starting.values()):
                task.cancel()
            for call in list(calls.values()):
                call.abandon()
            answers.flush()
            writer.close()

    async def _take(self, message: ClientToEngine, calls: dict[int, Call], answers: FrameWriter) -> None:
        def reply(answer: EngineToClient) -> None:
            if isinstance(answer, Finished | Failed):
                calls.pop(answer.call, None)
            answers.write(CLIENT_FRAME, msgspec.msgpack.encode(answer))

        try:
            match message:
                case Generate():
                    await self._generate(message, calls, reply)
                case Cancel(call=number):
                    if number in calls:
                        calls.pop(number).abandon()
                case Tokenize(call=number, text=str() as text, add_special=False):
                    reply(Tokens(call=number, tokens=await self._encode_bare(text)))
                case Tokenize(call=number):
                    ids = await self._encode(message.text, message.messages)
                    reply(Tokens(call=number, tokens=ids))
                case Detokenize(call=number, tokens=ids):
                    reply(Text(call=number, text=self._tokenizer.decode(list(ids))))
                case Describe(call=number):
                    reply(self.describe(number))
                case ReadMeters(call=number):
                    reply(Text(call=number, text=self._meters()))
        except RequestError as error:
            reply(
                Failed(
                    call=message.call,
                    status=error.status,
                    code=error.code,
                    message=error.message,
                    param=error.param,
                    hint=error.hint,
                )
            )
        except InlayError as error:
            reply(Failed(call=message.call, status=500, code=error.code, message=error.message, hint=error.hint))

    async def _generate(self, message: Generate, calls: dict[int, Call], reply: Callable[[EngineToClient], None]) -> None:
        prompt = await self._prompt(message)
        score = scores_prompt(message.parameters)
        if message.parameters.max_tokens == 0 and score < 0:
            self._answer_nothing(message, prompt, reply)
            return
        requests = sequence_requests(message, prompt, self._spec, context=self._served.context, first=self._next_sequence)
        self._next_sequence += len(requests)
        matcher = await self._matcher(message)
        call = Call(message, prompt, tokenizer=self._tokenizer, reply=reply, cancel=self._cancel)
        call.choices = [self._choice(call, request, index=index) for index, request in enumerate(requests)]
        calls[message.call] = call
        for choice in call.choices:
            if message.parameters.echo and score < 0:
                call.reply(call.echo(choice.index))
            elif score >= 0 and len(prompt) == 1:
                choice.scored(())
            if not call.ended:
                self._begin(choice, matcher=matcher, score=score)

    def _choice(self, call: Call, request: SequenceRequest, *, index: int) -> Choice:
        use, reader, spelled = call.message.tool_use, None, {}
        if use is not None and self._chat is not None:
            shape = self._chat.call_format
            reader = ToolReader(shape, many=use.parallel)
            tags = (shape.opening, shape.closing)
            spelled = {token: text for token, text in self._tokenizer.special.items() if text in tags}
        return Choice(
            call,
            index=index,
            sequence=request.sequence,
            stream=self._tokenizer.stream(call.prompt[-PREFIX_TOKENS:]),
            request=request,
            reader=reader,
            spelled=spelled,
        )

    def _begin(self, choice: Choice, *, matcher: Matcher | None, score: int) -> None:
        request = choice.request
        if Guide.is_needed(request.sampling, constrained=matcher is not None, score=score):
            guide = Guide(
                request.prompt,
                sampling=request.sampling,
                matcher=None if matcher is None else matcher.copy(),
                score=score,
                ignores_end=not request.stop_tokens,
            )
            self._loop.guidance.add(request.sequence, guide)
        self._loop.listen(choice.sequence, choice)
        self._loop.feed(Arrived(msgspec.structs.replace(request, guided=matcher is not None)))

    async def _matcher(self, message: Generate) -> Matcher | None:
        """The grammar of the answer, compiled on a thread; None where any text will do. Raises RequestError."""
        constraint = message.parameters.constraint
        if message.tool_use is not None and self._chat is not None:
            constraint = calling_constraint(message.tool_use, self._chat.call_format, answer=constraint)
        return None if constraint is None else await asyncio.to_thread(self._grammars.compile, constraint)

    def _answer_nothing(self, message: Generate, prompt: tuple[int, ...], reply: Callable[[EngineToClient], None]) -> None:
        """max_tokens 0: the prompt is counted (and echoed), nothing is computed."""
        reply(Started(call=message.call, prompt_tokens=len(prompt), prefill="", decode=""))
        call = Call(message, prompt, tokenizer=self._tokenizer, reply=reply, cancel=self._cancel)
        for index in range(message.parameters.n):
            text = call.echo(index).text if message.parameters.echo else ""
            reply(Delta(call=message.call, index=index, text=text, finish_reason="length"))
        reply(Finished(call=message.call, prompt_tokens=len(prompt), completion_tokens=0))

    async def _prompt(self, message: Generate) -> tuple[int, ...]:
        if message.tokens is not None:
            wrong = [token for token in message.tokens if not 0 <= token < self._spec.vocabulary]
            if wrong:
                raise RequestError(
                    f"prompt token {wrong[0]} is outside the vocabulary, expected 0 to {self._spec.vocabulary - 1}",
                    param="prompt",
                    hint="use this model's tokenizer",
                )
            return message.tokens
        tools = () if message.tool_use is None else message.tool_use.tools
        return await self._encode(message.text, message.messages, tools)

    async def _encode(
        self, text: str | None, messages: tuple[dict[str, Any], ...] | None, tools: tuple[dict[str, Any], ...] = ()
    ) -> tuple[int, ...]:
        """Long texts are encoded on a thread, so that they hold nobody up."""
        if messages is not None:
            if self._chat is None:
                raise RequestError(
                    "this model has no chat template", param="messages", hint="use /v1/completions, or add chat_template.jinja"
                )
            size = sum(len(str(item.get("content", ""))) for item in messages) + sum(len(str(item)) for item in tools)
            encode = partial(self._chat.encode, messages, tools=tools or None)
            return tuple(await asyncio.to_thread(encode) if size > MANY_CHARACTERS else encode())
        if text is not None and len(text) > MANY_CHARACTERS:
            return tuple(await asyncio.to_thread(self._tokenizer.encode, text))
        return tuple(self._tokenizer.encode(text or ""))

    async def _encode_bare(self, text: str) -> tuple[int, ...]:
        """Without the tokens that go around a prompt."""
        if len(text) > MANY_CHARACTERS:
            return tuple(await asyncio.to_thread(self._tokenizer.encode, text, add_special=False))
        return tuple(self._tokenizer.encode(text, add_special=False))

    def _cancel(self, sequence: int) -> None:
        self._loop.feed(Cancelled(sequence, "client"))

    def describe(self, call: int) -> Description:
        """What is served, and whether every role has a living runner."""
        missing = [
            role
            for role in ("prefill", "decode")
            if not any(role in facts.roles and self._alive(facts.runner) for facts in self._served.facts)
        ]
        return Description(
            call=call,
            model=self._served.name,
            context=self._served.context,
            created=self._served.created,
            ready=not missing,
            reason="" if not missing else f"no living runner has the role {' or '.join(missing)}",
            runners=tuple(self._runner(facts) for facts in self._served.facts),
            tokenizer=self._served.tokenizer,
        )

    def _alive(self, runner: str) -> bool:
        """A runner lives as long as all of its processes do."""
        return all(self._links[place].alive for place in self._served.places[runner])

    def _runner(self, facts: RunnerFacts) -> RunnerDescription:
        regions = tuple(self._region(place) for place in self._served.places[facts.runner])
        return RunnerDescription(place=facts.runner, roles=facts.roles, alive=self._alive(facts.runner), regions=regions)

    def _region(self, place: str) -> RegionDescription:
        link = self._links[place]
        ready = link.ready
        first = 0 if ready is None else ready.stage.first
        return RegionDescription(
            place=place,
            device=place.partition("/")[0],
            framework="" if ready is None else ready.framework,
            version="" if ready is None else ready.framework_version,
            layers=(first, first + (0 if ready is None else len(ready.stage.layers))),
            precision={} if ready is None else msgspec.to_builtins(ready.precision),
            pid=self._served.pids.get(place, 0),
            alive=link.alive,
            epoch=0 if ready is None else ready.epoch,
            memory={} if ready is None else ready.memory,
            runner="extend" if ready is None or "paged" not in ready.abilities else "paged",
        )


def _takes_long(message: Generate) -> bool:
    """Whether a grammar has to be compiled, or much text encoded, before the request can go to the scheduler."""
    constrained = message.parameters.constraint is not None or message.tool_use is not None
    return constrained or (message.text is not None and len(message.text) > MANY_CHARACTERS)


def _started(
    starting: dict[int, asyncio.Task[None]], call: int, writer: asyncio.StreamWriter, task: asyncio.Task[None]
) -> None:
    """A call has begun, or never will; a fault of ours ends the connection, so that nobody waits for its answer."""
    starting.pop(call, None)
    if not task.cancelled() and task.exception() is not None:
        log.error("a call could not be begun", exc_info=task.exception())
        writer.close()


def now_unix() -> int:
    """The wall clock in whole seconds, for `created` alone."""
    return int(time.time())
