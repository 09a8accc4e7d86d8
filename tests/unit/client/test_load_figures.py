"""The definitions of inlay bench's figures, on streams of planted times, and what becomes of streams that go wrong."""

from __future__ import annotations

import asyncio
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from load_world import LAST, STREAM, Script, coded, counted, event, plain, text, world

from inlay.client.load import RequestRecord, parse_budgets
from inlay.client.load.events import EventSplitter
from inlay.client.load.figures import keeps, spread, summarize, tpot_of
from inlay.errors import InputError


def streamed(script: Script, **options: Any) -> RequestRecord:
    async def work() -> RequestRecord:
        async with world(script) as made:
            for name, value in options.items():
                setattr(made, name, value)
            return await made.stream()

    return asyncio.run(asyncio.wait_for(work(), 30))


def test_each_figure_of_one_stream_is_what_was_planted() -> None:
    record = streamed(
        lambda body: [
            (0.25, STREAM + text("one")),
            (0.05, text(" two")),
            (0.10, text(" three", finish="length")),
            (0.02, counted(11, 3, prompt_tokens_details={"cached_tokens": 8})),
        ]
    )
    assert record.arrivals == (0.25, 0.3, 0.4)
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (11, 8, 3)
    assert (record.counted_by, record.finish_reason, record.status, record.error) == ("usage", "length", 200, "")
    found = summarize([record], budgets={"ttft": 0.25, "tpot": 0.08})
    assert found.ttft is not None and found.ttft.p50 == 0.25
    assert found.e2e is not None and found.e2e.p50 == 0.4
    assert found.tpot is not None and found.tpot.p50 == pytest.approx(0.15 / 2, abs=1e-12)
    assert found.itl is not None and (found.itl.low, found.itl.high) == pytest.approx((0.05, 0.1), abs=1e-9)
    assert found.interactivity == pytest.approx(2 / 0.15)
    assert found.duration == pytest.approx(0.42, abs=1e-9)
    assert found.output_rate == pytest.approx(3 / 0.42)
    assert found.total_rate == pytest.approx(14 / 0.42)
    assert found.goodput == pytest.approx(1 / 0.42)


def test_the_servers_count_is_the_truth_when_a_piece_holds_several_tokens() -> None:
    record = streamed(lambda body: [(1.0, STREAM + text("a b")), (0.6, text("c d e")), (0.0, counted(5, 7))])
    assert (record.output_tokens, len(record.arrivals)) == (7, 2)
    assert tpot_of(record) == pytest.approx(0.6 / 6)
    assert summarize([record], budgets={}).tokens_per_chunk == 3.5
    assert record.chunk_tokens == ()


def test_running_counts_say_how_many_tokens_each_piece_held_and_count_tokens_without_text() -> None:
    def usage(tokens: int) -> dict[str, Any]:
        return {"prompt_tokens": 5, "completion_tokens": tokens}

    record = streamed(
        lambda body: [
            (0.0, STREAM + text("", usage=usage(0))),
            (0.2, text("a", usage=usage(1))),
            (0.1, text("", usage=usage(2))),  # half a character
            (0.1, text("bcd", usage=usage(5))),
            (0.0, counted(5, 5)),
        ]
    )
    assert record.chunk_tokens == (1, 1, 3)
    assert record.arrivals == (0.2, 0.3, 0.4)


def test_where_our_own_servers_ran_a_request_is_kept_and_counted() -> None:
    def ended(**served: Any) -> bytes:
        return event({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}], "inlay": served})

    split, whole = (
        streamed(lambda body, served=served: [(0.0, STREAM + text("a") + ended(**served) + counted(1, 1))])
        for served in (
            {"prefill": "a:0/x", "decode": "b:0/y", "timing": {"queue": 0.5}},
            {"prefill": "a:0/x", "decode": "a:0/x"},
        )
    )
    assert split.served["timing"] == {"queue": 0.5}
    assert summarize([split, whole, split], budgets={}).served == {"a:0/x → b:0/y": 2, "a:0/x": 1}
    assert summarize([made(ttft=0.1, tpot=0.1)], budgets={}).served == {}


def test_without_a_count_of_the_server_pieces_are_taken_for_tokens_and_it_is_said() -> None:
    record = streamed(lambda body: [(0.1, STREAM + text("a")), (0.1, text("b", finish="stop") + event(b"[DONE]") + LAST)])
    assert (record.output_tokens, record.counted_by) == (2, "chunks")
    assert summarize([record], budgets={}).counted_by_chunks == 1


def test_a_chats_role_chunk_and_pings_are_no_tokens_but_reasoning_and_tool_calls_are() -> None:
    def delta(**fields: Any) -> bytes:
        return event({"choices": [{"index": 0, "delta": fields}]})

    record = streamed(
        lambda body: [
            (0.1, STREAM + delta(role="assistant", content="") + coded(b": ping\n\n")),
            (0.1, delta(reasoning_content="hm")),
            (0.1, delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}])),
            (0.1, delta(content="x")),
            (0.1, event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + event({"choices": None})),
            (0.0, event(b"[DONE]") + LAST),
        ]
    )
    assert record.arrivals == (0.2, 0.3, 0.4)


