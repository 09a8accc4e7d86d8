"""Save the captured program without its weights. A torch door: runs in a compile process only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inlay.backends.manifest import describe, need_precision
from inlay.backends.reference.support import NAME, PACKAGES, PRECISIONS, RULES
from inlay.graph.capture import save_graph
from inlay.graph.summary import summarize
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest

GRAPH_FILE = "graph.pt2"


def lower(exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
    """Write graph.pt2; see the seam."""
    need_precision(NAME, request.precision, names=PRECISIONS)
    RULES.refuse(summarize(exported, NAME), interface)
    names = save_graph(exported, directory / GRAPH_FILE)
    return describe(directory, backend=NAME, packages=PACKAGES, interface=interface, request=request, weights=names)
