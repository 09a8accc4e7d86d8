"""Weights that XNNPACK may pack become constants with telling numbers, batch norms go into them; other weights stay inputs.

A torch door beside `lower`. XNNPACK takes a convolution or a matrix product only where the weight is a constant, and packs
it. All other weights (tables, scales, masks) are as fast as inputs, bound once over mapped memory.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from inlay.backends.executorch.constants import FIRST, MOST, Source
from inlay.backends.executorch.support import NAME
from inlay.errors import UnsupportedError

TAG = "constants"
CONSTANT = "constant_"
"""What the constants are called in the module; TAG names the data file that ExecuTorch puts them into."""
PACKED = {
    "linear": (1, 2), "addmm": (0, 2), "mm": (1,), "matmul": (1,), "prelu": (1,), "conv1d": (1, 2), "conv2d": (1, 2),
    "convolution": (1, 2), "conv_transpose1d": (1, 2), "conv_transpose2d": (1, 2),
}  # fmt: skip
"""Operators with the positions of the arguments that XNNPACK wants constant."""
LISTS = {"lstm": 2, "gru": 2, "rnn_tanh": 2, "rnn_relu": 2}
"""Operators that torch makes matrix products of, with the position of their list of weights."""
VIEWS = (
    "t",
    "transpose",
    "permute",
    "view",
    "reshape",
    "unsqueeze",
    "squeeze",
    "slice",
    "select",
    "alias",
    "detach",
    "numpy_T",
)
COPIES = (
    "alias", "clone", "contiguous", "detach", "dropout", "to", "_to_copy", "type_as", "slice", "view", "reshape", "expand",
    "expand_as",
)  # fmt: skip
"""Operators that may leave their input as it is."""
SHAPED = ("view", "_unsafe_view")
"""Operators that need their input to lie in memory as it did when it was captured; `reshape` does the same without."""
STRIDED = ("as_strided", "as_strided_copy")
"""Operators that read memory as it lies: where one is, no copy may be left out that changes how."""
FOLDED = ("conv1d", "conv2d", "convolution")
NORMS = ("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm")


@dataclass
class Packing:
    """A program as a module of flat inputs: first the weights named by `inputs`, then its own.

    `starts` and `counts` are the numbers of each of `sources`, as `constants.known_again` wants them. `counted` is for
    `lower` to fill: delegates and portable operators of each method.
    """

    module: GraphModule
    inputs: tuple[str, ...]
    sources: list[Source] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    counted: dict[str, tuple[int, int]] = field(default_factory=dict)


def pack(bare: Any, names: Sequence[str]) -> Packing:
    """The packing of a program whose leading inputs are its weights. The given program stays as it was."""
    graph = torch.fx.Graph()
    copies: dict[Node, Node] = {}
    for node in bare.graph.nodes:
        copies[node] = graph.node_copy(node, lambda given: copies[given])
        copies[node].meta = {"val": node.meta["val"]} if "val" in node.meta else {}
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    strided = any(_name(node) in STRIDED for node in graph.nodes)
    for node in list(graph.nodes):
        if _name(node) in SHAPED and node.target is not torch.ops.aten.view.dtype:
            node.target = torch.ops.aten.reshape.default
        if _name(node) == "max_pool2d":
            _spell_out_stride(node)
        if _changes_nothing(node) and not (strided and _lies_anew(node)):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    work = _Work(graph, dict(zip(placeholders[: len(names)], names, strict=True)))
    for node in list(graph.nodes):
        if _name(node) in NORMS:
            work.norm(node)
    for node in list(graph.nodes):
        for at in _packed_arguments(node):
            work.constant(node, at)
    graph.eliminate_dead_code()
    for node in list(work.weights):
        if not node.users:
            del work.weights[node]
            graph.erase_node(node)
    graph.lint()
    module = GraphModule(work.root, graph)
    return Packing(module, tuple(work.weights.values()), work.sources, work.starts, work.counts)


class _Work:
    """A graph while its weights are sorted out. `weights` are the placeholders of weights, by name."""

    def __init__(self, graph: torch.fx.Graph, weights: dict[Node, str]) -> None:
        self.graph, self.weights = graph, weights
        self.root = torch.nn.Module()
        self.sources: list[Source] = []
        self.starts: list[int] = []
        self.counts: list[int] = []
        self._known: dict[Source, int] = {}
        self._made: dict[tuple[Node, Source], Node] = {}

    def constant(self, node: Node, at: tuple[int, ...]) -> None:
        """Make the argument of a node at this place a constant, where it is a weight in float32 or a view of one."""
        held = _argument(node, at)
        if not isinstance(held, Node):
            return
        chain = self._chain(held)
        if chain is None:
            return
        root, steps = chain
        source, shape = Source(kind="plain", weights=(self.weights[root],)), tuple(root.meta["val"].shape)
        key = (held, source)
        if key not in self._made:
            value = self._numbers(source, shape)
            for step in steps:
                value = step.target(value, *step.args[1:], **step.kwargs)
            self._made[key] = self._attribute(value.contiguous(), held)
        _replace(node, at, self._made[key])

    def norm(self, node: Node) -> None:
        """A batch norm goes into the convolution before it, or becomes arithmetic on its inputs."""
        name = _name(node)
        given, scale, shift, mean, variance = node.args[:5]
        if name in ("batch_norm", "native_batch_norm", "cudnn_batch_norm") and node.args[5]:
            raise UnsupportedError(f"{NAME} does not take node {node.name!r}: a batch norm that learns while it runs")
        at = 6 if name == "_native_batch_norm_legit_no_training" else 7
        epsilon = float(node.args[at])
        results = [user for user in node.users if user.target is operator.getitem] if name != "batch_norm" else [node]
        statistics = (scale, shift, mean, variance)
        if isinstance(given, Node) and self._folds(given, statistics):
            self._fold(given, statistics, epsilon)
            result = given
        else:
            result = self._arithmetic(node, given, statistics, epsilon)
        for item in results:
            if item is node or item.args[1] == 0:
                item.replace_all_uses_with(result)

    def _folds(self, convolution: Node, statistics: Sequence[Any]) -> bool:
        """Whether this is a convolution that nothing else reads, and everything about it and the norm is a weight."""
        if _name(convolution) not in FOLDED or len(convolution.users) != 1:
            return False
        if _name(convolution) == "convolution" and convolution.args[6]:  # transposed: channels lie elsewhere
            return False
        bias = convolution.args[2] if len(convolution.args) > 2 else convolution.kwargs.get("bias")
        parts = (convolution.args[1], bias, *statistics)
        return all(item is None or (item in self.weights and _is_float(item)) for item in parts) and parts[-1] is not None

    def _fold(self, convolution: Node, statistics: Sequence[Any], epsilon: float) -> None:
        scale, shift, mean, variance = (self.weights[item] if item is not None else "" for item in statistics)
        weight: Any = convolution.args[1]
        bias: Any = convolution.args[2] if len(convolution.args) > 2 else convolution.kwargs.get("bias")
        names = self.weights[weight], self.weights[bias] if bias is not None else ""
        shape = tuple(weight.meta["val"].shape)
        sources = (
            (Source(kind="folded weight", weights=(names[0], scale, variance), epsilon=epsilon), shape),
            (Source(kind="folded bias", weights=(names[1], scale, shift, mean, variance), epsilon=epsilon), shape[:1]),
        )
        stand = []
        for source, size in sources:
            with self.graph.inserting_before(convolution):
                made = self._attribute(self._numbers(source, size), convolution)
            stand.append(made)
        convolution.args = (convolution.args[0], *stand, *convolution.args[3:])
        convolution.kwargs = {key: value for key, value in convolution.kwargs.items() if key != "bias"}

    def _arithmetic(self, node: Node, given: Any, statistics: Sequence[Any], epsilon: float) -> Node:
        """(x - mean) * (scale / sqrt(variance + epsilon)) + shift, over the second axis."""
        aten, rank = torch.ops.aten, given.meta["val"].dim()
        scale, shift, mean, variance = statistics
        turned = (1, -1, *(1,) * (rank - 2))
        with self.graph.inserting_before(node):
            factor = self.graph.call_function(
                aten.rsqrt.default, (self.graph.call_function(aten.add.Scalar, (variance, epsilon)),)
            )
            if scale is not None:
                factor = self.graph.call_function(aten.mul.Tensor, (factor, scale))

            def wide(item: Any) -> Node:
                return self.graph.call_function(aten.reshape.default, (item, turned))

            moved = self.graph.call_function(aten.sub.Tensor, (given, wide(mean)))
            result = self.graph.call_function(aten.mul.Tensor, (moved, wide(factor)))
            if shift is not None:
                result = self.graph.call_function(aten.add.Tensor, (result, wide(shift)))
        result.meta = {"val": given.meta["val"]}
        return result

    def _chain(self, node: Node) -> tuple[Node, list[Node]] | None:
        """The weight that a node is a view of, in float32, and the views in order."""
        steps: list[Node] = []
        while node not in self.weights:
            fixed = all(not isinstance(item, (Node, torch.SymInt)) for item in _leaves(node.args[1:], node.kwargs))
            if _name(node) not in VIEWS or not fixed or not isinstance(node.args[0], Node):
                return None
            steps.insert(0, node)
            node = node.args[0]
        return (node, steps) if _is_float(node) else None

    def _numbers(self, source: Source, shape: tuple[int, ...]) -> torch.Tensor:
        """The telling numbers of a source: the same each time."""
        count = int(torch.Size(shape).numel())
        if source not in self._known:
            start = self.starts[-1] + self.counts[-1] if self.starts else 0
            if start + count > MOST:
                raise UnsupportedError(f"{NAME} takes {MOST} weights in one piece, expected fewer", hint="cut it")
            self._known[source] = len(self.sources)
            self.sources.append(source)
            self.starts.append(start)
            self.counts.append(count)
        start = FIRST + self.starts[self._known[source]]
        return torch.arange(start, start + count, dtype=torch.int32).view(torch.float32).reshape(shape)

    def _attribute(self, value: torch.Tensor, before: Node) -> Node:
        name = f"{CONSTANT}{len(list(self.root.parameters()))}"
        self.root.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
        with self.graph.inserting_before(before):
            made = self.graph.get_attr(name)
        made.meta = {"val": value, "custom": {"delegate_constant_tag": TAG}}
        return made


def _changes_nothing(node: Node) -> bool:
    """Whether this is a copy or a view that is its input.

    XNNPACK leaves such nodes out, and fails where a delegate then has one output twice, or an input as its output. One that
    makes an output of an input, or a second output of one value, is needed.
    """
    if _name(node) not in COPIES:
        return False
    given: Any = node.args[0]
    if any(user.op == "output" for user in node.users) and (
        given.op != "call_function" or any(user.op == "output" for user in given.users)
    ):
        return False
    before, after = given.meta["val"], node.meta["val"]
    if (_name(node) == "slice" and len(node.args) > 4 and node.args[4] != 1) or (_name(node) == "dropout" and node.args[2]):
        return False
    return before.dtype == after.dtype and [str(size) for size in before.shape] == [str(size) for size in after.shape]


def _spell_out_stride(node: Node) -> None:
    """XNNPACK reads the stride of a pooling without looking whether it is left to be the kernel's size."""
    kernel, stride = (list(item) for item in (node.args[1], _argument(node, (2,)) or node.args[1]))
    sizes = [item * 2 if len(item) == 1 else item for item in (kernel, stride)]
    node.args = (node.args[0], *sizes, *node.args[3:])


