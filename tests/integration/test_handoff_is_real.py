"""The hand-off between two processes of two frameworks: what travels, what does not, and what happens when it breaks."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import zoo
from serving import deployment, generate, running
from truth import continuations, load, prompts

from inlay import api
from inlay.engine.journal import first_difference, read_journal
from inlay.orchestrator import Running
from inlay.specs.device import BatchDone, KvArrived, Submit
from inlay.specs.generation import GenerationParameters, Placement
from inlay.specs.schedule import Answered, Arrived, Recompute, Send

pytestmark = pytest.mark.alone

GREEDY = GenerationParameters(max_tokens=24, temperature=0.0, ignore_eos=True)
PREFILL, DECODE = "cpu:0/openvino", "cpu:1/onnxruntime"
ROLES = [f"prefill={PREFILL}", f"decode={DECODE}"]
LIBRARIES = {"openvino": "libopenvino.so", "onnxruntime": "onnxruntime_pybind11", "torch": "libtorch"}


def split(model: Path = zoo.DEMO_TARGET):
    return deployment(model, ["openvino", "onnxruntime"], roles=ROLES, chunk=32)


def mapped(pid: int) -> set[str]:
    """Which frameworks' libraries a process has mapped."""
    text = Path(f"/proc/{pid}/maps").read_text()
    return {name for name, library in LIBRARIES.items() if library in text}


def jobs(count: int, *, seed: int = 4) -> list[tuple[tuple[int, ...], Placement]]:
    return [(prompt, Placement()) for prompt in prompts(count, vocabulary=4096, seed=seed)]


def test_the_decode_process_sees_no_prompt_and_each_process_maps_its_own_framework_only(tmp_path) -> None:
    log = tmp_path / "events.jsonl"
    with running(split(), event_log=log) as it:
        generate(it, jobs(12), parameters=GREEDY)
        maps = {place: mapped(it.workers[place].pid) for place in (PREFILL, DECODE)}
        engine = mapped(it.workers["engine"].pid)
    assert maps == {PREFILL: {"openvino"}, DECODE: {"onnxruntime"}}
    assert engine == set()
    journal = read_journal(log)
    asked = {
        entry.event.request.sequence: entry.event.request.prompt
        for entry in journal.entries
        if isinstance(entry.event, Arrived)
    }
    counted = {PREFILL: 0, DECODE: 0}
    for entry in journal.entries:
        if isinstance(entry.event, Answered) and isinstance(entry.event.message, BatchDone):
            counted[entry.event.runner] += entry.event.message.prompt_tokens
        for command in entry.commands:
            if isinstance(command, Send) and isinstance(command.message, Submit) and command.runner == DECODE:
                for row in command.message.rows:  # a token and its guesses
                    assert len(row.tokens) == 1 + row.drafts and row.past_length >= len(asked[row.sequence])
    assert counted == {PREFILL: sum(len(prompt) for prompt in asked.values()), DECODE: 0}


def test_with_another_prompts_pages_the_decode_process_continues_that_other_prompt() -> None:
    """The text comes from the pages: decode continues what it was given, whatever the request was about."""
    given = [prompt[:64] for prompt in prompts(4, vocabulary=4096, seed=9, shortest=64)]
    truths = continuations(load(zoo.DEMO_TARGET), given, new_tokens=24)
    with running(split(), faults={DECODE: "other_pages"}) as it:
        found = [generate(it, [(prompt, Placement())], parameters=GREEDY)[0] for prompt in given]
    assert tuple(found[0]) == truths[0].tokens
    for index in (1, 2, 3):
        # The first token was sampled where the prompt ran; what follows reads the other prompt's pages and that token.
        assert found[index][0] == truths[index].tokens[0]
        assert tuple(found[index]) != truths[index].tokens
        expected = continuations(load(zoo.DEMO_TARGET), [(*given[index - 1], found[index][0])], new_tokens=23)[0]
        assert tuple(found[index][1:]) == expected.tokens


