"""A torch door: one call of a function as a sample, what makes it unfit to be one, and several of them as one module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
    torch.bool, torch.complex64, torch.complex128,
)  # fmt: skip
PLAIN = (type(None), bool, int, float, complex, str, torch.dtype, torch.device, torch.memory_format, torch.layout)
EMPTY = "it has a tensor without elements, and no size of a program is 0"
RANDOM = "it does not give the same twice"
CHANGES = "it changes its input, which programs never do"
NO_TENSOR = "its result is no tensor, or an empty one"
STRANGE_INPUT = "it has an argument that no program has: "
STRANGE_TENSOR = "it has a tensor that is not dense or has a type numpy does not know"
FAILS = "torch itself does not carry it out: "
MOST_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class Sample:
    """A function with its arguments: `tensors` are inputs of the program, all else is constant. `case` is what it samples."""

    name: str
    case: str
    function: Callable[..., Any]
    tensors: tuple[torch.Tensor, ...]
    leaves: tuple[Any, ...]
    tree: Any

    def call(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The tensors of the result; those without elements are left out."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.tree)
        found = pytree.tree_leaves(self.function(*args, **kwargs))
        return [leaf for leaf in found if isinstance(leaf, torch.Tensor) and leaf.numel() > 0]


def make_sample(name: str, case: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sample:
    """A sample of a call. Its tensors are copied in C order: a program's inputs have no strides."""
    leaves, tree = pytree.tree_flatten((tuple(args), dict(kwargs)))
    leaves = [leaf.detach().contiguous().clone() if isinstance(leaf, torch.Tensor) and dense(leaf) else leaf for leaf in leaves]
    tensors = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
    return Sample(name=name, case=case, function=function, tensors=tensors, leaves=tuple(leaves), tree=tree)


def dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor is an ordinary one with a type that arrays have."""
    return tensor.layout == torch.strided and tensor.dtype in DTYPES and not tensor.is_quantized


def unfit(sample: Sample) -> str:
    """Why a sample cannot be tried, "" where it can. It is run for that, twice."""
    for leaf in sample.leaves:
        if isinstance(leaf, torch.Tensor):
            if not dense(leaf):
                return STRANGE_TENSOR
            if leaf.numel() == 0:
                return EMPTY
        elif not isinstance(leaf, PLAIN):
            return f"{STRANGE_INPUT}{type(leaf).__name__}"
    before = [tensor.clone() for tensor in sample.tensors]
    try:
        with torch.no_grad():
            first = [item.clone() for item in sample.call(sample.tensors)]
            changed = not all(same(one, two) for one, two in zip(before, sample.tensors, strict=True))
            second = sample.call(before)
    except Exception as error:  # noqa: BLE001  # process edge: whatever torch raises is the reason
        return f"{FAILS}{type(error).__name__}"
    if changed:
        return CHANGES
    if not first:
        return NO_TENSOR
    if not all(dense(item) for item in first):
        return STRANGE_TENSOR
    if sum(item.numel() for item in (*first, *before)) > MOST_ELEMENTS:
        return f"it has more than {MOST_ELEMENTS} numbers"
    return "" if all(same(one, two) for one, two in zip(first, second, strict=True)) else RANDOM


def same(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Equal, not-a-number included."""
    return one.shape == two.shape and bool(torch.equal(torch.nan_to_num(one), torch.nan_to_num(two)))


class Together(torch.nn.Module):
    """Several samples as one module: all their tensors in, all their results out."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        super().__init__()
        self.samples = tuple(samples)
        modules = [item.function for item in samples if isinstance(item.function, torch.nn.Module)]
        self.modules_of_samples = torch.nn.ModuleList(modules)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results: list[torch.Tensor] = []
        at = 0
        for sample in self.samples:
            results += sample.call(tensors[at : at + len(sample.tensors)])
            at += len(sample.tensors)
        return tuple(results)
