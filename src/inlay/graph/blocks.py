"""Cut a Program into Blocks at narrow places, so that equal layers become equal blocks. Pure, torch-free.

Cheap producers (masks, positions, rotary tables) belong to no block: each block that needs them repeats them. A cut is
narrow where few computed values cross it. Fragments between narrow cuts are joined by layer; what is still large, or holds
equal layers, is cut again, first by the next index of its module paths, then by its share of the FLOPs. Last, what is light
(an activation, a pooling) joins a neighbour where equal blocks stay equal by that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from inlay.graph.digest import is_number, number_table, structural_digest, value_table
from inlay.graph.flops import node_flops
from inlay.graph.program import Block, Node, Program

LARGE = 0.3
"""A block with more than this share of the FLOPs is cut again where that is possible."""
PIECE = 1 / 12
"""The least share of the FLOPs of the pieces that a large block without inner layers is cut into."""
WIDEST = 4
"""So many values may cross a cut at most; fewer is tried first."""
CHEAP_SHARE = 0.01
CHEAP_WEIGHTS = 64 * 1024
"""A producer is cheap that needs at most this share of the FLOPs, and weights of at most so many bytes or the values of
integer inputs, not both (rotary frequencies and masks are cheap, an embedding is not)."""
SMALL = 0.01
"""Less than this share of the FLOPs never decides how blocks are cut; with less than this share of the weights too, a run
is light."""
Run = tuple[int, int]
"""First and end (not included) of consecutive placed nodes."""


RANDOM = ("rand", "bernoulli", "multinomial", "dropout")


@dataclass(frozen=True)
class Analysis:
    """What cutting looks at: the nodes that are worth placing, in order; cheap producers; FLOPs; for each position between
    two placed nodes the values that cross it; and the values that several layers read."""

    program: Program
    placed: tuple[Node, ...]
    cheap: dict[str, Node]
    flops: dict[str, float]
    live: tuple[tuple[str, ...], ...]
    long_lived: frozenset[str]
    weights: dict[str, int]
    digests: dict[Run, str] = field(default_factory=dict)

    def share(self, run: Run) -> float:
        """Of a run's nodes in the FLOPs of the program."""
        total = sum(self.flops.values()) or 1.0
        return sum(self.flops[node.name] for node in self.placed[run[0] : run[1]]) / total

    def is_light(self, run: Run) -> bool:
        """Whether a run matters neither by its FLOPs nor by its weights."""
        held = {name for node in self.placed[run[0] : run[1]] for name in node.inputs if name in self.weights}
        total = sum(self.weights.values()) or 1
        return self.share(run) < SMALL and sum(self.weights[name] for name in held) / total < SMALL

    def digest(self, run: Run) -> str:
        """Of the block that a run makes; each is computed once."""
        if run not in self.digests:
            self.digests[run] = _block(self, run, 0, "").digest
        return self.digests[run]


def cut_into_blocks(program: Program, *, sizes: Mapping[str, int]) -> tuple[Block, ...]:
    """The chain of blocks of a program. `sizes` are typical ones; they decide only what counts as large or cheap."""
    found = analyse(program, sizes)
    if not found.placed:
        return ()
    runs = _by_layer(found, (0, len(found.placed)), level=0, width=1)
    for width in range(1, WIDEST + 1):
        runs = [piece for run in runs for piece in _refined(found, run, width)]
    runs = _joined(found, _whole_states(found, runs))
    names = _names(found, runs)
    return tuple(_block(found, run, index, name) for index, (run, name) in enumerate(zip(runs, names, strict=True)))


def analyse(program: Program, sizes: Mapping[str, int]) -> Analysis:
    """Tell cheap producers from nodes worth placing, and what crosses between the latter."""
    values = value_table(program)
    flops = {node.name: node_flops(node, values, sizes) for node in program.nodes}
    limit = CHEAP_SHARE * (sum(flops.values()) or 1.0)
    wanted = {*program.outputs, *(state.output for state in program.states)}
    floating = {name for name, item in program.inputs.items() if item.dtype.startswith(("float", "bfloat", "complex"))}
    refused = floating | {state.input for state in program.states}
    cheap: dict[str, Node] = {}
    cost: dict[str, tuple[float, int, bool]] = {}
    numbers = {node.name for node in program.nodes if is_number(node)}
    for node in program.nodes:
        spent, held, reads = flops[node.name], 0, False
        possible = node.name not in numbers | wanted and len(node.outputs) == 1
        possible &= not any(word in node.operator for word in RANDOM)
        for name in node.inputs:
            if name in cost:
                spent, held, reads = spent + cost[name][0], held + cost[name][1], reads or cost[name][2]
            elif name in program.weight_nodes:
                held += values[name].bytes(sizes)
            elif name not in numbers:
                possible &= name in program.inputs and name not in refused
                reads = True
        if possible and spent <= limit and held <= CHEAP_WEIGHTS and not (held and reads):
            cheap[node.name], cost[node.name] = node, (spent, held, reads)
    placed = tuple(node for node in program.nodes if node.name not in cheap and node.name not in numbers)
    weights = {name: values[name].bytes(sizes) for name in program.weight_nodes}
    return Analysis(program, placed, cheap, flops, _crossing(placed), _long_lived(placed), weights)