def test_a_recorded_log_replays_to_identical_commands(tmp_path) -> None:
    log = tmp_path / "events.jsonl"
    with running(split(), event_log=log) as it:
        generate(it, jobs(20), parameters=GREEDY)
    journal = read_journal(log)
    assert len(journal.entries) > 100
    assert first_difference(journal) is None


def test_pages_travel_chunk_by_chunk_and_devices_work_at_the_same_time(tmp_path) -> None:
    log = tmp_path / "events.jsonl"
    load_ = [(prompt, Placement()) for prompt in prompts(24, vocabulary=4096, seed=3, shortest=400)]
    with running(split(), event_log=log) as it:
        generate(it, load_, parameters=GenerationParameters(max_tokens=100, temperature=0.0, ignore_eos=True), stagger=0.0)
    arrivals = [entry.event.message for entry in read_journal(log).entries if isinstance(entry.event, Answered)]
    arrivals = [message for message in arrivals if isinstance(message, KvArrived)]
    assert len(arrivals) == 24 and all(message.chunks >= 400 // 32 for message in arrivals)
    found = api.timeline(log)
    assert found.overlap_share() > 0.05  # the figure itself is shown by `make overlap`; here only that it is not turn by turn


def test_a_killed_decode_process_ends_its_requests_with_an_error_and_ready_turns_false() -> None:
    with running(split()) as it:
        assert api.describe(it).ready
        with pytest.raises(AssertionError, match=r"device_lost|no_runner"):
            _generate_while_killing(it, DECODE)
        found = api.describe(it)
        assert not found.ready and "decode" in found.reason
        assert {runner.place: runner.alive for runner in found.runners} == {PREFILL: True, DECODE: False}
        with pytest.raises(AssertionError, match="no_runner"):
            generate(it, jobs(1), parameters=GREEDY)


def test_a_killed_prefill_process_costs_no_token_of_admitted_requests(tmp_path) -> None:
    given = prompts(6, vocabulary=4096, seed=8, shortest=300)
    truths = continuations(load(zoo.DEMO_TARGET), given, new_tokens=24)
    log = tmp_path / "events.jsonl"
    with running(split(), event_log=log) as it:
        found = _generate_while_killing(it, PREFILL, given=given)
        assert not api.describe(it).ready
    assert [tuple(tokens) for tokens in found] == [truth.tokens for truth in truths]
    recomputed = [c for entry in read_journal(log).entries for c in entry.commands if isinstance(c, Recompute)]
    assert recomputed and all(command.runner == DECODE for command in recomputed)


def _generate_while_killing(it: Running, place: str, *, given: list[tuple[int, ...]] | None = None) -> list[list[int]]:
    import threading

    def kill() -> None:
        time.sleep(0.25)
        os.kill(it.workers[place].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        work = [(prompt, Placement()) for prompt in given] if given else jobs(30)
        return generate(it, work, parameters=GREEDY, stagger=0.0)
    finally:
        killer.join()


def test_memory_per_process_is_one_packed_copy_beside_the_mapped_checkpoint() -> None:
    """PSS of a device process against its framework alone: at most one more copy of the float32 weights and the pool."""
    weights = 4 * 9_245_568
    wanted = deployment(zoo.DEMO_TARGET, ["openvino", "onnxruntime"], roles=ROLES, context=256)
    with running(wanted) as it:
        generate(it, [(tuple(range(10, 60)), Placement())] * 4, parameters=GREEDY)
        found = {item.name: item.pss for item in it.memory()}
    print({name: f"{size / 2**20:.0f} MiB" for name, size in found.items()})
    for place in (PREFILL, DECODE):
        bare = 120 * 2**20  # framework, python and this package
        assert found[place] < bare + 2 * weights + 64 * 2**20
    assert sum(found.values()) < 1.5e9
