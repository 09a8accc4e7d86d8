"""What every benchmark here needs: facts of the run, medians with bootstrap intervals, result files, tables.

It times nothing itself. `write_result` leaves `<name>.json` for programs and `<name>.md` for people.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results"
CODE = ("src", "benchmarks", ":!benchmarks/results", "demo/target")
PACKAGES = ("inlay", "torch", "transformers", "openvino", "onnxruntime", "numpy")
RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its 95 % interval, from resampling the rounds."""

    median: float
    low: float
    high: float


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def spread(values: Sequence[float]) -> Spread:
    """Median and 95 % bootstrap interval of it; the same values give the same interval."""
    rng = random.Random(11)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return Spread(statistics.median(values), medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1])


def ratios(values: Sequence[float], rivals: Sequence[float]) -> Spread:
    """How many times the rival's figure ours is, round by round: both were measured within the same round."""
    return spread([ours / theirs for ours, theirs in zip(values, rivals, strict=True)])


def environment() -> dict[str, Any]:
    """Facts without which a figure means nothing. No path of the machine is among them."""
    cores = sorted(os.sched_getaffinity(0))
    return {
        "grade": "measured",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(sys.argv),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", *CODE)),
        "source_digest": _source_digest(),
        "cpu": _cpu_name(),
        "cores": len(cores),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are figures and stand right."""
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def show(found: Spread, digits: int = 2) -> str:
    """`1.23 [1.20, 1.27]`."""
    return f"{found.median:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def as_spread(value: Any) -> Spread:
    """A Spread as it was measured now, or as it was read back from a result file."""
    return value if isinstance(value, Spread) else Spread(**value)


def kept_records(path: Path, key: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Records of the last run whose `key` is none of `names`, which are measured now."""
    if not path.is_file():
        return []
    return [item for item in json.loads(path.read_text())["results"] if item[key] not in names]


def write_result(name: str, *, title: str, facts: dict[str, Any], records: Any, text: str, folder: Path) -> None:
    """Write both files and print the table's file to stdout."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {**facts, "load_average_at_end": round(os.getloadavg()[0], 2)}
    (folder / f"{name}.json").write_text(json.dumps({**facts, "results": records}, indent=1, default=_plain) + "\n")
    page = f"# {title}\n\n{_paragraph(facts)}\n\n{text.strip()}\n"
    (folder / f"{name}.md").write_text(page)
    print(page)


def _paragraph(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{key} {value}" for key, value in facts["versions"].items())
    commit = (facts["commit"] or "unknown")[:12]
    state = "with uncommitted changes" if facts["uncommitted_changes"] else "clean"
    return (
        f"Grade: **{facts['grade']}**. {facts['date']}, commit {commit} ({state}; digest of `src` {facts['source_digest']}).\n"
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB; Python {facts['python']}; {versions}.\n"
        f"Load average {facts['load_average_at_start']} at the start, {facts['load_average_at_end']} at the end.\n"
        f"Command: `{facts['command']}`. Brackets are 95 % bootstrap intervals of the median over the rounds."
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return {key: round(figure, 6) for key, figure in asdict(value).items()}
    raise TypeError(f"{type(value).__name__} in a result, expected plain data")


def _command(arguments: list[str]) -> str:
    """As typed, without the folders of this machine that files go to."""
    kept = [f"benchmarks/{Path(arguments[0]).name}", *arguments[1:]]
    for option in ("--out", "--cache", "--work"):
        if option in kept:
            at = kept.index(option)
            del kept[at : at + 2]
    return " ".join(["python", *kept])


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def _source_digest() -> str:
    """Of every Python file of the package: names the code measured where no commit does."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted((ROOT / "src").rglob("*.py")):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def _cpu_name() -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.machine()
