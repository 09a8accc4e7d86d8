"""Which heads of a layer a process owns, and which of them travel: heads are cut in equal shares, counted in fractions.

A share is (first, end, of): of each layer's heads cut in `of` equal parts, those from `first` to `end`. Where there are
fewer heads than parts, neighbouring parts hold the same head. Called by both ends of a hand-off and by what divides it.
"""

from __future__ import annotations

from math import ceil, floor, lcm

import msgspec

from inlay.errors import TransferError
from inlay.specs.stage import KvLayer

Share = tuple[int, int, int]
WHOLE: Share = (0, 1, 1)


def common_share(one: Share, other: Share) -> Share | None:
    """What two processes both own, in parts that are whole for both; None where they have nothing in common."""
    of = lcm(one[2], other[2])
    first = max(one[0] * of // one[2], other[0] * of // other[2])
    end = min(one[1] * of // one[2], other[1] * of // other[2])
    return (first, end, of) if first < end else None


def heads_of(share: Share, heads: int) -> range:
    """The heads of a layer with `heads` of them (in the whole model) that a share holds."""
    first, end, of = share
    return range(floor(first * heads / of), ceil(end * heads / of))


def check_share(share: Share) -> None:
    """Raises TransferError(cause="heads") for a share that cannot be."""
    if not (0 <= share[0] < share[1] <= share[2]):
        raise TransferError(f"share of heads is {list(share)}, expected [first, end, of] with first < end <= of", cause="heads")


def own_heads(travels: Share, own: Share, heads: int) -> slice:
    """Where the heads that travel lie among those that a process owns of a layer with `heads` heads in all.

    Raises TransferError(cause="heads") for a head that it does not own.
    """
    wanted, held = heads_of(travels, heads), heads_of(own, heads)
    if not (held.start <= wanted.start < wanted.stop <= held.stop):
        raise TransferError(
            f"heads {wanted.start} to {wanted.stop} of {heads} travel, expected some of {held.start} to {held.stop}",
            cause="heads",
        )
    return slice(wanted.start - held.start, wanted.stop - held.start)


def shared_layer(layer: KvLayer, share: Share) -> KvLayer:
    """The geometry of a share of a layer that is given whole."""
    keys, values = heads_of(share, layer.key_heads), heads_of(share, layer.value_heads)
    return msgspec.structs.replace(layer, key_heads=len(keys), value_heads=len(values))
