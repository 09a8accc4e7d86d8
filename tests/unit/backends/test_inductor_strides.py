"""Inductor's code of a piece: right for inputs in C order whatever strides were captured, and for sizes of 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inlay.backends import backend
from inlay.backends.inductor.lower import lower
from inlay.graph.capture import capture, load_exported, save_graph
from inlay.graph.extract import extract, is_number, needed_for
from inlay.specs.artifact import LowerRequest, WeightMap, program_interface
from inlay.specs.precision import Precision


class Strided(torch.nn.Module):
    """Values of which torch knows that their memory is not in C order, read by what cares for it."""

    def forward(self, image: torch.Tensor, words: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        seen = torch.conv2d(image.permute(0, 3, 1, 2), kernel).mean((2, 3))
        batch, length, _ = words.shape
        heads = words.view(batch, length, 4, 8).transpose(1, 2)
        mixed = torch.softmax(heads @ heads.transpose(-1, -2), -1) @ heads
        joined = (heads + mixed).transpose(1, 2).flatten(2)
        return joined + seen[:, None, :]


def inputs(batch: int, length: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(batch * 100 + length)
    return torch.randn(batch, 6, 5, 3), torch.randn(batch, length, 32), torch.randn(32, 3, 3, 3)


def test_a_piece_of_strided_values_is_right_at_every_size(tmp_path: Path) -> None:
    if not (here := backend("inductor").available()).available:
        pytest.skip(here.reason)
    sizes = {0: ("batch", 1, 9), 1: ("length", 1, 40)}
    captured = capture(Strided(), inputs(2, 7), {}, dynamic={"image": {0: sizes[0]}, "words": sizes})
    save_graph(captured.exported, tmp_path / "graph.pt2")
    exported = load_exported(tmp_path / "graph.pt2")  # as compile processes have it, where 1 is a size like any other
    nodes = [node for node in exported.graph.nodes if node.op == "call_function"]
    split = next(node for node in nodes if "transpose" in node.name)
    placeholders = [node for node in exported.graph.nodes if node.op == "placeholder"]
    assert not split.meta["val"].is_contiguous()
    last = nodes[-1]
    rest = needed_for([last], stop=lambda node: node is split or is_number(node))
    read = [placeholders[0], split, placeholders[2]]
    piece = extract(exported, rest, [last], inputs=read)
    interface = program_interface(captured.program, inputs=[node.name for node in read], outputs=[last.name])

    request = LowerRequest(precision=Precision(), ranges=captured.program.ranges, threads=1)
    folder = tmp_path / "code"
    folder.mkdir()
    manifest = lower(piece, interface=interface, request=request, directory=folder)
    loaded = backend("inductor").load(
        folder, manifest=manifest, weights=WeightMap(model_digest="", weights={}), threads=1, options={}
    )
    for batch, length in ((2, 7), (1, 7), (2, 1), (1, 1), (9, 40)):
        image, words, kernel = inputs(batch, length)
        heads = words.view(batch, length, 4, 8).transpose(1, 2).contiguous()
        truth = Strided()(image, words, kernel).numpy()
        for port, array in enumerate((image, heads, kernel, truth)):
            buffer = loaded.allocate(port, tuple(array.shape))
            buffer.array[...] = array
            loaded.bind(port, buffer)
        buffer.array[...] = 0
        loaded.run({"batch": batch, "length": length})
        assert np.abs(buffer.array - truth).max() < 1e-5 * np.abs(truth).max(), (batch, length)
    loaded.close()
