"""Before the first level: which model there is, that it streams, and how many tokens its tokenizer makes of a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from inlay.client.load.answer import StreamedAnswer
from inlay.client.load.prompts import Synthetic, WordRatio
from inlay.client.load.records import Load
from inlay.client.load.target import Model, Target
from inlay.client.load.workload import Ask, Asker, Workload
from inlay.errors import InputError, RequestError

SAMPLES = (20, 120)
"""Words of the two prompts by which a server's tokens a word are found."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the levels start from. `server` is what it says at /version; `note` what the reader of the result must know."""

    asker: Asker
    model: str
    server: Any
    note: str = ""


async def prepare(target: Target, workload: Workload, *, loads: Sequence[Load], model: str | None) -> Prepared:
    """Ask the server, and try it. Raises RequestError when it cannot be used, InputError for prompts, trace or loads."""
    known = await _find_model(target, model)
    name = model or (known.id if known is not None else "")
    if workload.trace is not None and workload.most_tokens is None and known is not None:
        workload = msgspec.structs.replace(workload, most_tokens=known.max_model_len)
    ids = workload.ids if workload.prompts == "ids" else None
    trial = Asker(workload, model=name, source=Synthetic(seed=workload.seed, ids=ids))
    for load in loads:
        _check(trial, load)
    server = await target.version()
    ratio, note = WordRatio(), ""
    if workload.prompts == "text":
        ratio, note = await _words(target, trial)
    else:
        await _try(target, trial, trial.ask("trial", 0))
    source = Synthetic(seed=workload.seed, ids=ids, ratio=ratio, shared=workload.shared_prefix, groups=workload.prefix_groups)
    return Prepared(Asker(workload, model=name, source=source), name, server, note)


async def _find_model(target: Target, model: str | None) -> Model | None:
    """The model asked for, or the first; None where it was asked for and the server lists nothing of it."""
    try:
        models = await target.models()
    except RequestError as error:
        if model and error.code.startswith("http_"):
            return None
        raise
    if model:
        return next((item for item in models if item.id == model), None)
    if not models:
        raise RequestError(f"{target.url} serves no model", code="model_not_found", status=404, hint="name one with --model")
    return models[0]


async def _words(target: Target, trial: Asker) -> tuple[WordRatio, str]:
    """Two short requests of known numbers of words, counted by the server."""
    found = []
    for words in SAMPLES:
        prompt = Synthetic(seed=trial.workload.seed).prompt(f"trial/{words}", words)
        answer = await _try(target, trial, Ask(prompt=prompt, output_tokens=1))
        found.append((words, (answer.usage.prompt_tokens or 0) if answer.usage is not None else 0))
    if not all(tokens for _, tokens in found):
        return WordRatio(), "the server does not count prompt tokens: a word was taken for a token"
    return WordRatio.between(found[0], found[1]), ""


async def _try(target: Target, trial: Asker, ask: Ask) -> StreamedAnswer:
    answer = await target.stream(trial.path, trial.body(ask))
    if answer.error and answer.error != "no_tokens":
        code = answer.status if 400 <= answer.status < 600 else 502
        found = f"a first request to {target.url}{trial.path} failed ({answer.error}): {answer.detail}"
        raise RequestError(found, code=answer.error, status=code, hint=_advice(answer))
    return answer


def _check(asker: Asker, load: Load) -> None:
    """Raises InputError for a load whose requests the trace does not hold."""
    if load.kind == "replay" and not asker.trace:
        raise InputError(f"{asker.workload.trace} holds sessions, expected single requests", hint="add --sessions 1,4")
    if load.kind == "sessions" and not asker.sessions:
        raise InputError(f"{asker.workload.trace} holds single requests, expected sessions", hint="leave out --sessions")


def _advice(answer: StreamedAnswer) -> str:
    if "ignore_eos" in answer.detail:
        return "this server does not know ignore_eos: add --no-ignore-eos"
    if answer.status in (401, 403):
        return "give its key with --key"
    if answer.status == 404:
        return "has this server that endpoint, and that model? see --endpoint and --model"
    if answer.error == "not_a_stream":
        return "the endpoint must stream: it was asked with stream true"
    return "see the server's log; --extra changes fields of the body"
