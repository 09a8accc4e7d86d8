"""Closed forms: parameters, weight bytes, KV bytes, and what one pass reads, writes and computes.

Prefill is a pass of many new tokens, decode of one, verify of the draft's length and one more. FLOPs count a multiply-add as
two; bytes are of whole model: sharing them among chips is the matter of `cost`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from inlay.models.facts.architecture import (
    AnyAttention,
    Attention,
    Experts,
    FeedForward,
    Formats,
    LatentAttention,
    LinearAttention,
    ModelFacts,
)

STATE_BYTES = 4  # the state of linear attention is kept in float32


@dataclass(frozen=True)
class PassCount:
    """One pass over a batch. `*_weights` and `kv_*` are bytes, `*_flops` operations, by the part of the model they belong to;
    `collectives` counts the sums across chips that tensor parallelism needs, `tokens` the rows of each."""

    attention_weights: float
    dense_weights: float
    expert_weights: float
    head_weights: float
    kv_read: float
    kv_written: float
    projection_flops: float
    dense_flops: float
    expert_flops: float
    head_flops: float
    score_flops: float
    collectives: int
    tokens: int

    @property
    def bytes(self) -> float:
        """All that goes through memory, activations left out."""
        weights = self.attention_weights + self.dense_weights + self.expert_weights + self.head_weights
        return weights + self.kv_read + self.kv_written

    @property
    def flops(self) -> float:
        """All arithmetic."""
        products = self.projection_flops + self.dense_flops + self.expert_flops + self.head_flops
        return products + self.score_flops


def attention_parameters(attention: AnyAttention, hidden: int) -> int:
    """The projections of one layer."""
    if isinstance(attention, Attention):
        queries = attention.heads * attention.head_dim
        return hidden * (queries * (3 if attention.gated else 2) + 2 * attention.kv_heads * attention.head_dim)
    if isinstance(attention, LatentAttention):
        query = attention.heads * (attention.plain_dim + attention.rope_dim)
        queries = attention.query_rank * (hidden + query) if attention.query_rank else hidden * query
        keys = hidden * (attention.kv_rank + attention.rope_dim)
        values = attention.kv_rank * attention.heads * (attention.plain_dim + attention.value_dim)
        return queries + keys + values + attention.heads * attention.value_dim * hidden
    values = attention.value_heads * attention.value_dim
    mixed = 2 * attention.key_heads * attention.key_dim + values
    return hidden * (mixed + 2 * values + 2 * attention.value_heads) + mixed * attention.kernel


def dense_parameters(block: FeedForward | Experts, hidden: int) -> int:
    """What every token passes: a dense block, or the shared expert and the router of a mixture."""
    matrices = 3 if block.gated else 2
    if isinstance(block, FeedForward):
        return matrices * hidden * block.width
    return matrices * hidden * block.shared_width + hidden * block.count


def expert_parameters(block: FeedForward | Experts, hidden: int) -> int:
    """One expert."""
    return (3 if block.gated else 2) * hidden * block.width if isinstance(block, Experts) else 0


def parameters(facts: ModelFacts) -> int:
    """All of them but norms and biases, embeddings once where they are tied."""
    total = facts.vocabulary * facts.hidden * (1 if facts.tied else 2)
    for group in facts.groups:
        experts = group.feed_forward.count if isinstance(group.feed_forward, Experts) else 0
        layer = attention_parameters(group.attention, facts.hidden) + dense_parameters(group.feed_forward, facts.hidden)
        total += group.count * (layer + experts * expert_parameters(group.feed_forward, facts.hidden))
    return total


def active_parameters(facts: ModelFacts) -> int:
    """Those one token is multiplied with: of the embeddings the output only."""
    total = facts.vocabulary * facts.hidden
    for group in facts.groups:
        chosen = group.feed_forward.chosen if isinstance(group.feed_forward, Experts) else 0
        layer = attention_parameters(group.attention, facts.hidden) + dense_parameters(group.feed_forward, facts.hidden)
        total += group.count * (layer + chosen * expert_parameters(group.feed_forward, facts.hidden))
    return total


def weight_bytes(facts: ModelFacts, formats: Formats) -> float:
    """What the weights take in memory."""
    total = facts.vocabulary * facts.hidden * (1 if facts.tied else 2) * formats.head
    for group in facts.groups:
        experts = group.feed_forward.count if isinstance(group.feed_forward, Experts) else 0
        layer = attention_parameters(group.attention, facts.hidden) * formats.attention
        layer += dense_parameters(group.feed_forward, facts.hidden) * formats.feed_forward
        total += group.count * (layer + experts * expert_parameters(group.feed_forward, facts.hidden) * formats.experts)
    return total


def kv_row_bytes(attention: AnyAttention, formats: Formats) -> float:
    """What one token leaves in one layer; nothing where the state does not grow."""
    if isinstance(attention, Attention):
        return 2 * attention.kv_heads * attention.head_dim * formats.kv
    if isinstance(attention, LatentAttention):
        return (attention.kv_rank + attention.rope_dim) * formats.kv
    return 0.0


def state_bytes(attention: AnyAttention, formats: Formats) -> float:
    """The state of fixed size of one sequence in one layer of linear attention."""
    if not isinstance(attention, LinearAttention):
        return 0.0
    mixed = 2 * attention.key_heads * attention.key_dim + attention.value_heads * attention.value_dim
    return STATE_BYTES * attention.value_heads * attention.key_dim * attention.value_dim + mixed * (attention.kernel - 1) * 2


def seen(attention: AnyAttention, context: int) -> int:
    """How many rows of KV a token reads that has `context` of them behind it."""
    window = attention.window if isinstance(attention, Attention) else None
    return context if window is None else min(context, window)


def kv_bytes(facts: ModelFacts, formats: Formats, context: int) -> float:
    """KV and state of one sequence of `context` tokens; layers with a window keep no more than that."""
    return sum(
        group.count
        * (seen(group.attention, context) * kv_row_bytes(group.attention, formats) + state_bytes(group.attention, formats))
        for group in facts.groups
    )


def kv_bytes_per_token(facts: ModelFacts, formats: Formats, *, growing: bool = False) -> float:
    """KV of one more token; with `growing` only of layers without a window, which is how memory grows in a long context."""
    kinds = [(group.count, group.attention) for group in facts.groups]
    counted = [
        count * kv_row_bytes(kind, formats)
        for count, kind in kinds
        if not (growing and isinstance(kind, Attention) and kind.window is not None)
    ]
    return sum(counted)


def experts_hit(block: Experts, tokens: float) -> float:
    """How many experts of a layer `tokens` tokens choose, taken to choose apart from each other: E(1 - (1 - k/E)^T)."""
    return block.count * (1.0 - math.pow(1.0 - block.chosen / block.count, tokens))


def pairs(attention: AnyAttention, new: int, context: int) -> float:
    """Query and key pairs of `new` tokens after `context` others: each sees those behind it, up to a window, and itself."""
    window = attention.window if isinstance(attention, Attention) else None
    if window is None or context + new <= window:
        return new * context + new * (new + 1) / 2
    growing = max(0, min(new, window - context))
    return growing * context + growing * (growing + 1) / 2 + (new - growing) * float(window)


def score_flops(attention: AnyAttention, *, new: int, context: int, computed: float | None = None) -> float:
    """Attention itself for one sequence in one layer; `computed` are the pairs, where code computes masked ones too.

    Latent attention has two ways, over compressed rows or over rows made wide again: the lesser counts.
    """
    count = pairs(attention, new, context) if computed is None else computed
    if isinstance(attention, Attention):
        return 4.0 * attention.heads * attention.head_dim * count
    if isinstance(attention, LatentAttention):
        absorbed = 2.0 * attention.heads * (2 * attention.kv_rank + attention.rope_dim) * count
        head = attention.plain_dim + attention.value_dim
        wide = 2.0 * attention.heads * (head + attention.rope_dim) * count
        return min(absorbed, wide + 2.0 * attention.kv_rank * attention.heads * head * context)
    return 6.0 * attention.value_heads * attention.key_dim * attention.value_dim * new


def one_pass(
    facts: ModelFacts, formats: Formats, *, batch: float, new: int, context: int, logit_rows: float | None = None
) -> PassCount:
    """A pass of `batch` sequences with `new` tokens each after `context` others. Logits are made for every token unless
    `logit_rows` says for how many. Experts are those that so many tokens hit."""
    tokens, hidden = batch * new, facts.hidden
    rows = tokens if logit_rows is None else logit_rows
    head = facts.vocabulary * hidden
    found = PassCount(
        attention_weights=0.0, dense_weights=0.0, expert_weights=0.0, head_weights=head * formats.head if rows else 0.0,
        kv_read=0.0, kv_written=0.0, projection_flops=0.0, dense_flops=0.0, expert_flops=0.0, head_flops=2.0 * head * rows,
        score_flops=0.0, collectives=2 * facts.layers, tokens=round(tokens),
    )  # fmt: skip
    for group in facts.groups:
        kind, block, count = group.attention, group.feed_forward, group.count
        projections, dense = attention_parameters(kind, hidden), dense_parameters(block, hidden)
        expert = expert_parameters(block, hidden)
        hit = experts_hit(block, tokens) if isinstance(block, Experts) else 0.0
        chosen = block.chosen if isinstance(block, Experts) else 0
        row, state = kv_row_bytes(kind, formats), state_bytes(kind, formats)
        found = replace(
            found,
            attention_weights=found.attention_weights + count * projections * formats.attention,
            dense_weights=found.dense_weights + count * dense * formats.feed_forward,
            expert_weights=found.expert_weights + count * hit * expert * formats.experts,
            kv_read=found.kv_read + count * batch * (seen(kind, context) * row + state),
            kv_written=found.kv_written + count * batch * (new * row + state),
            projection_flops=found.projection_flops + count * 2.0 * projections * tokens,
            dense_flops=found.dense_flops + count * 2.0 * dense * tokens,
            expert_flops=found.expert_flops + count * 2.0 * expert * chosen * tokens,
            score_flops=found.score_flops + count * batch * score_flops(kind, new=new, context=context),
        )
    return found
