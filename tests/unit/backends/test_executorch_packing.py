"""Which weights become constants that XNNPACK packs, and which stay inputs; batch norms among them. Needs no ExecuTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from inlay.backends.executorch.constants import FIRST, made
from inlay.backends.executorch.packing import Packing, pack
from inlay.backends.tensors import array_of
from inlay.graph.capture import capture, lifted_weights, without_weights


def packed(module: nn.Module, **inputs: torch.Tensor) -> tuple[Packing, Any]:
    exported = capture(module, (), inputs).exported
    bare, names = without_weights(exported)
    before = bare.graph_module.code
    found = pack(bare, names)
    assert bare.graph_module.code == before, "the given program stays as it was"
    return found, exported


def run_with_weights(found: Packing, exported: Any, *inputs: torch.Tensor) -> torch.Tensor:
    """The packed module by torch, its telling numbers replaced by what they stand for."""
    held = {name: array_of(tensor) for name, tensor in lifted_weights(exported).items()}
    flat = np.concatenate([made(source, held).reshape(-1) for source in found.sources]) if found.sources else np.zeros(0)
    for parameter in found.module.parameters():
        index = parameter.data.view(torch.int32).numpy().astype(np.int64) - FIRST
        parameter.data = torch.from_numpy(np.asarray(flat[index], np.float32))
    weights = [torch.from_numpy(np.array(held[name])) for name in found.inputs]
    with torch.no_grad():
        (result,) = found.module(*weights, *inputs)
    return result


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.first = nn.Linear(6, 5)
        self.turned = nn.Parameter(torch.randn(5, 6))
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(torch.relu(self.first(self.words(ids))) @ self.turned))


def test_weights_of_products_are_constants_and_all_others_inputs_a_tied_one_both() -> None:
    torch.manual_seed(0)
    module, ids = Layers(), torch.randint(0, 11, (2, 3))
    found, exported = packed(module, ids=ids)
    constants = {source.weights[0] for source in found.sources}
    assert constants == {"first.weight", "first.bias", "turned", "head.weight"} or constants == {
        "first.weight", "first.bias", "turned", "words.weight"
    }  # fmt: skip
    assert {"norm.weight", "norm.bias"} < set(found.inputs) and len(found.inputs) == 3
    torch.testing.assert_close(run_with_weights(found, exported, ids), module(ids))


class Convolutions(nn.Module):
    """A norm that folds, one whose convolution is read twice, and one before any convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.BatchNorm2d(3)
        self.first, self.after = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.second, self.shared = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False)
        for norm in (self.before, self.after, self.shared):
            norm.running_mean += torch.randn(norm.num_features)
            norm.running_var += torch.rand(norm.num_features)
            if norm.affine:
                norm.weight.data += torch.randn(norm.num_features)
                norm.bias.data += torch.randn(norm.num_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(torch.relu(self.after(self.first(self.before(x)))))
        return self.shared(x) + x


def test_a_batch_norm_goes_into_the_convolution_that_it_alone_reads_and_is_arithmetic_elsewhere() -> None:
    torch.manual_seed(1)
    module, x = Convolutions().eval(), torch.randn(2, 3, 8, 8)
    found, exported = packed(module, x=x)
    assert sorted(source.kind for source in found.sources) == ["folded bias", "folded weight", "plain", "plain"]
    assert not any("batch_norm" in str(node.target) for node in found.module.graph.nodes)
    torch.testing.assert_close(run_with_weights(found, exported, x), module(x), rtol=1e-5, atol=1e-5)


def test_weights_of_other_types_stay_inputs() -> None:
    class Doubles(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 2, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    found, _ = packed(Doubles(), x=torch.randn(3, 4, dtype=torch.float64))
    assert not found.sources and found.inputs == ("inner.weight", "inner.bias")


class Reshaped(nn.Module):
    """Reshapes of something turned, as torch writes them: a copy and a view of that."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        copied = torch.clone(x.transpose(1, 2), memory_format=torch.contiguous_format)
        rows = torch.ops.aten._unsafe_view(copied, [2, 12])
        return rows * x.transpose(1, 2).contiguous().view(2, 12)


def test_a_view_of_a_copy_that_is_left_out_still_finds_its_shape() -> None:
    found, exported = packed(Reshaped(), x=torch.randn(2, 3, 4))
    assert not [node for node in found.module.graph.nodes if "clone" in str(node.target) or "contiguous" in str(node.target)]
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(run_with_weights(found, exported, x), Reshaped()(x))


class Strided(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.t().contiguous().as_strided((3, 2), (2, 1)) + 1.0


def test_a_copy_stays_where_memory_is_read_as_it_lies() -> None:
    found, exported = packed(Strided(), x=torch.randn(4, 3))
    x = torch.randn(4, 3)
    torch.testing.assert_close(run_with_weights(found, exported, x), Strided()(x))


@pytest.mark.parametrize(
    ("given", "expected"), [((2,), [[2, 2], [2, 2]]), (([2, 3],), [[2, 3], [2, 3]]), ((3, 2), [[3, 3], [2, 2]])]
)
def test_the_stride_of_a_pooling_is_spelled_out(given: tuple[Any, ...], expected: list[list[int]]) -> None:
    class Pooled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.max_pool2d(x, *given)

    found, exported = packed(Pooled(), x=torch.randn(1, 2, 9, 9))
    (node,) = [node for node in found.module.graph.nodes if "max_pool2d" in str(node.target)]
    assert [list(item) for item in node.args[1:3]] == expected
    x = torch.randn(1, 2, 9, 9)
    torch.testing.assert_close(run_with_weights(found, exported, x), Pooled()(x))
