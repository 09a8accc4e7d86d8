"""The paged runner over a make-believe executable whose logits tell which rows of which pages it was shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inlay.backends import HostBuffer
from inlay.engine.device import DeviceConfig, _make_runner
from inlay.engine.paged import PagedRunner
from inlay.engine.runner import ExtendRunner
from inlay.errors import DeviceError, OutOfMemoryError
from inlay.specs.device import BatchDone, BatchFailed, Row, SlotAddress, Submit
from inlay.specs.sampling import Sampling
from inlay.specs.stage import KvLayer, PagedShape, StageShape

LAYER = KvLayer(key_heads=1, key_dim=1, value_heads=1, value_dim=1)
SHAPE = PagedShape(stage=StageShape(vocabulary=97, layers=(LAYER,) * 2), page=4)
GREEDY = Sampling(temperature=0)


class Summing:
    """Keys and values of a token are its id; the logits of a token point at the sum of all ids it may see, modulo 97."""

    inputs, outputs = SHAPE.ports()

    def __init__(self) -> None:
        self.bound: dict[int, Any] = {}
        self.fail = False
        self.sizes: list[dict[str, int]] = []

    def allocate(self, port: int, shape: tuple[int, ...]) -> HostBuffer:
        return HostBuffer.zeros(shape, (*self.inputs, *self.outputs)[port].dtype)

    def bind(self, port: int, buffer: Any) -> None:
        self.bound[port] = buffer

    def run(self, sizes: dict[str, int]) -> None:
        if self.fail:
            raise OutOfMemoryError("planted")
        self.sizes.append(dict(sizes))
        tokens, positions, wanted, pasts, begins, pages, lists, longest = (self.bound[port].read() for port in range(8))
        seen = np.zeros(sizes["N"], int)
        for row, past in enumerate(pasts):
            table = pages[lists[row] : lists[row + 1]]
            for offset, at in enumerate(range(begins[row], begins[row + 1])):
                position = past + offset
                assert positions[at] == position < longest
                for layer in range(2):
                    self.bound[SHAPE.key_pages(layer)].array[table[position // 4], 0, position % 4] = tokens[at]
                    self.bound[SHAPE.value_pages(layer)].array[table[position // 4], 0, position % 4] = -tokens[at]
                seen[at] = self.bound[SHAPE.key_pages(1)].array[table, 0, :, 0].ravel()[: position + 1].sum()
        self.bound[SHAPE.result].write(np.eye(97, dtype="f4")[seen[wanted] % 97])

    def close(self) -> None:
        return


def runner(executable: Summing) -> PagedRunner:
    return PagedRunner(executable, SHAPE, pages=16)  # type: ignore[arg-type]


def row(sequence: int, tokens: tuple[int, ...], past: int, pages: tuple[int, ...], **more: Any) -> Row:
    return Row(sequence=sequence, slot=0, tokens=tokens, past_length=past, pages=pages, sample=GREEDY, **more)


def submit(it: PagedRunner, *rows: Row) -> BatchDone | BatchFailed:
    it.submit(Submit(batch=7, phase="x", capacity=0, first=0, count=0, width=0, rows=rows))
    outcome = it.poll()
    assert outcome is not None and it.poll() is None
    return outcome


def tokens(outcome: BatchDone | BatchFailed) -> dict[int, list[int]]:
    assert isinstance(outcome, BatchDone), outcome
    return {item.sequence: [sampled.token for sampled in item.sampled] for item in outcome.results}


def test_ragged_rows_see_their_own_pages_only() -> None:
    it = runner(Summing())
    assert tokens(submit(it, row(1, (1, 2, 3, 4, 5), 0, (9, 2)), row(2, (9,), 0, (4,)))) == {1: [15], 2: [9]}
    found = tokens(submit(it, row(2, (8, 7), 1, (4,)), row(1, (6,), 5, (9, 2)), row(3, tuple(range(10)), 0, (1, 15, 0))))
    assert found == {2: [24], 1: [21], 3: [45]}


def test_a_prefix_is_shared_until_one_would_write_into_it() -> None:
    it = runner(Summing())
    submit(it, row(1, (1, 2, 3, 4), 0, (5,)))
    assert tokens(submit(it, row(1, (5,), 4, (5, 6)), row(2, (50,), 4, (5, 7)))) == {1: [15], 2: [60]}
    outcome = submit(it, row(1, (6,), 5, (5, 6)), row(2, (7,), 4, (5, 6)))
    assert isinstance(outcome, BatchFailed)
    assert outcome.message.startswith("sequence 1 would write page 6, which is listed 2 times")
    outcome = submit(it, row(1, (6,), 3, (5,)), row(2, (7,), 4, (5, 7)))
    assert isinstance(outcome, BatchFailed) and "sequence 1 would write page 5" in outcome.message


def test_a_page_moves_before_it_is_written() -> None:
    it = runner(Summing())
    submit(it, row(1, (1, 2, 3), 0, (5,)))
    it.move(SlotAddress(4, 5), SlotAddress(4, 11), 3)
    assert tokens(submit(it, row(1, (10,), 3, (5,)), row(2, (20,), 3, (11,)))) == {1: [16], 2: [26]}


def test_drafts_are_kept_as_far_as_they_equal_what_is_sampled() -> None:
    it = runner(Summing())
    found = tokens(
        submit(it, row(1, (1, 1, 2, 9), 0, (3,), drafts=3), row(2, (5, 5), 0, (4,), drafts=1), row(3, (8,), 0, (6,)))
    )
    assert found == {1: [1, 2, 4], 2: [5, 10], 3: [8]}
    assert it.logits_of(1).argmax() == 13 and it.logits_of(3).argmax() == 8
    with pytest.raises(DeviceError, match="no row of sequence 4"):
        it.logits_of(4)


def test_probabilities_of_a_prompt_come_row_by_row() -> None:
    outcome = submit(runner(Summing()), row(1, (1, 2, 3), 0, (3,), targets=(1, 3, 50)), row(2, (8,), 0, (6,)))
    assert isinstance(outcome, BatchDone)
    assert [item.token for item in outcome.results[0].targets] == [1, 3, 50]
    likely = np.array([item.logprob for item in outcome.results[0].targets])
    assert likely[0] == likely[1] > likely[2]
    assert [item.token for item in outcome.results[0].sampled] == [6]


def test_export_and_import_are_inverse_across_pages() -> None:
    it = runner(Summing())
    submit(it, row(1, tuple(range(1, 11)), 0, (9, 2, 5)))
    found = it.export_kv((9, 2, 5), 2, 7)
    assert found[0][0].shape == (7, 1, 1) and found[1][1].ravel().tolist() == [-3, -4, -5, -6, -7, -8, -9]
    it.import_kv((1, 7, 0), 1, found[1:], range(1, 2))
    keys, values = it.export_kv((1, 7, 0), 0, 9, range(1, 2))[0]
    assert keys.ravel().tolist() == [0, 3, 4, 5, 6, 7, 8, 9, 0] and values.ravel()[1] == -3
    assert not it.export_kv((1, 7, 0), 0, 12, range(1))[0][0].any()
    for place, start, count in (((1, 7), 0, 9), ((1, 16), 0, 2), ((1,), -1, 2)):
        with pytest.raises(DeviceError, match="expected rows and pages there are"):
            it.export_kv(place, start, count)


@pytest.mark.parametrize(
    ("tokens_", "past", "pages", "text"),
    [
        ((1,), 4, (3,), "of 4 \\+ 1 tokens has pages \\[3\\], expected at least 2 of 0 to 15"),
        ((1,), 0, (16,), "expected at least 1 of 0 to 15"),
        ((1,), 0, (-1,), "expected at least 1 of 0 to 15"),
        ((1,), 0, (), "expected at least 1 of 0 to 15"),
        ((), 4, (3,), "of 4 \\+ 0 tokens"),
        ((1, 2, 3, 4, 5), 0, (3, 3), "would write page 3, which is listed 2 times"),
    ],
)
def test_a_wrong_page_table_fails_the_batch_and_nothing_else(tokens_: Any, past: int, pages: Any, text: str) -> None:
    executable = Summing()
    it = runner(executable)
    outcome = submit(it, row(1, tokens_, past, pages))
    assert isinstance(outcome, BatchFailed) and outcome.batch == 7 and outcome.code == DeviceError.code
    with pytest.raises(AssertionError, match=text):
        tokens(outcome)
    assert not executable.sizes
    assert tokens(submit(it, row(1, (5,), 0, (3,)))) == {1: [5]}


def test_a_failing_run_is_reported_and_the_next_one_works() -> None:
    executable = Summing()
    it = runner(executable)
    executable.fail = True
    assert submit(it, row(1, (5,), 0, (3,))) == BatchFailed(batch=7, code="out_of_memory", message="planted")
    executable.fail = False
    assert tokens(submit(it, row(1, (5,), 0, (3,)))) == {1: [5]}


def test_memory_is_the_pool_and_rows_and_prompts_are_counted() -> None:
    it = runner(Summing())
    submit(it, row(1, (1, 2), 0, (3,), prompt=2), row(2, (1,), 0, (4,)))
    assert (it.prompt_tokens, it.rows_run) == (2, 2)
    assert it.memory() == {"kv_pool": 16 * 4 * 2 * 2 * 4}


def test_the_artifact_says_which_runner_and_a_slot_runner_refuses_pages() -> None:
    config = DeviceConfig(
        place="xeon:0/openvino", epoch=1, key=b"", socket="", peers={}, model_digest="", artifact="", weights="", backend="",
        framework_version="", threads=1, capacities=(8, 10), rooms=(2, 2), slots=3, page=16, pages=5,
    )  # fmt: skip

    def made(page: int) -> Any:
        region = SimpleNamespace(executable=Summing(), stage=SHAPE.stage, manifest=SimpleNamespace(page=page, buckets=None))
        return _make_runner(region, config)  # type: ignore[arg-type]

    paged, *numbers = made(4)
    assert isinstance(paged, PagedRunner) and "paged" in paged.abilities and numbers == [4, 5, 0]
    slots, *numbers = made(0)
    assert isinstance(slots, ExtendRunner) and "paged" not in slots.abilities and numbers == [16, 5, 5]
    with pytest.raises(DeviceError, match="pages \\[1, 2\\] are named at a runner that keeps slots"):
        slots.export_kv((1, 2), 0, 1)


def test_pages_of_rounds_to_come_are_held_and_not_read() -> None:
    executable = Summing()
    it = runner(executable)
    assert tokens(submit(it, row(1, (5,), 0, (3, 4)))) == {1: [5]}
    assert executable.sizes[-1]["G"] == 1


def test_what_a_sequence_writes_is_told_page_by_page_and_what_it_only_reads_is_not() -> None:
    it = runner(Summing())
    assert [tuple(it.written((9, 2, 5), start)) for start in (0, 3, 4, 11)] == [(9, 2, 5), (9, 2, 5), (2, 5), (5,)]
    assert tuple(it.written(SlotAddress(4, 7), 0)) == (7,)
