"""Clients that others wrote, unmodified, against `inlay serve` with a split over two frameworks: `make clients`.

    python benchmarks/clients.py [--only NAME] [--out DIR]

Each script of examples/clients runs in its own environment and ends with one JSON line of what it saw. One that fails, or
whose environment is not there, is in the result with the end of its output; the exit code then is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT, environment, say, table, write_result

HOMES = Path(os.environ.get("INLAY_ENVIRONMENTS") or ROOT / ".environments")
MODEL = ROOT / "demo" / "target"
ROLES = ("--role", "prefill=cpu:0/openvino", "--role", "decode=cpu:1/onnxruntime")
SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Client:
    """One script, the environment it needs ("" is the project's own), the options behind its URL, and what it must see."""

    name: str
    script: str
    home: str
    options: tuple[str, ...] = ()
    expects: dict[str, Any] = field(default_factory=dict)

    def python(self) -> Path:
        """The interpreter of its environment."""
        return HOMES / self.home / "bin" / "python" if self.home else Path(sys.executable)


TOKENIZER = ("--tokenizer", str(MODEL.relative_to(ROOT)))
ALL_SERVED = {"completed": 12, "failed": 0}
CLIENTS = (
    Client("openai-python", "openai_python", "", (), {"stream_equals_whole": True, "completion_tokens": 48}),
    Client(
        "vllm bench serve",
        "vllm_bench_serve",
        "clients-vllm",
        TOKENIZER,
        {"completed": 16, "failed": 0, "total_output_tokens": 512},
    ),
    Client("guidellm", "guidellm_run", "clients-guidellm", TOKENIZER, ALL_SERVED),
    Client("aiperf", "aiperf_profile", "clients-aiperf", TOKENIZER, ALL_SERVED),
    Client("lm-eval", "lm_eval_loglikelihood", "clients-lm-eval", (*TOKENIZER, "--check"), {"questions": 4}),
    Client("pydantic-ai", "pydantic_ai_tools", "clients-agents", (), {"usage": [11, 23]}),
    Client("openai-agents", "openai_agents_tools", "clients-agents", (), {"stream_equals_whole": True}),
)


@contextmanager
def serving() -> Iterator[str]:
    """The URL of the demo, split over two devices, until the block ends."""
    command = [sys.executable, "-m", "inlay.cli", "serve", str(MODEL), *ROLES, "--name", "inlay-demo", "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"error: inlay serve ended with {process.wait()}")
        yield json.loads(line)["url"]
    finally:
        process.terminate()
        process.wait(30)


def ask(client: Client, url: str) -> dict[str, Any]:
    """Run one script; what it saw, or why it failed."""
    script = Path("examples") / "clients" / f"{client.script}.py"
    entry: dict[str, Any] = {"client": client.name, "script": str(script), "environment": client.home or "the project's own"}
    if not client.python().exists():
        return entry | {"passed": False, "error": f"environment {client.home} is not there: make clients"}
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    begin = time.perf_counter()
    try:
        found = subprocess.run(
            [str(client.python()), str(script), url, *client.options],
            cwd=ROOT,
            env=variables | {"TOKENIZERS_PARALLELISM": "false"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return entry | {"passed": False, "error": f"it had not ended after {SECONDS:g} s"}
    entry["seconds"] = round(time.perf_counter() - begin, 1)
    lines = [line for line in found.stdout.splitlines() if line.startswith('{"client"')]
    if found.returncode or not lines:
        ends = (found.stdout + found.stderr).replace(str(ROOT) + "/", "").replace(str(HOMES), ".environments")
        return entry | {"passed": False, "error": " ".join(ends.split())[-400:]}
    saw = json.loads(lines[-1])
    wrong = [f"{name} is {saw.get(name)}, expected {value}" for name, value in client.expects.items() if saw.get(name) != value]
    return entry | {"passed": not wrong, "saw": saw} | ({"error": "; ".join(wrong)} if wrong else {})


def page(records: Sequence[dict[str, Any]]) -> str:
    """A row a client."""
    rows = []
    for entry in records:
        saw = entry.get("saw", {})
        told = ", ".join(f"{key} {short(value)}" for key, value in saw.items() if key not in ("client", "version"))
        outcome = "served" if entry["passed"] else "**failed**"
        told = " ".join(filter(None, [entry.get("error", "").replace("|", "/"), told]))
        rows.append([entry["client"], saw.get("version", "-"), outcome, told])
    return (
        "Each client as its authors ship it, against the demo target split over OpenVINO (prompts) and ONNX Runtime (tokens). "
        "Its own figures are shown as it gave them; they are its measurement on a machine that also runs the client, and no "
        "comparison.\n\n" + table(("client", "version", "", "what it saw"), rows)
    )


def short(value: Any) -> str:
    """A value for one cell."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "/")[:70]


def main() -> int:
    """Runs all, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[client.script for client in CLIENTS])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    wanted = [client for client in CLIENTS if arguments.only in (None, client.script)]
    facts = environment()
    records = []
    with serving() as url:
        for client in wanted:
            say(f"{client.name} ...")
            records.append(ask(client, url))
            say(json.dumps(records[-1].get("saw")) + records[-1].get("error", ""))
    write_result("clients", title="Clients", facts=facts, records=records, text=page(records), folder=arguments.out)
    return 0 if all(entry["passed"] for entry in records) else 1


if __name__ == "__main__":
    sys.exit(main())
