"""What a run of blocks needs in the memory of its device: weights, state, and the most that is live while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inlay.cost.chain import Chain

# Operators that give another view of the same bytes: they hold their source, and take no room of their own.
VIEWS = (
    "view", "reshape", "_unsafe_view", "permute", "transpose", "t", "expand", "slice", "select", "squeeze", "unsqueeze",
    "alias", "detach", "split", "split_with_sizes", "unbind", "as_strided", "getitem",
)  # fmt: skip


def region_memory(chain: Chain, first: int, end: int, *, measured: int = 0) -> int:
    """Bytes of a run of blocks at the largest point: weights + state + the greater of what is live and what was measured.

    `measured` is what loading and running it added beside mapped weights: packed copies, workspace, buffers.
    """
    if (first, end) not in chain.most_live:
        chain.most_live[first, end] = max((live_bytes(chain, first, end, point) for point in chain.points), default=0)
    live = chain.most_live[first, end]
    return chain.weight_bytes(first, end) + state_bytes(chain, first, end) + max(live, measured)


def state_bytes(chain: Chain, first: int, end: int) -> int:
    """States read or written in a run of blocks, both copies (before and after a run), at the largest point."""
    names = {name for block in chain.blocks[first:end] for name in (*block.inputs, *block.outputs)}
    held = [state for state in chain.program.states if {state.input, state.output} & names]
    sizes = (sum(2 * chain.value_bytes(state.input, point) for state in held) for point in chain.points)
    return max(sizes, default=0)


def live_bytes(chain: Chain, first: int, end: int, sizes: Mapping[str, int]) -> int:
    """The most bytes of activations that live at once: what comes in and what leaves stays, the rest until its last use."""
    piece = chain.piece(first, end)
    order = piece.nodes
    states = {name for state in chain.program.states for name in (state.input, state.output)}
    roots = _roots(chain, order)
    kept = {roots.get(name, name) for name in (*piece.inputs, *piece.outputs)} - states
    last = {roots[source]: step for step, name in enumerate(order) for source in chain.nodes[name].inputs if source in roots}
    frees: dict[int, list[str]] = {}
    for name, step in last.items():
        frees.setdefault(step, []).append(name)
    now = most = sum(chain.value_bytes(name, sizes) for name in kept if name not in roots)
    for step, name in enumerate(order):
        if roots[name] == name and name not in states:
            now += chain.value_bytes(name, sizes)
            most = max(most, now)
        for root in frees.get(step, ()):
            if root not in kept and root not in states:
                now -= chain.value_bytes(root, sizes)
    return most


def _roots(chain: Chain, order: Sequence[str]) -> dict[str, str]:
    """For each node of a run, the node whose bytes it shows: itself, or the source of its views."""
    roots: dict[str, str] = {}
    for name in order:
        node = chain.nodes[name]
        operator = node.operator.removeprefix("aten.").partition(".")[0]
        source = node.inputs[0] if node.inputs else name
        roots[name] = roots[source] if operator in VIEWS and source in roots else name
    return roots
