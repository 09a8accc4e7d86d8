"""A Partition drawn as SVG: one lane a device, time to the right, regions as boxes, what moves between devices as lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from inlay.specs.partition import Partition, PlannedRegion
from inlay.units import format_bytes, format_seconds

WIDTH, LEFT, LANE, BOX, TOP = 1000, 120, 96, 56, 78
TICKS = 5
LETTER = 7.2
"""How wide a letter is, in units of the drawing: labels that do not fit their box are left to its tooltip."""
COLOURS = ("#3a6ea5", "#b5502f", "#22772f", "#9b3070", "#7d6d10", "#1f7f9c", "#666666")
STYLE = (
    "text{font:13px sans-serif;fill:#222}.small{font-size:11px;fill:#555}.in{fill:#fff;font-size:12px}"
    "@media(prefers-color-scheme:dark){svg{background:#181818}text{fill:#ddd}.small{fill:#aaa}.in{fill:#fff}}"
)


@dataclass(frozen=True)
class Placed:
    """A region on the time axis, in seconds from the beginning of a pass."""

    region: PlannedRegion
    start: float
    end: float


def draw(partition: Partition) -> str:
    """The SVG of one pass over all points. Boxes are as long as their regions' expected seconds; figures say their grade."""
    placed = _placed(partition)
    devices = list(dict.fromkeys([*(item.region.device for item in placed), *partition.unused]))
    backends = list(dict.fromkeys(region.backend for region in partition.regions))
    colours = {backend: COLOURS[number % len(COLOURS)] for number, backend in enumerate(backends)}
    span = max((item.end for item in placed), default=0.0) or 1.0
    height = TOP + LANE * len(devices) - (LANE - BOX) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT + 20} {height}" role="img">',
        f"<title>{escape(partition.name)}: {len(partition.regions)} regions</title><style>{STYLE}</style>",
        *_head(partition, colours),
        *_lanes(devices, partition.unused),
        *_axis(span, height),
        *_transfers(partition, placed, devices, span),
        *(_box(partition, item, devices.index(item.region.device), colours, span) for item in placed),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _placed(partition: Partition) -> list[Placed]:
    """Regions one after another, each after what moves to it, as the objective counts them."""
    now, found = 0.0, []
    for region in partition.regions:
        now += sum(item.seconds.value for item in partition.transfers if item.destination == region.id)
        seconds = region.seconds.value if region.seconds is not None else 0.0
        found.append(Placed(region, now, now + seconds))
        now += seconds
    return found


def _head(partition: Partition, colours: dict[str, str]) -> list[str]:
    value = partition.value
    figure = f"{format_seconds(value.value)} ({value.grade})" if value is not None else "time not known"
    points = f"{len(partition.points)} points" if len(partition.points) != 1 else "1 point"
    parts = [f'<text x="0" y="18">{escape(partition.name)}: {figure} for one pass over {points}</text>']
    x = 0.0
    for backend, colour in colours.items():
        parts.append(f'<rect x="{x:.0f}" y="32" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18:.0f}" y="43">{escape(backend)}</text>')
        x += 40 + LETTER * len(backend)
    return parts


def _lanes(devices: Sequence[str], unused: Sequence[str]) -> list[str]:
    parts = []
    for lane, device in enumerate(devices):
        y = TOP + LANE * lane
        parts.append(f'<text x="0" y="{y + BOX / 2 + 4:.0f}">{escape(device)}{" (unused)" if device in unused else ""}</text>')
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{BOX}" fill="#888" fill-opacity="0.08"/>')
    return parts


def _axis(span: float, height: int) -> list[str]:
    parts = []
    for tick in range(TICKS + 1):
        x = LEFT + WIDTH * tick / TICKS
        anchor = "end" if tick == TICKS else "middle" if tick else "start"
        text = format_seconds(span * tick / TICKS)
        parts.append(f'<text class="small" x="{x:.0f}" y="{height - 10}" text-anchor="{anchor}">{text}</text>')
    return parts


def _transfers(partition: Partition, placed: Sequence[Placed], devices: Sequence[str], span: float) -> list[str]:
    """A line from the end of the region that makes a value to the beginning of the first that reads it there."""
    at = {item.region.id: item for item in placed}
    parts = []
    for number, move in enumerate(partition.transfers):
        source, destination = at[move.source], at[move.destination]
        one, two = devices.index(source.region.device), devices.index(destination.region.device)
        x1, x2 = _x(source.end, span), _x(destination.start, span)
        y1, y2 = (TOP + LANE * lane + (BOX if down else 0) for lane, down in ((one, two > one), (two, two < one)))
        text = f"{move.value}: {format_bytes(move.size)}, {format_seconds(move.seconds.value)} ({move.seconds.grade})"
        parts.append(
            f'<line x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}" stroke="#888" stroke-width="2">'
            f"<title>{escape(text)}</title></line>"
        )
        level = (min(y1, y2) + max(y1, y2)) / 2 + 4 + 11 * (number % 2)
        right = x1 < LEFT + WIDTH / 2
        x, anchor = (max(x1, x2) + 6, "start") if right else (min(x1, x2) - 6, "end")
        parts.append(f'<text class="small" x="{x:.1f}" y="{level:.1f}" text-anchor="{anchor}">{format_bytes(move.size)}</text>')
    return parts


def _box(partition: Partition, item: Placed, lane: int, colours: dict[str, str], span: float) -> str:
    region, x, y = item.region, _x(item.start, span), TOP + LANE * lane
    wide = max(1.0, _x(item.end, span) - x)
    names = partition.blocks[region.first].name
    if region.end - region.first > 1:
        names += f" .. {partition.blocks[region.end - 1].name}"
    seconds = f"{format_seconds(region.seconds.value)} ({region.seconds.grade})" if region.seconds is not None else "not known"
    lines = [f"{region.id}: {names}", f"{seconds}, {100 * region.flops_share:.0f} % of FLOPs"]
    parts = [
        f"<g><title>{escape(f'{region.id} at {region.place}: {names}; {seconds}; {region.reason}')}</title>",
        f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{BOX}" rx="2" fill="{colours[region.backend]}"/>',
    ]
    shown = lines if wide > LETTER * max(map(len, lines)) else [region.id] if wide > LETTER * len(region.id) + 6 else []
    for number, text in enumerate(shown):
        parts.append(f'<text class="in" x="{x + 6:.1f}" y="{y + 22 + 18 * number}">{escape(text)}</text>')
    return "".join([*parts, "</g>"])


def _x(seconds: float, span: float) -> float:
    return LEFT + WIDTH * seconds / span
