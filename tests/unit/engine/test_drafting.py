"""The drafter and the page store over a make-believe model whose logits tell which rows it was shown."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_runner import GREEDY, Summing, run, runner

from inlay.engine.drafting import Drafter
from inlay.engine.kept import PageStore
from inlay.errors import DeviceError
from inlay.specs.artifact import ShapeBuckets
from inlay.specs.device import BatchFailed, Draft, DraftDone, DraftRow, Fill, Keep, Row, SlotAddress
from inlay.specs.stage import KvLayer, StageShape

STAGE = StageShape(vocabulary=97, layers=(KvLayer(key_heads=1, key_dim=1, value_heads=1, value_dim=1),) * 2)


def guesses(tokens: list[int], count: int) -> list[int]:
    content = list(tokens)
    for _ in range(count):
        content.append(sum(content) % 97)
    return content[len(tokens) :]


def drafted(it: Drafter, *rows: DraftRow, alternatives: int = 0) -> DraftDone:
    it.submit(Draft(batch=5, capacity=16, first=0, count=4, rows=rows, alternatives=alternatives))
    while (outcome := it.poll()) is None:
        pass
    assert isinstance(outcome, DraftDone), outcome
    assert it.poll() is None
    return outcome


@pytest.mark.parametrize("buckets", [None, ShapeBuckets(batches=(1, 4), widths=(1, 8), capacities=(16, 32))])
def test_rows_of_one_sequence_and_of_others_are_drafted_together(buckets) -> None:
    it = Drafter(runner(Summing(), buckets))
    rows = (
        DraftRow(sequence=7, guess=0, slot=0, tokens=(1, 2, 3), past_length=0, count=4, sample=GREEDY),
        DraftRow(sequence=7, guess=1, slot=1, tokens=(1, 2, 4, 5), past_length=0, count=2, sample=GREEDY),
        DraftRow(sequence=8, guess=2, slot=3, tokens=(9,), past_length=0, count=0, sample=GREEDY),
    )
    done = drafted(it, *rows)
    assert [list(item.tokens) for item in done.guesses] == [guesses([1, 2, 3], 4), guesses([1, 2, 4, 5], 2), []]
    assert done.steps == 4


def test_the_next_best_tokens_come_beside_the_guess() -> None:
    it = Drafter(runner(Summing()))
    row = DraftRow(sequence=7, guess=0, slot=0, tokens=(1, 2), past_length=0, count=2, sample=GREEDY)
    found = drafted(it, row, alternatives=3).guesses[0]
    assert [len(items) for items in found.alternatives] == [3, 3]
    assert all(token not in items for token, items in zip(found.tokens, found.alternatives, strict=True))


def test_a_draft_goes_on_from_the_rows_that_are_there() -> None:
    it = Drafter(runner(Summing()))
    first = drafted(it, DraftRow(sequence=7, guess=0, slot=2, tokens=(1, 2, 3), past_length=0, count=3, sample=GREEDY))
    a, b, c = first.guesses[0].tokens
    assert [a, b, c] == guesses([1, 2, 3], 3)  # the rows of 1 2 3 a b are in the slot, that of c is not
    row = DraftRow(sequence=7, guess=0, slot=2, tokens=(50,), past_length=4, count=2, sample=GREEDY)
    assert list(drafted(it, row).guesses[0].tokens) == guesses([1, 2, 3, a, 50], 2)


def test_an_interrupted_draft_gives_what_it_has() -> None:
    it = Drafter(runner(Summing()))
    row = DraftRow(sequence=7, guess=0, slot=0, tokens=(1, 2), past_length=0, count=9, sample=GREEDY)
    it.submit(Draft(batch=5, capacity=16, first=0, count=4, rows=(row,)))
    assert it.poll() is None
    it.interrupt(4)
    assert it.poll() is None
    it.interrupt(5)
    outcome = it.poll()
    assert isinstance(outcome, DraftDone) and list(outcome.guesses[0].tokens) == guesses([1, 2], 3)


def test_a_draft_that_fails_is_reported_and_the_next_one_works() -> None:
    executable = Summing()
    it = Drafter(runner(executable))
    row = DraftRow(sequence=7, guess=0, slot=0, tokens=(1, 2), past_length=0, count=3, sample=GREEDY)
    executable.fail = True
    it.submit(Draft(batch=5, capacity=16, first=0, count=4, rows=(row,)))
    assert isinstance(it.poll(), BatchFailed)
    executable.fail = False
    assert list(drafted(it, row).guesses[0].tokens) == guesses([1, 2], 3)


def test_kept_pages_come_back_in_any_slot_and_order() -> None:
    it = runner(Summing())
    store = PageStore(it, STAGE, page=4, count=5)
    run(it, [Row(sequence=1, slot=0, tokens=tuple(range(1, 13)), past_length=0)], count=1)
    store.keep(Keep(slot=SlotAddress(16, 0), start=4, pages=(3, 0)))
    store.keep(Keep(slot=SlotAddress(16, 0), start=0, pages=(1,)))
    store.fill(Fill(slot=SlotAddress(32, 2), pages=(1, 3, 0)))
    keys, values = it.export_kv(SlotAddress(32, 2), 0, 12)[1]
    assert keys.ravel().tolist() == list(range(1, 13)) and values.ravel().tolist() == [-i for i in range(1, 13)]
    assert store.memory() == {"kv_pages_used": 3 * 4 * 4 * 4, "kv_pages": 5 * 4 * 4 * 4}


def test_pages_that_are_not_there_are_refused() -> None:
    store = PageStore(runner(Summing()), STAGE, page=4, count=5)
    with pytest.raises(DeviceError, match="page is 5, expected 0 to 4"):
        store.keep(Keep(slot=SlotAddress(16, 0), start=0, pages=(5,)))
    with pytest.raises(DeviceError, match="page 2 is to be read and was never written"):
        store.fill(Fill(slot=SlotAddress(16, 0), pages=(2,)))
