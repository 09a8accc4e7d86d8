"""Where a token of one stream on the demo model goes: the device's own step, everything around it, and OpenVINO GenAI beside.

    python benchmarks/single_stream.py [--rounds N] [--peers PYTHON]

A served place on core 0, paged, float32: every process on that core, as in the race of peers.py, or engine and client on the
other core; and GenAI alone on core 0. The device counts the seconds of its batches itself; the rest of the wall time are
messages, scheduling and the client. Contestants take turns within each round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT, Spread, environment, ratios, say, show, spread, table, write_result
from opponents import PeerContestant, ServedContestant, gguf_file
from peers import PEERS_PYTHON

MODEL = ROOT / "demo" / "target"
TOKENS, PROMPT = 192, 16
TOGETHER, APART, PEER = "inlay, all on one core", "inlay, engine and client on the other core", "GenAI"


def place(contestant: ServedContestant, cores: tuple[int, ...]) -> None:
    """The engine's process on these cores, and this one, the client."""
    for pid in (contestant.engine(), os.getpid()):
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), cores)


async def race(options: Any) -> dict[str, dict[str, Spread]]:
    """Milliseconds a token after the first, by contestant: wall time, in the device's batches, and around them."""
    prompt = tuple(range(3, 3 + PROMPT))
    walls: dict[str, list[float]] = {}
    inside: dict[str, list[float]] = {}
    served = await asyncio.to_thread(ServedContestant.start, MODEL, "openvino", "float32", runner="paged", cores=(0,))
    with tempfile.TemporaryDirectory() as scratch:
        file = gguf_file(options.peers, MODEL, Path(scratch) / "demo-f16.gguf", "f16")
        peer = PeerContestant(options.peers, "genai", file, "f16", cores=(0,))
        try:
            for number in range(-1, options.rounds):
                for name in (TOGETHER, APART, PEER):
                    if name != PEER:
                        place(served, (0,) if name == TOGETHER else (1,))
                    before = await served.busy()
                    first, last = await (peer if name == PEER else served).take_turn([prompt], TOKENS)
                    if number < 0:
                        continue
                    walls.setdefault(name, []).append((last - first) / (TOKENS - 1) * 1e3)
                    if name != PEER:
                        inside.setdefault(name, []).append((await served.busy() - before) / TOKENS * 1e3)
        finally:
            await served.close()
            await peer.close()
    found = {}
    for name, values in walls.items():
        found[name] = {"wall": spread(values), "of GenAI": ratios(walls[PEER], values)}
        if name in inside:
            around = [wall - busy_ms for wall, busy_ms in zip(values, inside[name], strict=True)]
            found[name] |= {"in batches": spread(inside[name]), "around": spread(around)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", type=Path, default=PEERS_PYTHON)
    options = parser.parse_args()
    facts = environment() | {"grade": "measured"}
    say("one stream of the demo model")
    found = asyncio.run(race(options))
    rows = [
        [
            name,
            show(item["wall"], 3),
            show(item["in batches"], 3) if "in batches" in item else "-",
            show(item["around"], 3) if "around" in item else "-",
            show(item["of GenAI"]),
        ]
        for name, item in found.items()
    ]
    text = (
        f"Demo model, float32 (GenAI reads f16 weights), {TOKENS} tokens after a prompt of {PROMPT}, one stream; milliseconds\n"
        "a token after the first. *In batches* is what the device process counts itself, its sampling included; *around* is\n"
        "the rest of the wall time: messages, scheduling, the client.\n\n"
        + table(["contestant", "wall", "in batches", "around", "speed of GenAI's"], rows)
    )
    write_result("single_stream", title="One stream of the demo model", facts=facts, records=found, text=text, folder=RESULTS)


if __name__ == "__main__":
    main()
