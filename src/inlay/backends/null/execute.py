"""An executable that takes time and computes nothing. Its logits are a fixed function of token and position."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from inlay.backends.buffer import HostBuffer
from inlay.backends.null.support import NAME
from inlay.backends.ports import check_buffer, check_dynamic, check_shape, check_sizes
from inlay.backends.seam import Array, Buffer
from inlay.errors import DeviceError, InputError
from inlay.specs.artifact import ArtifactManifest, WeightMap
from inlay.specs.stage import StageShape

OPTIONS = ("seconds_per_run", "seconds_per_token", "seconds_per_past_token")
CERTAIN = 10.0


class NullExecutable:
    """Asynchronous: a run is done when the time it is said to take has passed; `run` sleeps until then.

    The seconds of a run are seconds_per_run, and for a stage seconds_per_token * B * T + seconds_per_past_token * (sum of
    past lengths) more. Outputs are zeros, but for the logits of a stage.
    """

    def __init__(self, *, manifest: ArtifactManifest, seconds: Mapping[str, float]) -> None:
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self._ranges = manifest.ranges
        self.report = {"precision": manifest.precision.compute}
        self._stage = manifest.stage
        self._ports = (*self.inputs, *self.outputs)
        self._bound: list[HostBuffer | None] = [None] * len(self._ports)
        self._seconds = seconds
        self._ends = 0.0

    def allocate(self, port: int, shape: tuple[int, ...]) -> HostBuffer:
        check_shape(self._ports[port], shape)
        return HostBuffer.zeros(shape, self._ports[port].dtype)

    def bind(self, port: int, buffer: Buffer) -> None:
        if not isinstance(buffer, HostBuffer):
            raise DeviceError(f"{NAME} cannot bind a {type(buffer).__name__}, expected a buffer of its own")
        check_buffer(self._ports[port], buffer)
        self._bound[port] = buffer

    def start(self, sizes: Mapping[str, int]) -> None:
        begun = time.monotonic()
        check_dynamic(sizes, self._ranges)
        check_sizes(self._ports, self._bound, sizes)
        arrays = [buffer.array for buffer in self._bound if buffer is not None]
        for array in arrays[len(self.inputs) :]:
            array[...] = 0
        entries, past = 1, 0
        if self._stage is not None:
            entries, past = arrays[0].shape[0] * arrays[0].shape[1], int(arrays[self._stage.past_lengths].sum())
            _answer(self._stage, arrays)
        cost = self._seconds
        spent = cost["seconds_per_run"] + cost["seconds_per_token"] * entries + cost["seconds_per_past_token"] * past
        self._ends = begun + spent

    def done(self) -> bool:
        return time.monotonic() >= self._ends

    def run(self, sizes: Mapping[str, int]) -> None:
        self.start(sizes)
        time.sleep(max(0.0, self._ends - time.monotonic()))

    def close(self) -> None:
        self._bound = [None] * len(self._ports)


def _answer(stage: StageShape, arrays: list[Array]) -> None:
    """Logits that make one token certain. Between pieces the hidden state carries the token ids in its first number."""
    entry, lengths = arrays[stage.entry], arrays[stage.past_lengths]
    tokens = entry if stage.begins else entry[..., 0].astype(np.int64)
    result = arrays[stage.result]
    if not stage.ends:
        result[..., 0] = tokens
        return
    rows = arrays[stage.logit_rows]
    answers = next_tokens(tokens, lengths, stage.vocabulary).reshape(-1)[rows]
    result[np.arange(len(rows)), answers] = CERTAIN


def next_tokens(
    tokens: np.ndarray[tuple[int, int], np.dtype[np.int64]],
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]],
    vocabulary: int,
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """The token that the null model finds certain after each token [B, T]: a function of it and its position alone."""
    positions = lengths[:, None] + np.arange(tokens.shape[1])
    following: np.ndarray[tuple[int, int], np.dtype[np.int64]] = (tokens * 7 + positions * 11 + 3) % vocabulary
    return following


def load(
    directory: Path, *, manifest: ArtifactManifest, weights: WeightMap, threads: int, options: Mapping[str, str]
) -> NullExecutable:
    """Nothing to read; see the seam. The options are seconds, 0 by default."""
    seconds = dict.fromkeys(OPTIONS, 0.0)
    for key, text in options.items():
        if key not in OPTIONS:
            raise InputError(f"{NAME} has no option {key!r}, expected one of: {', '.join(OPTIONS)}")
        try:
            seconds[key] = float(text)
        except ValueError as error:
            raise InputError(f"{NAME} option {key} = {text!r}, expected seconds") from error
    return NullExecutable(manifest=manifest, seconds=seconds)
