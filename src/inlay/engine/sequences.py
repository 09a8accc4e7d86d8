"""What a client asked for, as sequences of the scheduler: one for each choice. Checks what depends on the model."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from inlay.errors import RequestError
from inlay.models import DefaultSampling, ModelSpec
from inlay.specs.generation import Generate, GenerationParameters
from inlay.specs.sampling import Sampling
from inlay.specs.schedule import SequenceRequest

Number = TypeVar("Number", int, float)


def scores_prompt(parameters: GenerationParameters) -> int:
    """How many log-probabilities beside its own each echoed prompt token gets; -1 = the prompt has none."""
    return parameters.logprobs if parameters.echo else -1


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
    wanted = room if parameters.max_tokens is None else max(1, parameters.max_tokens)
    if wanted > room:
        raise RequestError(
            f"prompt ({len(prompt)}) and max_tokens ({wanted}) are {len(prompt) + wanted} tokens, the context is {context}",
            param="max_tokens",
            code="context_length_exceeded",
            hint=f"ask for at most {room} tokens",
        )
    seed = int.from_bytes(os.urandom(7), "little") if parameters.seed is None else parameters.seed
    sampling = _sampling(parameters, spec)
    ends = () if parameters.ignore_eos else spec.eos_ids
    _check_ids(parameters.stop_token_ids, field="stop_token_ids", spec=spec)
    return [
        SequenceRequest(
            sequence=first + index,
            request=message.request or f"call-{first}",
            prompt=prompt,
            max_tokens=wanted,
            min_tokens=parameters.min_tokens,
            stop_tokens=tuple(dict.fromkeys((*ends, *parameters.stop_token_ids))),
            sampling=msgspec.structs.replace(sampling, seed=(seed + index) % 2**63),
            entropy=os.urandom(16),
            prefill=message.placement.prefill,
            decode=message.placement.decode,
            tenant=message.tenant,
            speculation=parameters.speculation,
            draft=message.placement.draft,
            drafts=parameters.drafts,
            whole=scores_prompt(parameters) >= 0,
        )
        for index in range(parameters.n)
    ]


def _sampling(asked: GenerationParameters, spec: ModelSpec) -> Sampling:
    """What was asked for, else the model's own default, else plain sampling at temperature 1."""
    default = spec.sampling
    _check_ids(asked.logit_bias, field="logit_bias", spec=spec)
    return Sampling(
        temperature=_temperature(default) if asked.temperature is None else asked.temperature,
        top_p=_first(asked.top_p, default.top_p, 1.0),
        top_k=_first(asked.top_k, default.top_k, 0),
        min_p=_first(asked.min_p, default.min_p, 0.0),
        top_n=asked.logprobs,
        bias=tuple(sorted(asked.logit_bias.items())),
        repetition=_first(asked.repetition_penalty, default.repetition_penalty, 1.0),
        frequency=asked.frequency_penalty,
        presence=asked.presence_penalty,
    )


def _temperature(default: DefaultSampling) -> float:
    own = default.temperature if default.do_sample is not False else None
    return 1.0 if own is None else own


def _first(asked: Number | None, default: Number | None, fallback: Number) -> Number:
    return asked if asked is not None else fallback if default is None else default


def _check_ids(ids: Iterable[int], *, field: str, spec: ModelSpec) -> None:
    wrong = next((token for token in ids if not 0 <= token < spec.vocabulary), None)
    if wrong is not None:
        raise RequestError(
            f"`{field}` has token {wrong}, expected 0 to {spec.vocabulary - 1}: the model's vocabulary has no other",
            param=field,
            hint="use this model's tokenizer",
        )
