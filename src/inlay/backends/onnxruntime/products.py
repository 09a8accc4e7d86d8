"""Products of whole numbers in place of products with weights made wide again. A torch door in company only: it edits ONNX.

A row of activations is rounded to 8 bits with a scale of its own, so that what a sequence gets does not depend on the rows
beside it (ONNX Runtime's own DynamicQuantizeLinear takes one scale for the whole batch); the product is summed exactly in
32 bits and scaled twice, by row and by column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from inlay.errors import UnsupportedError

MICROSOFT = "com.microsoft"
ZERO = 128
"""What 0 is written as: activations are whole numbers without a sign, as the processor's own products want them."""
LARGEST = 127.0
LEAST_SCALE = 1e-30
"""Of a row of zeros."""


def multiply_whole_numbers(model: Any, *, weights: Mapping[str, tuple[Any, Any]]) -> None:
    """Rewrite every product of the model with a weight whose parts are initialisers; `weights` as `graph.quantise.parts_of`
    gives them. Raises UnsupportedError where one of them is not found in a product."""
    products = _Products(model)
    done = set()
    for node, whole, scale, flipped in _found(model, set(weights)):
        products.replace(node, whole, scale, flipped=flipped)
        done.add(whole.name)
    missing = sorted(f"{name}_int8" for name in weights if f"{name}_int8" not in done)
    if missing:
        raise UnsupportedError(f"onnxruntime finds no product with weight {missing[0]!r} in what the program became")
    products.sweep()


def _found(model: Any, weights: set[str]) -> Iterator[tuple[Any, Any, Any, bool]]:
    """(product, whole numbers, scale, whether the weight stands transposed) for each product of such a weight."""
    for node in list(model.graph):
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        source, flipped = node.inputs[1].producer(), False
        if source is not None and source.op_type == "Transpose":
            source, flipped = source.inputs[0].producer(), True
        if source is None or source.op_type != "Mul" or source.inputs[0].producer() is None:
            continue
        cast, scale = source.inputs[0].producer(), source.inputs[1]
        if cast.op_type == "Cast" and (cast.inputs[0].name or "").removesuffix("_int8") in weights:
            yield node, cast.inputs[0], scale, flipped != bool(_number(node, "transB", 0))


def _number(node: Any, name: str, default: float) -> float:
    found = node.attributes.get(name)
    return default if found is None else float(found.value)


class _Products:
    """The edits of one graph: what several products share (constants, a row's scale and numbers) is made once."""

    def __init__(self, model: Any) -> None:
        import onnx_ir

        self._ir, self._graph = onnx_ir, model.graph
        self._opsets = model.opset_imports
        self._constants: dict[str, Any] = {}
        self._rows: dict[Any, tuple[Any, Any]] = {}

    def replace(self, node: Any, whole: Any, scale: Any, *, flipped: bool) -> None:
        """One product, with its sum where a Gemm has one."""
        if node.op_type == "Gemm" and (_number(node, "transA", 0), _number(node, "alpha", 1), _number(node, "beta", 1)) != (
            0,
            1,
            1,
        ):
            raise UnsupportedError(f"onnxruntime cannot take {node.name!r} in 8 bit: a Gemm with factors or a transposed input")
        self._opsets[MICROSOFT] = 1
        numbers, row_scale = self._rounded(node, node.inputs[0])
        if flipped:  # folded when the session is made
            whole = self._add(node, "Transpose", [whole], perm=[1, 0])
        columns = self._add(node, "Reshape", [scale, self._constant("every", np.array([-1], np.int64))])
        one, zero = self._constant("one", np.float32(1)), self._constant("zero", np.uint8(ZERO))
        product = self._add(node, "MatMulIntegerToFloat", [numbers, whole, one, columns, zero], domain=MICROSOFT)
        result = self._add(node, "Mul", [product, row_scale])
        if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
            result = self._add(node, "Add", [result, node.inputs[2]])
        old = node.outputs[0]
        result.shape, result.type, name = old.shape, old.type, old.name
        self._ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        old.name, result.name = f"{name}_wide", name
        self._graph.remove(node, safe=True)

    def sweep(self) -> None:
        """Remove what nothing reads any more."""
        for node in reversed(self._graph):
            if not any(value.uses() or value.is_graph_output() for value in node.outputs):
                self._graph.remove(node, safe=True)

    def _rounded(self, node: Any, given: Any) -> tuple[Any, Any]:
        """(numbers of 8 bits, scale of each row) of an activation, made before its first user."""
        if given not in self._rows:
            axis = self._constant("last", np.array([-1], np.int64))
            largest = self._add(node, "ReduceMax", [self._add(node, "Abs", [given]), axis], keepdims=1)
            scale = self._add(node, "Mul", [largest, self._constant("share", np.float32(1 / LARGEST))])
            scale = self._add(node, "Max", [scale, self._constant("least", np.float32(LEAST_SCALE))])
            ratio = self._add(node, "Div", [given, scale])
            one, zero = self._constant("one", np.float32(1)), self._constant("zero", np.uint8(ZERO))
            self._rows[given] = self._add(node, "QuantizeLinear", [ratio, one, zero]), scale
        return self._rows[given]

    def _add(self, before: Any, operator: str, inputs: list[Any], *, domain: str = "", **attributes: Any) -> Any:
        made = self._ir.node(operator, inputs, attributes, domain=domain)
        self._graph.insert_before(before, made)
        return made.outputs[0]

    def _constant(self, name: str, array: Any) -> Any:
        """A small initialiser of the graph."""
        if name not in self._constants:
            value = self._ir.Value(
                name=f"whole_numbers_{name}", const_value=self._ir.tensor(array, name=f"whole_numbers_{name}")
            )
            self._graph.register_initializer(value)
            self._constants[name] = value
        return self._constants[name]
