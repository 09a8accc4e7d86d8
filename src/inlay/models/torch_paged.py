"""A torch door of models: the stage program `paged` of any Hugging Face decoder, its attention one opaque operator.

The operator `inlay::paged_attention` is what a framework with paged attention of its own is given to put it in place of;
here it is eager torch, slow and plain, and so the truth that such a framework is held to. Called by `runtime.lower`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache
from transformers.masking_utils import AttentionMaskInterface

from inlay.errors import InlayError, UnsupportedError
from inlay.models.paged import PagedShape
from inlay.models.torch import SELF_CHECK_TOLERANCE, Stage, probe_tokens

ATTENTION = "inlay_paged"
OPERATOR = (
    "paged_attention(Tensor query, Tensor key, Tensor value, Tensor key_pages, Tensor value_pages, Tensor past_lengths, "
    "Tensor row_begins, Tensor pages, Tensor page_begins, Tensor longest, float scale, int window) -> Tensor"
)
CHECKED_PAGE = 4

_running: list[_Pools] = []  # the pools of the forward pass in progress: the attention interface has no other way in


class _Pools(Cache):
    """A cache that keeps nothing: keys and values go to the operator as they come, and it writes them into the pool."""

    def __init__(self, indices: tuple[Tensor, ...], keys: list[Tensor], values: list[Tensor], shape: PagedShape) -> None:
        self.indices, self.keys, self.values, self.shape = indices, keys, values, shape
        self.layers: list[Any] = []
        self.layer_class_to_replicate, self.offloading = None, False

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return key, value

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * len(self.keys)

    @property
    def is_compileable(self) -> bool:
        return False


@cache
def _operator() -> Any:
    """The library that holds the operator, which must be kept.

    It changes its pools and does not say so: said, export would make a copy of each pool out of it.
    """
    library = torch.library.Library("inlay", "FRAGMENT")
    library.define(OPERATOR)
    library.impl("paged_attention", _attend, "CPU")
    library.impl("paged_attention", _shape_of_result, "Meta")
    return library


def _shape_of_result(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
    return query.new_empty(query.shape[0], query.shape[1] * value.shape[1] // key.shape[1])


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_pages: Tensor,
    value_pages: Tensor,
    past_lengths: Tensor,
    row_begins: Tensor,
    pages: Tensor,
    page_begins: Tensor,
    longest: Tensor,
    scale: float,
    window: int,
) -> Tensor:
    """Row by row: write the new keys and values where the row's pages say, attend over all of them up to each token.

    Queries, keys and values are [N, heads * dim]; the result is [N, query heads * value dim].
    """
    result = _shape_of_result(query, key, value)
    heads, page, dim = key_pages.shape[1:]
    for row, past in enumerate(past_lengths.tolist()):
        begin, end = row_begins[row : row + 2].tolist()
        table = pages[slice(*page_begins[row : row + 2].tolist())].long()
        positions, total = torch.arange(past, past + end - begin), past + end - begin
        key_pages[table[positions // page], :, positions % page] = key[begin:end].unflatten(1, (heads, -1))
        value_pages[table[positions // page], :, positions % page] = value[begin:end].unflatten(1, (heads, -1))
        keys, values = (
            pool[table].transpose(1, 2).reshape(-1, heads, pool.shape[3])[:total].transpose(0, 1)
            for pool in (key_pages, value_pages)
        )
        asked = query[begin:end].reshape(end - begin, heads, -1, dim).permute(1, 2, 0, 3)  # [heads, shared, T, dim]
        distance = positions.unsqueeze(1) - torch.arange(total)
        hidden = (distance < 0) | (distance >= window if window else distance < 0)
        scores = (asked @ keys.unsqueeze(1).transpose(2, 3) * scale).masked_fill(hidden, -torch.inf)
        mixed = torch.softmax(scores, -1) @ values.unsqueeze(1)
        result[begin:end] = mixed.permute(2, 0, 1, 3).flatten(1)
    return result


def _paged_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Every token is a batch entry of its own, so that [N, heads, 1, dim] becomes [N, heads * dim] without a move."""
    pools = _running[-1]
    layer = pools.shape.stage.layers[module.layer_idx]
    beyond = {"caps its attention scores": softcap is not None, "has attention sinks": s_aux is not None}
    given = (key.shape[1], key.shape[3], value.shape[1], value.shape[3])
    beyond["attends to other keys and values than it caches"] = given != (
        layer.key_heads, layer.key_dim, layer.value_heads, layer.value_dim,
    )  # fmt: skip
    for what, so in beyond.items():
        if so:
            raise UnsupportedError(f"layer {module.layer_idx} {what}, which paged attention does not", hint="use runner extend")
    found = torch.ops.inlay.paged_attention(
        *(item.flatten(1) for item in (query, key, value)),
        pools.keys[module.layer_idx],
        pools.values[module.layer_idx],
        *pools.indices,
        query.shape[3] ** -0.5 if scaling is None else float(scaling),
        layer.window,
    )
    return found.reshape(-1, 1, query.shape[1], value.shape[3]), None