def _lies_anew(node: Node) -> bool:
    """Whether a copy has other strides than its input."""
    given: Any = node.args[0]
    return bool(given.meta["val"].stride() != node.meta["val"].stride())


def _packed_arguments(node: Node) -> Iterator[tuple[int, ...]]:
    """Places of arguments that XNNPACK wants constant."""
    name = _name(node)
    for position in PACKED.get(name, ()):
        yield (position,)
    if name in LISTS and len(node.args) > LISTS[name]:
        held = node.args[LISTS[name]]
        for index in range(len(held) if isinstance(held, (list, tuple)) else 0):
            yield (LISTS[name], index)


def _argument(node: Node, at: tuple[int, ...]) -> Any:
    if at[0] >= len(node.args):
        return None
    held: Any = node.args[at[0]]
    return held if len(at) == 1 else held[at[1]]


def _replace(node: Node, at: tuple[int, ...], value: Node) -> None:
    arguments = list(node.args)
    if len(at) == 1:
        arguments[at[0]] = value
    else:
        inner: Any = arguments[at[0]]
        arguments[at[0]] = [value if index == at[1] else item for index, item in enumerate(inner)]
    node.args = tuple(arguments)


def _leaves(args: Sequence[Any], kwargs: Any) -> list[Any]:
    import torch.utils._pytree as pytree

    return list(pytree.tree_leaves((list(args), dict(kwargs))))


def _name(node: Node) -> str:
    """The operator without namespace and overload."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return ""
    return str(node.target._schema.name).removeprefix("aten::")


def _is_float(node: Node) -> bool:
    return bool(node.meta["val"].dtype == torch.float32)
