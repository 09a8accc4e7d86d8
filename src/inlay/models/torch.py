"""The torch door of models: any Hugging Face decoder as the stage program `extend`, without editing its code.

Attention runs in two parts (past, new) through transformers' own attention interface; masks are built inside from
the lengths. Called by `runtime.lower` in a compile process; never by a device process.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.utils import logging as transformers_logging

from inlay.errors import InlayError, ModelError, UnsupportedError
from inlay.models.stage import KvLayer, StageShape

ATTENTION = "inlay_two_part"
FULL, SLIDING = "full_attention", "sliding_attention"
STATIC_ROPES = ("default", "linear", "llama3", "yarn", "proportional")
SELF_CHECK_TOLERANCE = 1e-4
SELF_CHECK_TOKENS = 24

_running: list[_Past] = []  # the Past of the forward pass in progress: the attention interface has no other way in


class _Past(Cache):
    """A cache that keeps the past apart: `update` hands back only the new keys and values."""

    def __init__(self, past_k: list[Tensor], past_v: list[Tensor]) -> None:
        self.past_k, self.past_v = past_k, past_v
        self.new_k: list[Any] = [None] * len(past_k)
        self.new_v: list[Any] = [None] * len(past_v)
        self.layers: list[Any] = []
        self.layer_class_to_replicate, self.offloading = None, False

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.new_k[layer_idx], self.new_v[layer_idx] = key, value
        return key, value

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.past_k[0].shape[2]

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * len(self.past_k)

    @property
    def is_compileable(self) -> bool:
        return False


def _two_part_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """One softmax over scores against past and new keys; the query heads of a KV head share one matrix product.

    Products are `bmm` over [B * heads, ...]: `matmul` would be decomposed into an expand of the whole past, which
    OpenVINO carries out (a decode step at batch 8 and past 2,048 took 3 times as long).
    """
    past_k, past_v = _running[-1].past_k[module.layer_idx], _running[-1].past_v[module.layer_idx]
    batch, heads, width, dim = query.shape
    groups, past = key.shape[1], past_k.shape[2]
    shared = heads // groups
    scaled = (query * (dim**-0.5 if scaling is None else scaling)).reshape(batch * groups, shared * width, dim)
    old, new = past_k.flatten(0, 1).transpose(1, 2), key.flatten(0, 1).transpose(1, 2)
    scores = torch.cat([torch.bmm(scaled, old), torch.bmm(scaled, new)], -1)
    scores = scores.reshape(batch, groups, shared, width, -1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores + attention_mask.unsqueeze(2)
    if s_aux is None:
        weights = torch.softmax(scores, -1)
    else:  # a learned sink is one more column that takes weight and gives nothing
        sink = s_aux.reshape(1, groups, shared, 1, 1).expand(batch, -1, -1, width, -1)
        weights = torch.softmax(torch.cat([scores, sink], -1), -1)[..., :-1]
    weights = weights.reshape(batch * groups, shared * width, -1)
    mixed = torch.bmm(weights[..., :past], past_v.flatten(0, 1)) + torch.bmm(weights[..., past:], value.flatten(0, 1))
    return mixed.reshape(batch, heads, width, -1).transpose(1, 2).contiguous(), None


class Stage(nn.Module):
    """`extend(tokens[B,T], past_lengths[B], logit_rows[R], past_k, past_v) -> logits[R,V], new_k, new_v`, float32.

    `past_k` and `past_v` are lists of [B, heads, P, dim] by layer, read-only, valid up to `past_lengths[b]`. Weights
    keep their Hugging Face names behind the prefix `model.`. `shape` is the geometry seen from outside.
    """

    prefix = "model."
    sizes = ("B", "T", "P", "R")
    """Names of the sizes that must stay free."""

    def __init__(self, model: Any, *, shape: StageShape) -> None:
        super().__init__()
        self.model = model
        self.shape = shape
        self.model_type: str = model.config.model_type
        self._rows: Tensor | None = None
        head = model.get_output_embeddings()
        # Hooks on the head, not a wrapper around it: the weight keeps its name, and caps after the head still apply.
        head.register_forward_pre_hook(lambda _, given: (given[0].reshape(-1, given[0].shape[-1])[self._rows],))
        head.register_forward_hook(lambda _, __, logits: logits.unsqueeze(0))

    def forward(
        self, tokens: Tensor, past_lengths: Tensor, logit_rows: Tensor, past_k: list[Tensor], past_v: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        past = _Past(list(past_k), list(past_v))
        positions = past_lengths.unsqueeze(1) + torch.arange(tokens.shape[1])
        _running.append(past)
        try:
            with self.logits_of(logit_rows):
                logits = self.model(
                    input_ids=tokens,
                    position_ids=positions,
                    past_key_values=past,
                    attention_mask=self._masks(positions, past_lengths, past_k[0].shape[2]),
                    use_cache=True,
                ).logits
        finally:
            _running.pop()
        return logits[0], past.new_k, past.new_v

    @contextlib.contextmanager
    def logits_of(self, rows: Tensor) -> Iterator[None]:
        """The model gives the logits of these rows of its flattened tokens only, [1, R, V]."""
        self._rows = rows
        try:
            yield
        finally:
            self._rows = None

    def _masks(self, positions: Tensor, past_lengths: Tensor, capacity: int) -> Tensor | dict[str, Tensor]:
        """One additive mask [B, 1, T, P+T], or one per kind of attention where the model mixes them."""
        slots, width = torch.arange(capacity), torch.arange(positions.shape[1])
        batch, tokens = positions.shape
        old = (slots < past_lengths.unsqueeze(1)).unsqueeze(1).expand(batch, tokens, capacity)
        new = (width.unsqueeze(0) <= width.unsqueeze(1)).unsqueeze(0).expand(batch, tokens, tokens)
        full = torch.cat([old, new], -1)
        distance_old = positions.unsqueeze(-1) - slots
        distance_new = (width.unsqueeze(1) - width.unsqueeze(0)).unsqueeze(0).expand(batch, tokens, tokens)
        distance = torch.cat([distance_old, distance_new], -1)
        windows = sorted({layer.window for layer in self.shape.layers})
        masks = {window: _additive(full if window == 0 else full & (distance < window)) for window in windows}
        if len(_kinds(self.model.config)) > 1:
            sliding = max(windows)
            return {FULL: masks[0], SLIDING: masks[sliding]}
        return masks[windows[0]]

    def dynamic_shapes(self) -> dict[str, Any]:
        """For torch.export: batch, width, capacity and the number of logit rows are free."""
        free = torch.export.Dim.AUTO
        past = [{0: free, 2: free} for _ in self.shape.layers]
        ids, lengths, rows = {0: free, 1: free}, {0: free}, {0: free}
        return {"tokens": ids, "past_lengths": lengths, "logit_rows": rows, "past_k": past, "past_v": past}

    def example(self, *, batch: int = 3, width: int = 5, capacity: int = 11, rows: int = 7) -> tuple[Any, ...]:
        """Inputs of these sizes with plausible values, in the order of `forward`."""
        past_k = [torch.zeros(batch, item.key_heads, capacity, item.key_dim) for item in self.shape.layers]
        past_v = [torch.zeros(batch, item.value_heads, capacity, item.value_dim) for item in self.shape.layers]
        tokens = torch.arange(batch * width).reshape(batch, width) % self.shape.vocabulary
        lengths = torch.arange(batch) % (capacity + 1)
        return tokens, lengths, torch.arange(rows) % (batch * width), past_k, past_v


def _additive(visible: Tensor) -> Tensor:
    """0 where visible, else the most negative float32: garbage behind it gets a weight of exactly 0."""
    return torch.where(visible, 0.0, torch.finfo(torch.float32).min).unsqueeze(1)


def _kinds(config: Any) -> list[str]:
    """The kinds of attention that the model mixes, empty where its config does not tell them apart."""
    return sorted(set(getattr(config, "layer_types", None) or []))


def load_stage(folder: Path, *, experts: str = "batched_mm") -> Stage:
    """The stage program of the decoder in a Hugging Face folder, in float32, checked against the model's own forward.

    Only local files are read and no code of the folder runs. `experts` names transformers' implementation of expert
    layers; "batched_mm" is the one that lowers everywhere. Raises ModelError for a folder that cannot be read and
    UnsupportedError, with model type and reason, for a model that this program cannot express exactly.
    """
    config = _read_config(folder)
    _refuse_unsuited(config)
    config._experts_implementation = experts
    with _quiet():
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                attn_implementation="eager",
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"model {str(folder)!r} cannot be loaded by transformers: {_first_line(error)}") from error
    return stage_of(model)


def stage_of(model: Any) -> Stage:
    """The stage program of a transformers causal LM already in memory (float32, on the CPU); see `load_stage`."""
    _refuse_unsuited(model.config)
    model.requires_grad_(False).eval()
    kind = model.config.model_type
    with torch.no_grad(), _quiet():
        try:
            expected, cache = _plain_forward(model)
            layers = _learn_layers(model, cache)
            AttentionInterface.register(ATTENTION, _two_part_attention)
            AttentionMaskInterface.register(ATTENTION, sdpa_mask)
            model.set_attn_implementation(ATTENTION)
            stage = Stage(model, shape=StageShape(vocabulary=expected.shape[-1], layers=layers))
            error = _self_check(stage, expected)
        except InlayError:
            raise
        except Exception as failure:  # any way a foreign model's code can fail means the same: this program cannot hold it
            raise UnsupportedError(
                f"model type {kind!r} does not fit the stage program: {type(failure).__name__}: {_first_line(failure)}",
                hint="see the list of architectures in docs/models.md",
            ) from failure
    if not error <= SELF_CHECK_TOLERANCE:
        raise UnsupportedError(
            f"model type {kind!r} as a stage program differs from its own forward by {error:.2e} of the largest logit, "
            f"expected at most {SELF_CHECK_TOLERANCE:.0e}",
            hint="its attention (masks, positions or cache) is of a kind that the stage program does not express",
        )
    return stage


def _read_config(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {str(folder)!r} has no config.json", hint="expected a Hugging Face model folder")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UnsupportedError(f"model {str(folder)!r}: transformers cannot read its config: {_first_line(error)}") from error


def _refuse_unsuited(config: Any) -> None:
    """Refuse what is known to be inexact before any weight is read."""
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedError(f"model type {kind!r} is an encoder-decoder, expected a decoder")
    if getattr(config, "quantization_config", None) is not None:
        raise UnsupportedError(f"model type {kind!r} has quantised weights, expected float32, bfloat16 or float16")
    for rope in _rope_types(getattr(config, "rope_parameters", None)):
        if rope not in STATIC_ROPES:
            raise UnsupportedError(
                f"model type {kind!r} uses rope type {rope!r}, whose frequencies change with the longest sequence of a "
                "batch, so that a row would depend on its neighbours",
                hint=f"rope types that do not: {', '.join(STATIC_ROPES)}",
            )
    other = [name for name in _kinds(config) if name not in (FULL, SLIDING)]
    if other:
        raise UnsupportedError(f"model type {kind!r} has layers of kind {other[0]!r}, expected {FULL} or {SLIDING}")


def _rope_types(parameters: Any) -> list[str]:
    """The rope types of a config: one, one per kind of layer, or none."""
    if not isinstance(parameters, dict):
        return []
    if "rope_type" in parameters:
        return [str(parameters["rope_type"])]
    return [str(inner.get("rope_type", "default")) for inner in parameters.values() if isinstance(inner, dict)]


def probe_tokens(model: Any) -> Tensor:
    """A few token ids [1, T] that reach beyond the model's window, for checking a program against its forward."""
    window = getattr(model.config, "sliding_window", None) or 0
    limit = getattr(model.config, "max_position_embeddings", None) or SELF_CHECK_TOKENS
    count = min(max(8, window + 4), SELF_CHECK_TOKENS, limit)
    return (torch.arange(count) * 7 + 3).remainder(model.config.vocab_size).unsqueeze(0)


