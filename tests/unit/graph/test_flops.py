"""FLOPs from shapes against torch's own counter, which watches the real run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from inlay.graph.capture import capture  # noqa: E402
from inlay.graph.digest import is_number, value_table  # noqa: E402
from inlay.graph.flops import FREE, flops_of, node_flops  # noqa: E402

PRODUCTS = ("aten.linear", "aten.mm", "aten.bmm", "aten.matmul", "aten.addmm", "aten.conv", "aten.scaled_dot_product")


class Of(nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(8, 24), nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=3)
        self.back = nn.ConvTranspose2d(6, 4, 4, stride=2)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


CASES: dict[str, tuple[Callable[..., torch.Tensor], tuple[int, ...]]] = {
    "linear": (lambda module, x: module.linear(x), (3, 5, 8)),
    "batched product": (lambda module, x: x @ x.transpose(1, 2), (3, 5, 8)),
    "attention": (lambda module, x: functional.scaled_dot_product_attention(x, x, x), (2, 4, 7, 16)),
    "grouped strided convolution": (lambda module, x: module.conv(x), (2, 6, 9, 11)),
    "transposed convolution": (lambda module, x: module.back(x), (2, 6, 5, 7)),
}


@pytest.mark.parametrize("name", CASES)
def test_products_are_counted_as_torch_counts_them(name: str) -> None:
    function, shape = CASES[name]
    module, x = Of(function).eval(), torch.randn(shape)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it does not know the CPU's own kernel
        module(x)
    program = capture(module, (x,), {}).program
    products = [node.name for node in program.nodes if node.operator.startswith(PRODUCTS)]
    assert counter.get_total_flops() > 0
    assert flops_of(program, products, {}) == counter.get_total_flops()


def test_counts_grow_with_dynamic_sizes_and_views_are_free() -> None:
    module = Of(lambda module, x: module.linear(x.reshape(-1, 8)).relu())
    program = capture(module, (torch.randn(3, 5, 8),), {}, dynamic={"x": {0: ("batch", 1, 64), 1: ("length", 1, 64)}}).program
    names = [node.name for node in program.nodes]
    small, large = (flops_of(program, names, {"batch": 2, "length": length}) for length in (4, 12))
    assert large == 3 * small == 2 * 12 * 24 * (2 * 8 + 1)
    values = value_table(program)
    free = [node for node in program.nodes if node.operator.startswith(FREE) and not is_number(node)]
    assert free and all(node_flops(node, values, {"batch": 2, "length": 4}) == 0 for node in free)
