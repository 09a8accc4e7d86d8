"""Progress of long work on stderr: a bar with the step and the time on a terminal, lines elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

COUNTED = re.compile(r"^(.*): (\d+) of (\d+)$")


@contextmanager
def progress_bar() -> Iterator[Callable[[str], None]]:
    """Tells steps. A text that ends in ": 3 of 12" fills the bar; any other has it pulse."""
    console = Console(stderr=True)
    if not console.is_terminal:
        last = ""

        def line(text: str) -> None:
            nonlocal last
            if text != last:
                print(text, file=sys.stderr, flush=True)
            last = text

        yield line
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("starting", total=None)

        def tell(text: str) -> None:
            counted = COUNTED.match(text)
            if counted is None:
                shown.update(task, description=text[:70], total=None, completed=0)
            else:
                name, done, total = counted.groups()
                shown.update(task, description=f"{name} {done}/{total}", total=int(total), completed=int(done))

        yield tell
