"""A world in which some runners keep pages: they check every row against what its pages really hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from scheduler_world import Delivery, World, verdict

from inlay.specs.device import ExpectTransfer, KvArrived, KvFailed, Move, RowResult, Submit
from inlay.specs.schedule import Event

Cell = tuple[int, ...]
"""A row of KV, which depends on all tokens up to its own."""


@dataclass
class PagedWorld(World):
    cells: dict[tuple[str, int], list[Cell | None]] = field(default_factory=dict)
    copies: int = 0

    def feed(self, event: Event) -> None:
        super().feed(event)
        self.audit()

    def audit(self) -> None:
        """No page is lost, none is counted twice, none is written by two."""
        for name, runner in self.state.runners.items():
            if runner.paging is None:
                continue
            tables = [item.tables[name] for item in self.state.sequences.values() if name in item.tables]
            users = Counter(page for table in tables for page in table)
            found = {page: runner.paging.users(page) for page in range(runner.paging.count) if runner.paging.users(page)}
            assert found == dict(users), "the books name other users than there are"
            assert runner.paging.used == len(users), "a page is lost"
            for item in self.state.sequences.values():
                if name in item.tables:
                    rows, table = item.computed if item.runner == name else 0, item.tables[name]
                    assert len(set(table)) == len(table)
                    if item.runner == name:
                        assert all(users[page] == 1 for page in table[rows // runner.paging.page :]), "two would write a page"

    def obey(self, runner: str, message: object) -> None:
        if not self.facts_of(runner).paged:
            super().obey(runner, message)
            return
        match message:
            case Submit():
                self.ragged(runner, message)
            case Move(source=source, destination=destination, length=length):
                assert source.capacity == destination.capacity == self.facts_of(runner).page
                self.copies += 1
                kept = self.cells[runner, source.index][:length]
                assert None not in kept
                self.cells[runner, destination.index] = [*kept, *[None] * (source.capacity - length)]
            case ExpectTransfer(pages=pages):
                assert pages
                super().obey(runner, message)
            case _:
                super().obey(runner, message)

    def read(self, runner: str, pages: tuple[int, ...], length: int) -> list[int]:
        """The tokens whose rows these pages hold, each row after those before it."""
        size = self.facts_of(runner).page
        cells = [self.cells.get((runner, pages[at // size]), [None] * size)[at % size] for at in range(length)]
        content = list(cells[-1] or ()) if cells else []
        for at, cell in enumerate(cells):
            assert cell == tuple(content[: at + 1]), f"row {at} of {length} in pages {pages} is another's, or was never written"
        return content

    def write(self, runner: str, pages: tuple[int, ...], start: int, content: list[int]) -> None:
        size = self.facts_of(runner).page
        for at in range(start, len(content)):
            self.cells.setdefault((runner, pages[at // size]), [None] * size)[at % size] = tuple(content[: at + 1])

    def ragged(self, runner: str, batch: Submit) -> None:
        self.batches.append(batch)
        facts = self.facts_of(runner)
        size = facts.page
        listed = Counter(page for row in batch.rows for page in row.pages)
        decodes = sum(len(row.tokens) for row in batch.rows if not row.prompt)
        assert batch.rows and len({row.slot for row in batch.rows}) == len(batch.rows)
        assert sum(len(row.tokens) for row in batch.rows) <= max(facts.chunk, decodes + size)
        results = []
        for row in batch.rows:
            assert len(row.pages) == -(-(row.past_length + len(row.tokens) + batch.rounds - 1) // size)
            assert all(0 <= page < facts.pages for page in row.pages)
            assert all(listed[page] == 1 for page in row.pages[row.past_length // size :]), "a shared page would be written"
            self.prompt_rows[runner] = self.prompt_rows.get(runner, 0) + row.prompt
            content = self.read(runner, row.pages, row.past_length) + list(row.tokens)
            self.write(runner, row.pages, row.past_length, content)
            for transfer in self.transfers_of(runner, row.transfer):
                self.exported[transfer] = list(content)
                if row.commit:
                    self.pending.append((self.destinations[transfer], Delivery(transfer)))
            results.append(RowResult(sequence=row.sequence, sampled=verdict(content, row) if row.sample is not None else ()))
        self.report(runner, batch, results)

    def deliver(self, transfer: int) -> None:
        expected = self.expected.get(transfer)
        if expected is None or not expected.pages:
            super().deliver(transfer)
            return
        del self.expected[transfer]
        binding = expected.binding
        runner, number = binding.destination, binding.sequence
        if self.random.random() < self.kv_fault_share:
            self.answer(runner, KvFailed(transfer=transfer, sequence=number, cause="checksum", message="planted"))
            return
        assert self.read(runner, expected.pages, binding.start) == self.exported[transfer][: binding.start]
        assert len(self.exported[transfer]) == binding.tokens
        self.write(runner, expected.pages, binding.start, self.exported[transfer])
        self.answer(
            runner,
            KvArrived(transfer=transfer, sequence=number, tokens=binding.tokens, size=0, chunks=1, started=0.0, ended=0.0),
        )
