"""Pieces of a stage one after another: the hidden state goes on, tokens come from the last, each owns the KV of its layers."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from inlay.backends import HostBuffer, backend
from inlay.engine.runner import ExtendRunner
from inlay.specs.artifact import LowerRequest, ShapeBuckets, WeightMap, stage_interface
from inlay.specs.device import BatchDone, BatchFailed, Row, SlotAddress, Submit
from inlay.specs.sampling import Sampling
from inlay.specs.stage import KvLayer, StageShape

LAYER = KvLayer(key_heads=2, key_dim=3, value_heads=1, value_dim=4)
WHOLE = StageShape(vocabulary=97, layers=tuple(msgspec.structs.replace(LAYER, key_dim=3 + i) for i in range(5)))
GREEDY = Sampling(temperature=0)


def runner(stage: StageShape, folder: Path, *, buckets: ShapeBuckets | None = None) -> ExtendRunner:
    null = backend("null")
    manifest = null.lower(None, interface=stage_interface(stage), request=LowerRequest(), directory=folder)
    weights = WeightMap(model_digest="m", weights={})
    executable = null.load(folder, manifest=manifest, weights=weights, threads=1, options={})
    return ExtendRunner(executable, stage, rooms={16: 4, 64: 4}, buckets=buckets)


def end(it: ExtendRunner) -> BatchDone | BatchFailed:
    while (outcome := it.poll()) is None:
        pass
    return outcome


def batch(*rows: Row, first: int = 0, count: int = 4, capacity: int = 64) -> Submit:
    width = max(len(row.tokens) for row in rows)
    return Submit(batch=3, phase="x", capacity=capacity, first=first, count=count, width=width, rows=rows)


def through(pieces: list[ExtendRunner], given: Submit) -> BatchDone:
    """A batch through all pieces in turn, each given what the one before passes on."""
    hidden = None
    for piece in pieces:
        piece.submit(given, hidden)
        outcome = end(piece)
        assert isinstance(outcome, BatchDone), outcome
        hidden = piece.hidden
    assert hidden is None
    return outcome


def tokens(done: BatchDone) -> dict[int, int | None]:
    return {item.sequence: item.sampled[0].token if item.sampled else None for item in done.results}


@pytest.mark.parametrize("cuts", [(0, 5), (0, 2, 5), (0, 1, 2, 3, 4, 5)])
def test_however_the_layers_are_cut_the_tokens_are_the_same(cuts, tmp_path) -> None:
    whole = runner(WHOLE, tmp_path)
    buckets = ShapeBuckets(batches=(4,), widths=(1, 8, 32), capacities=(16, 64))
    pieces = [
        # Every other piece runs declared widths only: each pads the hidden state to its own.
        runner(WHOLE.piece(low, high, hidden=6), tmp_path, buckets=buckets if index % 2 else None)
        for index, (low, high) in enumerate(pairwise(cuts))
    ]
    rng = random.Random(1)
    for _ in range(20):
        rows = tuple(
            Row(
                sequence=slot,
                slot=slot,
                tokens=tuple(rng.randrange(97) for _ in range(rng.randint(1, 20))),
                past_length=rng.randint(0, 30),
                sample=GREEDY if rng.random() < 0.7 else None,
                prompt=2,
            )
            for slot in rng.sample(range(4), rng.randint(1, 4))
        )
        expected, found = through([whole], batch(*rows)), through(pieces, batch(*rows))
        assert tokens(found) == tokens(expected) and found.prompt_tokens == expected.prompt_tokens


def test_what_is_passed_on_has_the_batchs_own_width_and_no_piece_before_the_last_samples(tmp_path) -> None:
    first = runner(WHOLE.piece(0, 2, hidden=6), tmp_path)
    given = batch(Row(sequence=1, slot=1, tokens=(5,) * 17, past_length=0, sample=GREEDY), first=1, count=2)
    first.submit(given)
    done = end(first)
    assert isinstance(done, BatchDone) and tokens(done) == {1: None}
    assert first.hidden is not None and first.hidden.shape == (2, 17, 6) and first.hidden[0, :, 0].tolist() == [5.0] * 17


@pytest.mark.parametrize(
    "wrong",
    [None, np.zeros((4, 2, 6), "f4"), np.zeros((4, 1, 5), "f4"), np.zeros((3, 1, 6), "f4"), np.zeros((4, 1, 6), "f8")],
    ids=["none", "width", "size", "rows", "dtype"],
)
def test_a_hidden_state_that_does_not_fit_the_batch_fails_it(wrong, tmp_path) -> None:
    last = runner(WHOLE.piece(2, 5, hidden=6), tmp_path)
    last.submit(batch(Row(sequence=1, slot=1, tokens=(5,), past_length=0, sample=GREEDY)), wrong)
    failed = end(last)
    assert isinstance(failed, BatchFailed) and "expected float32 [4, 1, 6]" in failed.message


class Writing:
    """An executable whose new keys are their layer's own number in the whole model, values minus it."""

    def __init__(self, stage: StageShape) -> None:
        self.stage = stage
        self.bound: dict[int, HostBuffer] = {}

    inputs: tuple[Any, ...] = ()
    outputs: tuple[Any, ...] = ()

    def allocate(self, port: int, shape: tuple[int, ...]) -> HostBuffer:
        wanted = [*self.stage.ports()[0], *self.stage.ports()[1]][port]
        assert len(wanted.shape) == len(shape)
        return HostBuffer.zeros(shape, wanted.dtype)

    def bind(self, port: int, buffer: HostBuffer) -> None:
        self.bound[port] = buffer

    def run(self, sizes: dict[str, int]) -> None:
        assert ("R" in sizes) == self.stage.ends
        for index in range(len(self.stage.layers)):
            self.bound[self.stage.new_key(index)].array[...] = self.stage.first + index
            self.bound[self.stage.new_value(index)].array[...] = -self.stage.first - index


@pytest.mark.parametrize(("low", "high"), [(0, 2), (2, 4), (4, 5)])
def test_a_piece_keeps_hands_out_and_takes_in_the_kv_of_its_own_layers(low, high, tmp_path) -> None:
    stage = WHOLE.piece(low, high, hidden=6)
    it = ExtendRunner(Writing(stage), stage, rooms={16: 4, 64: 4}, buckets=None)  # type: ignore[arg-type]
    row = Row(sequence=1, slot=2, tokens=(1, 2, 3), past_length=4)
    it.submit(batch(row, first=2, count=1, capacity=16), None if stage.begins else np.zeros((1, 3, 6), "f4"))
    assert isinstance(end(it), BatchDone)
    slot = SlotAddress(16, 2)
    pages = it.export_kv(slot, 4, 3)
    assert [float(keys[0, 0, 0]) for keys, _ in pages] == list(range(low, high))
    assert [keys.shape for keys, _ in pages] == [(3, 2, 3 + layer) for layer in range(low, high)]
    assert float(pages[-1][1][0, 0, 0]) == -(high - 1)
    last = range(high - low - 1, high - low)
    [(keys, _)] = it.export_kv(slot, 4, 3, last)
    assert float(keys[0, 0, 0]) == high - 1
    it.import_kv(SlotAddress(64, 0), 10, [pages[-1]], last)
    it.move(SlotAddress(64, 0), SlotAddress(16, 0), 13)
    assert float(it.export_kv(SlotAddress(16, 0), 12, 1)[-1][0][0, 0, 0]) == high - 1
    own = sum(item.key_heads * item.key_dim + item.value_heads * item.value_dim for item in WHOLE.layers[low:high])
    assert it.memory() == {"kv_pool": 4 * own * 4 * (16 + 64)}
