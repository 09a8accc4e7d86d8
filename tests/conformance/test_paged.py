"""The paged program on every backend that has one computes what Hugging Face's own forward pass computes.

Batches are ragged and mixed; pages lie out of order, hold garbage where nothing is written, and are shared between rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance_world import World, need

from inlay.backends import Array, Executable, backend, backend_names
from inlay.engine.paged import PagedRunner
from inlay.engine.runner import ExtendRunner
from inlay.errors import UnsupportedError
from inlay.runtime.cache import read_manifest
from inlay.runtime.load import load_stage_executable
from inlay.runtime.lower import lower_stage
from inlay.runtime.weights import read_weight_map
from inlay.specs.artifact import LowerRequest
from inlay.specs.device import BatchDone, BatchFailed, Row, SlotAddress, Submit
from inlay.specs.precision import PRECISIONS, Precision
from inlay.specs.sampling import Sampling
from inlay.specs.stage import PagedShape

TOLERANCE = 1e-5
PAGES = 24
PAGED = tuple(name for name in backend_names() if getattr(backend(name), "page", 0))
EXPRESSED = ("llama", "qwen3", "mistral", "gemma3_text", "gpt2", "gpt_neox", "mixtral")
QUICK = ("llama", "mistral")
REFUSED = {"gemma2": "caps its attention scores", "gpt_oss": "has attention sinks"}
EVERYTHING = Sampling(temperature=0, top_n=97)
PAIRS = [pytest.param(kind, name, marks=() if kind in QUICK else pytest.mark.thorough) for kind in EXPRESSED for name in PAGED]
Forward = Callable[[Path, list[int]], Array]


@dataclass
class Subject:
    """A runner over a loaded paged program, and the page tables of its sequences."""

    runner: PagedRunner
    size: int
    tables: dict[int, tuple[int, ...]] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)

    def row(self, sequence: int, tokens: list[int], past: int) -> Row:
        """A row with as many pages as it needs, new ones from the free list, which is in no order."""
        table = self.tables.setdefault(sequence, ())
        while len(table) * self.size < past + len(tokens):
            table = self.tables[sequence] = (*table, self.free.pop())
        held = table[: -(-(past + len(tokens)) // self.size)]
        return Row(sequence=sequence, slot=0, tokens=tuple(tokens), past_length=past, sample=EVERYTHING, pages=held)

    def run(self, *rows: Row) -> list[Array]:
        """The log-probabilities [V] after each row."""
        found = []
        for result in submit(self.runner, *rows).results:
            found.append(np.array([value for _, value in sorted(result.sampled[-1].top)]))
        return found


def submit(runner: PagedRunner | ExtendRunner, *rows: Row, **changes: int) -> BatchDone:
    sizes = {"capacity": 0, "first": 0, "count": 0, "width": 0, **changes}
    runner.submit(Submit(batch=1, phase="decode", rows=rows, **sizes))
    outcome = runner.poll()
    assert isinstance(outcome, BatchDone), outcome
    return outcome


def load(world: World, folder: Path, name: str, *, page: int, precision: Precision = Precision()) -> tuple[Executable, Any]:
    lowered = lower_stage(folder, wanted=[(name, LowerRequest(page=page, precision=precision))], cache=world.cache)
    directory, weights = Path(lowered.artifacts[0].directory), read_weight_map(Path(lowered.weights))
    assert weights is not None
    manifest = read_manifest(directory)
    return load_stage_executable(directory, manifest=manifest, weight_map=weights, backend_name=name), manifest


@pytest.fixture(scope="session")
def subject(world: World) -> Callable[..., Subject]:
    loaded: dict[tuple[str, str], tuple[Executable, Any]] = {}

    def make(kind: str, name: str) -> Subject:
        """A new pool, full of garbage, over a program that is lowered and loaded once."""
        need(name)
        if (kind, name) not in loaded:
            loaded[kind, name] = load(world, world.model(kind), name, page=backend(name).page)  # type: ignore[attr-defined]
        executable, manifest = loaded[kind, name]
        shape = PagedShape(stage=manifest.stage, page=manifest.page)
        runner, generator = PagedRunner(executable, shape, pages=PAGES), np.random.default_rng(7)
        for page in range(PAGES):
            garbage = [
                tuple(
                    generator.normal(size=(shape.page, heads, dim)).astype(np.float32) * 5
                    for heads, dim in ((item.key_heads, item.key_dim), (item.value_heads, item.value_dim))
                )
                for item in shape.stage.layers
            ]
            runner.import_kv((page,), 0, garbage)  # type: ignore[arg-type]
        return Subject(runner, shape.page, free=[int(page) for page in generator.permutation(PAGES)])

    return make


@pytest.fixture(scope="session")
def forward() -> Forward:
    models: dict[Path, Any] = {}

    def run(folder: Path, tokens: list[int]) -> Array:
        """Log-probabilities [T, V] of one sequence by Hugging Face's own forward pass."""
        import torch
        from transformers import AutoModelForCausalLM

        if folder not in models:
            loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
            models[folder] = loaded.eval()
        with torch.no_grad():
            logits = models[folder](torch.tensor(tokens)[None]).logits[0]
        found: Array = torch.log_softmax(logits.double(), -1).numpy()
        return found

    return run


