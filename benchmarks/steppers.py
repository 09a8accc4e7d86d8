"""Who races in step_time.py: one decode step over a filled cache, by a device's runner in this process or by transformers.

A stepper is set to a past length (`place`, not timed) and then timed step by step, the past growing by one each time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from inlay import api
from inlay.backends import Executable
from inlay.engine.runner import ExtendRunner
from inlay.orchestrator.compiling import ensure_lowered
from inlay.runtime import load_region
from inlay.specs.device import BatchDone, Row, SlotAddress, Submit
from inlay.specs.sampling import Sampling

SPREAD = 0.5
TOKEN = 7


class Stepper(Protocol):
    """One contestant with up to `slots` sequences."""

    name: str

    def place(self, batch: int, past: int) -> None:
        """Ready to step `batch` sequences of `past` tokens each."""

    def step(self) -> tuple[float, float]:
        """Add one token to each: seconds of the whole step, and of the framework's run in it (0 where not known)."""

    def room(self, past: int) -> int:
        """Rows of cache that attention goes over at this past length."""


class TimedExecutable:
    """An executable that counts the seconds inside `run`, that is the framework's own; otherwise what it wraps."""

    def __init__(self, inner: Executable) -> None:
        self._inner = inner
        self.seconds = 0.0
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self.report = inner.report
        self.allocate, self.bind, self.close = inner.allocate, inner.bind, inner.close

    def run(self, sizes: Mapping[str, int]) -> None:
        """See the seam."""
        begin = time.perf_counter()
        self._inner.run(sizes)
        self.seconds += time.perf_counter() - begin


class RunnerStepper:
    """The runner of a device process, here: binding, the framework's run, the new KV rows, the sampler. No messages."""

    def __init__(self, folder: Path, backend: str, *, context: int, slots: int) -> None:
        self.name = f"inlay {backend}"
        backend, _, precision = backend.partition(":")
        place = f"cpu:0/{backend}"
        option = f"{place}:{precision}" if precision else place
        wanted = api.deployment(folder, roles=[f"prefill,decode={option}"], context=context, slots=slots)
        lowered = ensure_lowered(wanted, progress=lambda text: None)[place]
        region = load_region(lowered.directory, weights=lowered.weights, backend=backend, threads=1, options={})
        self._executable = TimedExecutable(region.executable)
        self._capacities = sorted(wanted.capacities)
        self._runner = ExtendRunner(
            self._executable, region.stage, rooms=wanted.slots_by_capacity, buckets=region.manifest.buckets
        )
        self._stage = region.stage
        self._batch = self._past = self._number = 0
        self._fill(slots)

    def place(self, batch: int, past: int) -> None:
        """See Stepper. Every row of every bucket holds numbers already."""
        self._batch, self._past = batch, past

    def step(self) -> tuple[float, float]:
        """See Stepper."""
        self._executable.seconds = 0.0
        begin = time.perf_counter()
        greedy = Sampling(temperature=0.0)
        rows = tuple(
            Row(sequence=index + 1, slot=index, tokens=(TOKEN,), past_length=self._past, sample=greedy)
            for index in range(self._batch)
        )
        capacity, self._number = self.room(self._past), self._number + 1
        self._runner.submit(
            Submit(batch=self._number, phase="decode", capacity=capacity, first=0, count=self._batch, width=1, rows=rows)
        )
        outcome = None
        while outcome is None:
            outcome = self._runner.poll()
        seconds = time.perf_counter() - begin
        if not isinstance(outcome, BatchDone):
            raise RuntimeError(f"{self.name}: {outcome.message}")
        self._past += 1
        return seconds, self._executable.seconds

    def run(self, slots: Sequence[tuple[int, int]], *, width: int) -> None:
        """Add `width` tokens to each of these (slot, past length), slots in ascending order without a gap."""
        capacity, self._number = self.room(max(past for _, past in slots) + width - 1), self._number + 1
        rows = tuple(
            Row(sequence=slot + 1, slot=slot, tokens=(TOKEN,) * width, past_length=past, sample=Sampling(temperature=0.0))
            for slot, past in slots
        )
        first = slots[0][0]
        self._runner.submit(
            Submit(batch=self._number, phase="decode", capacity=capacity, first=first, count=len(rows), width=width, rows=rows)
        )
        outcome = self._runner.poll()
        if not isinstance(outcome, BatchDone):
            raise RuntimeError(f"{self.name}: {outcome}")

    def room(self, past: int) -> int:
        """See Stepper: the smallest bucket with room for one more token."""
        return next(item for item in self._capacities if item > past)

    def _fill(self, slots: int) -> None:
        """Random keys and values in every row: pages never written would all be one page of zeros, and too fast."""
        rng = np.random.default_rng(1)
        for capacity in self._capacities:
            pages = []
            for layer in self._stage.layers:
                keys = rng.standard_normal((capacity, layer.key_heads, layer.key_dim), np.float32) * SPREAD
                values = rng.standard_normal((capacity, layer.value_heads, layer.value_dim), np.float32) * SPREAD
                pages.append((keys, values))
            for slot in range(slots):
                self._runner.import_kv(SlotAddress(capacity, slot), 0, pages)


class HuggingFaceStepper:
    """`model(input_ids, past_key_values=DynamicCache)` and argmax; transformers' own choice of attention."""

    def __init__(self, folder: Path, *, context: int, slots: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(1)
        self.name = "Hugging Face"
        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        config = self._model.config
        shape = (slots, config.num_key_value_heads, context, config.head_dim)
        torch.manual_seed(1)
        self._pasts = [(torch.randn(shape) * SPREAD, torch.randn(shape) * SPREAD) for _ in range(config.num_hidden_layers)]
        self._cache: Any = None
        self._ids: Any = None

    def place(self, batch: int, past: int) -> None:
        """See Stepper: a new cache with the first `past` rows, copied."""
        from transformers import DynamicCache

        self._cache = DynamicCache(config=self._model.config)
        for index, (keys, values) in enumerate(self._pasts):
            self._cache.update(keys[:batch, :, :past], values[:batch, :, :past], index)
        self._ids = self._torch.full((batch, 1), TOKEN)

    def step(self) -> tuple[float, float]:
        """See Stepper."""
        begin = time.perf_counter()
        with self._torch.inference_mode():
            logits = self._model(input_ids=self._ids, past_key_values=self._cache, use_cache=True).logits
            tokens = logits[:, -1].argmax(-1).tolist()
        seconds = time.perf_counter() - begin
        self._ids = self._torch.tensor(tokens)[:, None]
        return seconds, 0.0

    def room(self, past: int) -> int:
        """See Stepper: nothing is padded."""
        return past + 1
