"""What the stage program `paged` of one model looks like from outside: ports over KV pages, no torch.

`paged(tokens[N], positions[N], logit_rows[R], past_lengths[B], row_begins[B+1], pages[G], page_begins[B+1], longest[],
key_pages[L][K,Hkv,page,D], value_pages) -> logits[R,V]`

A batch is ragged: the N tokens of B rows lie one after another, row b from `row_begins[b]` to `row_begins[b + 1]`, each a
prompt chunk, a decode or a verify. Its keys and values, old and new, lie in the pages from `pages[page_begins[b]]` to before
`pages[page_begins[b + 1]]`, in order; the program writes the new ones there. So the pool is no pure input: it changes in
place, and rows that share a page must not write it. All whole numbers but tokens, positions and logit_rows are int32. Ports
are positions, as in `extend`.
"""

from __future__ import annotations

import msgspec

from inlay.models.stage import Port, StageShape

INDICES = ("past_lengths", "row_begins", "pages", "page_begins")
POOL = 8
"""The first input port of the pool."""


class PagedShape(msgspec.Struct, frozen=True, kw_only=True):
    """Ports of `paged` for a whole model with this geometry; `page` is how many tokens lie in one page."""

    stage: StageShape
    page: int

    tokens = 0
    positions = 1
    logit_rows = 2
    past_lengths = 3
    row_begins = 4
    pages = 5
    page_begins = 6
    longest = 7

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return len(self.stage.layers)

    def key_pages(self, layer: int) -> int:
        """Input port of the pool of keys of a layer, float32 [K, Hkv, page, D]."""
        return POOL + layer

    def value_pages(self, layer: int) -> int:
        """Input port of the pool of values of a layer."""
        return POOL + self.depth + layer

    @property
    def result(self) -> int:
        """Output port of the logits, float32 [R, V]."""
        return POOL + 2 * self.depth

    def ports(self) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
        """All inputs and all outputs, in the order of their numbers."""
        shapes = {"past_lengths": ("B",), "row_begins": ("B + 1",), "pages": ("G",), "page_begins": ("B + 1",)}
        inputs = [
            Port(name="tokens", dtype="int64", shape=("N",)),
            Port(name="positions", dtype="int64", shape=("N",)),
            Port(name="logit_rows", dtype="int64", shape=("R",)),
            *(Port(name=name, dtype="int32", shape=shapes[name]) for name in INDICES),
            Port(name="longest", dtype="int32", shape=()),
        ]
        for name in ("key", "value"):
            for index, item in enumerate(self.stage.layers):
                heads, dim = (item.key_heads, item.key_dim) if name == "key" else (item.value_heads, item.value_dim)
                inputs.append(Port(name=f"{name}_pages.{index}", dtype="float32", shape=("K", heads, self.page, dim)))
        return tuple(inputs), (Port(name="logits", dtype="float32", shape=("R", self.stage.vocabulary)),)
