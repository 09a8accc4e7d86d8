"""Requests through the HTTP endpoint, some at a time, each arriving after a pause of its own: the tokens' texts come back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import openai


@dataclass(frozen=True)
class Answer:
    """Texts of the tokens generated, and where prompt and answer were computed."""

    tokens: tuple[str, ...]
    prefill: str
    decode: str


def ask_all(
    url: str,
    model: str,
    jobs: Sequence[tuple[tuple[int, ...], str | None, str | None]],
    *,
    new_tokens: int,
    at_once: int = 8,
    stagger: float = 0.05,
) -> list[Answer]:
    """Greedy completions of token ids at the places given (None leaves one open), end tokens ignored."""
    rng = random.Random(5)
    pauses = [rng.random() * stagger for _ in jobs]

    async def work() -> list[Answer]:
        gate = asyncio.Semaphore(at_once)
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120.0) as client:

            async def job(index: int) -> Answer:
                prompt, prefill, decode = jobs[index]
                places = {name: place for name, place in (("prefill", prefill), ("decode", decode)) if place is not None}
                async with gate:
                    await asyncio.sleep(pauses[index])
                    found = await client.completions.create(
                        model=model,
                        prompt=list(prompt),
                        max_tokens=new_tokens,
                        temperature=0.0,
                        logprobs=0,
                        extra_body={"ignore_eos": True, "inlay": places},
                    )
                served = (found.model_extra or {})["inlay"]
                texts = found.choices[0].logprobs
                assert texts is not None and texts.tokens is not None
                return Answer(tuple(texts.tokens), served["prefill"], served["decode"])

            return list(await asyncio.gather(*(job(index) for index in range(len(jobs)))))

    return asyncio.run(work())
