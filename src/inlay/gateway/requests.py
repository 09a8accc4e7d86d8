"""From a checked OpenAI request to the calls an upstream understands: one for each prompt."""

from __future__ import annotations

from inlay.errors import RequestError
from inlay.specs.generation import Generate, GenerationParameters, Placement
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
        seed=request.seed,
        n=request.n or 1,
        stop=request.stops,
        ignore_eos=bool(request.ignore_eos),
        logprobs=logprobs,
        echo=echo,
    )


def _placement(request: ChatRequest | CompletionRequest) -> Placement:
    if request.inlay is None:
        return Placement()
    return Placement(prefill=request.inlay.prefill, decode=request.inlay.decode)
