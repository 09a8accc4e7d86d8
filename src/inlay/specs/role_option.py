"""How a role and its regions are written in a `--role` option: `prefill,decode=cpu:0/openvino@0-2+cpu:1/onnxruntime:int8@3-`.

Layers are written as people count them, the last included, and may be left open at the end; kept as first and end. What
follows the backend is a precision, one of the names of `specs.precision`, a runner, or both: `openvino:int8:paged`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from inlay.errors import ClusterError, DeploymentError
from inlay.hardware import Place, parse_place
from inlay.specs.precision import PRECISIONS

EXTEND = "extend"
RUNNERS = (EXTEND, "paged")
LAYERS = re.compile(r"([0-9]+)(?:(-)([0-9]*))?")
EXAMPLE = "for example --role prefill=xeon:0/openvino, or xeon:0/openvino@0-11+xeon:1/onnxruntime:int8@12- for two places"


class PlacedLayers(NamedTuple):
    """One region of a role: where, its layers first to end, not included (None = all), the name of its precision ("" where
    none is given) and its runner."""

    place: Place
    layers: tuple[int, int] | None
    precision: str = ""
    runner: str = EXTEND


def parse_role(option: str, *, known: Collection[str], depth: int | None) -> tuple[list[str], tuple[PlacedLayers, ...]]:
    """Role names and regions of one option. `depth` is the number of layers of the model, where it is known.

    Raises DeploymentError. That the regions make a whole model is checked with the deployment.
    """
    text, equals, regions = option.partition("=")
    names = text.split(",")
    if not equals or any(name not in known for name in names):
        raise DeploymentError(
            f"role is {option!r}, expected ROLE=DEVICE/BACKEND[:PRECISION][:RUNNER][@LAYERS][+...] "
            f"with a role of {list(known)}",
            hint=EXAMPLE,
        )
    return names, tuple(_region(option, part, depth) for part in regions.split("+"))


def write_region(region: PlacedLayers) -> str:
    """The inverse: `xeon:0/openvino:int8@0-11`."""
    chosen = [region.precision, "" if region.runner == EXTEND else region.runner]
    where = ":".join([str(region.place), *filter(None, chosen)])
    return where if region.layers is None else f"{where}@{region.layers[0]}-{region.layers[1] - 1}"


def _region(option: str, text: str, depth: int | None) -> PlacedLayers:
    where, at, layers = text.partition("@")
    device, slash, rest = where.partition("/")
    name, *chosen = rest.split(":")
    precision, runner = _chosen(option, chosen)
    try:
        place = parse_place(device + slash + name)
    except ClusterError as cause:
        raise DeploymentError(f"role {option!r}: {cause.message}", hint=cause.hint) from cause
    if not at:
        return PlacedLayers(place, None, precision, runner)
    found = LAYERS.fullmatch(layers)
    if found is None:
        raise DeploymentError(f"role {option!r} has layers {layers!r}, expected FIRST-LAST or FIRST-", hint=EXAMPLE)
    first = int(found[1])
    if found[3]:
        end = int(found[3]) + 1
    elif found[2] is None:
        end = first + 1
    elif depth is None:
        raise DeploymentError(
            f"role {option!r} leaves the last layer open, but how many layers the model has is not known here",
            hint="name the last layer",
        )
    else:
        end = depth
    if end <= first or (depth is not None and end > depth):
        limit = "" if depth is None else f"; the model has layers 0 to {depth - 1}"
        raise DeploymentError(f"role {option!r} has layers {layers!r}, expected FIRST-LAST{limit}", hint=EXAMPLE)
    return PlacedLayers(place, None if (first, end) == (0, depth) else (first, end), precision, runner)


def _chosen(option: str, words: list[str]) -> tuple[str, str]:
    """Precision and runner of what follows a backend, each given once at most."""
    precision, runner = "", ""
    for word in words:
        if word in RUNNERS and not runner:
            runner = word
        elif word in PRECISIONS and not precision:
            precision = word
        else:
            raise DeploymentError(
                f"role {option!r} has precision {word!r}, expected one of: {', '.join(PRECISIONS)}; or a runner: "
                f"{', '.join(RUNNERS)}; each once at most",
                hint=EXAMPLE,
            )
    return precision, runner or EXTEND
