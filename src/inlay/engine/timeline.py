"""When each runner was busy, from an event log: as figures, as text for a terminal, as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import pairwise

from inlay.engine.journal import Journal
from inlay.specs.device import BatchDone, Submit
from inlay.specs.schedule import Answered, Send

COLOURS = {"prefill": "#c2410c", "decode": "#1d4ed8", "mixed": "#7e22ce"}
LETTERS = {"prefill": "P", "decode": "d", "mixed": "m"}


@dataclass(frozen=True, slots=True)
class Busy:
    """One batch: where, what, and when in seconds since the first batch began."""

    runner: str
    phase: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """All batches of a log; `span` seconds from the first begin to the last end."""

    runners: tuple[str, ...]
    batches: tuple[Busy, ...]
    span: float

    def busy_share(self, runner: str) -> float:
        """Share of the span in which this runner worked."""
        return sum(item.end - item.start for item in self.batches if item.runner == runner) / self.span

    def overlap_share(self) -> float:
        """Share of the span in which at least two runners worked at the same time."""
        edges = sorted([(item.start, 1) for item in self.batches] + [(item.end, -1) for item in self.batches])
        working, together = 0, 0.0
        for (time, change), (next_time, _) in pairwise(edges):
            working += change
            together += next_time - time if working >= 2 else 0.0
        return together / self.span


def draw(journal: Journal) -> Timeline:
    """The timeline of a log; without batches it is empty, with a span of 0."""
    phases: dict[int, str] = {}
    found: list[Busy] = []
    for entry in journal.entries:
        match entry.event:
            case Answered(runner=runner, message=BatchDone() as done):
                found.append(Busy(runner, phases.get(done.batch, "?"), done.started, done.ended))
            case _:
                pass
        phases |= {
            c.message.batch: c.message.phase for c in entry.commands if isinstance(c, Send) and isinstance(c.message, Submit)
        }
    runners = tuple(facts.runner for facts in journal.start.facts)
    if not found:
        return Timeline(runners, (), 0.0)
    zero = min(item.start for item in found)
    batches = tuple(Busy(item.runner, item.phase, item.start - zero, item.end - zero) for item in found)
    return Timeline(runners, batches, max(item.end for item in batches))


def as_text(timeline: Timeline, *, width: int = 96) -> str:
    """One line a runner: P where it spent most of the cell in prefill, d in decode, m in batches of both, . idle."""
    lines = []
    cell = timeline.span / width if timeline.span else 1.0
    label = max(len(runner) for runner in timeline.runners)
    for runner in timeline.runners:
        row = []
        for index in range(width):
            low, high = index * cell, (index + 1) * cell
            share = {"prefill": 0.0, "decode": 0.0}
            for item in timeline.batches:
                if item.runner == runner and item.start < high and item.end > low:
                    share[item.phase] = share.get(item.phase, 0.0) + min(high, item.end) - max(low, item.start)
            phase = max(share, key=lambda name: share[name])
            row.append(LETTERS.get(phase, "?") if share[phase] > 0.25 * cell else ".")
        lines.append(f"{runner:<{label}} |{''.join(row)}| busy {timeline.busy_share(runner) if timeline.span else 0:.0%}")
    return "\n".join(lines)


def as_svg(timeline: Timeline) -> str:
    """A drawing of 1,000 units' width, one lane a runner."""
    scale = 1000 / timeline.span if timeline.span else 1.0
    parts = []
    for lane, runner in enumerate(timeline.runners):
        top = 30 + 40 * lane
        parts.append(f'<text x="0" y="{top + 17}">{escape(runner)}</text>')
        for item in timeline.batches:
            if item.runner == runner:
                x, wide = 220 + item.start * scale, max(0.3, (item.end - item.start) * scale)
                parts.append(
                    f'<rect x="{x:.2f}" y="{top}" width="{wide:.2f}" height="24" fill="{COLOURS.get(item.phase, "#666")}"/>'
                )
    height = 60 + 40 * len(timeline.runners)
    together = timeline.overlap_share() if timeline.span else 0.0
    caption = f"{timeline.span:.2f} s, at least two busy {together:.0%}; orange prefill, blue decode, purple both"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1240 {height}" font-family="sans-serif" font-size="14">'
        f'<text x="0" y="16">{caption}</text>{"".join(parts)}</svg>\n'
    )