class PagedStage(nn.Module):
    """`paged` (see `inlay.models.paged`) over the weights of a Stage, under the same names."""

    prefix = "model."
    sizes = ("N", "R", "B", "G", "K")
    """Names of the sizes that must stay free."""

    def __init__(self, stage: Stage, *, page: int) -> None:
        super().__init__()
        self.model = stage.model
        self.model_type = stage.model_type
        self.shape = PagedShape(stage=stage.shape, page=page)
        self._rows_of = stage.logits_of  # the hooks on the model's head are the Stage's

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        logit_rows: Tensor,
        past_lengths: Tensor,
        row_begins: Tensor,
        pages: Tensor,
        page_begins: Tensor,
        longest: Tensor,
        key_pages: list[Tensor],
        value_pages: list[Tensor],
    ) -> Tensor:
        pools = _Pools((past_lengths, row_begins, pages, page_begins, longest), key_pages, value_pages, self.shape)
        _running.append(pools)
        try:
            with self._rows_of(logit_rows):
                logits: Tensor = self.model(
                    input_ids=tokens.unsqueeze(1), position_ids=positions.unsqueeze(1), past_key_values=pools, use_cache=True
                ).logits
        finally:
            _running.pop()
        return logits[0]

    def dynamic_shapes(self) -> dict[str, Any]:
        """For torch.export: every first axis is free."""
        free = {0: torch.export.Dim.AUTO}
        pool = [free] * self.shape.depth
        names = ("tokens", "positions", "logit_rows", "past_lengths", "row_begins", "pages", "page_begins")
        return {**dict.fromkeys(names, free), "longest": None, "key_pages": pool, "value_pages": pool}

    def example(self) -> tuple[Any, ...]:
        """Three rows of 1, 2 and 4 tokens over six pages of a pool of eight, in the order of `forward`."""
        tokens = torch.arange(7) % self.shape.stage.vocabulary
        indices = [torch.tensor(item, dtype=torch.int32) for item in ((0, 1, 2), (0, 1, 3, 7), range(6), (0, 2, 4, 6), 6)]
        return tokens, torch.arange(7), torch.tensor([0, 2, 4, 5, 6]), *indices, *self.pools(pages=8, page=self.shape.page)

    def pools(self, *, pages: int, page: int) -> tuple[list[Tensor], list[Tensor]]:
        """Empty pools of so many pages of so many tokens."""
        layers = self.shape.stage.layers
        keys = [torch.zeros(pages, item.key_heads, page, item.key_dim) for item in layers]
        return keys, [torch.zeros(pages, item.value_heads, page, item.value_dim) for item in layers]


def paged_of(stage: Stage, *, page: int) -> PagedStage:
    """The paged program of a stage's model, checked against the stage itself. The stage can not be run afterwards.

    Raises UnsupportedError, with the model type and the reason, for a model that paged attention cannot express exactly.
    """
    kind, tokens = stage.model_type, probe_tokens(stage.model)[0]
    with torch.no_grad():
        try:
            expected = _plain(stage, tokens)
            _operator()
            AttentionInterface.register(ATTENTION, _paged_attention)
            AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)
            stage.model.set_attn_implementation(ATTENTION)
            paged = PagedStage(stage, page=page)
            error = (_twice(paged, tokens) - expected).abs().max().item() / max(expected.abs().max().item(), math.ulp(1.0))
        except InlayError as failure:
            raise UnsupportedError(f"model type {kind!r} has no paged program: {failure.message}", hint=failure.hint) from None
        except Exception as failure:  # any way a foreign model's code can fail means the same: this program cannot hold it
            text = str(failure).strip().splitlines() or [""]
            raise UnsupportedError(
                f"model type {kind!r} has no paged program: {type(failure).__name__}: {text[0]}", hint="use runner extend"
            ) from failure
    if not error <= SELF_CHECK_TOLERANCE:
        raise UnsupportedError(
            f"model type {kind!r} as a paged program differs from its stage program by {error:.2e} of the largest logit, "
            f"expected at most {SELF_CHECK_TOLERANCE:.0e}",
            hint="use runner extend",
        )
    return paged


def _plain(stage: Stage, tokens: Tensor) -> Tensor:
    _, _, _, past_k, past_v = stage.example(batch=1, capacity=1)
    count = tokens.shape[0]
    return stage(tokens.unsqueeze(0), torch.zeros(1, dtype=torch.int64), torch.arange(count), past_k, past_v)[0]


def _twice(paged: PagedStage, tokens: Tensor) -> Tensor:
    """All logits of the tokens in two calls, each with the same sequence in two rows over other pages; of the second row."""
    total = tokens.shape[0]
    first, needed = total - 3, -(-total // CHECKED_PAGE)
    pools = paged.pools(pages=2 * needed, page=CHECKED_PAGE)
    tables = [list(range(0, 2 * needed, 2)), list(range(2 * needed - 1, 0, -2))]
    found = []
    for start, end in ((0, first), (first, total)):
        count, held = end - start, -(-end // CHECKED_PAGE)
        indices = ((start, start), (0, count, 2 * count), [*tables[0][:held], *tables[1][:held]], (0, held, 2 * held), end)
        logits = paged(
            tokens[start:end].repeat(2),
            torch.arange(start, end).repeat(2),
            torch.arange(2 * count),
            *(torch.tensor(item, dtype=torch.int32) for item in indices),
            *pools,
        )
        found.append(logits[count:])
    return torch.cat(found)
