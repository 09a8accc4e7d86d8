"""Speculation over real processes: with the same seed the text is that of plain decoding, in every mode, ragged and at once,
with requests cut off and sequences preempted in between, with a target in two pieces, after hand-offs and kept prefixes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from inlay import api
from inlay.engine.journal import first_difference, read_journal
from inlay.specs.deployment import Deployment
from inlay.specs.device import BatchDone, Submit
from inlay.specs.generation import Delta
from inlay.specs.schedule import Answered, Preempted, Send
from inlay.specs.speculation import AUTO, ENUMERATED, FREE, NGRAM, OFF, REJECTION, SYNCHRONOUS, SpeculationSetup

DEMO = Path(__file__).parents[2] / "demo"
SOURCES = sorted(Path(os.__file__).parent.glob("[a-m]*.py"))
TOKENS = 40


def prompts() -> list[str]:
    """Sixteen beginnings of Python files, ragged, four of them alike."""
    texts = [path.read_text(errors="replace")[100 : 100 + 30 + 47 * (index % 7)] for index, path in enumerate(SOURCES[:12])]
    return [*texts, *(texts[6] + tail for tail in ("", "\n", "\ndef ", "\nclass "))]


def deployment(roles: Sequence[str], mode: str, *, drafts: int = 4, rule: str = "coupled", **changes: object) -> Deployment:
    drafted = any(role.startswith("draft=") for role in roles)
    made = api.deployment(
        DEMO / "target",
        roles=list(roles),
        draft_model=DEMO / "draft" if drafted else "",
        slots=16,
        context=512,
        speculation=SpeculationSetup(mode=mode, drafts=drafts, breadth=4, rule=rule),
    )
    return msgspec.structs.replace(made, **changes)


async def texts_of(wanted: Deployment, log: Path, *, hang_up: bool) -> list[tuple[tuple[int, ...], ...]]:
    """Tokens of all prompts, greedy and sampled; while they are computed others begin and are cut off after a few tokens."""
    async with api.AsyncLLM(wanted, event_log=log) as llm:
        found = []
        for temperature in (0.0, 0.8):
            asked = {"max_tokens": TOKENS, "temperature": temperature, "seed": 11, "ignore_eos": True}

            async def cut_off(text: str, tokens: int, asked: dict[str, object] = asked) -> None:
                stream = llm.events(text, **asked)
                seen = 0
                async for event in stream:
                    seen += isinstance(event, Delta)
                    if seen >= tokens:
                        break
                await stream.aclose()

            cuts = [cut_off(text, 1 + 5 * index) for index, text in enumerate(prompts()[:4])] if hang_up else []
            done = await asyncio.gather(*(llm.generate(text, **asked) for text in prompts()), *cuts)
            found.append(tuple(item.tokens for item in done if item is not None))
        return found


def drafted_and_kept(log: Path) -> tuple[int, int, int]:
    """From an event log: drafts that were verified, how many were accepted, how many sequences were preempted."""
    drafts: dict[tuple[int, int], int] = {}
    sent = kept = preempted = 0
    for entry in read_journal(log).entries:
        for command in entry.commands:
            if isinstance(command, Send) and isinstance(command.message, Submit):
                drafts |= {(command.message.batch, row.sequence): row.drafts for row in command.message.rows}
            preempted += isinstance(command, Preempted)
        if isinstance(entry.event, Answered) and isinstance(entry.event.message, BatchDone):
            for result in entry.event.message.results:
                count = drafts.get((entry.event.message.batch, result.sequence), 0)
                sent += count
                kept += len(result.sampled) - 1 if count else 0
    return sent, kept, preempted


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[tuple[int, ...], ...]]:
    """The text without speculation, by the reference backend alone."""
    log = tmp_path_factory.mktemp("plain") / "log.jsonl"
    return asyncio.run(texts_of(deployment(["prefill,decode=cpu:0/reference"], OFF), log, hang_up=False))


ONNX, OPENVINO = "cpu:0/onnxruntime", "cpu:1/openvino"
CASES = {
    "draft elsewhere, waited for": ([f"prefill,decode={ONNX}", f"draft={OPENVINO}"], SYNCHRONOUS, {}),
    "draft elsewhere, ahead": ([f"prefill,decode={ONNX}", f"draft={OPENVINO}"], FREE, {}),
    "outcomes enumerated": ([f"prefill,decode={OPENVINO}", f"draft={ONNX}"], ENUMERATED, {}),
    "own text": ([f"prefill,decode={ONNX}"], NGRAM, {}),
    "chosen": ([f"prefill,decode={ONNX}", f"draft={OPENVINO}"], AUTO, {}),
    "same device": ([f"prefill,decode={ONNX}", "draft=cpu:0/openvino"], SYNCHRONOUS, {}),
    "contrary target, few slots": (
        ["prefill,decode=cpu:0/contrary", f"draft={OPENVINO}"],
        FREE,
        {"capacities": (64, 128, 512), "rooms": (16, 4, 2)},
    ),
    "contrary draft": ([f"prefill,decode={ONNX}", "draft=cpu:1/contrary"], ENUMERATED, {}),
    "pages verify, chosen": ([f"prefill,decode={OPENVINO}:paged", f"draft={ONNX}"], AUTO, {}),
    "pages verify, ahead": ([f"prefill,decode={OPENVINO}:paged", f"draft={ONNX}"], FREE, {}),
    "target in two pieces": ([f"prefill,decode={ONNX}@0-2+{OPENVINO}@3-", "draft=cpu:1/reference"], FREE, {}),
    "handed off, few slots": (
        [f"prefill={OPENVINO}", f"decode={ONNX}", "draft=cpu:1/onnxruntime"],
        FREE,
        {"capacities": (64, 128, 512), "rooms": (16, 4, 2)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_with_the_same_seed_the_text_is_that_of_plain_decoding(case, plain, tmp_path) -> None:
    roles, mode, changes = CASES[case]
    log = tmp_path / "log.jsonl"
    found = asyncio.run(texts_of(deployment(roles, mode, **changes), log, hang_up=True))
    sent, kept, preempted = drafted_and_kept(log)
    print(f"{case}: {sent} drafts verified, {kept} accepted, {preempted} preemptions")
    assert found == plain
    assert kept > 0 and (preempted > 0) == ("rooms" in changes)
    assert first_difference(read_journal(log)) is None, "a replay of the event log decides otherwise"


def test_the_rejection_rule_keeps_greedy_text_and_draws_other_samples_of_the_same_distribution(plain, tmp_path) -> None:
    log = tmp_path / "log.jsonl"
    wanted = deployment([f"prefill,decode={ONNX}", f"draft={OPENVINO}"], SYNCHRONOUS, rule=REJECTION)
    greedy, sampled = asyncio.run(texts_of(wanted, log, hang_up=False))
    sent, kept, _ = drafted_and_kept(log)
    assert greedy == plain[0]
    assert sampled != plain[1] and kept > sent / 10
