"""The `inlay` command: verbs, and how errors look. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import sys

import typer

from inlay.cli import devices, generate, serve, timeline
from inlay.errors import InlayError

app = typer.Typer(
    name="inlay",
    help="One model over unlike chips, behind one endpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("devices")(devices.devices)
app.command("serve")(serve.serve)
app.command("generate")(generate.generate)
app.command("timeline")(timeline.timeline)


def main() -> None:
    """Run a verb; an InlayError becomes two lines and its exit code."""
    try:
        app()
    except InlayError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
