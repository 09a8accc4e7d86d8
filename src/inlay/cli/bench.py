"""`inlay bench`: load on any OpenAI-compatible URL, its figures as a table, as JSON and as a page."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from inlay.api.bench import (
    BenchResult,
    Plan,
    Workload,
    dump_result,
    page,
    read_result,
    shown,
)
from inlay.api.bench import bench as measure
from inlay.cli.bars import progress_bar
from inlay.cli.loads import read_extra, read_headers, read_loads, read_plan, read_range
from inlay.errors import InputError, RequestError

CLOSED_HELP = "closed loop: keep this many requests open; one level each, for example 1,4,8"
OPEN_HELP = "open loop: this many requests a second, for example 2,4,8; auto looks for the most that keeps --goodput"
PROMPTS_HELP = "text (random words), ids (random token ids, completions only) or a JSONL file"
LENGTH_HELP = "tokens: 128, uniform:64:512, normal:256:64 or lognormal:256:0.8 (median, sigma)"
NO_TERMINAL, NARROW = 200, 120
"""Columns of a table that goes into a file, and below which a terminal gets it turned."""
BUSY = 0.8
"""A client that uses more of a core than this may be what was measured."""


def bench(
    targets: Annotated[list[str], typer.Argument(help="the URL; with --plot: result files", metavar="URL")],
    concurrency: Annotated[str | None, typer.Option(help=CLOSED_HELP)] = None,
    rate: Annotated[str | None, typer.Option(help=OPEN_HELP)] = None,
    attain: Annotated[float, typer.Option(help="with --rate auto: share of requests that must keep the budgets")] = 0.9,
    arrivals: Annotated[str, typer.Option(help="gaps of the open loop: poisson or uniform")] = "poisson",
    trace: Annotated[str | None, typer.Option(help="replay arrivals and lengths of a trace (Mooncake, Azure)")] = None,
    sessions: Annotated[str | None, typer.Option(help="of a trace of sessions: so many at once, for example 1,4")] = None,
    speed: Annotated[str, typer.Option(help="how many times as fast as recorded, for example 1,10")] = "1",
    scale_lengths: Annotated[float, typer.Option(help="the trace's lengths times this")] = 1.0,
    most_tokens: Annotated[int | None, typer.Option(help="cut the trace's requests to this (default: the model's)")] = None,
    requests: Annotated[int | None, typer.Option(help="requests of each level (default: 20, or 5 a stream)")] = None,
    seconds: Annotated[float | None, typer.Option(help="begin no request after so many seconds of a level")] = None,
    warmup: Annotated[int, typer.Option(help="requests before each level that do not count")] = 1,
    endpoint: Annotated[str, typer.Option(help="chat or completions")] = "chat",
    model: Annotated[str | None, typer.Option(help="default: the first that the server lists")] = None,
    prompts: Annotated[str, typer.Option(help=PROMPTS_HELP)] = "text",
    prompt_tokens: Annotated[str, typer.Option(help=f"of each prompt, {LENGTH_HELP}")] = "128",
    output_tokens: Annotated[str, typer.Option(help=f"asked for (max_tokens), {LENGTH_HELP}")] = "64",
    shared_prefix: Annotated[int, typer.Option(help="tokens in front of all prompts, the same in each")] = 0,
    prefix_groups: Annotated[int, typer.Option(help="so many different shared prefixes")] = 1,
    ids: Annotated[str, typer.Option(help="range of random token ids")] = "100:4000",
    seed: Annotated[int, typer.Option(help="of prompts, lengths and arrivals; another one misses a prefix cache")] = 0,
    ignore_eos: Annotated[
        bool, typer.Option(help="ask for answers of full length; a server that refuses the field: --no-ignore-eos")
    ] = True,
    temperature: Annotated[float | None, typer.Option(help="default: the server's")] = None,
    request_seed: Annotated[int | None, typer.Option(help="the field seed of each request")] = None,
    continuous_usage: Annotated[bool, typer.Option(help="ask for counts in each chunk")] = False,
    extra: Annotated[str | None, typer.Option(help="JSON object laid over each body; null takes a field out")] = None,
    goodput: Annotated[str, typer.Option(help="budgets in ms, for example ttft:200,tpot:50")] = "",
    key: Annotated[
        str | None, typer.Option(help="API key; default: the variable INLAY_API_KEY", envvar="INLAY_API_KEY")
    ] = None,
    header: Annotated[list[str] | None, typer.Option(help="NAME:VALUE for each request, for example a budget's")] = None,
    timeout: Annotated[float, typer.Option(help="seconds for one request")] = 600.0,
    label: Annotated[str | None, typer.Option(help="name of this series in plots (default: the model)")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="write the result (with --plot: the page)")] = None,
    html: Annotated[Path | None, typer.Option(help="also write the page: throughput against interactivity")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="draw result files on one page, send nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON, without the single requests")] = False,
) -> None:
    """Measure an OpenAI-compatible server under load: TTFT, ITL, TPOT, throughput, interactivity, goodput (all measured)."""
    given = locals()
    _check_folders(output, html)
    if plot:
        _draw([read_result(path) for path in targets], output or html)
        return
    names = [name for name in Workload.__struct_fields__ if name in given and name not in ("ids", "extra")]
    workload = Workload(**{name: given[name] for name in names}, ids=read_range(ids), extra=read_extra(extra))
    loads = read_loads(concurrency, rate, arrivals=arrivals, trace=trace, sessions=sessions, speed=speed)
    plan = read_plan(loads, goodput, attain=attain, requests=requests, seconds=seconds, warmup=warmup, arrivals=arrivals)
    found = _measured(targets, workload, plan, header or [], model=model, key=key, label=label, seconds=timeout)
    _give(found, output, html, as_json=as_json)


def _measured(targets: list[str], workload: Workload, plan: Plan, header: list[str], **options: Any) -> BenchResult:
    if len(targets) != 1:
        raise InputError(f"{len(targets)} URLs are given, expected one", hint="several result files need --plot")
    command = shlex.join(["inlay", *_without_key(sys.argv[1:])])
    with _progress() as tell:
        return measure(targets[0], workload, plan, headers=read_headers(header), command=command, progress=tell, **options)


def _give(found: BenchResult, output: Path | None, html: Path | None, *, as_json: bool) -> None:
    """Files, then the table or JSON, then the exit code."""
    if output is not None:
        output.write_bytes(dump_result(found))
    if html is not None:
        html.write_text(page([found]), encoding="utf-8")
    print(json.dumps(facts_of(found))) if as_json else _show(found)
    _judge(found)


def _without_key(arguments: list[str]) -> list[str]:
    """The arguments as they may be kept in a file."""
    hidden = ["..." if before == "--key" else item for before, item in zip(["", *arguments], arguments, strict=False)]
    return ["--key=..." if item.startswith("--key=") else item for item in hidden]


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """The bar; where stderr is no terminal only a line as each level begins."""
    with progress_bar() as tell:
        if sys.stderr.isatty():
            yield tell
        else:
            yield lambda text: tell(text) if " of " not in text else None


def _check_folders(*paths: Path | None) -> None:
    """Before the run, not after it."""
    for path in paths:
        if path is not None and not path.parent.is_dir():
            raise InputError(f"{path} cannot be written: there is no folder {path.parent}", hint="make the folder first")


def _draw(results: list[BenchResult], path: Path | None) -> None:
    if path is None:
        raise InputError("the page has no name, expected a file", hint="add -o page.html")
    path.write_text(page(results), encoding="utf-8")
    print(path)


def facts_of(result: BenchResult) -> dict[str, Any]:
    """The result without its single requests, as plain data."""
    facts: dict[str, Any] = json.loads(dump_result(result))
    for level in facts["levels"]:
        del level["requests"]
    return facts


def _show(result: BenchResult) -> None:
    """A row a level; on a terminal that is too narrow for that a column a level."""
    console = Console(width=None if sys.stdout.isatty() else NO_TERMINAL)
    head, rows = shown(result)
    if console.width < NARROW:
        head, *rows = zip(head, *rows, strict=True)
    table = Table(title=f"{result.model} at {result.url} (measured)", title_justify="left")
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in [*result.facts["notes"], *_remarks(result)]:
        print(f"note: {note}", file=sys.stderr)


def _remarks(result: BenchResult) -> Iterator[str]:
    for level in result.levels:
        found = level.summary
        if found.errors:
            first = next(record for record in level.requests if record.error)
            kinds = ", ".join(f"{count} {kind}" for kind, count in found.errors.items())
            yield f"{level.load}: {kinds}; the first said: {first.detail}"
        if len(found.served) > 1:
            yield f"{level.load}: " + "; ".join(f"{count} by {route}" for route, count in found.served.items())
        if found.tokens_per_chunk > 1.05:
            yield f"{level.load}: {found.tokens_per_chunk:.2f} tokens came in one piece, so ITL is between pieces, not tokens"
        if found.counted_by_chunks:
            yield f"{level.load}: the server gave no usage for {found.counted_by_chunks} requests: pieces were taken for tokens"
        if (found.client_cpu or 0.0) > BUSY:
            yield f"{level.load}: this client used {found.client_cpu:.0%} of a core: it may be what was measured"


def _judge(result: BenchResult) -> None:
    """Interrupted: 130, as shells have it. Not one request answered: an error."""
    if result.interrupted:
        print("interrupted: what came before is above", file=sys.stderr)
        raise typer.Exit(130)
    records = [record for level in result.levels for record in level.requests]
    if records and all(record.error for record in records):
        first = records[0]
        found = f"all {len(records)} requests failed, the first with {first.error}: {first.detail}"
        raise RequestError(found, code=first.error, hint="see the server's log")
