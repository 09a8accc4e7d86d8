"""The stage programs' outside, as it crosses the waist: a noun of `models`, named here for everybody else."""

from __future__ import annotations

from inlay.models.paged import PagedShape
from inlay.models.stage import KvLayer, Port, StageShape

__all__ = ["KvLayer", "PagedShape", "Port", "StageShape"]
