"""Hand-written modules of `benchmarks/models.py`: what people write who use no model library, and some that no exporter takes.

They keep to plain torch.nn. `model_zoo.py` lists them with their example calls.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class PlainConvNet(nn.Module):
    """Convolutions, batch norms and ReLUs that work in place, max pooling, a linear head; height and width are free."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = [3, 16, 32, 64]
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
            layers += [nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, classes))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(functional.adaptive_avg_pool2d(self.features(image), 1).flatten(1))


class DenseLayer(nn.Module):
    """Batch norm, ReLU, convolution, twice; its few new channels are appended to what came in."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(functional.relu(self.norm2(self.conv1(functional.relu(self.norm1(x))))))


class DenseBlock(nn.ModuleDict):
    """Every layer reads what all before it gave."""

    def __init__(self, layers: int, channels: int, growth: int) -> None:
        super().__init__({f"layer{index}": DenseLayer(channels + index * growth, growth) for index in range(layers)})

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer in self.values():
            found.append(layer(torch.cat(found, 1)))
        return torch.cat(found, 1)


class DenseNet(nn.Module):
    """Two dense blocks with a transition between them."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True)
        )
        self.dense1 = DenseBlock(5, 24, 12)
        self.down = nn.Sequential(nn.BatchNorm2d(84), nn.ReLU(inplace=True), nn.Conv2d(84, 42, 1), nn.AvgPool2d(2))
        self.dense2 = DenseBlock(5, 42, 12)
        self.norm, self.head = nn.BatchNorm2d(102), nn.Linear(102, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.dense2(self.down(self.dense1(functional.max_pool2d(self.stem(image), 3, 2, 1))))
        return self.head(functional.relu(self.norm(x)).mean((2, 3)))


def double(narrow: int, wide: int) -> nn.Sequential:
    """Twice convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(narrow, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU(inplace=True),
        nn.Conv2d(wide, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU(inplace=True),
    )  # fmt: skip


class UNet(nn.Module):
    """Down and up again, with a connection from each level down to the same level up."""

    def __init__(self, widths: tuple[int, ...] = (8, 16, 32, 64)) -> None:
        super().__init__()
        self.down = nn.ModuleList(double(narrow, wide) for narrow, wide in zip((3, *widths), widths[:-1], strict=False))
        self.deepest = double(widths[-2], widths[-1])
        self.rise = nn.ModuleList(
            nn.ConvTranspose2d(wide, narrow, 2, stride=2) for narrow, wide in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.up = nn.ModuleList(double(2 * narrow, narrow) for narrow in widths[-2::-1])
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        kept = []
        x = image
        for level in self.down:
            x = level(x)
            kept.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.deepest(x)
        for rise, level in zip(self.rise, self.up, strict=True):
            x = level(torch.cat([kept.pop(), rise(x)], 1))
        return self.head(x)


class OddConvolutions(nn.Module):
    """Depthwise, grouped, dilated and transposed convolutions, group norm, instance norm, upsampling, squeeze and excite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.depthwise, self.pointwise = nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.Conv2d(16, 32, 1)
        self.grouped, self.groups = nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.GroupNorm(4, 32)
        self.dilated, self.instance = nn.Conv2d(32, 32, 3, padding=2, dilation=2), nn.InstanceNorm2d(32, affine=True)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.transposed = nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = functional.hardswish(self.stem(image))
        x = functional.leaky_relu(self.pointwise(self.depthwise(x)), 0.1)
        x = functional.silu(self.groups(self.grouped(x))) + x
        x = functional.elu(self.instance(self.dilated(x)))
        x = x * torch.sigmoid(self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = functional.gelu(self.transposed(x))
        return torch.tanh(self.head(functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)))


class StreamingFilter(nn.Module):
    """A causal convolution over a stream that comes in chunks, and a running mean: two states, kept between calls."""

    def __init__(self, channels: int = 12, taps: int = 5) -> None:
        super().__init__()
        self.enter = nn.Conv1d(4, channels, 1)
        self.filter = nn.Conv1d(channels, channels, taps, groups=channels)
        self.leave = nn.Conv1d(channels, 4, 1)
        self.register_buffer("tail", torch.zeros(1, channels, taps - 1))
        self.register_buffer("average", torch.zeros(1, channels, 1))

    def forward(self, chunk: Tensor) -> Tensor:
        x = torch.tanh(self.enter(chunk))
        joined = torch.cat([self.tail, x], 2)
        self.tail.copy_(joined[:, :, -self.tail.shape[2] :])
        self.average.mul_(0.9).add_(0.1 * x.mean(2, keepdim=True))
        return chunk + self.leave(functional.gelu(self.filter(joined) - self.average))


class Recurrent(nn.Module):
    """Two bidirectional LSTM layers and a GRU, over embedded tokens."""

    def __init__(self, vocabulary: int = 199, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(2 * width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        found, _ = self.lstm(self.embed(tokens))
        found, _ = self.gru(found)
        return self.head(found)


class RecurrentCell(nn.Module):
    """A GRU cell of one step whose hidden state comes in and goes out: recurrence outside of the program."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(16, width), nn.Linear(width, 16)

    def forward(self, x: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        hidden = self.cell(x, hidden)
        return {"y": self.head(hidden), "hidden": hidden}


class Mixer(nn.Module):
    """Thirty equal layers: two small linear maps, one over positions and one over channels."""

    class Layer(nn.Module):
        """Mix along positions, then along channels."""

        def __init__(self, length: int, width: int) -> None:
            super().__init__()
            self.norm1, self.across = nn.LayerNorm(width), nn.Linear(length, length)
            self.norm2, self.wide, self.narrow = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.across(self.norm1(x).transpose(1, 2)).transpose(1, 2)
            return x + self.narrow(functional.gelu(self.wide(self.norm2(x))))

    def __init__(self, depth: int = 30, length: int = 8, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Mixer.Layer(length, width) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


class Detector(nn.Module):
    """Boxes with a score, the good ones picked, and overlapping ones dropped one after another: sizes depend on data."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 16, 3, stride=4, padding=1)
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 1, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.relu(self.body(image))
        boxes = self.boxes(x).flatten(2).transpose(1, 2)[0]
        scores = torch.sigmoid(self.scores(x)).flatten()
        good = torch.nonzero(scores > 0.5)[:, 0]
        boxes, scores = boxes[good], scores[good]
        kept = []
        while len(scores) > 0:
            best = int(scores.argmax())
            kept.append(boxes[best])
            far = (boxes - boxes[best]).abs().sum(1) > 1.0
            boxes, scores = boxes[far], scores[far]
        return torch.stack(kept), scores


class Router(nn.Module):
    """Rows with a score above a limit are picked: as many as there are, which the data decides."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.work = nn.Linear(16, 1), nn.Linear(16, 16)

    def forward(self, rows: Tensor) -> Tensor:
        good = torch.nonzero(self.score(rows)[:, 0] > 0)[:, 0]
        return self.work(rows[good])


class EarlyExit(nn.Module):
    """A branch on a value: the second layer runs only where the first is not sure."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).softmax(-1)
        if x.max() > 0.9:
            return x
        return self.second(x)
