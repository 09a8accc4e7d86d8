"""Names a sound by its spectrum: Fourier transform of each window, a few encoder layers, the strongest of each stretch.

OpenVINO has no rule for torch's Fourier transform (`aten._fft_r2c`), ONNX has none for its adaptive maximum pooling
(`aten.adaptive_max_pool2d`), so neither framework can take all of it.
"""

from __future__ import annotations

from typing import Any


def build() -> dict[str, Any]:
    """Four layers 256 wide over 128 windows of 400 samples."""
    return classifier(layers=4, width=256, windows=128, name="unsupported")


def build_small() -> dict[str, Any]:
    """The same, to be compiled and judged in seconds."""
    return classifier(layers=2, width=64, windows=32, name="unsupported-small")


def classifier(*, layers: int, width: int, windows: int, name: str) -> dict[str, Any]:
    """A builder's mapping."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)
    samples, stretches, names = 400, 6, 64

    class Spectrum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("window", torch.hann_window(samples))
            self.enter = nn.Linear(samples // 2 + 1, width)

        def forward(self, sound: torch.Tensor) -> torch.Tensor:
            power = torch.fft.rfft(sound * self.window).abs() ** 2
            return self.enter(torch.log1p(power))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.other = nn.LayerNorm(width), nn.LayerNorm(width)
            self.enter, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, heard: torch.Tensor) -> torch.Tensor:
            batch, length, _ = heard.shape
            heads = self.enter(self.norm(heard)).reshape(batch, length, 3, width // 32, 32)
            query, key, value = heads.permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(query, key, value)
            heard = heard + self.leave(mixed.transpose(1, 2).reshape(batch, length, width))
            return heard + self.narrow(functional.gelu(self.widen(self.other(heard))))

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spectrum = Spectrum()
            self.layers = nn.ModuleList(Layer() for _ in range(layers))
            self.say = nn.Linear(width * stretches, names)

        def forward(self, sound: torch.Tensor) -> torch.Tensor:
            heard = self.spectrum(sound)
            for layer in self.layers:
                heard = layer(heard)
            strongest = functional.adaptive_max_pool1d(heard.transpose(1, 2), stretches)
            return self.say(strongest.flatten(1))

    return {
        "model": Classifier().eval(),
        "args": (torch.randn(2, windows, samples),),
        "dynamic": {"sound": {0: ("batch", 1, 16)}},
        "points": [{"batch": 4}],
        "name": name,
    }
