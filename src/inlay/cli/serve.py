"""`inlay serve`: a model folder or a deployment file behind an OpenAI-compatible endpoint, until a signal."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from inlay import api
from inlay.cli.starting import ROLE_HELP, SPECULATION_HELP, ended_by_signals, progress, wanted
from inlay.cli.status_line import status_line
from inlay.errors import DeviceError
from inlay.orchestrator import Running
from inlay.specs.deployment import Deployment, dump_deployment
from inlay.specs.generation import Description
from inlay.specs.precision import Precision, precision_name
from inlay.specs.speculation import SpeculationSetup
from inlay.units import format_bytes, format_seconds


def serve(
    model: Annotated[str, typer.Argument(help="a Hugging Face model folder, or a deployment.yaml")],
    cluster: Annotated[str, typer.Option(help="'local' to probe this machine, or a cluster.yaml")] = "local",
    role: Annotated[list[str] | None, typer.Option(help=ROLE_HELP)] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on, 0 takes a free one")] = 8000,
    context: Annotated[int | None, typer.Option(help="most tokens of one sequence")] = None,
    draft_model: Annotated[str, typer.Option(help="folder of the model that the role draft runs")] = "",
    speculation: Annotated[str, typer.Option(help=SPECULATION_HELP)] = "auto",
    drafts: Annotated[int, typer.Option(help="most tokens drafted for one verify step")] = SpeculationSetup().drafts,
    slots: Annotated[int, typer.Option(help="sequences a device holds at once")] = api.SLOTS,
    chunk: Annotated[int, typer.Option(help="prompt tokens of one prefill step")] = api.CHUNK,
    name: Annotated[str | None, typer.Option(help="model name in the API (default: the folder's)")] = None,
    api_key: Annotated[list[str] | None, typer.Option(help="a key that may call, or sha256:HEX of one")] = None,
    write: Annotated[Path | None, typer.Option(help="write the deployment file here and go on")] = None,
    event_log: Annotated[Path | None, typer.Option(help="write every scheduler event to this file")] = None,
    ask: Annotated[str | None, typer.Option(help="send this question once, through HTTP, when ready")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line when ready")] = False,
) -> None:
    """Serve until SIGINT or SIGTERM, which ends every process."""
    deployment = wanted(
        model,
        cluster=cluster,
        roles=role or [],
        context=context,
        slots=slots,
        chunk=chunk,
        draft_model=draft_model,
        speculation=SpeculationSetup(mode=speculation, drafts=drafts),
    )
    if write is not None:
        write.write_text(dump_deployment(deployment))
        print(f"wrote {write}", file=sys.stderr)
    running = None
    try:
        with ended_by_signals():
            with progress() as tell:
                running = api.start(deployment, name=name, progress=tell, event_log=event_log)
                url = api.open_gateway(running, host=host, port=port, keys=api_key or [])
            description = api.describe(running)
            _announce(running, description, url, as_json=as_json)
            if ask is not None:
                _ask(url, description.model, ask, key=api_key[0] if api_key else None)
                _show_memory(running)
            with contextlib.nullcontext() if as_json else status_line(running):
                ended = running.wait_for_end(among=["engine", "gateway"])
            raise DeviceError(f"the {ended} process ended: {running.workers[ended].log_tail()}", hint="start it again")
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr)
    finally:
        if running is not None:
            running.stop()


def _announce(running: Running, description: Description, url: str, *, as_json: bool) -> None:
    if as_json:
        fact = {
            "url": url,
            "description": msgspec.to_builtins(description),
            "deployment": deployment_facts(running.deployment),
            "predicted_memory": msgspec.to_builtins(running.predicted),
            "memory": [msgspec.to_builtins(item) for item in running.memory()],
        }
        print(json.dumps(fact), flush=True)
        return
    table = Table(title=f"{description.model}, context {description.context}", title_justify="left")
    for column in ("stage", "layers", "device", "framework", "precision", "runner", "process"):
        table.add_column(column, overflow="fold")
    for runner in description.runners:
        for region in runner.regions:
            layers = f"{region.layers[0]}-{region.layers[1] - 1}"
            precision = precision_name(Precision(**region.precision))
            framework = f"{region.framework} {region.version}"
            table.add_row("+".join(runner.roles), layers, region.device, framework, precision, region.runner, str(region.pid))
    Console(stderr=True).print(table)
    body = json.dumps(
        {"model": description.model, "messages": [{"role": "user", "content": "What does os.path.join do?"}], "stream": True}
    )
    print(url, flush=True)
    print(
        f"try: curl -N {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'", file=sys.stderr, flush=True
    )


def deployment_facts(deployment: Deployment) -> list[dict[str, object]]:
    """Which stages run where, as plain data."""
    return [
        {
            "roles": role.roles,
            "places": [str(region.place) for region in role.regions],
            "layers": [region.layers for region in role.regions],
            "runners": [region.runner for region in role.regions],
        }
        for role in deployment.roles
    ]


def _ask(url: str, model: str, question: str, *, key: str | None) -> None:
    """One streamed question over the real endpoint, printed as it arrives."""
    print(f"\n> {question}", flush=True)
    served: dict[str, Any] = {}
    for text in api.stream_chat(url, model=model, question=question, key=key, served=served.update):
        print(text, end="", flush=True)
    print(flush=True)
    for line in served_lines(served):
        print(line, file=sys.stderr, flush=True)


def served_lines(served: dict[str, Any]) -> list[str]:
    """How one answer came about, as the endpoint tells it: the places, each choice with its reason, the times."""
    if not served:
        return []
    places = dict.fromkeys((served.get("prefill", ""), served.get("decode", "")))
    times = ", ".join(
        f"{name.replace('_', ' ')} {format_seconds(seconds)}" for name, seconds in served.get("timing", {}).items()
    )
    return [
        f"\nserved at {' → '.join(filter(None, places))}, {served.get('way', '')}: {served.get('reason', '')}",
        f"speculation, {served.get('speculation_reason', '')}",
        f"times (measured): {times}",
    ]


def _show_memory(running: Running) -> None:
    found = running.memory()
    parts = ", ".join(f"{item.name} {format_bytes(item.pss)}" for item in found)
    total = sum(item.pss for item in found)
    print(f"\nmemory (PSS, measured): {parts}; together {format_bytes(total)}", file=sys.stderr, flush=True)
