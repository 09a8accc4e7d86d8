from __future__ import annotations

import msgspec
import pytest

from inlay.errors import DeviceError, RequestError
from inlay.wire import (
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    Completion,
    ErrorReply,
    Served,
    chat_logprobs,
    completion_logprobs,
    count_usage,
    status_of,
)

ROWS = ([7, "He", -0.5, [[7, "He", -0.5], [8, "Ha", -1.5]]], [9, "é", -0.25, []])


def test_completion_logprobs_are_four_lists_of_one_length() -> None:
    made = completion_logprobs(ROWS, offset=3)
    assert made.tokens == ["He", "é"]
    assert made.token_logprobs == [-0.5, -0.25]
    assert made.top_logprobs == [{"He": -0.5, "Ha": -1.5}, {"é": -0.25}]
    assert made.text_offset == [3, 5]


def test_chat_logprobs_carry_bytes_and_leave_the_unknown_first_token_out() -> None:
    made = chat_logprobs(([1, "<s>", None, []], *ROWS))
    assert [row.token for row in made.content] == ["He", "é"]
    assert made.content[1].bytes == [0xC3, 0xA9]
    assert [(rival.token, rival.logprob) for rival in made.content[0].top_logprobs] == [("He", -0.5), ("Ha", -1.5)]


def test_a_chunk_leaves_out_what_is_not_due_and_keeps_a_null_usage() -> None:
    chunk = ChatChunk(id="1", created=1, model="m", choices=(ChatChunkChoice(index=0, delta=ChatDelta(content="a")),))
    read = msgspec.json.decode(msgspec.json.encode(chunk))
    assert "usage" not in read and "inlay" not in read
    assert read["choices"] == [{"index": 0, "delta": {"content": "a"}, "logprobs": None, "finish_reason": None}]
    null = Completion(id="1", created=1, model="m", choices=(), usage=None)
    assert msgspec.json.decode(msgspec.json.encode(null))["usage"] is None


def test_usage_adds_up_and_names_cached_tokens() -> None:
    read = msgspec.json.decode(msgspec.json.encode(count_usage(5, 3, cached=2)))
    assert read == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


def test_served_lists_prompts_only_when_there_are_several() -> None:
    one = Served(prefill="a", decode="b", timing={"ttft": 0.5})
    assert msgspec.json.decode(msgspec.json.encode(one)) == {"prefill": "a", "decode": "b", "timing": {"ttft": 0.5}}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "invalid_request_error"),
        (429, "rate_limit_error"),
        (503, "server_error"),
    ],
)
def test_an_error_has_openais_type_and_keeps_its_hint(status: int, kind: str) -> None:
    error = RequestError("no", hint="try", param="n", code="c", status=status)
    body = ErrorReply.of(error).error
    assert (body.message, body.type, body.param, body.code) == ("no\nhint: try", kind, "n", "c")
    assert status_of(error) == status


def test_an_error_that_is_not_a_requests_is_a_500() -> None:
    assert status_of(DeviceError("gone")) == 500
    assert ErrorReply.of(DeviceError("gone")).error.type == "server_error"
