"""The generic runner over a make-believe executable whose logits tell which rows it was shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inlay.backends import HostBuffer
from inlay.engine.runner import ExtendRunner
from inlay.errors import OutOfMemoryError
from inlay.specs.artifact import ShapeBuckets
from inlay.specs.device import BatchDone, BatchFailed, Row, SlotAddress, Submit
from inlay.specs.sampling import Sampling
from inlay.specs.stage import KvLayer, StageShape

STAGE = StageShape(vocabulary=97, layers=(KvLayer(key_heads=1, key_dim=1, value_heads=1, value_dim=1),) * 2)
GREEDY = Sampling(temperature=0)


class Summing:
    """Keys and values of a token are its id; the logits of a row point at the sum of all ids it may see, modulo 97."""

    inputs: tuple[Any, ...] = ()
    outputs: tuple[Any, ...] = ()

    def __init__(self) -> None:
        self.bound: dict[int, Any] = {}
        self.fail = False
        self.sizes: list[dict[str, int]] = []

    def allocate(self, port: int, shape: tuple[int, ...]) -> HostBuffer:
        return HostBuffer.zeros(shape, "int64" if port < 3 else "float32")

    def bind(self, port: int, buffer: Any) -> None:
        self.bound[port] = buffer

    def run(self, sizes: dict[str, int]) -> None:
        if self.fail:
            raise OutOfMemoryError("planted")
        self.sizes.append(dict(sizes))
        tokens, lengths, rows = (self.bound[port].read() for port in (0, 1, 2))
        past = self.bound[STAGE.past_key(0)].read()
        assert tokens.shape == (sizes["B"], sizes["T"]) and past.shape[2] == sizes["P"]
        logits = np.zeros((sizes["R"], 97), "f4")
        for index, row in enumerate(rows):
            batch, place = divmod(int(row), sizes["T"])
            seen = past[batch, 0, : lengths[batch], 0].sum() + tokens[batch, : place + 1].sum()
            logits[index, int(seen) % 97] = 1
        self.bound[STAGE.result].write(logits)
        new = tokens[:, None, :, None].astype("f4")
        for layer in range(2):
            self.bound[STAGE.new_key(layer)].write(new)
            self.bound[STAGE.new_value(layer)].write(-new)

    def close(self) -> None:
        return


def runner(executable: Summing, buckets: ShapeBuckets | None = None) -> ExtendRunner:
    return ExtendRunner(executable, STAGE, rooms={16: 4, 32: 4}, buckets=buckets)  # type: ignore[arg-type]


def run(it: ExtendRunner, rows: list[Row], *, first: int = 0, count: int = 4, capacity: int = 16) -> BatchDone:
    width = max(len(row.tokens) for row in rows)
    it.submit(Submit(batch=1, phase="x", capacity=capacity, first=first, count=count, width=width, rows=tuple(rows)))
    outcome = it.poll()
    assert isinstance(outcome, BatchDone), outcome
    assert it.poll() is None
    return outcome


def test_ragged_rows_see_their_own_past_and_no_padding() -> None:
    it = runner(Summing())
    run(it, [Row(sequence=1, slot=0, tokens=(1, 2, 3), past_length=0), Row(sequence=2, slot=2, tokens=(9,), past_length=0)])
    rows = [
        Row(sequence=1, slot=0, tokens=(4,), past_length=3, sample=GREEDY),
        Row(sequence=2, slot=2, tokens=(8, 7), past_length=1, sample=GREEDY),
    ]
    found = {item.sequence: item.sampled for item in run(it, rows).results}
    assert [token.token for token in found[1]] == [10]
    assert [token.token for token in found[2]] == [24]


def test_padding_is_not_written_back_and_idle_slots_are_not_touched() -> None:
    it = runner(Summing())
    run(it, [Row(sequence=3, slot=1, tokens=(5,) * 6, past_length=0)], first=1, count=1)
    run(it, [Row(sequence=1, slot=0, tokens=(1, 2, 3), past_length=0), Row(sequence=2, slot=2, tokens=(9,), past_length=0)])
    keys, values = it.export_kv(SlotAddress(16, 1), 0, 6)[1]
    assert keys.ravel().tolist() == [5] * 6 and values.ravel().tolist() == [-5] * 6
    assert it.export_kv(SlotAddress(16, 2), 0, 3)[0][0].ravel().tolist() == [9, 0, 0]


def test_a_moved_sequence_goes_on_in_its_new_bucket() -> None:
    it = runner(Summing())
    run(it, [Row(sequence=1, slot=3, tokens=tuple(range(1, 17)), past_length=0)], first=3, count=1)
    it.move(SlotAddress(16, 3), SlotAddress(32, 0), 16)
    row = Row(sequence=1, slot=0, tokens=(1,), past_length=16, sample=GREEDY)
    sampled = run(it, [row], first=0, count=1, capacity=32).results[0].sampled
    assert [token.token for token in sampled] == [(136 + 1) % 97]


def test_export_and_import_are_inverse() -> None:
    it = runner(Summing())
    run(it, [Row(sequence=1, slot=0, tokens=(1, 2, 3, 4, 5), past_length=0)], count=1)
    pages = it.export_kv(SlotAddress(16, 0), 1, 3)
    it.import_kv(SlotAddress(32, 2), 4, pages)
    assert it.export_kv(SlotAddress(32, 2), 4, 3)[0][0].ravel().tolist() == [2, 3, 4]


def test_widths_are_padded_to_buckets_or_to_few_sizes() -> None:
    executable = Summing()
    buckets = ShapeBuckets(batches=(1,), widths=(1, 8), capacities=(16, 32))
    run(runner(executable, buckets), [Row(sequence=1, slot=0, tokens=(1, 2, 3), past_length=0)], count=1)
    assert executable.sizes[-1]["T"] == 8
    it = runner(executable)
    for length, width in ((3, 3), (16, 16)):
        run(it, [Row(sequence=1, slot=0, tokens=(1,) * length, past_length=0)], count=1)
        assert executable.sizes[-1]["T"] == width
    run(it, [Row(sequence=1, slot=0, tokens=(1,) * 17, past_length=0)], count=1, capacity=32)
    assert executable.sizes[-1]["T"] == 32


def test_a_failing_run_is_reported_and_the_next_one_works() -> None:
    executable = Summing()
    it = runner(executable)
    executable.fail = True
    it.submit(
        Submit(
            batch=5,
            phase="x",
            capacity=16,
            first=0,
            count=1,
            width=1,
            rows=(Row(sequence=1, slot=0, tokens=(1,), past_length=0),),
        )
    )
    assert it.poll() == BatchFailed(batch=5, code="out_of_memory", message="planted")
    executable.fail = False
    run(it, [Row(sequence=1, slot=0, tokens=(1,), past_length=0)], count=1)


def test_prompt_tokens_are_counted_by_the_runner_itself() -> None:
    it = runner(Summing())
    done = run(it, [Row(sequence=1, slot=0, tokens=(1, 2, 3), past_length=0, prompt=3)], count=1)
    assert done.prompt_tokens == 3 == it.prompt_tokens
    assert run(it, [Row(sequence=1, slot=0, tokens=(4,), past_length=3, sample=GREEDY)], count=1).prompt_tokens == 0


@pytest.mark.parametrize("slots", [4])
def test_memory_is_told(slots) -> None:
    assert runner(Summing()).memory() == {"kv_pool": 4 * 4 * slots * (16 + 32)}


@pytest.mark.parametrize("buckets", [None, ShapeBuckets(batches=(4,), widths=(1, 4, 8), capacities=(16, 32))])
def test_drafts_are_kept_as_far_as_they_are_what_the_model_says(buckets) -> None:
    it = runner(Summing(), buckets)
    run(it, [Row(sequence=1, slot=0, tokens=(1, 2), past_length=0), Row(sequence=2, slot=2, tokens=(9,), past_length=0)])
    rows = [
        Row(sequence=1, slot=0, tokens=(4, 7, 14, 20), past_length=2, sample=GREEDY, drafts=3),
        Row(sequence=2, slot=2, tokens=(8,), past_length=1, sample=GREEDY),
        Row(sequence=3, slot=3, tokens=(5, 6), past_length=0, sample=GREEDY, drafts=1),
    ]
    found = {item.sequence: [token.token for token in item.sampled] for item in run(it, rows).results}
    assert found == {1: [7, 14, 28], 2: [17], 3: [5]}  # after 7 it is 14, after 7 14 it is 28 and not 20
