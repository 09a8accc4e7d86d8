"""From a checked OpenAI request to the calls an upstream understands: one for each prompt."""

from __future__ import annotations

import msgspec

from inlay.errors import RequestError
from inlay.specs.generation import Constraint, Generate, GenerationParameters, Placement, ToolUse
from inlay.specs.speculation import AUTO, MODES
from inlay.wire import ChatRequest, CompletionRequest, plain_messages

_COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions; a chat has none


def completion_calls(request: CompletionRequest, *, name: str, tenant: str, prompts: int) -> tuple[Generate, ...]:
    """One call a prompt, named `name` (with `-i` when there are several). Raises RequestError over `prompts` of them."""
    wanted = request.prompts()
    if len(wanted) > prompts:
        raise RequestError(f"`prompt` has {len(wanted)} prompts, expected at most {prompts}", param="prompt")
    budget = request.token_budget
    parameters = _parameters(
        request,
        max_tokens=_COMPLETION_TOKENS if budget is None else budget,
        logprobs=-1 if request.logprobs is None else request.logprobs,
        echo=bool(request.echo),
    )
    return tuple(
        Generate(
            call=0,
            text=prompt if isinstance(prompt, str) else None,
            tokens=None if isinstance(prompt, str) else prompt,
            parameters=parameters,
            placement=_placement(request),
            request=name if len(wanted) == 1 else f"{name}-{i}",
            tenant=tenant,
        )
        for i, prompt in enumerate(wanted)
    )


def chat_call(request: ChatRequest, *, name: str, tenant: str) -> Generate:
    """The one call of a conversation."""
    logprobs = (request.top_logprobs or 0) if request.logprobs else -1
    return Generate(
        call=0,
        messages=plain_messages(request.messages),
        tool_use=_tool_use(request),
        parameters=_parameters(request, max_tokens=request.token_budget, logprobs=logprobs, echo=False),
        placement=_placement(request),
        request=name,
        tenant=tenant,
    )


def _parameters(
    request: ChatRequest | CompletionRequest, *, max_tokens: int | None, logprobs: int, echo: bool
) -> GenerationParameters:
    if request.min_tokens is not None and max_tokens is not None and request.min_tokens > max_tokens:
        found = f"`min_tokens` is {request.min_tokens}, expected at most `max_tokens`, which is {max_tokens} here"
        raise RequestError(found, param="min_tokens", hint="set max_tokens")
    top_k = request.top_k
    return GenerationParameters(
        max_tokens=max_tokens,
        min_tokens=request.min_tokens or 0,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=0 if top_k == -1 else top_k,
        min_p=request.min_p,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=request.repetition_penalty,
        logit_bias=request.biases,
        seed=request.seed,
        n=request.n or 1,
        stop=request.stops,
        stop_token_ids=tuple(request.stop_token_ids or ()),
        ignore_eos=bool(request.ignore_eos),
        logprobs=logprobs,
        echo=echo,
        constraint=_constraint(request),
        speculation=_speculation(request),
        drafts=(request.inlay.drafts or 0) if request.inlay is not None else 0,
    )


def _constraint(request: ChatRequest | CompletionRequest) -> Constraint | None:
    """What the answer must be, or None."""
    wanted, format = request.structured_outputs, request.response_format
    if wanted is None:
        if format is None or format.type == "text":
            return None
        if format.json_schema is None:
            return Constraint(kind="json_object", field="response_format")
        return Constraint(kind="json", text=_json_text(format.json_schema.schema), field="response_format")
    space = "" if wanted.disable_any_whitespace else wanted.whitespace_pattern
    if wanted.json is not None:
        text = wanted.json if isinstance(wanted.json, str) else _json_text(wanted.json)
        return Constraint(kind="json", text=text, whitespace=space)
    if wanted.regex is not None:
        return Constraint(kind="regex", text=wanted.regex)
    if wanted.choice is not None:
        return Constraint(kind="choice", text=_json_text(wanted.choice))
    if wanted.grammar is not None:
        return Constraint(kind="grammar", text=wanted.grammar)
    return Constraint(kind="json_object", whitespace=space)


def _json_text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _tool_use(request: ChatRequest) -> ToolUse | None:
    """The functions of a conversation; None where there are none, or none may be called."""
    choice = request.tool_choice
    if not request.tools or choice == "none":
        return None
    return ToolUse(
        tools=tuple(msgspec.to_builtins(tool) for tool in request.tools),
        is_required=choice not in (None, "auto"),
        function=None if choice is None or isinstance(choice, str) else choice.function.name,
        parallel=request.parallel_tool_calls is not False,
    )


def _placement(request: ChatRequest | CompletionRequest) -> Placement:
    if request.inlay is None:
        return Placement()
    return Placement(prefill=request.inlay.prefill, decode=request.inlay.decode, draft=request.inlay.draft)


def _speculation(request: ChatRequest | CompletionRequest) -> str:
    asked = None if request.inlay is None else request.inlay.speculation
    if asked is not None and asked not in MODES:
        found = f"`inlay.speculation` is {asked!r:.80}, expected one of: {', '.join(MODES)}"
        raise RequestError(found, param="inlay.speculation", hint="leave it out for the deployment's own")
    return asked or AUTO
