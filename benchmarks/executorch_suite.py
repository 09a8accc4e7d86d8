"""ExecuTorch's own backend test suite, a third party's, run against inlay's backends. Outside CI; takes up where it stopped.

python benchmarks/executorch_suite.py [--backends reference,executorch] [--only add linear] [--models] [--redo] [--page]

Needs a Python that has executorch beside inlay: this one, or `.environments/executorch` (`make environment-executorch`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from measuring import HERE, ROOT, environment, say, table

RESULTS = HERE / "results"
BACKENDS = "reference,executorch,onnxruntime,openvino,inductor"
SUITE = "executorch.backends.test.suite"
NAME = "executorch-suite"
SECONDS = 300.0
CRASHES = 20
"""So many tests of one file may end their process before the rest of the file is given up."""
CAUSES = {
    "LOWER_FAIL": "refused or not lowered",
    "OUTPUT_MISMATCH_FAIL": "wrong result",
    "PTE_RUN_FAIL": "failed in its run",
    "UNKNOWN_FAIL": "failed otherwise",
}


def main() -> None:
    """Run what is missing, one process a file of tests, and write the pages."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--backends", default=BACKENDS)
    options.add_argument("--only", nargs="*", default=[], help="files of the suite without test_ and .py")
    options.add_argument("--models", action="store_true", help="the suite's models too (they need torchvision and torchaudio)")
    options.add_argument("--redo", action="store_true", help="also what is finished")
    options.add_argument("--page", action="store_true", help="run nothing, write the page of what there is")
    options.add_argument("--seconds", type=float, default=SECONDS, help="limit for one test")
    options.add_argument("--out", type=Path, default=RESULTS)
    given = options.parse_args()
    for backend in given.backends.split(","):
        if not given.page:
            run_backend(backend, given)
    write_page(given.out)