def tokens_of(count: int, *, seed: int) -> list[int]:
    return [int(item) for item in np.random.default_rng(seed).integers(3, 97, count)]


def error(found: Array, expected: Array) -> float:
    """The largest, by the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_ragged_batches_of_chunks_and_decodes_equal_the_plain_forward_pass(
    world: World, subject: Any, forward: Forward, kind: str, name: str
) -> None:
    it, folder = subject(kind, name), world.model(kind)
    lengths = {1: 70, 2: 9, 3: 40, 4: 33}
    texts = {number: tokens_of(length, seed=number) for number, length in lengths.items()}
    expected = {number: forward(folder, tokens) for number, tokens in texts.items()}
    batches = (
        {1: 40, 3: 32},  # two prompt chunks, one of them a page exactly
        {1: 41, 2: 8, 3: 33, 4: 31},  # two decodes beside two whole prompts
        {1: 69, 2: 9, 4: 32, 3: 34},
        {4: 33},
        {1: 70, 3: 40},
    )
    done, worst = dict.fromkeys(texts, 0), 0.0
    for batch in batches:
        rows = [it.row(number, texts[number][done[number] : end], done[number]) for number, end in batch.items()]
        for (number, end), found in zip(batch.items(), it.run(*rows), strict=True):
            worst, done[number] = max(worst, error(found, expected[number][end - 1])), end
    print(f"{kind} {name}: {worst:.1e}")
    assert worst < TOLERANCE


@pytest.mark.parametrize("name", PAGED)
def test_a_shared_prefix_is_read_by_many_and_written_by_none(world: World, subject: Any, forward: Forward, name: str) -> None:
    it, folder = subject("llama", name), world.model("llama")
    prefix = tokens_of(2 * it.size, seed=1)
    ends = {number: tokens_of(4 + number, seed=number) for number in (2, 3, 4)}
    it.run(it.row(1, prefix, 0))
    before = it.runner.export_kv(it.tables[1], 0, len(prefix))
    for number in ends:
        it.tables[number] = it.tables[1]
    found = it.run(*(it.row(number, tokens, len(prefix)) for number, tokens in ends.items()))
    for (_number, tokens), got in zip(ends.items(), found, strict=True):
        assert error(got, forward(folder, prefix + tokens)[-1]) < TOLERANCE
    for one, two in zip(before, it.runner.export_kv(it.tables[1], 0, len(prefix)), strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])


@pytest.mark.parametrize("name", PAGED)
def test_a_page_copied_before_it_is_written_leaves_the_other_sequence_alone(
    world: World, subject: Any, forward: Forward, name: str
) -> None:
    it, folder = subject("llama", name), world.model("llama")
    prefix, first, second = tokens_of(it.size + 5, seed=1), tokens_of(3, seed=2), tokens_of(3, seed=3)
    it.run(it.row(1, prefix, 0))
    copy = it.free.pop()
    it.runner.move(SlotAddress(it.size, it.tables[1][1]), SlotAddress(it.size, copy), 5)
    it.tables[2] = (it.tables[1][0], copy)
    found = it.run(it.row(1, first, len(prefix)), it.row(2, second, len(prefix)))
    for got, tokens in zip(found, (first, second), strict=True):
        assert error(got, forward(folder, prefix + tokens)[-1]) < TOLERANCE


@pytest.mark.parametrize("name", PAGED)
def test_a_sequence_goes_back_to_a_shorter_length_and_on_from_there(
    world: World, subject: Any, forward: Forward, name: str
) -> None:
    it, folder = subject("llama", name), world.model("llama")
    kept, wrong, right = tokens_of(it.size - 1, seed=1), tokens_of(4, seed=2), tokens_of(4, seed=3)
    it.run(it.row(1, kept + wrong, 0))
    found = it.run(it.row(1, right, len(kept)))[0]
    assert error(found, forward(folder, kept + right)[-1]) < TOLERANCE


@pytest.mark.parametrize("name", PAGED)
def test_verifies_of_several_widths_keep_what_the_plain_forward_pass_would_say(
    world: World, subject: Any, forward: Forward, name: str
) -> None:
    it, folder = subject("llama", name), world.model("llama")
    texts = {number: tokens_of(30 + number, seed=number) for number in (1, 2, 3)}
    it.run(*(it.row(number, tokens, 0) for number, tokens in texts.items()))
    rows, expected = [], {}
    for number, tokens in texts.items():
        said = list(tokens)
        for _ in range(number + 1):
            said.append(int(forward(folder, said)[-1].argmax()))
        right = said[len(tokens) :]
        wrong = [*right[:-1], (right[-1] + 1) % 97]  # the last guess is not what greedy decoding says
        row = it.row(number, wrong, len(tokens))
        rows.append(Row(**{name: getattr(row, name) for name in row.__struct_fields__} | {"drafts": len(wrong) - 1}))
        expected[number] = (right[1:], [forward(folder, [*tokens, *wrong[: at + 1]])[-1] for at in range(len(wrong) - 1)])
    for result in submit(it.runner, *rows).results:
        tokens, logprobs = expected[result.sequence]
        assert [item.token for item in result.sampled] == tokens
        for item, line in zip(result.sampled, logprobs, strict=True):
            assert error(np.array([value for _, value in sorted(item.top)]), line) < TOLERANCE


@pytest.mark.parametrize("name", PAGED)
def test_keys_and_values_go_to_a_slot_of_extend_and_back(world: World, subject: Any, forward: Forward, name: str) -> None:
    it, folder = subject("llama", name), world.model("llama")
    lowered = world.lower(folder, name)
    manifest = read_manifest(Path(lowered.artifacts[0].directory))
    other = ExtendRunner(world.load(folder, name), manifest.stage, rooms={96: 2}, buckets=None)  # type: ignore[arg-type]
    text = tokens_of(60, seed=1)
    it.run(it.row(1, text[:40], 0))
    other.import_kv(SlotAddress(96, 1), 0, it.runner.export_kv(it.tables[1], 0, 40))
    row = Row(sequence=1, slot=1, tokens=tuple(text[40:50]), past_length=40, sample=EVERYTHING)
    sampled = submit(other, row, capacity=96, first=1, count=1, width=10).results[0].sampled
    there = np.array([value for _, value in sorted(sampled[0].top)])
    expected = forward(folder, text)
    assert error(there, expected[49]) < TOLERANCE
    it.row(2, text[:50], 0)  # pages of its own
    it.runner.import_kv(it.tables[2], 0, other.export_kv(SlotAddress(96, 1), 0, 23))
    it.runner.import_kv(it.tables[2], 23, other.export_kv(SlotAddress(96, 1), 23, 27))
    assert error(it.run(it.row(2, text[50:], 50))[0], expected[59]) < TOLERANCE


@pytest.mark.parametrize("name", PAGED)
def test_weights_in_8_bit_are_the_same_numbers_as_in_extend(world: World, name: str) -> None:
    need(name)
    folder, precision, text = world.model("llama"), PRECISIONS["int8-weights"], tuple(tokens_of(50, seed=1))
    executable, manifest = load(world, folder, name, page=backend(name).page, precision=precision)  # type: ignore[attr-defined]
    paged = PagedRunner(executable, PagedShape(stage=manifest.stage, page=manifest.page), pages=4)
    executable, manifest = load(world, folder, name, page=0, precision=precision)
    slots = ExtendRunner(executable, manifest.stage, rooms={64: 1}, buckets=None)
    row = Row(sequence=1, slot=0, tokens=text, past_length=0, sample=EVERYTHING, pages=(3, 1))
    found = [submit(paged, row), submit(slots, row, capacity=64, count=1, width=50)]
    one, two = (np.array([value for _, value in sorted(done.results[0].sampled[0].top)]) for done in found)
    assert error(one, two) < TOLERANCE


@pytest.mark.parametrize("name", PAGED)
def test_a_run_that_the_framework_refuses_fails_and_disturbs_no_other(
    world: World, subject: Any, forward: Forward, name: str
) -> None:
    it, folder = subject("llama", name), world.model("llama")
    text = tokens_of(20, seed=1)
    it.run(it.row(1, text[:10], 0))
    shape = it.runner._shape
    whole = type(it.runner)._feed

    def wrong(runner: PagedRunner, port: int, values: Any) -> None:
        whole(runner, port, [*values, 3] if port == shape.past_lengths else values)

    row = it.row(1, text[10:], 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(it.runner), "_feed", wrong)
        patch.setattr("inlay.backends.openvino.execute.check_sizes", lambda *_: None)
        it.runner.submit(Submit(batch=3, phase="decode", capacity=0, first=0, count=0, width=0, rows=(row,)))
        outcome = it.runner.poll()
    assert isinstance(outcome, BatchFailed) and "openvino failed in a run" in outcome.message
    assert error(it.run(row)[0], forward(folder, text)[-1]) < TOLERANCE


@pytest.mark.parametrize("name", PAGED)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_operator_cannot_do_is_refused_by_name(world: World, kind: str, name: str) -> None:
    need(name)
    with pytest.raises(UnsupportedError, match=f"model type '{kind}' has no paged program: .*{REFUSED[kind]}"):
        load(world, world.model(kind), name, page=backend(name).page)  # type: ignore[attr-defined]


def test_pages_of_a_size_or_a_backend_that_does_not_have_them_are_refused(world: World) -> None:
    for name, page, expected in (("openvino", 16, "expected 32"), ("reference", 32, "expected none")):
        with pytest.raises(UnsupportedError, match=f"backend {name} is asked for KV pages of {page} tokens, {expected}"):
            load(world, world.model("llama"), name, page=page)
    with pytest.raises(UnsupportedError, match="layers 0 to 0, expected all of them"):
        lower_stage(world.model("llama"), wanted=[("openvino", LowerRequest(page=32, layers=(0, 1)))], cache=world.cache)
