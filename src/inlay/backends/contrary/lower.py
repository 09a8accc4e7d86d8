"""Lower for the contrary device: the program without weights, for declared buckets. A torch door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inlay.backends.contrary.support import NAME, PACKAGES, PRECISIONS, RULES
from inlay.backends.manifest import describe, need_precision
from inlay.errors import UnsupportedError
from inlay.graph.capture import save_graph
from inlay.graph.summary import summarize
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest

GRAPH_FILE = "graph.pt2"


def lower(exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
    """Write graph.pt2; see the seam. Refuses a request without buckets, as a static framework does."""
    need_precision(NAME, request.precision, names=PRECISIONS, kv=("float32", "bfloat16"))
    if request.buckets is None and not request.points:
        raise UnsupportedError(f"{NAME} runs declared sizes only", hint="give buckets for a stage, points for another program")
    RULES.refuse(summarize(exported, NAME), interface)
    names = save_graph(exported, directory / GRAPH_FILE)
    return describe(directory, backend=NAME, packages=PACKAGES, interface=interface, request=request, weights=names)