def _plain_forward(model: Any) -> tuple[Tensor, DynamicCache]:
    cache = DynamicCache()
    return model(input_ids=probe_tokens(model), past_key_values=cache, use_cache=True).logits[0], cache


def _learn_layers(model: Any, cache: DynamicCache) -> tuple[KvLayer, ...]:
    """KV geometry from a cache that was really filled: some configs do not know their number of KV heads."""
    config, found = model.config, []
    kinds = getattr(config, "layer_types", None)
    window = int(getattr(config, "sliding_window", None) or 0)
    if getattr(config, "use_sliding_window", True) is False:
        window = 0
    for index, layer in enumerate(cache.layers):
        if not isinstance(getattr(layer, "keys", None), Tensor) or layer.keys.ndim != 4:
            raise UnsupportedError(
                f"model type {config.model_type!r} keeps a state in layer {index} that is no keys and values"
            )
        sliding = kinds[index] == SLIDING if kinds else True
        keys, values = layer.keys.shape, layer.values.shape
        found.append(
            KvLayer(
                key_heads=keys[1], key_dim=keys[3], value_heads=values[1], value_dim=values[3], window=window if sliding else 0
            )
        )
    if len(found) != config.num_hidden_layers:
        raise UnsupportedError(
            f"model type {config.model_type!r} caches {len(found)} layers, expected {config.num_hidden_layers} "
            "(layers that share a cache or keep none are not expressed)"
        )
    return tuple(found)


def _self_check(stage: Stage, expected: Tensor) -> float:
    """Largest error relative to the largest logit of two calls (a chunk, then the rest) against one plain forward."""
    tokens = probe_tokens(stage.model)
    total, first = tokens.shape[1], tokens.shape[1] - 3
    _, _, _, past_k, past_v = stage.example(batch=1, capacity=total)
    logits = []
    for start, end in ((0, first), (first, total)):
        part, new_k, new_v = stage(tokens[:, start:end], torch.tensor([start]), torch.arange(end - start), past_k, past_v)
        logits.append(part)
        for pool, fresh in (*zip(past_k, new_k, strict=True), *zip(past_v, new_v, strict=True)):
            pool[:, :, start:end] = fresh
    difference = (torch.cat(logits) - expected).abs().max().item()
    return difference / max(expected.abs().max().item(), math.ulp(1.0))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No advice about generation and no progress bars from transformers; its errors still come as exceptions."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
