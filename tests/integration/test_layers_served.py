"""Layers on several vendors, served: one runner made of processes, the same tokens as the reference through the endpoint."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zoo
from asking import ask_all
from comparing import compare
from serving import deployment, running
from truth import Truth, continuations, load, prompts

from inlay import api
from inlay.engine.journal import first_difference, read_journal
from inlay.models import read_tokenizer
from inlay.orchestrator import Running, compiling
from inlay.specs.deployment import Deployment
from inlay.specs.device import BatchDone, KvArrived, OpenTransfer
from inlay.specs.schedule import Answered, Send

NEW_TOKENS = 16
LOGIT_ERROR = 1e-4
BACKENDS = (
    "openvino",
    "onnxruntime",
    "contrary",
    "onnxruntime",
    "openvino",
    "contrary",
    "onnxruntime",
    "onnxruntime",
    "openvino",
)
CUTS = (
    "cpu:0/openvino@0-2+cpu:1/onnxruntime@3-5",
    "cpu:2/contrary@0-2+cpu:3/onnxruntime@3-",
    "cpu:4/openvino@0-2+cpu:5/contrary@3-",
    "cpu:6/onnxruntime",
    "cpu:7/onnxruntime@0-1+cpu:8/openvino@2-",
)
"""The demo target, 6 layers: two frameworks, contrary as the first and as the second, a whole one, and another cut."""
LIBRARIES = {"openvino": "libopenvino.so", "onnxruntime": "onnxruntime_pybind11", "torch": "libtorch"}


@dataclass(frozen=True)
class Served:
    """One deployment of all of CUTS, its endpoint and its event log."""

    wanted: Deployment
    running: Running
    url: str
    log: Path


def show(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def split(model: Path, backends: tuple[str, ...], *roles: str) -> Deployment:
    return deployment(model, backends, roles=[f"prefill,decode={item}" for item in roles], chunk=32)


def texts(truths: list[Truth], folder: Path) -> list[Truth]:
    """The same continuations as texts of tokens, as the endpoint gives them."""
    tokenizer = read_tokenizer(folder)
    return [
        Truth(item.prompt, tuple(tokenizer.token_text(token) for token in item.tokens), item.margins)  # type: ignore[arg-type]
        for item in truths
    ]


def read(url: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url + path, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    wanted = split(zoo.DEMO_TARGET, BACKENDS, *CUTS)
    log = tmp_path_factory.mktemp("layers") / "events.jsonl"
    with running(wanted, event_log=log) as it:
        yield Served(wanted, it, api.open_gateway(it, host="127.0.0.1", port=0), log)


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    given = prompts(8, vocabulary=4096, seed=21, longest=300)
    return texts(continuations(load(zoo.DEMO_TARGET), given, new_tokens=NEW_TOKENS), zoo.DEMO_TARGET)


def test_every_cut_and_every_hand_off_between_cuts_gives_the_tokens_of_the_reference(served, truths) -> None:
    """8 staggered ragged requests at a time through HTTP, at each runner and handed over between each two of them."""
    runners = [role.runner for role in served.wanted.roles]
    pairs = [(prefill, decode) for prefill in runners for decode in runners]
    jobs = [(truth.prompt, *pair) for truth in truths for pair in pairs]
    answers = ask_all(served.url, "target", jobs, new_tokens=NEW_TOKENS)
    unexcused = 0
    for number, pair in enumerate(pairs):
        mine = answers[number :: len(pairs)]
        assert {(item.prefill, item.decode) for item in mine} == {pair}
        different = compare(truths, [item.tokens for item in mine], logit_error=LOGIT_ERROR)  # type: ignore[misc]
        show(f"{pair[0]} -> {pair[1]}: {len(truths) - len(different)} of {len(truths)} equal")
        unexcused += sum(not item.excused for item in different)
    assert unexcused == 0


def test_the_description_and_the_memory_show_every_region(served) -> None:
    found = api.describe(served.running)
    assert [runner.place for runner in found.runners] == [role.runner for role in served.wanted.roles]
    regions = [region for runner in found.runners for region in runner.regions]
    assert [(region.place.partition("/")[2], region.layers) for region in regions] == list(
        zip(BACKENDS, [(0, 3), (3, 6), (0, 3), (3, 6), (0, 3), (3, 6), (0, 6), (0, 2), (2, 6)], strict=True)
    )
    assert all(region.alive and region.framework == region.place.partition("/")[2] for region in regions)
    assert {region.place for region in regions} <= {item.name for item in served.running.memory()}


def test_each_process_maps_its_own_framework_only_and_the_engine_none(served) -> None:
    def mapped(name: str) -> set[str]:
        text = Path(f"/proc/{served.running.workers[name].pid}/maps").read_text()
        return {framework for framework, library in LIBRARIES.items() if library in text}

    for role in served.wanted.roles:
        for region in role.regions:
            assert mapped(str(region.place)) == {"torch" if region.backend == "contrary" else region.backend}
    assert mapped("engine") == set()


def test_the_log_replays_the_timeline_draws_and_the_meters_count_joined_runners(served) -> None:
    journal = read_journal(served.log)
    assert first_difference(journal) is None
    drawn = api.timeline(served.log)
    assert drawn.runners == tuple(role.runner for role in served.wanted.roles)
    assert {item.runner for item in drawn.batches} == set(drawn.runners)
    answered = [entry.event for entry in journal.entries if isinstance(entry.event, Answered)]
    assert {event.runner for event in answered} == set(drawn.runners)
    done = [event.message for event in answered if isinstance(event.message, BatchDone)]
    assert all(item.ended >= item.started for item in done)
    token = 4 * 2 * 6 * 2 * 64  # float32, keys and values, layers, KV heads and dimension of the demo target
    commands = [command.message for entry in journal.entries for command in entry.commands if isinstance(command, Send)]
    starts = {item.binding.transfer: item.binding.start for item in commands if isinstance(item, OpenTransfer)}
    arrived = [event.message for event in answered if isinstance(event.message, KvArrived)]
    assert any(starts.values()), "no hand-off began behind rows that the destination kept"
    # all parts of a hand-off together, less what was there before
    assert all(item.size == token * (item.tokens - starts[item.transfer]) for item in arrived)
    status, meters = read(served.url, "/metrics")
    assert status == 200
    assert 'inlay_tokens_total{device="cpu:0+cpu:1",framework="openvino+onnxruntime",phase="decode"}' in meters
    assert 'inlay_device_busy_seconds{device="cpu:5"}' in meters and 'inlay_worker_epoch{device="cpu:8"} 1.0' in meters
    assert read(served.url, "/ready")[0] == 200


def test_a_second_start_finds_every_piece_and_compiles_nothing(served, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a compile process was started")

    monkeypatch.setattr(compiling, "_compile", refuse)
    found = compiling.ensure_lowered(served.wanted, progress=lambda text: None)
    assert len(found) == len(BACKENDS)
    equal = {found[place].directory for place in ("cpu:1/onnxruntime", "cpu:3/onnxruntime")}  # the same layers
    assert len(equal) == 1 and len({item.directory for item in found.values()}) == len(BACKENDS) - 2


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", ["gpt_oss", "gemma2", *(item for item in zoo.NAMES if item not in ("gpt_oss", "gemma2"))])
def test_other_architectures_cut_in_the_middle_give_the_tokens_of_the_reference(name, tmp_path, all_models) -> None:
    """Windows, sinks, soft caps and experts on both sides of a cut, and handed over to another cut."""
    if name != "gpt_oss" and not all_models:
        pytest.skip("a model of the long run: make tokens")
    folder = zoo.build(name, tmp_path / name)
    given = prompts(12, vocabulary=4096, seed=22)
    wanted_texts = texts(continuations(load(folder), given, new_tokens=NEW_TOKENS), folder)
    backends = ("openvino", "onnxruntime", "onnxruntime", "openvino")
    cuts = ["cpu:0/openvino@0-1+cpu:1/onnxruntime@2-"]
    if all_models:
        cuts.append("cpu:2/onnxruntime@0+cpu:3/openvino@1-")
    with running(split(folder, backends[: 2 * len(cuts)], *cuts)) as it:
        url = api.open_gateway(it, host="127.0.0.1", port=0)
        runners = [role.runner for role in it.deployment.roles]
        for prefill in runners:
            for decode in runners:
                jobs = [(truth.prompt, prefill, decode) for truth in wanted_texts]
                answers = ask_all(url, name, jobs, new_tokens=NEW_TOKENS)
                different = compare(wanted_texts, [item.tokens for item in answers], logit_error=1e-3)  # type: ignore[misc]
                show(f"{name}: {prefill} -> {decode}: {len(given) - len(different)} of {len(given)} equal")
                assert not [item for item in different if not item.excused]