def test_events_are_found_however_their_bytes_are_cut() -> None:
    whole = 'data: {"a": "é"}\r\n\r\n: ping\n\ndata:x\ndata: y\n\nevent: e\n\nid: 3\ndata: z\n\n'.encode()
    expected = ['{"a": "é"}'.encode(), b"x\ny", b"z"]
    for size in range(1, len(whole) + 1):
        splitter = EventSplitter()
        pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
        assert [found for piece in pieces for found in splitter.feed(piece)] == expected, size


@pytest.mark.parametrize(
    ("script", "error", "detail"),
    [
        ([(0.0, plain(503, b'{"error": {"message": "the queue\\nis full"}}'))], "http_503", "the queue is full"),
        ([(0.0, plain(404, b"<h1>nothing</h1>", kind="text/html"))], "http_404", "<h1>nothing</h1>"),
        ([(0.0, plain(200, b'{"choices": []}'))], "not_a_stream", "'application/json'.*choices"),
        ([(0.0, STREAM + text("a") + event({"error": {"message": "lost"}}) + LAST)], "error_in_stream", "lost"),
        ([(0.0, STREAM + text("a") + LAST)], "broken_stream", "without a finish reason"),
        ([(0.0, STREAM + event(b"{nonsense") + LAST)], "not_a_chunk", "nonsense"),
        ([(0.0, STREAM + text("", finish="stop") + event(b"[DONE]") + LAST)], "no_tokens", "no text"),
        ([(0.0, b"SSH-2.0-OpenSSH_9\r\n")], "not_http", "not an HTTP answer"),
    ],
)
def test_what_goes_wrong_has_a_kind_and_the_servers_own_words(script, error, detail) -> None:
    record = streamed(lambda body: script)
    assert record.error == error
    assert re.search(detail, record.detail)


def test_a_connection_that_is_lost_in_mid_answer_is_an_error_and_not_a_short_answer() -> None:
    record = streamed(lambda body: [(0.0, STREAM + text("a")), (0.1, text("b"))], hang_up_after_step=1)
    assert (record.error, len(record.arrivals)) == ("connection_lost", 2)
    assert summarize([record], budgets={"ttft": 9.0}).goodput == 0.0


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    record = streamed(
        lambda body: [
            (0.1, head + b'data: {"choices": [{"text": "a", "finish_reason": "stop"}]}\n\n'),
            (0.1, b"data: [DONE]\n\n"),
        ],
        hang_up_after_step=1,
    )
    assert (record.error, record.arrivals) == ("", (0.1,))


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(min_value=1, max_value=400), max_size=12), junk=st.binary(max_size=40))
def test_an_answer_is_the_same_however_the_network_cuts_it_and_what_is_none_never_hangs(cuts, junk) -> None:
    whole = STREAM + text("é") + coded(b": ping\n\n") + text(" two", finish="length") + counted(3, 2)
    edges = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
    record = streamed(lambda body: [(0.0, whole[low:high]) for low, high in pairwise(edges)])
    assert (record.error, len(record.arrivals), record.output_tokens) == ("", 2, 2)
    broken = streamed(lambda body: [(0.0, junk or b"x")], hang_up_after_step=0)
    assert broken.error in ("not_http", "connection_lost", "not_a_stream") or broken.error.startswith("http_")


def made(*, ttft: float, tpot: float, tokens: int = 3, error: str = "") -> RequestRecord:
    arrivals = tuple(ttft + i * tpot for i in range(tokens))
    return RequestRecord(index=0, sent=0.0, seconds=10.0, arrivals=arrivals, output_tokens=tokens, error=error)


def test_goodput_counts_what_kept_every_budget_and_a_share_of_all_that_was_sent() -> None:
    budgets = parse_budgets("ttft:200,tpot:50,e2e:400")
    assert budgets == {"ttft": 0.2, "tpot": 0.05, "e2e": 0.4}
    assert keeps(made(ttft=0.2, tpot=0.0499), budgets)
    assert not keeps(made(ttft=0.201, tpot=0.01), budgets)
    assert not keeps(made(ttft=0.1, tpot=0.06), budgets)
    assert not keeps(made(ttft=0.2, tpot=0.05, tokens=6), budgets)
    assert not keeps(made(ttft=0.1, tpot=0.01, error="http_503"), budgets)
    assert keeps(made(ttft=0.1, tpot=9.0, tokens=1), {"tpot": 0.05})
    records = [made(ttft=0.1, tpot=0.01), made(ttft=0.3, tpot=0.01), made(ttft=0.1, tpot=0.01, error="timeout")]
    found = summarize(records, budgets=budgets)
    assert (found.goodput, found.goodput_share) == (pytest.approx(0.1), pytest.approx(1 / 3))
    assert (found.sent, found.completed, found.errors) == (3, 2, {"timeout": 1})


@pytest.mark.parametrize("text_", ["ttft", "ttft:0", "ttft:x", "itl:5", "ttft:5,ttft:6", "tpot:inf"])
def test_an_unusable_budget_is_refused_with_an_example(text_) -> None:
    with pytest.raises(InputError, match="budget") as found:
        parse_budgets(text_)
    assert "ttft:200" in str(found.value)


def test_percentiles_lie_between_neighbours() -> None:
    found = spread([4.0, 1.0, 3.0, 2.0])
    assert found is not None
    assert (found.p50, found.p90, found.mean, found.low, found.high) == (2.5, pytest.approx(3.7), 2.5, 1.0, 4.0)
    assert spread([]) is None
    assert summarize([], budgets={"ttft": 1.0}).goodput == 0.0
