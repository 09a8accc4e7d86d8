"""The catalogue of chips: what is published of each, with source, date, confidence and grade. A door of `hardware`."""

from __future__ import annotations

from inlay.hardware.catalogue.catalogue import Catalogue
from inlay.hardware.catalogue.reading import parse_catalogue, read_catalogue
from inlay.hardware.catalogue.sheet import CONFIDENCES, DataSheet, Figure, Prices, SheetLink, SheetMemory

__all__ = [
    "CONFIDENCES",
    "Catalogue",
    "DataSheet",
    "Figure",
    "Prices",
    "SheetLink",
    "SheetMemory",
    "parse_catalogue",
    "read_catalogue",
]
