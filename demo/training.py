"""The training loop of both stages: interruptible at any time, resumed from its checkpoint."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from checkpoint import Progress, read_checkpoint, restore, save_checkpoint
from corpus import load_corpus
from models import build_model, build_optimizers
from schedule import CpuClock, batch_shape, rate_factor
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM
from windows import TokenStreams, load_streams, scoring_windows, training_batch

LOG_LINES = {"target": 140, "draft": 60}
HELD_OUT_EVERY = 10  # log lines
HELD_OUT_WINDOWS = 24
SECONDS_BETWEEN_CHECKPOINTS = 60.0
LARGEST_GRADIENT = 1.0
SEEDS = {"target": 1, "draft": 2}
TEACHER_SHARE = 0.8

LossFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

logger = logging.getLogger(__name__)


def own_loss(ids: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the next token."""
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def distillation_loss(target: LlamaForCausalLM) -> LossFunction:
    """Mix the divergence from the target's distribution with the next token's cross entropy."""

    def loss(ids: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = functional.log_softmax(target(input_ids=ids, use_cache=False).logits.flatten(0, 1), dim=-1)
        predicted = functional.log_softmax(logits.flatten(0, 1), dim=-1)
        divergence = functional.kl_div(predicted, wanted, reduction="batchmean", log_target=True)
        own = functional.nll_loss(predicted, labels.flatten())
        return TEACHER_SHARE * divergence + (1 - TEACHER_SHARE) * own

    return loss


class Trainer:
    """One stage's training: its model, optimizers, clock and log."""

    def __init__(
        self, stage: str, state: Path, log_path: Path, budget: float, tokenizer: Tokenizer, loss: LossFunction
    ) -> None:
        self.stage, self.state, self.log_path, self.budget = stage, state, log_path, budget
        self.loss = loss
        self.model = build_model(stage, tokenizer).train()
        self.optimizers = build_optimizers(self.model)
        self.rates: list[float] = [group["lr"] for group in self._groups()]
        stored = read_checkpoint(state, stage)
        self.progress = restore(stored, self.model, self.optimizers) if stored else Progress()
        self.clock = CpuClock(self.progress.cpu_seconds)
        self.streams: TokenStreams = load_streams(state)
        self.held_out = self._held_out_windows(tokenizer)
        self.is_stopping = False
        self.last_checkpoint = time.monotonic()
        self.lines_written = self._trim_log()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _held_out_windows(self, tokenizer: Tokenizer) -> torch.Tensor:
        windows = [
            window.ids
            for file in load_corpus(self.state).held_out
            for window in scoring_windows(
                tokenizer.encode(file.text, add_special_tokens=False).ids,
                self.streams.begin_id,
                stride=511,
            )
            if len(window.ids) == 512
        ]
        spread = max(1, len(windows) // HELD_OUT_WINDOWS)
        return torch.stack(windows[::spread][:HELD_OUT_WINDOWS])

    def _trim_log(self) -> int:
        """Drop this stage's lines of steps after the checkpoint; return how many stay."""
        if not self.log_path.exists():
            return 0
        lines = [json.loads(line) for line in self.log_path.read_text().splitlines()]
        kept = [line for line in lines if line["stage"] != self.stage or line["step"] <= self.progress.step]
        self.log_path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        return sum(line["stage"] == self.stage for line in kept)

    def run(self) -> bool:
        """Train until the budget is used or a signal asks to stop; say whether it is finished."""
        if self.progress.is_finished and self.progress.cpu_seconds >= self.budget:
            return True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self.is_stopping:
            share = self.clock.used() / self.budget
            if share >= 1:
                break
            loss, factor = self._step(share)
            self._log(loss, factor)
            if time.monotonic() - self.last_checkpoint >= SECONDS_BETWEEN_CHECKPOINTS:
                self._save()
        self.progress.is_finished = not self.is_stopping
        self._save()
        return self.progress.is_finished

    def _stop(self, number: int, frame: object) -> None:
        self.is_stopping = True

    def _save(self) -> None:
        self.progress.cpu_seconds = self.clock.used()
        save_checkpoint(self.state, self.stage, self.model, self.optimizers, self.progress)
        self.last_checkpoint = time.monotonic()

    def _step(self, share: float) -> tuple[float, float]:
        """Take one step; return its loss and the factor of its learning rates."""
        shape = batch_shape(share)
        factor = rate_factor(self.progress.step, share)
        batch = training_batch(self.streams, self.progress.step, shape.rows, shape.length, SEEDS[self.stage])
        parts = batch.split(shape.rows_at_once)
        total = 0.0
        for part in parts:
            ids, labels = part[:, :-1], part[:, 1:]
            logits = self.model(input_ids=ids, use_cache=False).logits
            loss = self.loss(ids, logits, labels) / len(parts)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_GRADIENT)
        for group, rate in zip(self._groups(), self.rates, strict=True):
            group["lr"] = rate * factor
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.tokens += shape.rows * shape.length
        return total, factor

    def _log(self, loss: float, factor: float) -> None:
        """Write a line whenever the next share of the budget is used, and after the last step."""
        used = self.clock.used()
        is_last = used >= self.budget
        if not is_last and used / self.budget * LOG_LINES[self.stage] < self.lines_written:
            return
        line: dict[str, object] = {
            "stage": self.stage,
            "step": self.progress.step,
            "cpu_seconds": round(used, 1),
            "tokens": self.progress.tokens,
            "loss": round(loss, 4),
            "lr": round(self.rates[0] * factor, 6),
        }
        if self.lines_written % HELD_OUT_EVERY == 0 or is_last:
            line["held_out_loss"] = round(self.held_out_loss(), 4)
        with self.log_path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.lines_written += 1
        logger.info("%s", line)

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean nats a token over a fixed sample of the held-out windows."""
        losses = [
            own_loss(part[:, :-1], self.model(input_ids=part[:, :-1], use_cache=False).logits, part[:, 1:]).item()
            for part in self.held_out.split(4)
        ]
        return float(sum(losses) / len(losses))
