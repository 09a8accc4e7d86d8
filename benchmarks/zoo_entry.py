"""How a model of the zoo is listed, and weights of a size that shows errors. Used by `zoo_language` and `zoo_perception`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Built = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model: its family, what it is, whether it has a published width, and whether torch.export must refuse it."""

    family: str
    what: str
    published: bool = False
    refused: bool = False


ZOO: dict[str, Entry] = {}


def listed(family: str, what: str, *, published: bool = False, refused: bool = False) -> Callable[[Any], Any]:
    """Enter a builder into `ZOO` under its own name."""

    def enter(build: Callable[[], Built]) -> Callable[[], Built]:
        ZOO[build.__name__] = Entry(family, what, published=published, refused=refused)
        return build

    return enter


def shake(model: Any) -> Any:
    """Weights of a size that shows errors: transformers' own initialisers make outputs tiny, and layer scales nearly zero.

    Matrices and filters keep the size of what passes them, vectors are near one (biases near zero), statistics of batch
    norms are as of real data.
    """
    import torch

    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            drawn = torch.randn(value.shape, generator=random)
            if value.dim() >= 2 and "embed" not in name and min(value.shape[:2]) > 1:
                value.copy_(drawn / math.sqrt(value[0].numel()))
            elif "embed" in name or value.dim() >= 2:
                value.copy_(drawn * 0.7)
            else:
                value.copy_(drawn * 0.1 + (0.0 if "bias" in name else 1.0))
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(torch.randn(value.shape, generator=random) * 0.2)
            elif name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=random) + 0.5)
    return model


def make(kind: str, cls: str, **config: Any) -> Any:
    """A transformers model of this configuration, weights shaken."""
    import torch
    import transformers

    torch.manual_seed(0)
    found = transformers.AutoConfig.for_model(kind, **config)
    return shake(getattr(transformers, cls)._from_config(found).eval())
