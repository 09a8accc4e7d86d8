"""The real openai package against a real server over a scripted upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import openai
import pytest

from inlay.specs.generation import Delta, Failed, Finished, Generate, Started

MESSAGES: Any = [{"role": "user", "content": "count"}]

SERVED = {
    "prefill": "a:0/x",
    "decode": "b:0/y",
    "timing": {"ttft": 0.5},
    "way": "whole",
    "reason": "the prompt is computed where it decodes: the shortest queue, no times are known",
    "speculation": "off",
    "speculation_reason": "off: nothing is known of it",
}
"""Of the upstream of these tests, which says no more than where."""


@pytest.fixture
def client(site: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_the_model_list_names_model_and_context(client: openai.OpenAI) -> None:
    [model] = client.models.list().data
    assert (model.id, model.created, model.owned_by) == ("tiny/model", 5, "inlay")
    assert model.model_extra == {"max_model_len": 2048, "root": "tiny/model", "parent": None}
    assert client.models.retrieve("tiny/model").id == "tiny/model"


def test_a_chat_comes_back_whole_with_usage_and_placement(client: openai.OpenAI, site: Any) -> None:
    body = {"inlay": {"prefill": "a:0/x", "decode": "b:0/y"}, "top_k": 3, "min_tokens": 1}
    done = client.chat.completions.create(
        model="tiny/model", messages=MESSAGES, n=2, max_completion_tokens=7, temperature=0, seed=1, stop="z", extra_body=body
    )
    assert [choice.message.content for choice in done.choices] == ["one two three"] * 2
    assert [(choice.index, choice.finish_reason, choice.message.role) for choice in done.choices] == [
        (0, "stop", "assistant"),
        (1, "stop", "assistant"),
    ]
    assert done.usage is not None and done.usage.prompt_tokens_details is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (4, 6, 10)
    assert done.usage.prompt_tokens_details.cached_tokens == 1
    assert done.model_extra == {"inlay": SERVED}
    assert done.id.startswith("chatcmpl-") and done.object == "chat.completion" and done.model == "tiny/model"
    [asked] = site.upstream.requests
    assert asked.messages == ({"role": "user", "content": "count"},) and asked.text is None and asked.tokens is None
    parameters = asked.parameters
    assert (parameters.n, parameters.max_tokens, parameters.temperature, parameters.seed) == (2, 7, 0.0, 1)
    assert (parameters.stop, parameters.top_k, parameters.min_tokens, parameters.logprobs) == (("z",), 3, 1, -1)
    assert (asked.placement.prefill, asked.placement.decode, asked.request) == ("a:0/x", "b:0/y", done.id)


def test_what_is_not_given_stays_the_models_default(client: openai.OpenAI, site: Any) -> None:
    client.chat.completions.create(model="tiny/model", messages=MESSAGES)
    parameters = site.upstream.requests[0].parameters
    assert (parameters.max_tokens, parameters.temperature, parameters.top_p, parameters.top_k) == (None, None, None, None)
    client.completions.create(model="tiny/model", prompt="x")
    assert site.upstream.requests[1].parameters.max_tokens == 16


def test_a_chat_stream_has_role_text_reason_and_no_usage(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="tiny/model", messages=MESSAGES, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    assert [chunk.choices[0].delta.content for chunk in chunks[1:]] == ["one", " two", " three", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 4 + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].model_extra == {"inlay": SERVED}
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_chat_stream_ends_with_usage_when_asked(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model="tiny/model", messages=MESSAGES, stream=True, n=2, stream_options=options)
    )
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (4, 6)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks[:-1])
    for index in (0, 1):
        own = [chunk.choices[0] for chunk in chunks[:-1] if chunk.choices[0].index == index]
        assert "".join(choice.delta.content or "" for choice in own) == "one two three"
        assert own[0].delta.role == "assistant" and own[-1].finish_reason == "stop"


def test_continuous_usage_counts_up_on_every_chunk(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(client.chat.completions.create(model="tiny/model", messages=MESSAGES, stream=True, stream_options=options))
    counts = [(chunk.usage.prompt_tokens, chunk.usage.completion_tokens) for chunk in chunks if chunk.usage is not None]
    assert counts == [(4, 1), (4, 1), (4, 2), (4, 3), (4, 3), (4, 3)]


def test_chat_logprobs_come_whole_and_streamed(client: openai.OpenAI, site: Any) -> None:
    done = client.chat.completions.create(model="tiny/model", messages=MESSAGES, logprobs=True, top_logprobs=1)
    assert done.choices[0].logprobs is not None and done.choices[0].logprobs.content is not None
    assert [row.token for row in done.choices[0].logprobs.content] == ["one", " two", " three"]
    assert done.choices[0].logprobs.content[0].top_logprobs[0].logprob == -0.5
    assert site.upstream.requests[0].parameters.logprobs == 1
    stream = client.chat.completions.create(model="tiny/model", messages=MESSAGES, logprobs=True, stream=True)
    seen = [row.token for chunk in stream for row in (chunk.choices[0].logprobs and chunk.choices[0].logprobs.content) or []]
    assert seen == ["one", " two", " three"]
    assert site.upstream.requests[1].parameters.logprobs == 0


def test_several_prompts_are_several_calls_with_indices_in_order(client: openai.OpenAI, site: Any) -> None:
    done = client.completions.create(model="tiny/model", prompt=["A", "B"], n=2, echo=True, max_tokens=3)
    assert [(choice.index, choice.text) for choice in done.choices] == [
        (0, "Aone two three"),
        (1, "Aone two three"),
        (2, "Bone two three"),
        (3, "Bone two three"),
    ]
    assert done.usage is not None and (done.usage.prompt_tokens, done.usage.completion_tokens) == (8, 12)
    assert done.model_extra is not None and len(done.model_extra["inlay"]["prompts"]) == 2
    assert sorted(request.request for request in site.upstream.requests) == [f"{done.id}-0", f"{done.id}-1"]


def test_token_prompts_travel_as_ids(client: openai.OpenAI, site: Any) -> None:
    client.completions.create(model="tiny/model", prompt=[[1, 2], [3]])
    assert sorted(request.tokens for request in site.upstream.requests) == [(1, 2), (3,)]
    assert all(request.text is None for request in site.upstream.requests)


def test_a_completions_stream_of_several_prompts_keeps_them_apart(client: openai.OpenAI) -> None:
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    for chunk in client.completions.create(model="tiny/model", prompt=["A", "B"], n=2, echo=True, stream=True):
        [choice] = chunk.choices
        texts[choice.index] = texts.get(choice.index, "") + choice.text
        if choice.finish_reason:
            reasons[choice.index] = choice.finish_reason
    assert texts == {0: "Aone two three", 1: "Aone two three", 2: "Bone two three", 3: "Bone two three"}
    assert reasons == dict.fromkeys(range(4), "stop")


def test_completions_logprobs_have_offsets_into_the_choice(client: openai.OpenAI) -> None:
    done = client.completions.create(model="tiny/model", prompt="A", logprobs=1)
    found = done.choices[0].logprobs
    assert found is not None
    assert (found.tokens, found.text_offset) == (["one", " two", " three"], [0, 3, 7])
    stream = client.completions.create(model="tiny/model", prompt="A", logprobs=1, stream=True)
    offsets = [at for chunk in stream for at in (chunk.choices[0].logprobs and chunk.choices[0].logprobs.text_offset) or []]
    assert offsets == [0, 3, 7]


def test_an_unknown_model_is_a_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="other", messages=MESSAGES)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_bad_value_is_a_400_that_names_the_field(client: openai.OpenAI, site: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny/model", messages=MESSAGES, n=17)
    assert (caught.value.param, caught.value.type) == ("n", "invalid_request_error")
    assert "`n` is 17" in str(caught.value)
    assert site.upstream.requests == []


async def refuses(request: Generate) -> AsyncGenerator[Any, None]:
    yield Failed(call=0, status=503, code="overloaded", message="queue is full", hint="wait")


async def breaks(request: Generate) -> AsyncGenerator[Any, None]:
    yield Started(call=0, prompt_tokens=1, prefill="a", decode="b")
    yield Delta(call=0, index=0, text="one", tokens=(1,))
    await asyncio.sleep(0.1)
    yield Failed(call=0, status=500, code="device_lost", message="device a:0 is lost")


async def ends_without_reason(request: Generate) -> AsyncGenerator[Any, None]:
    yield Started(call=0, prompt_tokens=1, prefill="a", decode="b")
    yield Finished(call=0, prompt_tokens=1, completion_tokens=0)


async def stops_short(request: Generate) -> AsyncGenerator[Any, None]:
    yield Started(call=0, prompt_tokens=1, prefill="a", decode="b")


async def has_a_fault(request: Generate) -> AsyncGenerator[Any, None]:
    yield Started(call=0, prompt_tokens=1, prefill="a", decode="b")
    raise ZeroDivisionError("secret detail")


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_by_the_engine_keeps_its_status_and_says_when_to_retry(serve: Callable[..., Any], stream: bool) -> None:
    with serve(refuses) as site, openai.OpenAI(base_url=f"{site.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="tiny/model", messages=MESSAGES, stream=stream)
        assert (caught.value.status_code, caught.value.code) == (503, "overloaded")
        assert caught.value.response.headers["retry-after"] == "1"
        assert "queue is full" in str(caught.value) and "hint: wait" in str(caught.value)


def test_a_failure_in_mid_stream_raises_in_the_client_after_the_text(serve: Callable[..., Any]) -> None:
    with serve(breaks) as site, openai.OpenAI(base_url=f"{site.url}/v1", api_key="none", max_retries=0) as client:
        got = []
        with pytest.raises(openai.APIError, match="device a:0 is lost"):
            for chunk in client.completions.create(model="tiny/model", prompt="x", stream=True):
                got.append(chunk.choices[0].text)
        assert got == ["one"]
        with pytest.raises(openai.InternalServerError) as caught:
            client.completions.create(model="tiny/model", prompt="x")
        assert caught.value.code == "device_lost"


@pytest.mark.parametrize(("script", "status"), [(ends_without_reason, 502), (stops_short, 502), (has_a_fault, 500)])
def test_an_upstream_that_breaks_the_protocol_is_an_error_and_not_a_wrong_answer(
    serve: Callable[..., Any], script: Any, status: int
) -> None:
    with serve(script) as site, openai.OpenAI(base_url=f"{site.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.completions.create(model="tiny/model", prompt="x")
        assert caught.value.status_code == status
        assert "secret" not in str(caught.value)
        assert client.models.list().data


def test_one_failing_prompt_stops_its_siblings(serve: Callable[..., Any], scripts: Any, eventually: Any) -> None:
    async def mixed(request: Generate) -> AsyncGenerator[Any, None]:
        script = scripts["never_ends"] if request.text == "good" else refuses
        async for event in script(request):
            yield event

    with serve(mixed) as site, openai.OpenAI(base_url=f"{site.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError):
            client.completions.create(model="tiny/model", prompt=["good", "bad"])
        eventually(lambda: site.upstream.stopped == 1 and site.upstream.running == 0)
