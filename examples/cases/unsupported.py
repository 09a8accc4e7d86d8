"""Names what a laser scan shows: a convolution over neighbouring points, a few encoder layers, the strongest of each stretch.

OpenVINO has no rule for torch's scattered maximum (`aten.scatter_reduce`), ONNX has none for its adaptive maximum pooling
(`aten.adaptive_max_pool2d`), so neither framework can take all of it.
"""

from __future__ import annotations

from typing import Any


def build() -> dict[str, Any]:
    """Four layers 256 wide over 256 points with four neighbours each."""
    return classifier(layers=4, width=256, points=256, name="unsupported")


def build_small() -> dict[str, Any]:
    """The same, to be compiled and judged in seconds."""
    return classifier(layers=2, width=64, points=64, name="unsupported-small")


def classifier(*, layers: int, width: int, points: int, name: str) -> dict[str, Any]:
    """A builder's mapping."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)
    stretches, names = 6, 64

    class EdgeConvolution(nn.Module):
        """The greatest message over the edges that lead to a point."""

        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(6, width), nn.Linear(width, width)

        def forward(self, scan: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
            source, target = edges[0], edges[1]
            pairs = torch.cat([scan[target], scan[source] - scan[target]], -1)
            messages = self.leave(functional.relu(self.enter(pairs)))
            where = target[:, None].expand(-1, width)
            return torch.zeros(points, width).scatter_reduce(0, where, messages, "amax", include_self=True)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.other = nn.LayerNorm(width), nn.LayerNorm(width)
            self.enter, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, seen: torch.Tensor) -> torch.Tensor:
            length, _ = seen.shape
            query, key, value = self.enter(self.norm(seen)).reshape(1, length, 3, width // 32, 32).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(query, key, value)
            seen = seen + self.leave(mixed.transpose(1, 2).reshape(length, width))
            return seen + self.narrow(functional.gelu(self.widen(self.other(seen))))

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gather = EdgeConvolution()
            self.layers = nn.ModuleList(Layer() for _ in range(layers))
            self.say = nn.Linear(width * stretches, names)

        def forward(self, scan: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
            seen = self.gather(scan, edges)
            for layer in self.layers:
                seen = layer(seen)
            strongest = functional.adaptive_max_pool1d(seen.transpose(0, 1)[None], stretches)
            return self.say(strongest.flatten(1))

    scan = torch.randn(points, 3)
    edges = torch.randint(0, points, (2, 4 * points))
    return {"model": Classifier().eval(), "args": (scan, edges), "points": [{}], "name": name}
