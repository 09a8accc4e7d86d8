"""Blocks between narrow cuts, and pieces cut out of a program: together they are the program, to the last bit."""

from __future__ import annotations

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from inlay.errors import UnsupportedError  # noqa: E402
from inlay.graph import Cut, cut_into_blocks, piece_of  # noqa: E402
from inlay.graph.capture import Captured, capture, lifted_weights  # noqa: E402
from inlay.graph.extract import extract_piece  # noqa: E402

SIZES = {"batch": 2, "length": 6}


class Layer(nn.Module):
    """Attention with rotary tables that the model works out once, and a feed-forward half."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm, self.widen, self.narrow = nn.LayerNorm(16), nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, hidden: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        query, key, value = self.mix(hidden).chunk(3, -1)
        query, key = (item * cosine + item.roll(8, -1) * sine for item in (query, key))
        hidden = hidden + self.out(nn.functional.scaled_dot_product_attention(query, key, value))
        return hidden + self.narrow(nn.functional.gelu(self.widen(self.norm(hidden))))


class Model(nn.Module):
    def __init__(self, layers: int = 4) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(32, 16), nn.Linear(16, 32, bias=False)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        angles = torch.arange(ids.shape[1]).unsqueeze(-1) / torch.arange(1, 17)
        cosine, sine = angles.cos(), angles.sin()
        hidden = self.embed(ids)
        for layer in self.layers:
            hidden = layer(hidden, cosine, sine)
        return self.head(hidden)


@pytest.fixture(scope="module")
def captured() -> Captured:
    torch.manual_seed(0)
    dynamic = {"ids": {0: ("batch", 1, 8), 1: ("length", 1, 64)}}
    return capture(Model().eval(), (torch.randint(0, 32, (2, 6)),), {}, dynamic=dynamic)


@pytest.fixture(scope="module")
def cut(captured: Captured) -> Cut:
    return Cut(program=captured.program, blocks=cut_into_blocks(captured.program, sizes=SIZES))


def test_every_node_that_computes_is_in_one_block_in_the_order_of_the_program(cut: Cut) -> None:
    order = {node.name: at for at, node in enumerate(cut.program.nodes)}
    owned = [name for block in cut.blocks for name in block.nodes]
    assert len(owned) == len(set(owned))
    assert set(cut.program.outputs) <= set(owned)
    for one, two in pairwise(cut.blocks):
        assert max(order[name] for name in one.nodes) < max(order[name] for name in two.nodes)
    made = set(cut.program.inputs)
    for block in cut.blocks:
        assert set(block.inputs) <= made, f"{block.name} reads what nobody made before it"
        made |= set(block.outputs)


def test_equal_layers_are_equal_blocks_and_tables_are_worked_out_again_not_shipped(cut: Cut) -> None:
    layers = [block for block in cut.blocks if block.name.startswith("layers.")]
    assert len(layers) == 4 and len({block.digest for block in layers}) == 1
    assert len({block.digest for block in cut.blocks}) == len(cut.blocks) - 3
    for block in layers[1:]:
        floats = [name for name in block.inputs if name not in cut.program.inputs]
        assert len(floats) == 1, f"{block.name} is given {block.inputs}, expected one hidden state beside the ids"
        operators = {node.operator for node in cut.program.nodes if node.name in block.replicated}
        assert any(operator.startswith("aten.cos") for operator in operators)


@pytest.mark.parametrize("spans", [[(0, 1), (1, 3), (3, 6)], [(0, 6)], [(0, 2), (2, 4), (4, 5), (5, 6)]])
def test_pieces_run_one_after_another_are_the_program_to_the_last_bit(
    spans: list[tuple[int, int]], captured: Captured, cut: Cut
) -> None:
    assert len(cut.blocks) == 6
    pieces = [piece_of(cut, first, end) for first, end in spans]
    extracted = [extract_piece(captured.exported, piece) for piece in pieces]
    for batch, length in ((2, 6), (1, 1), (8, 64), (3, 17)):
        ids = torch.randint(0, 32, (batch, length))
        values = dict.fromkeys(cut.program.inputs, ids)
        with torch.no_grad():
            for piece, program in zip(pieces, extracted, strict=True):
                results = program.module(check_guards=False)(*(values[name] for name in piece.inputs))
                values |= dict(zip(piece.outputs, results, strict=True))
            [expected] = captured.exported.module(check_guards=False)(ids)
        assert torch.equal(values[cut.program.outputs[0]], expected)


def test_a_piece_holds_the_weights_that_it_reads_and_shares_a_tied_one(captured: Captured, cut: Cut) -> None:
    first, last = (extract_piece(captured.exported, piece_of(cut, at, at + 1)) for at in (0, len(cut.blocks) - 1))
    [embedding], [head] = lifted_weights(first).values(), lifted_weights(last).values()
    assert embedding.data_ptr() == head.data_ptr()
    layer = extract_piece(captured.exported, piece_of(cut, 2, 3))
    assert sum(item.numel() for item in lifted_weights(layer).values()) == sum(item.numel() for item in Layer().parameters())


def test_a_size_that_only_values_tell_is_refused_with_operator_and_source() -> None:
    class Chosen(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[torch.nonzero(x[:, 0] > 0)[:, 0]] * 2

    with pytest.raises(
        UnsupportedError, match=r"size depends on data: '\w+' = aten.nonzero.* \(.*test_blocks_and_extract.py:\d+"
    ):
        capture(Chosen(), (torch.randn(6, 4),), {}, dynamic={"x": {0: ("rows", 1, 64)}})


def test_a_size_that_holds_for_every_input_is_not_taken_for_fixed_and_a_fixed_one_is_refused() -> None:
    class Halves(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            torch._check((4 * y.shape[0]) % (2 * x.shape[0]) == 0)
            return x + y

    class Even(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            torch._check(x.shape[0] % 2 == 0)
            return x + y

    given = (torch.randn(4, 3), torch.randn(4, 3))
    dynamic = {name: {0: ("rows", 2, 64)} for name in ("x", "y")}
    assert capture(Halves(), given, {}, dynamic=dynamic).program.ranges == {"rows": (2, 64)}
    with pytest.raises(UnsupportedError, match=r"works only where|rows"):
        capture(Even(), given, {}, dynamic=dynamic)
