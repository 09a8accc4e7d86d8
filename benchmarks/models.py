"""The table of models: captured? lowered by each backend? how far from the truth? Outside CI; keeps what is finished.

python benchmarks/models.py [--only NAME ...] [--redo] [--add BACKEND] [--seconds 300] [--backends openvino,onnxruntime,...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from measuring import environment, say, table, write_result
from model_row import SPLIT, row
from model_zoo import ZOO

RESULTS = Path(__file__).parent / "results"
BACKENDS = "openvino,onnxruntime,inductor,contrary,reference"


def main() -> None:
    """Fill in what is missing, one process a model, and write the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", nargs="*", default=[], help="names of the zoo")
    options.add_argument("--redo", action="store_true", help="also rows that are finished")
    options.add_argument("--seconds", type=float, default=300.0, help="limit for one model")
    options.add_argument("--backends", default=BACKENDS)
    options.add_argument("--add", default="", help="try this backend too in rows that are finished")
    options.add_argument("--one", default="", help="print the row of one model as JSON (what each process does)")
    options.add_argument("--out", type=Path, default=RESULTS)
    given = options.parse_args()
    if given.one:
        import model_zoo

        print(json.dumps(row(given.one, getattr(model_zoo, given.one), backends=given.backends.split(","))))
        return
    path = given.out / "models.json"
    rows: dict[str, Any] = json.loads(path.read_text())["results"] if path.exists() else {}
    for name in given.only or ZOO:
        if given.add and rows.get(name, {}).get("captured"):
            more = one(name, backends=given.add, seconds=given.seconds)
            reason = {"lowered": False, "ran": False, "reason": more.get("reason", "")}
            rows[name]["backends"] |= more.get("backends", {given.add: reason})
            write(rows, out=given.out)
        elif name not in rows or given.redo:
            rows[name] = one(name, backends=given.backends, seconds=given.seconds)
            say(f"{name}: {summary(rows[name])}")
            write(rows, out=given.out)
    write(rows, out=given.out)


def one(name: str, *, backends: str, seconds: float) -> dict[str, Any]:
    """The row of one model, from a process of its own."""
    command = [sys.executable, __file__, "--one", name, "--backends", backends]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"captured": False, "reason": f"not done within {seconds:.0f} s"}
    lines = [line for line in found.stdout.splitlines() if line.startswith("{")]
    if found.returncode or not lines:
        return {"captured": False, "reason": f"the process ended with {found.returncode}: {found.stderr.strip()[-300:]}"}
    parsed: dict[str, Any] = json.loads(lines[-1])
    return parsed


def summary(found: dict[str, Any]) -> str:
    """A line for the terminal."""
    if not found["captured"]:
        return found["reason"][:160]
    return ", ".join(f"{name} {cell(item)}" for name, item in found["backends"].items())


def cell(item: dict[str, Any] | None) -> str:
    """The error of a backend, or what it failed at."""
    if item is None:
        return "not tried"
    if not item["lowered"] or not item["ran"]:
        return "**no**"
    return f"{item['relative_error']:.0e}"


def write(rows: dict[str, Any], *, out: Path) -> None:
    """The JSON of all rows and the page that people read."""
    columns = [*BACKENDS.split(","), SPLIT]
    lines, failures = [], []
    for name, found in rows.items():
        entry = ZOO[name]
        what = f"{name}: {entry.what}{' (published width)' if entry.published else ''}"
        if not found["captured"]:
            lines.append([what, "**no**", "", "", *("" for _ in columns)])
            failures.append(f"- **{name}** is not captured: {private(found['reason'])}")
            continue
        cells = [cell(found["backends"].get(column)) for column in columns]
        lines.append([what, f"{found['nodes']} nodes", str(found["blocks"]), str(found["unique"]), *cells])
        for column, item in found["backends"].items():
            if not item["lowered"] or not item["ran"]:
                failures.append(f"- **{name}** by {column}: {private(item['reason'])}")
    captured = sum(found["captured"] for found in rows.values())
    counts = {
        column: sum(bool(found["captured"] and found["backends"].get(column, {}).get("ran")) for found in rows.values())
        for column in columns
    }
    text = (
        f"{captured} of {len(rows)} models are captured. Lowered and run, every block: "
        + ", ".join(f"{name} {count}" for name, count in counts.items())
        + ".\n\nFigures are the largest error of any block on reference inputs, relative to the largest number of its truth, "
        "over all points; the last column is the program cut at half of its FLOPs. Tolerance 1e-4. Truth: the captured program "
        "run eagerly in float32 on fresh random inputs.\n\n"
        + table(["model", "captured", "blocks", "unique", *columns], lines)
        + "\n\n## What failed\n\n"
        + ("\n".join(failures) or "nothing")
    )
    write_result(
        "models", title="Models captured, cut, lowered and compared", facts=environment(), records=rows, text=text, folder=out
    )


def private(text: str) -> str:
    """Without the folders of the machine it was found on."""
    import re

    return re.sub(r"(/[\w.+-]+)+/site-packages/", "", re.sub(r"/\S+/benchmarks/", "benchmarks/", text)).replace("\n", " ")


if __name__ == "__main__":
    main()