def _long_lived(placed: Sequence[Node]) -> frozenset[str]:
    """Values that several layers read, as an encoder's result is by every layer of the decoder."""
    readers: dict[str, set[str]] = {}
    for node in placed:
        for name in node.inputs:
            readers.setdefault(name, set()).add(layer_of(node.path))
    return frozenset(name for name, layers in readers.items() if len(layers - {""}) > 1)


def _crossing(placed: Sequence[Node]) -> tuple[tuple[str, ...], ...]:
    position = {node.name: index for index, node in enumerate(placed)}
    last = {name: index for index, node in enumerate(placed) for name in node.inputs if name in position}
    alive: dict[str, int] = {}
    table = []
    for at, node in enumerate(placed[:-1]):
        if node.name in last:
            alive[node.name] = last[node.name]
        alive = {name: end for name, end in alive.items() if end > at}
        table.append(tuple(alive))
    return tuple(table)


def narrow_cuts(found: Analysis, run: Run, width: int) -> list[int]:
    """Positions p inside a run (cut before placed node p) that at most `width` values cross, none of them a tuple.

    Values that several layers read cross anyway: they do not count as long as all together are at most `WIDEST`.
    """
    tuples = {node.name for node in found.placed if len(node.outputs) != 1}

    def narrow(live: tuple[str, ...]) -> bool:
        counted = sum(1 for name in live if name not in found.long_lived)
        return counted <= width and len(live) <= max(width, WIDEST) and not tuples.intersection(live)

    return [at for at in range(run[0] + 1, run[1]) if narrow(found.live[at - 1])]


def _by_layer(found: Analysis, run: Run, *, level: int, width: int) -> list[Run]:
    """Fragments between narrow cuts, neighbours of one layer joined. `level` counts the indices of a module path."""
    edges = [run[0], *narrow_cuts(found, run, width), run[1]]
    fragments = list(pairwise(edges))
    groups = [_group(found, fragment, level) for fragment in fragments]
    for at in range(1, len(groups) - 1):  # small change between two layers of one stack belongs to the one before
        before, after = groups[at - 1], next((item for item in groups[at:] if item), "")
        if not groups[at] and before and _stem(before) == _stem(after) and found.share(fragments[at]) < SMALL:
            groups[at] = before
    runs = [fragments[0]]
    for at in range(1, len(fragments)):
        if groups[at] == groups[at - 1]:
            runs[-1] = (runs[-1][0], fragments[at][1])
        else:
            runs.append(fragments[at])
    return runs


def _group(found: Analysis, run: Run, level: int) -> str:
    """The layer that most of a fragment's FLOPs belong to: a path up to its index number `level`, or nothing."""
    weight: dict[str, float] = {}
    for node in found.placed[run[0] : run[1]]:
        layer = layer_of(node.path, level)
        weight[layer] = weight.get(layer, 0.0) + found.flops[node.name] + 1e-9
    return max(weight, key=lambda layer: weight[layer])


def layer_of(path: str, level: int = 0) -> str:
    """`layer_of("encoder.layer.3.output", 0)` is "encoder.layer.3"; nothing where the path has fewer indices.

    The second call of one module is "encoder.layer.0@1": a layer of its own.
    """
    parts = path.split(".")
    indices = [at for at, part in enumerate(parts) if part.partition("@")[0].isdigit()]
    return ".".join(parts[: indices[level] + 1]) if len(indices) > level else ""


def _stem(layer: str) -> str:
    return layer.rpartition(".")[0]


def _refined(found: Analysis, run: Run, width: int) -> list[Run]:
    """A large run in pieces: by inner layers, else by share of the FLOPs. A smaller one by inner layers if some are equal:
    those are lowered once. Itself where it has no such cut."""
    large = found.share(run) > LARGE
    for level in range(3):
        pieces = _by_layer(found, run, level=level, width=width)
        heavy = [piece for piece in pieces if found.share(piece) >= SMALL]
        if len(heavy) > 1:
            if not large and len({found.digest(piece) for piece in heavy}) == len(heavy):
                break
            return [inner for piece in pieces for inner in (_refined(found, piece, width))]
    if not large:
        return [run]
    pieces = []
    start = run[0]
    for at in narrow_cuts(found, run, width):
        if found.share((start, at)) >= PIECE and found.share((at, run[1])) >= PIECE:
            pieces.append((start, at))
            start = at
    return [*pieces, (start, run[1])]


