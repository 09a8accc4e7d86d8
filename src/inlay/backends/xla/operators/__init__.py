"""aten in terms of JAX: one function for each operator, entered in one table. Imports no SDK until one of them is called."""

from __future__ import annotations

from inlay.backends.xla.operators import elementwise, indexing, layers, products, reductions, shapes
from inlay.backends.xla.operators.table import TABLE, Call

__all__ = ["TABLE", "Call", "elementwise", "indexing", "layers", "products", "reductions", "shapes"]
