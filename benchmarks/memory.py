"""PSS of every process of the split demo, beside the bare framework: how much a device process adds (measured).

python benchmarks/memory.py [--out DIR]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from measuring import RESULTS, ROOT, environment, table, write_result

from inlay import api
from inlay.orchestrator import read_pss

MODEL = ROOT / "demo" / "target"
ROLES = ["prefill=cpu:0/openvino", "decode=cpu:1/onnxruntime"]
BARE = {
    "openvino": "from inlay.backends.openvino.support import import_openvino as f; f().Core().get_versions('CPU')",
    "onnxruntime": "import onnxruntime; onnxruntime.get_available_providers()",
}
MIB = 2**20


def bare_pss(backend: str) -> int:
    """PSS of a process that has loaded the framework, numpy and the engine's device module, and nothing else."""
    script = f"import inlay.engine.device; {BARE[backend]}; print('ready', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is not None:
            process.stdout.readline()
        found = read_pss(process.pid)
        process.communicate("\n")
    return found


def main() -> None:
    """Start the demo's deployment, use it, read all processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    weights = sum(path.stat().st_size for path in MODEL.glob("*.safetensors")) * 2  # bfloat16 on disk, float32 at work
    with api.LLM(MODEL, roles=ROLES) as llm:
        llm.generate(["import os"], max_tokens=4, temperature=0.0)
        idle = {item.name: item.pss for item in llm.running.memory()}
        llm.generate(["import os\n" * 60] * 8, max_tokens=32, temperature=0.0, ignore_eos=True)
        used = {item.name: item.pss for item in llm.running.memory()}
    rows = []
    for place, pss in idle.items():
        bare = bare_pss(place.partition("/")[2]) if "/" in place else 0
        added = [f"{bare / MIB:.0f}", f"{(pss - bare) / MIB:.0f}", f"{(pss - bare) / weights:.2f}"] if bare else ["-"] * 3
        rows.append([place, f"{pss / MIB:.0f}", *added, f"{used[place] / MIB:.0f}"])
    head = ["process", "PSS, MiB", "framework alone", "added", "added / float32 weights", "after 8 prompts of 240 tokens"]
    text = (
        f"Float32 weights: {weights / MIB:.0f} MiB. Sum of PSS: {sum(idle.values()) / MIB:.0f} MiB after the first request, "
        f"{sum(used.values()) / MIB:.0f} MiB after 8 prompts. What is added holds the framework's packed copy of the weights, "
        "half of the mapped weights (two processes share them), compiled code and buffers; under load KV pages and "
        "activations come on top.\n\n" + table(head, rows)
    )
    records = {"idle": idle, "used": used, "float32_weights": weights}
    write_result(
        "memory", title="Memory of the split demo", facts=environment(), records=records, text=text, folder=options.out
    )


if __name__ == "__main__":
    main()
