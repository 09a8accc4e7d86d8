"""What the stage program `extend` of one model looks like from outside: ports and KV geometry, no torch.

`extend(tokens[B,T], past_lengths[B], logit_rows[R], past_k[L][B,Hkv,P,D], past_v) -> logits[R,V], new_k[L][B,Hkv,T,D], new_v`
Ports are positions. Inputs: 0 tokens, 1 past_lengths, 2 logit_rows, 3..3+L-1 past_k, 3+L..3+2L-1 past_v.
Outputs continue the numbering: first logits, then new_k by layer, then new_v by layer.
"""

from __future__ import annotations

import msgspec


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output: its dtype and its shape, where a text entry is a symbol (B, T, P or R)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class KvLayer(msgspec.Struct, frozen=True, kw_only=True):
    """The cache of one layer: heads and dimension of keys and of values (they differ in MLA); window 0 = all."""

    key_heads: int
    key_dim: int
    value_heads: int
    value_dim: int
    window: int = 0


class StageShape(msgspec.Struct, frozen=True, kw_only=True):
    """Geometry of one `extend` program: the KV of the layers it owns and the width of its logits."""

    vocabulary: int
    layers: tuple[KvLayer, ...]

    @property
    def tokens(self) -> int:
        """Input port of the token ids, int64 [B, T]."""
        return 0

    @property
    def past_lengths(self) -> int:
        """Input port of the number of valid past rows, int64 [B]."""
        return 1

    @property
    def logit_rows(self) -> int:
        """Input port of the rows of the flattened [B*T] whose logits are wanted, int64 [R]."""
        return 2

    def past_key(self, layer: int) -> int:
        """Input port of the keys of the past of `layer`, [B, Hkv, P, D], read-only."""
        return 3 + layer

    def past_value(self, layer: int) -> int:
        """Input port of the values of the past of `layer`."""
        return 3 + len(self.layers) + layer

    @property
    def inputs(self) -> int:
        """How many input ports there are; outputs are numbered from here."""
        return 3 + 2 * len(self.layers)

    @property
    def logits(self) -> int:
        """Output port of the logits, float32 [R, V]."""
        return self.inputs

    def new_key(self, layer: int) -> int:
        """Output port of the new keys of `layer`, [B, Hkv, T, D]."""
        return self.inputs + 1 + layer

    def new_value(self, layer: int) -> int:
        """Output port of the new values of `layer`."""
        return self.inputs + 1 + len(self.layers) + layer

    def kv_elements_per_token(self) -> int:
        """Numbers that one token keeps in the cache over all layers, keys and values."""
        return sum(item.key_heads * item.key_dim + item.value_heads * item.value_dim for item in self.layers)