def run_backend(backend: str, given: argparse.Namespace) -> None:
    """Every file of the suite that has no finished entry."""
    path = given.out / f"{NAME}-{backend}.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"tests": {}, "files": []}
    for name in files(models=given.models):
        short = name.rpartition(".test_")[2]
        if (given.only and short not in given.only) or (name in kept["files"] and not given.redo):
            continue
        found = run_file(name, backend, seconds=given.seconds)
        kept["tests"] = {key: item for key, item in kept["tests"].items() if item["file"] != short} | found
        kept["files"] = [*(item for item in kept["files"] if item != name), name]
        facts = {**environment(), "executorch": version()}
        path.write_text(json.dumps({**facts, "backend": backend, **kept}, indent=1) + "\n")
        counts = Counter(item["verdict"] for item in found.values())
        say(f"{backend} {short}: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))


def python() -> str:
    """A Python with executorch in it."""
    here = Path(os.environ.get("INLAY_ENVIRONMENTS") or ROOT / ".environments") / "executorch" / "bin" / "python"
    if importlib.util.find_spec("executorch") is not None:
        return sys.executable
    if here.is_file():
        return str(here)
    raise SystemExit("error: no Python here has executorch\nhint: make environment-executorch")


def asked(code: str) -> str:
    """What that Python prints."""
    return subprocess.run([python(), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def version() -> str:
    """The version of executorch there."""
    return asked("from importlib import metadata; print(metadata.version('executorch'))")


def files(*, models: bool) -> list[str]:
    """The modules of the suite, operators first."""
    root = asked(f"import importlib.util; print(importlib.util.find_spec('{SUITE}').submodule_search_locations[0])")
    found = sorted(Path(root, "operators").glob("test_*.py"))
    wanted = [f"{SUITE}.operators.{path.stem}" for path in found]
    return wanted + (
        [f"{SUITE}.models.{path.stem}" for path in sorted(Path(root, "models").glob("test_*.py"))] if models else []
    )


def run_file(name: str, backend: str, *, seconds: float) -> dict[str, Any]:
    """All tests of one module. One that ends its process is recorded, and the rest goes on in another."""
    tests: dict[str, Any] = {}
    file = name.rpartition(".test_")[2]
    with tempfile.TemporaryDirectory(prefix="inlay-suite-") as folder:
        records = Path(folder) / "records.jsonl"
        for _ in range(CRASHES):
            records.write_text("")
            done = one_process(name, backend, records, seconds, skip=list(tests))
            found = read_records(records)
            tests |= found
            if done.returncode in (0, 1, 5) or not found:
                break
        if not tests and done.returncode not in (0, 5):
            text = (done.stdout + done.stderr).strip()[-600:]
            tests["::whole file"] = {"verdict": "not collected", "cause": private(text), "runs": 0}
    return {f"{file}::{test.rpartition('::')[2]}": {"file": file, **item} for test, item in tests.items()}


def one_process(name: str, backend: str, records: Path, seconds: float, *, skip: list[str]) -> subprocess.CompletedProcess[str]:
    """pytest over one module of the suite, with our plugin and none of our settings."""
    command = [
        python(), "-m", "pytest", "-q", "-p", "suite_flow", "-p", "no:cacheprovider",
        "-c", os.devnull, "--rootdir", str(records.parent), "--pyargs", name,
        *(item for test in skip for item in ("--deselect", test)),
    ]  # fmt: skip
    settings = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
        "INLAY_SUITE_BACKEND": backend,
        "INLAY_SUITE_RECORDS": str(records),
        "INLAY_SUITE_SECONDS": str(seconds),
    }
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=records.parent, env={**os.environ, **settings}
    )


def read_records(path: Path) -> dict[str, Any]:
    """The outcome of each test that was begun."""
    tests: dict[str, Any] = {}
    for line in path.read_text().splitlines():
        item = json.loads(line)
        test = item.pop("test")
        if item["state"] == "begun":
            tests.setdefault(test, {"verdict": "failed", "cause": "ended its process", "runs": 0})
        else:
            tests[test] = judged(item)
    return tests


def judged(item: dict[str, Any]) -> dict[str, Any]:
    """A test's verdict: passed only where as many runs of ours as cases are counted; else failed or skipped, and why."""
    cases = item["cases"]
    kept = {"runs": item["runs"], "cases": len(cases), "seconds": item["seconds"]}
    if item["outcome"] == "passed":
        if item["runs"] >= len(cases) > 0:
            return {"verdict": "passed", "cause": "", **kept}
        return {"verdict": "passed without running", "cause": f"{item['runs']} runs in {len(cases)} cases", **kept}
    bad = next((case for case in cases if case["result"] not in ("SUCCESS", "SUCCESS_UNDELEGATED")), None)
    if item["outcome"] == "skipped":
        return {"verdict": "skipped", "cause": private(bad["error"] if bad else item["reason"]), **kept}
    if bad is None:
        return {"verdict": "failed", "cause": private(item["reason"]), **kept}
    reason = item["refused"][0] if item["refused"] else bad["error"]
    return {"verdict": "failed", "kind": CAUSES.get(bad["result"], bad["result"]), "cause": private(reason), **kept}


def private(text: str) -> str:
    """Without folders of this machine, and in one line."""
    return re.sub(r"\s+", " ", re.sub(r"(/[\w.+-]+){2,}/", "", text)).strip()


def write_page(out: Path) -> None:
    """The page for people, from the JSON of every backend there is."""
    found = {path.stem.removeprefix(f"{NAME}-"): json.loads(path.read_text()) for path in sorted(out.glob(f"{NAME}-*.json"))}
    total = len(files(models=False))
    rows, parts = [], []
    for backend, held in found.items():
        tests = held["tests"].values()
        counts = Counter(item["verdict"] for item in tests)
        runs = sum(item["runs"] for item in tests)
        rows.append(
            [backend, f"{len(held['files'])} of {total}", str(len(tests)), str(counts["passed"]), str(counts["failed"]),
             str(counts["skipped"]), str(len(tests) - counts["passed"] - counts["failed"] - counts["skipped"]), str(runs)]
        )  # fmt: skip
        parts.append(causes(backend, held["tests"]))
    first = next(iter(found.values()), {})
    page = "\n\n".join([
        "# ExecuTorch's backend test suite, run against inlay",
        preface(found, first),
        table(["backend", "files run", "tests", "passed", "failed", "skipped", "other", "runs of ours"], rows),
        *parts,
    ])  # fmt: skip
    (out / f"{NAME}.md").write_text(page.strip() + "\n")
    say(f"wrote {NAME}.md")


def preface(found: dict[str, Any], first: dict[str, Any]) -> str:
    """What was run, on what, when."""
    if not first:
        return "Nothing has been run."
    state = {True: " with uncommitted changes", False: ""}
    commits = ", ".join(
        f"{name} {held['commit'][:12]}{state[held['uncommitted_changes']]} ({held['date'][:16]})"
        for name, held in found.items()
    )
    versions = ", ".join(f"{key} {value}" for key, value in first["versions"].items())
    return (
        f"Grade: **measured**. {first['cpu']}, {first['cores']} cores, {first['memory_gib']} GiB; Python {first['python']}; "
        f"executorch {first['executorch']}, {versions}. By commit: {commits}.\n"
        "Command: `python benchmarks/executorch_suite.py`, operators only.\n\n"
        "The suite is not ours: it lies in the wheel of executorch (`executorch.backends.test.suite`) and brings modules, "
        "inputs, truth (the exported program run eagerly by torch) and comparison. Ours are the flow (capture, summary, "
        "`supports`, `lower`, load, run, as `inlay compile` does it, the whole module as one piece) and the bounds: absolute "
        "and relative 1e-4 where the suite asks for 1e-1 and 4e-2. It skips tests that leave operators for which ExecuTorch's "
        "own kernels are missing; here they are run. A test counts as passed only where a run of an executable of ours is "
        "counted for every case of it. A refusal by `supports` or `lower` counts as failed, with its reason."
    )


def causes(backend: str, tests: dict[str, Any]) -> str:
    """Failures and skips of a backend, those of one cause together."""
    lines = [f"## {backend}"]
    for verdict in sorted({item["verdict"] for item in tests.values()} - {"passed"}):
        groups: dict[str, list[str]] = {}
        for test, item in tests.items():
            if item["verdict"] == verdict:
                kind = f"{item['kind']}: " if item.get("kind") else ""
                groups.setdefault(kind + general(item["cause"]), []).append(short(test))
        for cause, names in sorted(groups.items(), key=lambda pair: -len(pair[1])):
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            lines.append(f"- {verdict}, {len(names)}: {cause} ({shown})")
    return "\n".join(lines if len(lines) > 1 else [*lines, "Nothing failed, nothing was skipped."])


def general(cause: str) -> str:
    """A cause without what differs from test to test: names of nodes, lines, figures of a comparison."""
    text = re.split(r"Output tensor shape|Mismatched", cause)[0]
    text = re.sub(r"node '\w+' = ", "", re.sub(r" \([^)]*\.py:\d+\)", "", text))
    return re.sub(r"Output \d+ ", "An output ", text)[:220].replace("|", "/").replace("<", "").strip()


def short(test: str) -> str:
    """The name of a test without file and flow."""
    return re.sub(r"\[inlay_\w+?(-|\])", lambda found: "[" if found.group(1) == "-" else "", test.rpartition("::")[2])


if __name__ == "__main__":
    main()
