"""How long batches took beside what the tables said that the scheduler chose by, from an engine's event log."""

from __future__ import annotations

import statistics
from pathlib import Path

from inlay.engine.journal import read_journal
from inlay.specs.device import BatchDone, Submit
from inlay.specs.schedule import Answered, Send


def phase_times(log: Path) -> dict[str, dict[str, float]]:
    """By "place phase": batches, their median milliseconds a step, and their seconds over those that the table gives (grade:
    measured over modelled). Batches that were reported several rounds at once count as so many steps."""
    journal = read_journal(log)
    tables = {item.runner: item.table for item in journal.start.facts}
    sent: dict[int, Submit] = {}
    taken: dict[str, list[tuple[float, float]]] = {}
    for entry in journal.entries:
        match entry.event:
            case Answered(runner=runner, message=BatchDone() as done):
                submit, known = sent.get(done.batch), tables.get(runner)
                if submit is not None and known is not None:
                    width = submit.width if submit.rounds == 1 else 1
                    told = known.seconds(batch=submit.count, width=width, past=submit.capacity)
                    pair = ((done.ended - done.started) / done.steps, told)
                    taken.setdefault(f"{runner} {submit.phase}", []).append(pair)
            case _:
                pass
        for command in entry.commands:
            if isinstance(command, Send) and isinstance(command.message, Submit):
                sent[command.message.batch] = command.message
    return {
        name: {
            "batches": len(pairs),
            "median_ms": round(1e3 * statistics.median(seen for seen, _ in pairs), 3),
            "of_predicted": round(sum(seen for seen, _ in pairs) / sum(told for _, told in pairs), 3),
        }
        for name, pairs in sorted(taken.items())
    }
