"""What `inlay bench` itself adds to the figures it gives: against a server that computes nothing and keeps planted times.

    python benchmarks/bench_overhead.py [--quick] [--out DIR]

The server (benchmarks/null_server.py) sends each stream's first chunk at once and each next 10 ms later; it is bound to one
core and the client to another, if there are two. What the client reports beyond that is its own, the kernel's and the
server's lateness together: an upper bound of its own. Where the environment clients-vllm is there (`make clients`), vLLM's
benchmark client measures the same server with the same load beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clients import HOMES
from measuring import HERE, RESULTS, ROOT, environment, say, table, write_result

from inlay.api.bench import BenchResult, Load, Plan, Workload, bench

GAP = 0.01
STREAMS = (1, 8, 32, 64, 128)
SECONDS = 12.0
TOKENS = 200
WORKLOAD = Workload(endpoint="completions", prompts="ids", prompt_tokens="64", output_tokens=str(TOKENS))


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """The null server's URL until the block ends; it runs on the last core, this process and its children on the first."""
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen(
        [sys.executable, str(HERE / "null_server.py"), "--gap", str(GAP), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {cores[-1]}),
    )
    os.sched_setaffinity(0, {cores[0]})
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        os.sched_setaffinity(0, set(cores))
        server.terminate()
        server.wait(10)


def measure(*, seconds: float) -> BenchResult:
    """All numbers of streams, one after the other."""
    with serving() as url:
        loads = tuple(Load(kind="closed", value=streams) for streams in STREAMS)
        return bench(url, WORKLOAD, Plan(loads=loads, seconds=seconds), progress=lambda text: None)


def beside_vllm() -> dict[str, Any] | None:
    """Medians in ms by both clients of 16 requests of 32 tokens on 4 streams, first token after 50 ms; None without vLLM's."""
    python = HOMES / "clients-vllm" / "bin" / "python"
    if not python.exists():
        return None
    with serving("--first", "0.05") as url:
        command = [str(python), "examples/clients/vllm_bench_serve.py", url, "--tokenizer", "demo/target"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        theirs = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"client"')))
        workload = Workload(endpoint="completions", prompts="ids", prompt_tokens="64", output_tokens="32")
        load = (Load(kind="closed", value=4),)
        found = bench(url, workload, Plan(loads=load, requests=16, warmup=0)).levels[0].summary
    assert found.ttft and found.itl and found.tpot, "the null server answers everything"
    ours = {"ttft": found.ttft.p50, "tpot": found.tpot.p50, "itl": found.itl.p50}
    return {
        "vllm_version": theirs["version"],
        "vllm_ms_p50": {name: theirs[f"median_{name}_ms"] for name in ours},
        "inlay_ms_p50": {name: 1e3 * value for name, value in ours.items()},
    }


def record(found: BenchResult) -> list[dict[str, Any]]:
    """A row for each number of streams; milliseconds."""
    rows = []
    for level in found.levels:
        figures = level.summary
        assert figures.ttft and figures.itl and figures.tpot, "the null server answers everything"
        rows.append(
            {
                "streams": int(level.load.value),
                "chunks_per_second": round(figures.output_rate, 1),
                "ttft_ms_p50": 1e3 * figures.ttft.p50,
                "ttft_ms_p99": 1e3 * figures.ttft.p99,
                "tpot_ms_p50_beyond_planted": 1e3 * (figures.tpot.p50 - GAP),
                "itl_ms_p50_beyond_planted": 1e3 * (figures.itl.p50 - GAP),
                "itl_ms_p99_beyond_planted": 1e3 * (figures.itl.p99 - GAP),
                "client_cpu": figures.client_cpu,
                "errors": sum(figures.errors.values()),
            }
        )
    return rows


def page(rows: list[dict[str, Any]], beside: dict[str, Any] | None) -> str:
    """The tables."""
    head = ("streams", "chunks/s", "TTFT p50 / p99 ms", "TPOT p50 + ms", "ITL p50 / p99 + ms", "client's core")
    cells = [
        [
            str(row["streams"]),
            f"{row['chunks_per_second']:.0f}",
            f"{row['ttft_ms_p50']:.2f} / {row['ttft_ms_p99']:.2f}",
            f"{row['tpot_ms_p50_beyond_planted']:+.3f}",
            f"{row['itl_ms_p50_beyond_planted']:+.3f} / {row['itl_ms_p99_beyond_planted']:+.3f}",
            f"{row['client_cpu']:.0%}",
        ]
        for row in rows
    ]
    return (
        f"Every chunk is one token, {1e3 * GAP:g} ms after the one before; the first comes at once. *+ ms* is beyond what was "
        "planted: client, kernel and null server together. The client uses one core, so where *client's core* nears 100 % it "
        "measures itself.\n\n" + table(head, cells) + comparison(beside)
    )


def comparison(beside: dict[str, Any] | None) -> str:
    """Both clients on one server."""
    if beside is None:
        return "\n\nvLLM's client was not here to be compared with: `make clients`."
    names = ("ttft", "tpot", "itl")
    rows = [
        ["planted", "50.0", f"{1e3 * GAP:.1f}", f"{1e3 * GAP:.1f}"],
        ["inlay bench", *(f"{beside['inlay_ms_p50'][name]:.2f}" for name in names)],
        [f"vLLM {beside['vllm_version']}'s", *(f"{beside['vllm_ms_p50'][name]:.2f}" for name in names)],
    ]
    told = "The same load on the same server: 16 requests of 32 tokens on 4 streams; medians in ms."
    return f"\n\n## Beside vLLM's benchmark client\n\n{told}\n\n{table(('client', 'TTFT', 'TPOT', 'ITL'), rows)}"


def main() -> None:
    """Measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seconds a level")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    facts = environment()
    say(f"{len(STREAMS)} levels")
    rows = record(measure(seconds=2.0 if given.quick else SECONDS))
    beside = beside_vllm()
    title = "What inlay bench adds"
    facts |= {"beside_vllm": beside}
    write_result("bench_overhead", title=title, facts=facts, records=rows, text=page(rows, beside), folder=given.out)


if __name__ == "__main__":
    main()
