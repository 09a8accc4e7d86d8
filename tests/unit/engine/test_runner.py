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
from inlay.specs.sampling import History, Sampling
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


def test_a_batch_without_a_past_is_bound_to_next_to_none_and_leaves_its_keys_where_they_belong() -> None:
    fresh = [Row(sequence=1, slot=0, tokens=(1, 2, 3), past_length=0, sample=GREEDY)]
    later = [
        Row(sequence=1, slot=0, tokens=(4,), past_length=3, sample=GREEDY),
        Row(sequence=2, slot=1, tokens=(7,), past_length=0, sample=GREEDY),
    ]
    for buckets in (None, ShapeBuckets(batches=(4,), widths=(1, 3), capacities=(32,))):
        executable = Summing()
        it = runner(executable, buckets)
        for _ in range(2):
            first = run(it, fresh, capacity=32).results[0].sampled
            second = {item.sequence: item.sampled for item in run(it, later, capacity=32).results}
            assert [token.token for token in first] == [6]
            assert [token.token for token in second[1]] == [10] and [token.token for token in second[2]] == [7]
        assert [sizes["P"] for sizes in executable.sizes] == [32 if buckets else 16, 32] * 2


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


@pytest.mark.parametrize("buckets", [None, ShapeBuckets(batches=(1, 4), widths=(1, 8, 16), capacities=(16, 32))])
def test_targets_get_the_log_probability_after_each_token_of_a_ragged_chunked_prompt(buckets) -> None:
    executable = Summing()
    it = runner(executable, buckets)
    first = [
        Row(sequence=1, slot=0, tokens=(1, 2, 3), past_length=0, targets=(2, 3, 4), target_top=1),
        Row(sequence=2, slot=2, tokens=(9, 5), past_length=0, sample=GREEDY),
    ]
    done = run(it, first)
    # The logits after a prefix are 1 at the sum of its ids and 0 elsewhere.
    likely = 1 - float(np.log(np.e + 96))
    assert [row.top[0][0] for row in done.results[0].targets] == [1, 3, 6]
    assert [row.token for row in done.results[0].targets] == [2, 3, 4]
    assert [row.logprob for row in done.results[0].targets] == pytest.approx([likely - 1, likely, likely - 1])
    assert done.results[0].sampled == ()
    assert [item.token for item in done.results[1].sampled] == [14]
    assert done.results[1].targets == ()
    second = run(it, [Row(sequence=1, slot=0, tokens=(4, 10), past_length=3, sample=GREEDY, targets=(10,), target_top=0)])
    assert second.results[0].targets[0].logprob == pytest.approx(likely)
    assert [item.token for item in second.results[0].sampled] == [20]
    assert buckets is None or [sizes["R"] // sizes["B"] == sizes["T"] for sizes in executable.sizes] == [True, True]
    run(it, [Row(sequence=1, slot=0, tokens=(1,), past_length=5, sample=GREEDY)])
    assert executable.sizes[-1]["R"] == executable.sizes[-1]["B"]


def test_a_mask_and_a_history_reach_the_choice() -> None:
    it = runner(Summing())
    masked = Row(sequence=1, slot=0, tokens=(1, 2), past_length=0, sample=GREEDY, masks=(b"\x60" + bytes(12),))
    assert run(it, [masked]).results[0].sampled[0].token == 5
    tired = Sampling(temperature=0, presence=2.0)
    told = Row(sequence=1, slot=0, tokens=(4,), past_length=2, sample=tired, history=History(generated=(7,)))
    assert run(it, [told]).results[0].sampled[0].token == 0


def test_drafts_and_targets_fit_into_one_batch() -> None:
    it = runner(Summing())
    rows = [
        Row(sequence=1, slot=0, tokens=(1, 2, 3), past_length=0, targets=(2, 3), target_top=1, sample=GREEDY),
        Row(sequence=2, slot=2, tokens=(9, 9, 18), past_length=0, sample=GREEDY, drafts=2),
        Row(sequence=3, slot=3, tokens=(5,), past_length=0, sample=GREEDY),
    ]
    found = run(it, rows).results
    assert [[token.token for token in item.sampled] for item in found] == [[6], [9, 18, 36], [5]]
    assert [item.top[0][0] for item in found[0].targets] == [1, 3]


def test_each_draft_position_has_its_own_mask_and_the_history_goes_along() -> None:
    it = runner(Summing())
    only = lambda token: (1 << token).to_bytes(13, "little")  # noqa: E731
    row = Row(
        sequence=1, slot=0, tokens=(1, 50, 60), past_length=0, sample=GREEDY, drafts=2, masks=(only(50), only(60), only(70))
    )
    assert [token.token for token in run(it, [row]).results[0].sampled] == [50, 60, 70]
    tired = Sampling(temperature=0, presence=2.0)
    row = Row(sequence=1, slot=0, tokens=(4, 4, 8), past_length=0, sample=tired, drafts=2, history=History(generated=(16,)))
    # 4, then 8, and then 16 would be next, which has come before; 4 and 8 have too.
    assert [token.token for token in run(it, [row]).results[0].sampled] == [4, 8, 0]
