"""Whole runs of inlay bench against a server of known behaviour: how many requests, when, with what in them."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from load_world import STREAM as HEAD
from load_world import LoadWorld, Script, counted, plain, text, three_words, world

from inlay.client.load import BenchResult, Load, Target, Workload, dump_result, page, read_result
from inlay.client.load.prompts import Synthetic, WordRatio, read_prompts
from inlay.client.load.search import next_rate, sustained
from inlay.client.load.server_meters import delta, read_counts
from inlay.errors import InputError, RequestError
from inlay.specs.lengths import Lengths
from inlay.specs.traces import read_trace

CLOSED = Load(kind="closed", value=3)


def run(work: Callable[[LoadWorld], Awaitable[Any]], script: Script = three_words) -> Any:
    async def whole() -> Any:
        async with world(script) as made:
            return await work(made)

    return asyncio.run(asyncio.wait_for(whole(), 30))


def test_a_closed_loop_keeps_so_many_open_and_sends_so_many() -> None:
    async def work(made: LoadWorld) -> None:
        bench = made.bench(CLOSED, Load(kind="closed", value=1), requests=10, warmup=2)
        await bench.run()
        assert [(str(level.load), level.summary.sent) for level in bench.levels] == [
            ("concurrency 3", 10),
            ("concurrency 1", 10),
        ]
        assert made.most_open == 3
        assert len(made.bodies) == 1 + 2 * (2 + 10)  # the first try, then warm-up and level
        prompts = [tuple(body["prompt"]) for body in made.bodies[1:]]
        assert len(set(prompts)) == len(prompts)  # no prefix cache can help
        assert {len(prompt) for prompt in prompts} == {8}
        assert made.connections <= 4  # kept open and used again
        assert sorted(record.index for record in bench.levels[0].requests) == list(range(10))

    run(work)


def test_an_open_loop_sends_at_its_own_times_whatever_is_still_open() -> None:
    async def work(made: LoadWorld) -> None:
        bench = made.bench(Load(kind="open", value=4.0, arrivals="uniform"), requests=5)
        await bench.run()
        records = bench.levels[0].requests
        assert [record.planned for record in records] == [0.0, 0.25, 0.5, 0.75, 1.0]
        assert [record.sent for record in records] == [0.0, 0.25, 0.5, 0.75, 1.0]
        assert bench.levels[0].summary.lag == 0.0

    run(work)


def test_poisson_arrivals_are_those_of_their_seed_and_have_their_rate() -> None:
    async def work(made: LoadWorld) -> list[float]:
        bench = made.bench(Load(kind="open", value=50.0, arrivals="poisson"), requests=400)
        await bench.run()
        return [record.planned or 0.0 for record in bench.levels[0].requests]

    first, second = run(work), run(work)
    assert first == second
    assert first[-1] == pytest.approx(400 / 50, rel=0.2)
    gaps = [later - earlier for earlier, later in pairwise(first)]
    assert sum(gap > 1 / 50 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.08)  # e^-1, not a half


def test_a_fixed_time_begins_no_request_after_it() -> None:
    async def work(made: LoadWorld) -> None:
        bench = made.bench(Load(kind="open", value=2.0, arrivals="uniform"), Load(kind="closed", value=1), seconds=3.0)
        await bench.run()
        assert [record.planned for record in bench.levels[0].requests] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
        assert len(bench.levels[1].requests) == 6  # each takes half a second

    run(work, lambda body: [(0.5 if made_closed(body) else 0.0, HEAD + text("a", finish="stop") + counted(8, 1))])


def made_closed(body: dict[str, Any]) -> bool:
    """Whether a request is of the closed level: known by its prompt."""
    source = Synthetic(seed=0, ids=(100, 4000))
    return tuple(body["prompt"]) in {source.prompt(f"concurrency 1/{number}", 8) for number in range(10)}


def test_fields_go_out_as_asked_and_extra_has_the_last_word() -> None:
    workload = Workload(
        endpoint="completions",
        prompts="ids",
        output_tokens="uniform:3:5",
        temperature=0.5,
        request_seed=7,
        continuous_usage=True,
        extra={"top_k": 4, "ignore_eos": None},
    )

    async def work(made: LoadWorld) -> None:
        await made.bench(CLOSED, workload=workload, requests=30).run()
        body = made.bodies[-1]
        assert (body["model"], body["temperature"], body["seed"], body["top_k"]) == ("tiny", 0.5, 7, 4)
        assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
        assert "ignore_eos" not in body
        assert {body["max_tokens"] for body in made.bodies} == {3, 4, 5}

    run(work)


def test_texts_get_their_length_from_the_servers_own_counts() -> None:
    def count_words(body: dict[str, Any]) -> list[tuple[float, bytes]]:
        words = len(body["messages"][0]["content"].split())
        return [(0.0, HEAD + text("a", finish="stop") + counted(10 + 3 * words, 1))]

    async def work(made: LoadWorld) -> None:
        bench = made.bench(CLOSED, workload=Workload(prompt_tokens="100", shared_prefix=30), requests=6)
        await bench.run()
        assert {record.prompt_tokens for record in bench.levels[0].requests} == {130}
        starts = {" ".join(body["messages"][0]["content"].split()[:10]) for body in made.bodies[2:]}
        assert len(starts) == 1

    run(work, count_words)


def test_a_cancelled_run_keeps_what_it_has() -> None:
    async def work(made: LoadWorld) -> None:
        bench = made.bench(Load(kind="closed", value=1), Load(kind="closed", value=2), requests=4)
        task = asyncio.create_task(bench.run())
        while len(made.bodies) < 1 + 4 + 3:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (bench.levels[0].interrupted, bench.levels[0].summary.sent) == (False, 4)
        assert bench.levels[1].interrupted and 1 <= bench.levels[1].summary.sent < 4

    run(work)


def test_a_server_that_cannot_be_used_is_refused_before_the_run_with_its_own_words() -> None:
    async def refuses(made: LoadWorld) -> None:
        with pytest.raises(RequestError, match=r"first request.*http_400.*ignore_eos is not known") as found:
            await made.bench(CLOSED).run()
        assert "--no-ignore-eos" in str(found.value)

    async def closed_door(made: LoadWorld) -> None:
        made.models = plain(401, b'{"error": {"message": "no key"}}')
        with pytest.raises(RequestError, match="401: no key") as found:
            await made.bench(CLOSED).run()
        assert "--key" in str(found.value)
        target = made.target(key="secret", headers={"x-slo-ttft-ms": "200"})
        await target.metrics()
        target.close()
        assert made.headers[-1]["authorization"] == "bearer secret"
        assert made.headers[-1]["x-slo-ttft-ms"] == "200"

    async def nobody(made: LoadWorld) -> None:
        target = Target("http://127.0.0.1:9", key=None, seconds=5.0, clock=made.clock)
        with pytest.raises(RequestError, match=r"127\.0\.0\.1:9 cannot be reached"):
            await target.models()

    async def silent(made: LoadWorld) -> None:
        target = made.target(seconds=0.05)
        record = await target.stream("/v1/completions", b"{}")
        assert (record.error, target.close()) == ("timeout", None)

    run(refuses, lambda body: [(0.0, plain(400, b'{"error": {"message": "ignore_eos is not known"}}'))])
    run(closed_door)
    run(nobody)
    run(silent, lambda body: [(0.0, b"HTTP/1.1 200 OK\r\n")])


def test_refused_requests_are_counted_by_kind_and_the_rest_is_measured() -> None:
    numbers = iter(range(1000))

    def every_other(body: dict[str, Any]) -> Any:
        return [(0.0, plain(503, b"{}"))] if next(numbers) % 2 else three_words(body)

    async def work(made: LoadWorld) -> None:
        bench = made.bench(Load(kind="closed", value=1), requests=10)
        await bench.run()
        assert bench.levels[0].summary.errors == {"http_503": 5}
        assert bench.levels[0].summary.completed == 5

    run(work, every_other)


def test_https_is_spoken_with_a_server_whose_certificate_is_known_and_refused_with_any_other(tmp_path, monkeypatch) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate, key)

    async def work() -> None:
        made = LoadWorld(three_words)
        server = await asyncio.start_server(made.serve, "localhost", 0, ssl=served, family=socket.AF_INET)
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        stranger = Target(url, key=None, seconds=20.0, clock=made.clock)
        with pytest.raises(RequestError, match=r"cannot be reached.*certificate"):
            await stranger.models()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        known = Target(url, key=None, seconds=20.0, clock=made.clock)
        assert [item.id for item in await known.models()] == ["tiny"]
        answer = await known.stream("/v1/completions", b"{}")
        assert (answer.error, len(answer.arrivals)) == ("", 3)
        known.close()
        server.close()

    asyncio.run(asyncio.wait_for(work(), 30))


METERS = """
# TYPE vllm:spec_decode_num_drafts counter
vllm:spec_decode_num_drafts_total{engine="0"} %d
vllm:spec_decode_num_draft_tokens_total{engine="0"} %d
vllm:spec_decode_num_accepted_tokens_total{engine="0"} %d
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="1"} %d
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} %d
vllm:prefix_cache_queries_total 100.0
vllm:prefix_cache_hits_total 25.0
vllm:generation_tokens_total 12
vllm:e2e_request_latency_seconds_bucket{le="+Inf"} 3
"""


def test_acceptance_and_prefix_hits_are_what_the_servers_meters_gained() -> None:
    found = delta(read_counts(METERS % (10, 30, 15, 3, 9)), read_counts(METERS % (20, 60, 39, 13, 17)))
    assert (found.acceptance, found.accepted_length) == (24 / 30, 1 + 24 / 10)
    assert found.by_position == (8 / 10, 10 / 10)
    assert (found.prefix_hits, found.generated) == (None, 0)
    fresh = delta({}, read_counts(METERS % (0, 0, 0, 0, 0)))
    assert (fresh.acceptance, fresh.prefix_hits, fresh.generated) == (None, 0.25, 12)
    assert delta(read_counts(METERS % (10, 30, 15, 3, 9)), read_counts(METERS % (1, 3, 1, 0, 1))).acceptance is None
    assert delta({}, read_counts("nonsense\n{} 3\n")) == delta({}, {})


MOONCAKE = """{"timestamp": 2000, "input_length": 1200, "output_length": 40, "hash_ids": [0, 1, 2]}
{"timestamp": 1000, "input_length": 1024, "output_length": 20, "hash_ids": [0, 1]}
{"timestamp": 4000, "input_length": 600, "output_length": 1900, "hash_ids": [0, 9]}
"""
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,48,10\n2023-11-16 18:17:05.0819610,31,8\n"


def test_mooncakes_trace_is_replayed_in_its_order_at_its_speed_with_its_shared_prefixes(tmp_path) -> None:
    path = tmp_path / "trace.jsonl.gz"
    path.write_bytes(gzip.compress(MOONCAKE.encode()))
    workload = Workload(endpoint="completions", prompts="ids", trace=str(path), scale_lengths=0.0625)

    async def work(made: LoadWorld) -> None:
        bench = made.bench(Load(kind="replay", value=2.0), workload=workload)
        await bench.run()
        assert [record.planned for record in bench.levels[0].requests] == [0.0, 0.5, 1.5]
        first, second, third = (body["prompt"] for body in made.bodies[1:])
        assert [len(first), len(second)] == [64, 75]
        assert first == second[:64]
        assert first[:32] == third[:32] and first[32:] != third[32:64]
        assert len(third) + made.bodies[3]["max_tokens"] <= 100  # what the model takes
        assert "cut to 100 tokens" in bench.notes[0]

    run(work)


SESSIONS = """{"id": "a", "block_size": 64, "requests": [\
{"t": 0.0, "type": "n", "in": 128, "out": 3, "think_time": 9.0, "hash_ranges": [[1, 2]]}, \
{"type": "subagent", "requests": [{"type": "n", "in": 64, "out": 2, "think_time": 0.5, "hash_ranges": [[7, 7]]}]}, \
{"type": "s", "in": 256, "out": 4, "think_time": 2.0, "hash_ranges": [[1, 3], [5, 5]]}]}
{"id": "b", "block_size": 64, "requests": [{"type": "n", "in": 128, "out": 5, "think_time": 0.0, "hash_ranges": [[1, 2]]}]}
"""


def test_sessions_go_turn_by_turn_with_their_time_to_think_and_share_prefixes_within_themselves(tmp_path) -> None:
    path = tmp_path / "sessions.jsonl.gz"
    path.write_bytes(gzip.compress(SESSIONS.encode()))
    workload = Workload(endpoint="completions", prompts="ids", trace=str(path), scale_lengths=0.25, most_tokens=1000)

    async def work(made: LoadWorld) -> None:
        bench = made.bench(Load(kind="sessions", value=1, speed=2.0), workload=workload, seconds=1.3)
        await bench.run()
        records = bench.levels[0].requests
        first, inner, third, other = (body["prompt"] for body in made.bodies[1:5])
        assert [len(first), len(inner), len(third), len(other)] == [32, 16, 64, 32]
        assert third[:32] == first and third[:16] != inner and other != first
        assert [record.session for record in records][:4] == [0, 0, 0, 1]
        assert [record.sent for record in records[:4]] == [0.0, 0.25, 1.25, 1.25]
        assert len(records) > 4 and made.bodies[5]["prompt"] != first  # the file again, as other sessions

    run(work)

    async def whole(made: LoadWorld) -> None:
        bench = made.bench(Load(kind="sessions", value=2), workload=workload)
        await bench.run()
        assert [record.session for record in bench.levels[0].requests].count(0) == 3
        assert bench.levels[0].summary.sent == 4
        bench = made.bench(Load(kind="sessions", value=2), workload=workload, requests=3)
        await bench.run()
        assert bench.levels[0].summary.sent == 3

    run(whole)


def test_sessions_and_single_requests_are_told_apart(tmp_path) -> None:
    path = tmp_path / "trace.jsonl"

    async def refused(made: LoadWorld, load: Load, words: str) -> None:
        workload = Workload(endpoint="completions", prompts="ids", trace=str(path))
        with pytest.raises(InputError, match=words):
            await made.bench(load, workload=workload).run()

    path.write_text(MOONCAKE)
    run(lambda made: refused(made, Load(kind="sessions", value=1), "holds single requests"))
    path.write_text(SESSIONS)
    run(lambda made: refused(made, Load(kind="replay", value=1), "holds sessions"))
    path.write_text('{"requests": [{"in": 0, "out": 1}]}')
    run(lambda made: refused(made, Load(kind="sessions", value=1), "line 1: the session cannot be used"))
    path.write_text('{"requests": []}')
    run(lambda made: refused(made, Load(kind="sessions", value=1), "holds no request"))


def test_recorded_prompts_share_what_they_shared_at_any_scale() -> None:
    for scale in (1.0, 0.37, 0.02):
        source = Synthetic(seed=0, ids=(0, 10**6))
        short, long = (source.of_blocks((4, 8), round(900 * scale), block=512, scale=scale) for _ in range(2))
        other = source.of_blocks((4, 9), round(900 * scale), block=512, scale=scale)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(short, other, strict=True)))
        assert short == long
        assert common == pytest.approx(512 * scale, abs=1)


def test_azures_trace_is_read_to_a_tenth_of_a_microsecond(tmp_path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(AZURE)
    first, second = read_trace(path)
    assert (first.at, first.prompt_tokens, first.output_tokens) == (0.0, 48, 10)
    assert second.at == pytest.approx(1.102001, abs=2e-7)


@pytest.mark.parametrize(
    ("text_", "found"),
    [
        ('{"timestamp": 0}\n', "line 1: the request has no 'input_length'"),
        ('{"timestamp": 0, "input_length": 0, "output_length": 1}\n', "line 1.*lengths are 0 and 1"),
        ('{"timestamp": 0, "input_length": "x", "output_length": 1}\n', "line 1.*cannot be used"),
        ("{\n", "line 1: not JSON"),
        ("", "holds no request"),
        ("TIMESTAMP,ContextTokens\n2023-11-16 18:17:03.9,4\n", "line 2: the request has no 'GeneratedTokens'"),
    ],
)
def test_a_broken_trace_names_its_line(tmp_path, text_, found) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(text_)
    with pytest.raises(InputError, match=found):
        read_trace(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path / "missing.gz")


def test_prompts_of_a_file_are_sent_as_they_are_and_again_when_it_ends(tmp_path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('"a"\n{"prompt": "b", "output_tokens": 9}\n\n{"prompt": [1, 2]}\n')
    workload = Workload(endpoint="completions", prompts=str(path), output_tokens="5")

    async def work(made: LoadWorld) -> None:
        bench = made.bench(Load(kind="closed", value=1), workload=workload, requests=4)
        await bench.run()
        sent = [(body["prompt"], body["max_tokens"]) for body in made.bodies[1:]]
        assert sent == [("a", 5), ("b", 9), ([1, 2], 5), ("a", 5)]
        assert "sent more than once" in bench.notes[0]

    run(work)
    with pytest.raises(InputError, match=r"line 4: its prompt is token ids, which chat does not take"):
        read_prompts(path, chat=True)
    path.write_text('{"messages": [{"role": "user", "content": "x"}]}\n')
    assert read_prompts(path, chat=True)[0].prompt == ({"role": "user", "content": "x"},)
    with pytest.raises(InputError, match="line 1: it has `messages`"):
        read_prompts(path, chat=False)


def test_synthetic_prompts_are_those_of_their_seed_and_share_what_they_should() -> None:
    source = Synthetic(seed=1, ids=(5, 9), shared=6, groups=2)
    first, again, other = (source.prompt(name, 4, group=group) for name, group in (("a", 0), ("a", 0), ("b", 2)))
    assert first == again and len(first) == 10 and set(first) <= {5, 6, 7, 8, 9}
    assert first[:6] == other[:6] and first[6:] != other[6:]
    assert source.prompt("a", 4, group=1)[:6] != first[:6]
    assert WordRatio.between((20, 70), (120, 370)) == WordRatio(10.0, 3.0)
    assert WordRatio.between((20, 70), (120, 70)) == WordRatio()


@pytest.mark.parametrize("text_", ["0", "x", "uniform:5", "uniform:9:5", "poisson:1:2", "normal:5:-1", "5:6", "normal:inf:1"])
def test_an_unusable_length_is_refused_under_its_name(text_) -> None:
    with pytest.raises(InputError, match="prompt tokens is"):
        Lengths.parse(text_, name="prompt tokens")


def test_a_result_survives_its_file_and_its_page_needs_nothing_else(tmp_path) -> None:
    async def work(made: LoadWorld) -> BenchResult:
        bench = made.bench(CLOSED, Load(kind="closed", value=1), requests=6, budgets={"ttft": 1.0})
        await bench.run()
        return BenchResult(
            label="<b>ours</b>",
            url=made.url,
            model=bench.model,
            facts={"notes": bench.notes, "date": "today"},
            workload={},
            budgets={"ttft": 1.0},
            levels=tuple(bench.levels),
        )

    steps = [(0.1, HEAD + text("a")), (0.1, text("b", finish="length")), (0.0, counted(7, 2))]
    result = run(work, lambda body: steps)
    path = tmp_path / "result.json"
    path.write_bytes(dump_result(result))
    assert read_result(path) == result
    assert json.loads(path.read_text())["grade"] == "measured"
    drawn = page([result, read_result(path)])
    assert drawn.count("<circle") == 4 and drawn.count("<polyline") == 2
    assert "<b>" not in drawn and "&lt;b&gt;ours&lt;/b&gt; (2)" in drawn
    assert "<script" not in drawn and "<link" not in drawn and "src=" not in drawn
    assert "Goodput at rising load" not in drawn and 'class="even"' not in drawn and "acceptance" not in drawn
    path.write_text('{"format": "other"}')
    with pytest.raises(InputError, match="no result of inlay bench"):
        read_result(path)


def test_goodput_at_rising_load_is_drawn_where_an_open_loop_has_budgets() -> None:
    async def work(made: LoadWorld) -> BenchResult:
        loads = [Load(kind="open", value=rate, arrivals="uniform") for rate in (4.0, 2.0)]
        bench = made.bench(*loads, requests=4, budgets={"ttft": 0.2, "e2e": 1.0})
        await bench.run()
        levels = tuple(bench.levels)
        return BenchResult(
            label="x", url="", model="tiny", facts={}, workload={}, budgets={"ttft": 0.2, "e2e": 1.0}, levels=levels
        )

    drawn = page([run(work)])
    assert "Goodput at rising load: TTFT 200 ms, E2E 1000 ms" in drawn
    assert drawn.count('class="even"') == 1
    first, second = (drawn.index(f"x, rate {rate}: ") for rate in (2, 4))
    assert first < second  # from the least load to the most


def test_a_search_closes_in_on_the_highest_rate_that_holds() -> None:
    for limit in (0.2, 1.5, 7.3, 60.0):
        tried: list[tuple[float, float]] = []
        while (rate := next_rate(tried, share=0.9)) is not None:
            tried.append((rate, 0.95 if rate <= limit else 0.5))
        found = sustained(tried, share=0.9)
        assert found is not None and limit / 1.1 <= found <= limit
        assert len(tried) <= 12
    assert sustained([(1.0, 0.2), (0.5, 0.3)], share=0.9) is None
    assert sustained([(1.0, 0.95), (2.0, 0.8), (4.0, 0.95)], share=0.9) == 1.0  # luck above a rate that failed is none


def test_a_run_looks_for_the_highest_rate_that_keeps_its_budgets() -> None:
    told: list[str] = []

    def overloaded_above_three(body: dict[str, Any]) -> Any:
        rates = (float(text_.split()[1].rstrip(":")) for text_ in reversed(told) if text_.startswith("rate "))
        rate = next(rates, 0.0)
        return [(0.0, plain(503, b"{}"))] if rate > 3 and body["prompt"][0] % 2 else three_words(body)

    async def work(made: LoadWorld) -> None:
        bench = made.bench(requests=20, budgets={"e2e": 1e6}, attain=0.9, arrivals="uniform", progress=told.append)
        await bench.run()
        shares = {level.load.value: level.summary.goodput_share or 0.0 for level in bench.levels}
        assert list(shares)[:3] == [1.0, 2.0, 4.0]
        assert all((share == 1.0) == (rate <= 3) for rate, share in shares.items())
        best = max(rate for rate, share in shares.items() if share == 1.0)
        assert 3 / 1.1 <= best <= 3
        assert bench.notes == [f"at up to {best:.3g} requests/s, of the rates tried, 90% of the requests kept the budgets"]

    run(work, overloaded_above_three)

    async def hopeless(made: LoadWorld) -> None:
        bench = made.bench(requests=3, budgets={"ttft": 1e-9}, attain=0.9, arrivals="uniform")
        await bench.run()
        assert [level.load.value for level in bench.levels] == [1.0, 0.5, 0.25, 0.125, 0.062]
        assert bench.notes == ["at no rate that was tried 90% of the requests kept the budgets"]

    run(hopeless, lambda body: [(0.1, HEAD + text("a", finish="stop") + counted(8, 1))])
