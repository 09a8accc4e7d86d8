"""What the stage program `extend` of one model looks like from outside: ports and KV geometry, no torch.

`extend(tokens[B,T], past_lengths[B], logit_rows[R], past_k[L][B,Hkv,P,D], past_v) -> logits[R,V], new_k[L][B,Hkv,T,D], new_v`
Ports are positions. Inputs: 0 tokens, 1 past_lengths, 2 logit_rows, then past_k by layer, then past_v by layer.
Outputs continue the numbering: first logits, then new_k by layer, then new_v by layer. A piece of it that owns a run of
layers has the same ports for these, and a hidden state where it does not begin or end the model.
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
    """Geometry of one `extend` program, or of the piece of it that owns some of its layers.

    `layers` is the KV of the layers it owns, of which `first` is the number of the first in the whole model, `depth`
    layers deep (0 = these are all). A piece that does not begin the model takes `hidden` [B, T, d] in place of the token
    ids; one that does not end it gives `hidden` [B, T, d] in place of logits and takes no logit_rows.
    """

    vocabulary: int
    layers: tuple[KvLayer, ...]
    first: int = 0
    depth: int = 0
    hidden: int = 0

    @property
    def begins(self) -> bool:
        """Whether it takes token ids."""
        return self.first == 0

    @property
    def ends(self) -> bool:
        """Whether it gives logits."""
        return self.depth in (0, self.first + len(self.layers))

    @property
    def entry(self) -> int:
        """Input port of the token ids, int64 [B, T], or of the hidden state of the piece before, float32 [B, T, d]."""
        return 0

    @property
    def past_lengths(self) -> int:
        """Input port of the number of valid past rows, int64 [B]."""
        return 1

    @property
    def logit_rows(self) -> int:
        """Input port of the rows of the flattened [B*T] whose logits are wanted, int64 [R]; only where it `ends`."""
        return 2

    @property
    def pasts(self) -> int:
        """The first input port of the past."""
        return 3 if self.ends else 2

    def past_key(self, layer: int) -> int:
        """Input port of the keys of the past of its `layer`, counted from 0, [B, Hkv, P, D], read-only."""
        return self.pasts + layer

    def past_value(self, layer: int) -> int:
        """Input port of the values of the past of its `layer`."""
        return self.pasts + len(self.layers) + layer

    @property
    def inputs(self) -> int:
        """How many input ports there are; outputs are numbered from here."""
        return self.pasts + 2 * len(self.layers)

    @property
    def result(self) -> int:
        """Output port of the logits, float32 [R, V], or of the hidden state for the next piece, float32 [B, T, d]."""
        return self.inputs

    def new_key(self, layer: int) -> int:
        """Output port of the new keys of its `layer`, [B, Hkv, T, D]."""
        return self.inputs + 1 + layer

    def new_value(self, layer: int) -> int:
        """Output port of the new values of its `layer`."""
        return self.inputs + 1 + len(self.layers) + layer

    def kv_elements_per_token(self) -> int:
        """Numbers that one token keeps in the cache over its layers, keys and values."""
        return sum(item.key_heads * item.key_dim + item.value_heads * item.value_dim for item in self.layers)

    def piece(self, first: int, end: int, *, hidden: int) -> StageShape:
        """The piece that owns layers `first` to `end`, not included, of this whole stage."""
        depth = len(self.layers)
        return StageShape(vocabulary=self.vocabulary, layers=self.layers[first:end], first=first, depth=depth, hidden=hidden)

    def ports(self) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
        """All inputs and all outputs, in the order of their numbers."""
        entry = Port(name="tokens", dtype="int64", shape=("B", "T"))
        hidden = Port(name="hidden", dtype="float32", shape=("B", "T", self.hidden))
        logits = Port(name="logits", dtype="float32", shape=("R", self.vocabulary))
        inputs = [entry if self.begins else hidden, Port(name="past_lengths", dtype="int64", shape=("B",))]
        if self.ends:
            inputs.append(Port(name="logit_rows", dtype="int64", shape=("R",)))
        outputs = [logits if self.ends else hidden]
        for name in ("k", "v"):
            for index, item in enumerate(self.layers):
                heads, dim = (item.key_heads, item.key_dim) if name == "k" else (item.value_heads, item.value_dim)
                number = self.first + index
                inputs.append(Port(name=f"past_{name}.{number}", dtype="float32", shape=("B", heads, "P", dim)))
                outputs.append(Port(name=f"new_{name}.{number}", dtype="float32", shape=("B", heads, "T", dim)))
        return tuple(inputs), tuple(outputs)
