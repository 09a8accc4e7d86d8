"""The chips there are: the shipped catalogue, with a user's own file. Wiring only."""

from __future__ import annotations

from pathlib import Path

from inlay.hardware.catalogue import Catalogue, DataSheet, Figure, read_catalogue

__all__ = ["DataSheet", "Figure", "chips"]


def chips(file: str | Path | None = None) -> Catalogue:
    """The catalogue, with the chips of `file` added to it. Raises ClusterError for a damaged file."""
    return read_catalogue(*([] if file is None else [file]))