def _whole_states(found: Analysis, runs: list[Run]) -> list[Run]:
    """A state is read and written in one block: runs between its first and last touch are joined."""
    for state in found.program.states:
        touched = [
            at
            for at, run in enumerate(runs)
            if any(node.name == state.output or state.input in node.inputs for node in found.placed[run[0] : run[1]])
        ]
        if touched and touched[0] != touched[-1]:
            joined = (runs[touched[0]][0], runs[touched[-1]][1])
            runs = [*runs[: touched[0]], joined, *runs[touched[-1] + 1 :]]
    return runs


def _joined(found: Analysis, runs: list[Run]) -> list[Run]:
    """Light runs join the run before them, or else the one after, if every equal of that one has such a neighbour too."""
    while True:
        digests = [found.digest(run) for run in runs]
        pairs = list(pairwise(digests))
        for at, (one, two) in enumerate(pairs):
            before = found.is_light(runs[at + 1]) and digests.count(one) == pairs.count((one, two))
            after = found.is_light(runs[at]) and digests.count(two) == pairs.count((one, two))
            if one != two and (before or after):
                break
        else:
            return runs
        joined: list[Run] = []
        at = 0
        while at < len(runs):
            both = at + 1 < len(runs) and (digests[at], digests[at + 1]) == (one, two)
            joined.append((runs[at][0], runs[at + 1][1]) if both else runs[at])
            at += 2 if both else 1
        runs = joined


def _names(found: Analysis, runs: Sequence[Run]) -> list[str]:
    """What the paths of a block's nodes have in common; numbered where that is not enough."""
    names: list[str] = []
    for run in runs:
        nodes = [node for node in found.placed[run[0] : run[1]] if node.path]
        heavy = [node for node in nodes if found.flops[node.name] > SMALL * sum(found.flops[item.name] for item in nodes)]
        paths = [node.path.split(".") for node in heavy or nodes]
        shared: list[str] = []
        for parts in zip(*paths, strict=False):
            if len(set(parts)) > 1:
                break
            shared.append(parts[0])
        name = ".".join(shared) or found.program.name
        number = sum(1 for item in names if item.partition("#")[0] == name)
        names.append(f"{name}#{number + 1}" if number else name)
    return names


def _block(found: Analysis, run: Run, index: int, name: str) -> Block:
    program, own = found.program, found.placed[run[0] : run[1]]
    replicated = _producers(found, own)
    nodes = [*replicated, *own]
    inside, numbers = {node.name for node in nodes}, number_table(program)
    needed = list(dict.fromkeys(item for node in nodes for item in node.inputs if item not in inside))
    weights = [item for item in needed if item in program.weight_nodes]
    inputs = [item for item in needed if item not in program.weight_nodes and item not in numbers]
    inputs += _size_givers(program, inputs, [item for item in needed if item in numbers], numbers)
    later = {item for node in found.placed[run[1] :] for item in node.inputs}
    leaving = {*later, *program.outputs, *(state.output for state in program.states)}
    outputs = [node.name for node in own if node.name in leaving]
    return Block(
        index=index,
        name=name,
        digest=structural_digest(program, nodes=[node.name for node in nodes], inputs=inputs, weights=weights, outputs=outputs),
        nodes=tuple(node.name for node in own),
        replicated=tuple(node.name for node in replicated),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        weights=tuple(program.weight_nodes[item] for item in weights),
    )


def _producers(found: Analysis, own: Sequence[Node]) -> list[Node]:
    """The cheap producers that these nodes need, each after what it reads and else in the order of first use: so equal
    layers have them in equal order, wherever in the program they stand."""
    ordered: dict[str, Node] = {}
    for node in own:
        pending = [item for item in reversed(node.inputs) if item in found.cheap]
        while pending:
            item = found.cheap[pending[-1]]
            missing = [inner for inner in item.inputs if inner in found.cheap and inner not in ordered]
            pending += reversed(missing)
            if not missing:
                ordered.setdefault(item.name, item)
                pending.pop()
    return list(ordered.values())


def _size_givers(program: Program, inputs: Sequence[str], wanted: Sequence[str], numbers: Mapping[str, str]) -> list[str]:
    """Program inputs to add because a size that the block needs stands in none of its own inputs."""
    values, known = value_table(program), {node.name: node for node in program.nodes}
    added: list[str] = []

    def stands(expression: str) -> bool:
        return any(expression in map(str, values[item].shape) for item in (*inputs, *added))

    pending = list(wanted)
    while pending:
        name = pending.pop(0)
        inner = [item for item in known[name].inputs if item in numbers]
        if stands(numbers[name]):
            continue
        if inner and len(inner) == len(known[name].inputs):
            pending += inner
            continue
        giver = next((item for item, held in program.inputs.items() if numbers[name] in map(str, held.shape)), None)
        if giver is not None:
            added.append(giver)
    return added
