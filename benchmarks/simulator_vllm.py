"""The simulator against two measured runs of vLLM: times fitted on the first 100 requests of each, judged on the other 200.

    python benchmarks/simulator_vllm.py [--out DIR]

What the simulation is told: when all requests came and how long they are, and the figures of the first 100. Fitted are the four
coefficients of one latency table. The scheduler is ours, not vLLM's, on as many pages of 16 tokens as its pool had: it takes
the shortest prompt first, and sequences that run are left a page each to grow into.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import RESULTS, environment, say, table, write_result
from scipy.optimize import minimize

from inlay.simulator import Planned, Simulation, SimulationSetup
from inlay.simulator.records import Record
from inlay.specs.latency import LatencyTable
from inlay.specs.schedule import RunnerFacts, SchedulerSetup

DATA = Path(__file__).parent / "data" / "traces"
FITTED = 100
CHUNK, LONGEST = 2048, 8192
CALLS = 160
"""Simulations that a fit may take."""
GOALS = {"TPOT": 0.05, "TTFT": 0.20}


class Request(NamedTuple):
    """One measured request, in seconds after the first one came."""

    at: float
    prompt: int
    output: int
    ttft: float
    tpot: float


class Run(NamedTuple):
    """A measured run: its file, its replicas, the sequences that each may have, and the pages of its KV pool."""

    file: str
    name: str
    replicas: int
    sequences: int
    pages: int


RUNS = (
    Run("rtx4090_llama_3_1_8b", "RTX 4090, Llama-3.1-8B", 1, 256, 2588),
    Run("rtxpro6000_qwen3_30b_a3b_instruct_2507", "2 RTX PRO 6000, Qwen3-30B-A3B", 2, 128, 65536),
)


def read(run: Run) -> list[Request]:
    """The measured requests in the order in which they came."""
    lines = gzip.decompress((DATA / f"{run.file}.jsonl.gz").read_bytes()).splitlines()
    rows = sorted((json.loads(line) for line in lines), key=lambda row: row["queued_ts"])
    zero = rows[0]["queued_ts"]
    return [
        Request(
            row["queued_ts"] - zero,
            row["input_toks"],
            row["output_toks"],
            row["first_token_ts"] - row["queued_ts"],
            (row["last_token_ts"] - row["first_token_ts"]) / (row["output_toks"] - 1),
        )
        for row in rows
        if row["output_toks"] > 1
    ]


class Listed:
    """The measured requests, at their times."""

    def __init__(self, requests: list[Request]) -> None:
        self._items = iter(enumerate(requests))

    def next_timed(self) -> Planned | None:
        """The next one."""
        found = next(self._items, None)
        if found is None:
            return None
        number, item = found
        return Planned(at=item.at, prompt=(number + 1, *(0,) * (item.prompt - 1)), max_tokens=item.output)

    def ended(self, record: Record) -> Planned | None:
        """Nothing follows."""
        return None


def simulated(run: Run, requests: list[Request], found: LatencyTable) -> list[Record]:
    """The same requests on the virtual clock. Replicas are served in turn, each with an engine of its own."""
    facts = RunnerFacts(
        runner="gpu",
        epoch=1,
        roles=("prefill", "decode"),
        capacities=(LONGEST,),
        slots=run.sequences,
        chunk=CHUNK,
        paged=True,
        page=16,
        pages=run.pages,
        keeps=False,
        table=found,
    )
    scheduler = SchedulerSetup(facts=(facts,), context=LONGEST, waiting_limit=10_000)
    records: dict[int, Record] = {}
    for replica in range(run.replicas):
        simulation = Simulation(SimulationSetup(scheduler=scheduler), Listed(requests[replica :: run.replicas]))
        simulation.run()
        for number, record in simulation.recorder.records.items():
            records[replica + number * run.replicas] = record
    return [records[number] for number in range(len(requests))]


def table_of(point: Any) -> LatencyTable:
    """The coefficients whose logarithms a fit tries."""
    fixed, per_row, per_token, per_past = (float(value) for value in np.exp(point))
    return LatencyTable(
        fixed=fixed, per_row=per_row, per_token=per_token, per_past=per_past, spread=0.0, overhead=0.0, grade="calibrated"
    )


def fit(run: Run, requests: list[Request]) -> LatencyTable:
    """The table whose simulation is nearest to the first requests: squares of relative errors of TPOT and of TTFT."""

    def miss(point: Any) -> float:
        records = simulated(run, requests, table_of(point))
        pairs = list(zip(records, requests, strict=True))[:FITTED]
        tpot = [np.log((record.tpot or 1e-9) / item.tpot) for record, item in pairs]
        ttft = [np.log(record.ttft / item.ttft) for record, item in pairs]
        return float(np.mean(np.square(tpot)) + 0.1 * np.mean(np.square(ttft)))

    start = np.log([0.5 * statistics.median(item.tpot for item in requests[:FITTED]), 1e-4, 5e-5, 1e-7])
    found = minimize(miss, start, method="Nelder-Mead", options={"maxfev": CALLS, "initial_simplex": simplex(start)})
    return table_of(found.x)


def simplex(start: Any) -> Any:
    """Where the search begins: each coefficient twice as large in turn."""
    return np.array([start, *(start + np.log(2) * np.eye(len(start))[i] for i in range(len(start)))])


def errors(records: list[Record], requests: list[Request]) -> dict[str, dict[str, float]]:
    """Signed relative errors of mean, median and 90th percentile, and the median of the absolute errors request by request."""
    found = {}
    for name in ("TPOT", "TTFT"):
        ours = np.array([getattr(record, name.lower()) for record in records])
        theirs = np.array([getattr(item, name.lower()) for item in requests])
        found[name] = {
            "mean": float(ours.mean() / theirs.mean() - 1),
            "median": float(np.median(ours) / np.median(theirs) - 1),
            "p90": float(np.quantile(ours, 0.9) / np.quantile(theirs, 0.9) - 1),
            "each": float(np.median(np.abs(ours / theirs - 1))),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    facts, rows, records = environment() | {"grade": "calibrated"}, [], []
    for run in RUNS:
        say(f"fitting {run.name}")
        requests = read(run)
        found = fit(run, requests)
        made = simulated(run, requests, found)
        for part, first, end in (("fitted on", 0, FITTED), ("judged on", FITTED, len(requests))):
            misses = errors(made[first:end], requests[first:end])
            for name, values in misses.items():
                held = abs(values["mean"]) <= GOALS[name] and abs(values["median"]) <= GOALS[name]
                verdict = "" if part == "fitted on" else ("yes" if held else "no")
                shown = [f"{100 * values[key]:+.1f} %" for key in ("mean", "median", "p90")]
                rows.append([f"{run.name}, {part}", name, *shown, f"{100 * values['each']:.1f} %", verdict])
            records.append({"run": run.name, "part": part, "table": json.loads(_plain(found)), "errors": misses})
    head = ["run", "figure", "mean", "median", "p90", "each (median)", "within goal"]
    goals = (
        "Goals for mean and median: TPOT within 5 %, TTFT within 20 %. Errors: simulation (calibrated) against vLLM (measured)."
    )
    text = f"{goals}\n\n{table(head, rows)}"
    write_result(
        "simulator_vllm", title="Simulator against vLLM", facts=facts, records=records, text=text, folder=arguments.out
    )


def _plain(found: LatencyTable) -> str:
    return json.dumps({name: getattr(found, name) for name in found.__struct_fields__})


if __name__ == "__main__":
    main()
