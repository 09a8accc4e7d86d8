"""Round trips between two processes: frames through a shared memory ring against frames over a unix socket.

    python benchmarks/transport.py --out benchmarks/results/transport.json

The two kinds take turns, so that a change of load meets both; medians in microseconds. One way carries the payload,
the answer is an empty frame. `shared` copies the payload into the ring and reads it in place.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from inlay.errors import TransferError
from inlay.transport import Channel, Frame, StreamChannel, accept, offer

KINDS = ("shared", "unix")
SIZES = (0, 32 * 1024, 1024 * 1024)


def wait(channel: Channel, poll: select.poll) -> Frame:
    """The next frame."""
    while (frame := channel.receive()) is None:
        poll.poll()
    return frame


def watch(channel: Channel) -> select.poll:
    """A poll object for one channel."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    return poll


def answer(kind: str, descriptor: int) -> None:
    """The other process: answers every frame with an empty one."""
    sock = socket.socket(fileno=descriptor)
    channel: Channel = accept(sock) if kind == "shared" else StreamChannel(sock)
    poll = watch(channel)
    try:
        while True:
            wait(channel, poll)
            channel.send(1, b"")
    except TransferError as error:
        if error.cause != "closed":
            raise


def connect(kind: str) -> tuple[Channel, subprocess.Popen[bytes]]:
    """A channel to a new process that answers."""
    left, right = socket.socketpair()
    command = [sys.executable, __file__, "--answer", kind, "--descriptor", str(right.fileno())]
    process = subprocess.Popen(command, pass_fds=[right.fileno()])
    right.close()
    return (offer(left) if kind == "shared" else StreamChannel(left)), process


def measure(rounds: int, repeats: int) -> list[dict[str, object]]:
    """One record a kind and size."""
    ends = {kind: connect(kind) for kind in KINDS}
    polls = {kind: watch(ends[kind][0]) for kind in KINDS}
    records: list[dict[str, object]] = []
    for size in SIZES:
        payload = [memoryview(os.urandom(size))]
        times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for turn in range(rounds + 1):
            for kind in KINDS:
                channel, poll = ends[kind][0], polls[kind]
                for _ in range(repeats):
                    begin = time.perf_counter()
                    channel.send(1, b"", payload)
                    wait(channel, poll)
                    if turn:  # the first turn warms up
                        times[kind].append(time.perf_counter() - begin)
        for kind, values in times.items():
            cuts = statistics.quantiles(values, n=10)
            record = {"kind": kind, "bytes": size, "count": len(values), "median_us": statistics.median(values) * 1e6}
            records.append(record | {"p10_us": cuts[0] * 1e6, "p90_us": cuts[-1] * 1e6})
    for channel, process in ends.values():
        channel.close()
        process.wait()
    return records


def main() -> None:
    """Parses, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--answer", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--descriptor", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        answer(arguments.answer, arguments.descriptor)
        return
    here = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True).stdout.strip()
    result = {
        "evidence": "measured",
        "commit": commit or None,
        "command": " ".join(["python", *sys.argv]),
        "hardware": {"machine": platform.machine(), "kernel": platform.release(), "cores": len(os.sched_getaffinity(0))},
        "python": platform.python_version(),
        "round_trips": measure(arguments.rounds, arguments.repeats),
    }
    text = json.dumps(result, indent=2)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
