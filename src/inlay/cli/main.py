"""The `inlay` command: verbs, and how errors look. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import sys

import typer

from inlay.cli import bench, chips, compile, conform, devices, explain, generate, plan, run, serve, simulate, timeline
from inlay.errors import InlayError

app = typer.Typer(
    name="inlay",
    help="One model over unlike chips: language models behind one endpoint, any PyTorch module as a stitched program.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("bench")(bench.bench)
app.command("chips")(chips.list_chips)
app.command("devices")(devices.devices)
app.command("serve")(serve.serve)
app.command("generate")(generate.generate)
app.command("compile")(compile.compile)
app.command("explain")(explain.explain)
app.command("run")(run.run)
app.command("verify")(run.verify)
app.command("conform")(conform.conform)
app.command("plan")(plan.plan)
app.command("simulate")(simulate.simulate)
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
