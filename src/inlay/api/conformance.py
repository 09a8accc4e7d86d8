"""The conformance kit: try a backend, and read what was found. Wiring only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from inlay.errors import ArtifactError
from inlay.runtime import Cache
from inlay.runtime.conformance.run import conform as run_kit
from inlay.specs.conformance import Report, parse_report


def conform(
    backend: str,
    *,
    full: bool = False,
    sections: Sequence[str] = (),
    only: Sequence[str] = (),
    seconds: float | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Try a backend against PyTorch: a fixed sample that ends within 200 seconds on two cores, or everything.

    `sections` limits what is tried, `only` the samples to cases that hold one of these texts, `seconds` when to begin
    nothing new. Raises InputError for unknown names,
    UnsupportedError for a backend that is not available here.
    """
    cache = Cache.default()
    return run_kit(backend, full=full, sections=sections, only=only, seconds=seconds, cache=cache, progress=progress)


def read_report(path: str | Path) -> Report:
    """A report from a file, its signature and its verdict checked. Raises ArtifactError."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(f"report {str(path)!r} cannot be read: {error}", hint="make one with `inlay conform -o`") from error
    return parse_report(text, source=repr(str(path)))
