"""The chip's compiler. It has little to do: the chip interprets the graph, node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inlay.backends.manifest import describe, need_precision
from inlay.errors import UnsupportedError
from inlay.graph.capture import save_graph
from inlay.graph.summary import summarize
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest
from inlay_newchip.support import NAME, PACKAGES, RULES

GRAPH_FILE = "graph.pt2"


def lower(exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
    """Write the graph without its weights; refuse what the chip would not obey."""
    need_precision(NAME, request.precision)
    if request.buckets is None and not request.points:
        raise UnsupportedError(f"{NAME} runs declared sizes only", hint="give buckets for a stage, points for another program")
    RULES.refuse(summarize(exported, NAME), interface)
    names = save_graph(exported, directory / GRAPH_FILE)
    return describe(directory, backend=NAME, packages=PACKAGES, interface=interface, request=request, weights=names)
