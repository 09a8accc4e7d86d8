"""The devices overlap: a closed loop of 8 requests, both devices busy at the same time, drawn from the event log."""

from __future__ import annotations

import sys

import pytest
import zoo
from serving import deployment, generate, running
from truth import prompts

from inlay import api
from inlay.specs.generation import GenerationParameters, Placement

pytestmark = pytest.mark.alone

GOAL = 0.30


def test_both_devices_are_busy_at_the_same_time_for_at_least_thirty_percent_of_a_closed_loop(tmp_path) -> None:
    """32 requests of 400 tokens in and 128 out, 8 at any time. The share is of busy intervals, not of speed."""
    roles = ["prefill=cpu:0/openvino", "decode=cpu:1/onnxruntime"]
    wanted = deployment(zoo.DEMO_TARGET, ["openvino", "onnxruntime"], roles=roles, context=1024, chunk=128)
    log = tmp_path / "events.jsonl"
    work = [(prompt, Placement()) for prompt in prompts(32, vocabulary=4096, seed=6, shortest=400)]
    with running(wanted, event_log=log) as it:
        generate(it, work, parameters=GenerationParameters(max_tokens=128, temperature=0.0, ignore_eos=True), stagger=0.0)
    found = api.timeline(log)
    print(f"\n{api.timeline_drawing(found)}", file=sys.stderr)
    print(f"span {found.span:.2f} s, both busy {found.overlap_share():.1%} (measured)", file=sys.stderr)
    assert found.overlap_share() >= GOAL
