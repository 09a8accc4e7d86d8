"""Log-probabilities of prompts and of answers, on every kind of framework, against Hugging Face: ragged, in chunks, several
at once, by a cut model and over a hand-off; and the event log of guided requests replays exactly."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zoo
from serving import cluster, running
from truth import forced_logits, load, prompts

from inlay.client import EngineClient
from inlay.engine.journal import first_difference, read_journal
from inlay.models import read_model
from inlay.specs.deployment import deployment_from_roles
from inlay.specs.generation import Constraint, Delta, Failed, Finished, Generate, GenerationParameters, Placement

pytest.importorskip("llguidance")
TOLERANCE = 2e-3
ROLES = (
    "prefill,decode=cpu:0/onnxruntime",
    "prefill,decode=cpu:1/contrary",
    "prefill,decode=cpu:2/openvino@0-2+cpu:3/onnxruntime@3-",
)
PLACES = ("cpu:0/onnxruntime", "cpu:1/contrary", "cpu:2/openvino+cpu:3/onnxruntime")
PLACEMENTS = (*(Placement(prefill=place, decode=place) for place in PLACES), Placement(prefill=PLACES[1], decode=PLACES[0]))


@pytest.fixture(scope="module")
def truth() -> Any:
    return load(zoo.DEMO_TARGET)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):
    log = tmp_path_factory.mktemp("scores") / "events.jsonl"
    wanted = deployment_from_roles(
        str(zoo.DEMO_TARGET),
        cluster(["onnxruntime", "contrary", "openvino", "onnxruntime"]),
        ROLES,
        context=256,
        slots=4,
        chunk=32,
        capacities=(64, 256),
        depth=read_model(zoo.DEMO_TARGET).layers,
    )
    with running(wanted, event_log=log) as it:
        yield it, log


def ask(served: Any, requests: list[Generate]) -> list[list[Delta]]:
    """All at once; the deltas of each."""

    async def one(client: EngineClient, request: Generate) -> list[Delta]:
        found = []
        async for event in client.generate(request):
            assert not isinstance(event, Failed), event
            if isinstance(event, Delta):
                found.append(event)
            elif isinstance(event, Finished):
                assert event.completion_tokens == sum(len(delta.tokens) for delta in found)
        return found

    async def work() -> list[list[Delta]]:
        async with EngineClient(served[0].engine_socket, key=served[0].key, silence_seconds=120.0) as client:
            return list(await asyncio.gather(*(one(client, request) for request in requests)))

    return asyncio.run(work())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype("f8") - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.mark.parametrize("placement", PLACEMENTS, ids=["dynamic", "static", "cut", "handed over"])
def test_prompts_are_scored_as_hugging_face_scores_them(served, truth, placement) -> None:
    given = prompts(6, vocabulary=4096, seed=4, shortest=1, longest=150)
    parameters = GenerationParameters(max_tokens=0, echo=True, logprobs=2)
    asked = [Generate(call=0, tokens=ids, parameters=parameters, placement=placement) for ids in given]
    found = ask(served, asked) + ask(served, asked)  # the second time the prompts are known
    for ids, deltas in zip(given * 2, found, strict=True):
        rows = [row for delta in deltas for row in delta.logprobs]
        assert [row[0] for row in rows] == list(ids) and rows[0][2] is None
        wanted = log_softmax(forced_logits(truth, ids))
        for at, (token, _, logprob, top) in enumerate(rows[1:]):
            assert logprob == pytest.approx(wanted[at, token], abs=TOLERANCE)
            assert [value for _, _, value in top] == pytest.approx(sorted(wanted[at], reverse=True)[:2], abs=TOLERANCE)
        assert [delta.finish_reason for delta in deltas][-1] == "length" and all(not delta.tokens for delta in deltas)


@pytest.mark.parametrize("placement", PLACEMENTS, ids=["dynamic", "static", "cut", "handed over"])
def test_answers_under_every_option_carry_the_models_own_log_probabilities(served, truth, placement) -> None:
    given = prompts(3, vocabulary=4096, seed=5, shortest=4, longest=60)
    options: list[dict[str, Any]] = [
        {"constraint": Constraint(kind="regex", text="[a-z ]{4,}")},
        {"presence_penalty": 2.0, "frequency_penalty": 1.0, "repetition_penalty": 1.4},
        {"logit_bias": {500: 5.0, 600: -100.0}, "min_p": 0.02},
        {"constraint": Constraint(kind="json_object"), "repetition_penalty": 1.1, "logit_bias": {1: 3.0}},
    ]
    requests = [
        Generate(
            call=0,
            tokens=ids,
            parameters=GenerationParameters(
                max_tokens=20, temperature=1.0, seed=9, logprobs=1, echo=True, ignore_eos=True, **option
            ),
            placement=placement,
        )
        for option in options
        for ids in given
    ]
    for request, deltas in zip(requests, ask(served, requests), strict=True):
        rows = [row for delta in deltas for row in delta.logprobs]
        ids = tuple(row[0] for row in rows)
        assert request.tokens is not None and ids[: len(request.tokens)] == request.tokens
        wanted = log_softmax(forced_logits(truth, ids))
        for at, (token, _, logprob, top) in enumerate(rows[1:]):
            assert logprob == pytest.approx(wanted[at, token], abs=TOLERANCE)
            assert top[0][2] == pytest.approx(wanted[at].max(), abs=TOLERANCE)


def test_a_seed_gives_the_same_guided_text_alone_and_among_others(served) -> None:
    ids = prompts(1 + 1, vocabulary=4096, seed=6, shortest=8, longest=40)[1]
    parameters = GenerationParameters(
        max_tokens=32, temperature=1.0, seed=3, presence_penalty=1.0, constraint=Constraint(kind="json_object")
    )
    one = Generate(call=0, tokens=ids, parameters=parameters, placement=PLACEMENTS[0])
    (alone,) = ask(served, [one])
    others = [
        Generate(call=0, tokens=ids[i:], parameters=GenerationParameters(max_tokens=20), placement=PLACEMENTS[0])
        for i in range(5)
    ]
    among = ask(served, [*others, one])[-1]
    assert [token for delta in alone for token in delta.tokens] == [token for delta in among for token in delta.tokens]


def test_the_event_log_of_guided_requests_replays_exactly(served) -> None:
    """Last in this file: the scheduler saw nothing of masks, histories and scores."""
    path: Path = served[1]
    journal = read_journal(path)
    assert len(journal.entries) > 100
    assert first_difference(journal) is None
    assert b'"masks"' not in path.read_bytes()
