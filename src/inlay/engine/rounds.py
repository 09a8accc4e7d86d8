"""Decode steps in a row: what the next round of a batch is, from what the last one gave. Pure; for the device process."""

from __future__ import annotations

import msgspec

from inlay.specs.device import BatchDone, Submit


def following(batch: Submit, done: BatchDone) -> Submit | None:
    """The rounds that are left of a batch after one of them; None after the last one, and after a row's end token."""
    if batch.rounds <= 1:
        return None
    given = {result.sequence: result.sampled for result in done.results}
    rows = []
    for row in batch.rows:
        sampled = given[row.sequence]
        if len(sampled) != 1 or sampled[0].token in row.ends:
            return None
        past = row.past_length + len(row.tokens)
        rows.append(msgspec.structs.replace(row, tokens=(sampled[0].token,), past_length=past, prompt=0))
    return msgspec.structs.replace(batch, rows=tuple(rows), rounds=batch.rounds - 1, width=1)
