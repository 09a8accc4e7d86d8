"""Checkpoints: everything a stage needs to go on, replaced in one step on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass
class Progress:
    """What a stage has done so far, with the CPU seconds that it took."""

    step: int = 0
    tokens: int = 0
    cpu_seconds: float = 0.0
    is_finished: bool = False


def checkpoint_path(state: Path, stage: str) -> Path:
    """Return where a stage keeps its newest checkpoint."""
    return state / f"{stage}.pt"


def save_checkpoint(
    state: Path, stage: str, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], progress: Progress
) -> None:
    """Write a checkpoint beside the old one, then put it in the old one's place."""
    path = checkpoint_path(state, stage)
    unfinished = path.with_suffix(".unfinished")
    content = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "progress": vars(progress),
    }
    with unfinished.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def read_checkpoint(state: Path, stage: str) -> dict[str, Any] | None:
    """Read a stage's newest checkpoint, or None before the first."""
    path = checkpoint_path(state, stage)
    if not path.exists():
        return None
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def restore(content: dict[str, Any], model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> Progress:
    """Put a checkpoint's weights and optimizer states in place and return its progress."""
    model.load_state_dict(content["model"])
    for optimizer, stored in zip(optimizers, content["optimizers"], strict=True):
        optimizer.load_state_dict(stored)
    return Progress(**content["progress"])
