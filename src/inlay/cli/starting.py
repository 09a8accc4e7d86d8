"""Options and progress that `serve` and `generate` have in common: from a folder or file to a Deployment."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from inlay import api
from inlay.errors import DeploymentError
from inlay.specs.deployment import Deployment
from inlay.specs.speculation import MODES, SpeculationSetup

ROLE_HELP = (
    "ROLE=DEVICE/BACKEND, for example prefill=cpu:0/openvino; in 8 bit: decode=cpu:0/openvino:int8; "
    "over pages: decode=cpu:0/openvino:paged; "
    "cut by layers: decode=cpu:0/openvino@0-2+cpu:1/onnxruntime@3-"
)


SPECULATION_HELP = "how tokens are drafted ahead: " + ", ".join(MODES)


def wanted(
    model: str,
    *,
    cluster: str,
    roles: list[str],
    context: int | None,
    slots: int = api.SLOTS,
    chunk: int = api.CHUNK,
    draft_model: str = "",
    speculation: SpeculationSetup = SpeculationSetup(),
) -> Deployment:
    """The deployment that the arguments name: a model folder with options, or a deployment file that has it all."""
    path = Path(model)
    if path.suffix not in (".yaml", ".yml"):
        return api.deployment(
            model,
            cluster=cluster,
            roles=roles,
            context=context,
            slots=slots,
            chunk=chunk,
            draft_model=draft_model,
            speculation=speculation,
        )
    given = roles or cluster != "local" or context is not None or (slots, chunk) != (api.SLOTS, api.CHUNK)
    if given or draft_model or speculation != SpeculationSetup():
        raise DeploymentError(
            f"{model} is a deployment file and --role, --cluster, --context, --slots, --chunk, --draft-model or --speculation "
            "are given too",
            hint="edit the file, or give the model folder",
        )
    return api.read_deployment(path)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Tells what is being done: a spinner on a terminal, lines elsewhere; always on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: print(text, file=sys.stderr, flush=True)
        return
    with console.status("starting") as status:
        yield lambda text: status.update(text)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as SIGINT does, by KeyboardInterrupt, so that everything started is stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
