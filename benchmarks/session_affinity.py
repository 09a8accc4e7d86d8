"""Sessions of coding agents over replicas: how much of their prompts each way of routing finds kept, on the virtual clock.

    python benchmarks/session_affinity.py --work DIR [--sessions N] [--out DIR]

DIR holds cc_sessions.jsonl.gz (kv-cache-tester, Apache-2.0). Scheduler and page bookkeeping are those that serve. The replicas
are imagined, their times modelled; think times and lengths are the recorded ones, lengths in units of 16 tokens.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Sequence as Items
from hashlib import blake2b
from pathlib import Path
from typing import Any

from measuring import RESULTS, environment, say, table, write_result

from inlay.simulator import Planned, Simulation, SimulationSetup
from inlay.simulator.arrivals import Sessions
from inlay.simulator.links import LinkSetup
from inlay.simulator.records import Record
from inlay.simulator.results import result_of
from inlay.specs.latency import LatencyTable
from inlay.specs.schedule import RunnerFacts, SchedulerSetup
from inlay.specs.sessions import Session, read_sessions
from inlay.specs.workload import Workload

UNIT = 16  # recorded tokens that one simulated token stands for
PAGE = 16  # simulated tokens: 256 recorded ones, four recorded blocks
CONTEXT = 1_000_000 // UNIT
CHUNK, SLOTS, REPLICAS = 8192 // UNIT, 64, 8
STEP, PROMPT_RATE, ROW, PAST = 0.008, 10_000.0, 0.0002, 2e-9
"""A modelled replica: seconds of a step, prompt tokens a second, seconds a step of one more sequence, of one kept token."""
KV_BYTES = 36_900 * UNIT  # of gpt-oss-120b, layers without a window
TABLE = LatencyTable(
    fixed=STEP * UNIT, per_row=ROW * UNIT, per_token=UNIT / PROMPT_RATE, per_past=PAST * UNIT * UNIT, spread=0.0, overhead=0.0,
    grade="modelled",
)  # fmt: skip


class Routed:
    """Sessions whose requests a policy sends to replicas; "scheduler" leaves it to the scheduler, by predicted times."""

    def __init__(self, inner: Sessions, policy: str, names: Items[str], *, seed: int = 7) -> None:
        self._inner, self._policy, self._names = inner, policy, names
        self._random, self._made = random.Random(seed), 0
        self._open: Counter[str] = Counter(dict.fromkeys(names, 0))

    def next_timed(self) -> Planned | None:
        return self._sent(self._inner.next_timed())

    def ended(self, record: Record) -> Planned | None:
        self._open[record.decode] -= 1
        return self._sent(self._inner.ended(record))

    def _sent(self, planned: Planned | None) -> Planned | None:
        if planned is None or self._policy == "scheduler":
            return planned
        self._made += 1
        match self._policy:
            case "random":
                name = self._random.choice(self._names)
            case "in turn":
                name = self._names[self._made % len(self._names)]
            case "least open":
                name = min(self._names, key=lambda item: (self._open[item], self._random.random()))
            case "home":
                name = home(planned.session, self._names)
            case "home, 2 % moved":
                moved = self._random.random() < 0.02
                name = self._random.choice(self._names) if moved else home(planned.session, self._names)
            case unknown:
                raise ValueError(unknown)
        self._open[name] += 1
        return Planned(
            at=planned.at, prompt=planned.prompt, max_tokens=planned.max_tokens, session=planned.session, runner=name
        )


POLICIES = ("random", "in turn", "least open", "home", "home, 2 % moved", "scheduler")


def home(session: int, names: Items[str]) -> str:
    """Rendezvous hashing: the replica whose hash with the session is highest."""
    return max(names, key=lambda name: blake2b(f"{session}/{name}".encode(), digest_size=8).digest())


def own_hit_rate(sessions: Items[Session]) -> tuple[float, int]:
    """The share of prompt tokens that a cache without limit finds for each session alone; and the blocks of all sessions."""
    found = total = held = 0
    for session in sessions:
        known: set[int] = set()
        for turn in session.turns:
            hit = 0
            for block in turn.blocks:
                if block not in known:
                    break
                hit += 1
            found += min(hit * session.block, turn.prompt_tokens)
            total += turn.prompt_tokens
            known.update(turn.blocks)
        held += len(known)
    return found / total, held


def simulated(sessions: tuple[Session, ...], policy: str, *, clients: int, pages: int, replicas: int) -> dict[str, Any]:
    names = tuple(f"replica {index}" for index in range(replicas))
    facts = tuple(
        RunnerFacts(
            runner=name, device=name, epoch=1, roles=("prefill", "decode"), capacities=(CONTEXT,), slots=SLOTS, chunk=CHUNK,
            paged=True, page=PAGE, pages=pages, table=TABLE, kv_bytes=KV_BYTES,
        )
        for name in names
    )  # fmt: skip
    workload = Workload(trace="sessions", clients=clients, scale_lengths=1 / UNIT)
    source = Sessions(workload, sessions, context=CONTEXT)
    setup = SimulationSetup(links=links(names), scheduler=SchedulerSetup(facts=facts, context=CONTEXT, waiting_limit=100_000))
    simulation, began = Simulation(setup, Routed(source, policy, names)), time.perf_counter()
    simulation.run()
    result = result_of(simulation, clipped=source.fitting.clipped)
    took = time.perf_counter() - began
    if result.ttft is None or result.failed:
        raise SystemExit(f"{policy}: {result.failed} failed")
    say(f"{policy}, {clients} at once, {pages} pages: {result.prefix_hit_rate:.1%}, {took:.0f} s")
    return {
        "policy": policy, "clients": clients, "pages": pages, "replicas": replicas, "hit": result.prefix_hit_rate,
        "ttft_mean": result.ttft.mean, "ttft_p50": result.ttft.p50, "ttft_p95": result.ttft.p95, "hours": result.seconds / 3600,
        "requests": result.requests, "clipped": result.clipped, "took": took,
    }  # fmt: skip


def links(names: Items[str]) -> tuple[LinkSetup, ...]:
    """One fabric of 400 Gb/s that all share, should the scheduler compute a prompt elsewhere than where it decodes."""
    pairs = [(one, other) for one in names for other in names if one != other]
    return tuple(
        LinkSetup(source=one, destination=other, name="fabric", latency=1e-4, bandwidth=50e9, grade="modelled")
        for one, other in pairs
    )


def cache_sizes(sessions: Items[Session], clients: int) -> dict[str, int]:
    """Pages of a replica: more than all sessions need, and half of what the sessions that are open at once need together, but
    room for the longest request."""
    _, blocks = own_hit_rate(sessions)
    each = blocks * sessions[0].block / len(sessions) / (UNIT * PAGE)
    longest = max(turn.prompt_tokens + turn.output_tokens for session in sessions for turn in session.turns)
    half = round(each * clients / REPLICAS / 2)
    return {"ample": 40_000, "half": max(half, round(1.1 * longest / (UNIT * PAGE)))}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where cc_sessions.jsonl.gz is")
    parser.add_argument("--sessions", type=int, default=32, metavar="N", help="so many, drawn with a seed (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="where the results go (%(default)s)")
    arguments = parser.parse_args()
    everyone = read_sessions(arguments.work / "cc_sessions.jsonl.gz")
    sessions = tuple(random.Random(1).sample(everyone, min(arguments.sessions, len(everyone))))
    facts, (own, _), (whole, _) = environment() | {"grade": "modelled"}, own_hit_rate(sessions), own_hit_rate(everyone)
    rows, records = [], []
    for clients, cache in ((16, "ample"), (32, "ample"), (32, "half")):
        pages = cache_sizes(sessions, clients)[cache]
        for policy in POLICIES:
            found = simulated(sessions, policy, clients=clients, pages=pages, replicas=REPLICAS) | {"cache": cache}
            records.append(found)
            cells = [f"{found['hit']:.1%}", f"{100 * (found['hit'] - own):+.1f}"]
            cells += [f"{found[key]:.2f}" for key in ("ttft_mean", "ttft_p50", "ttft_p95")]
            rows.append([f"{clients} at once, {cache} ({pages * PAGE * UNIT / 1e6:.2f}M tokens), {policy}", *cells])
    head = ["sessions, cache of a replica, routing", "hit rate", "points from own", "TTFT mean, s", "p50", "p95"]
    text = (
        f"{len(sessions)} of {len(everyone)} sessions ({records[0]['requests']} requests) over {REPLICAS} replicas.\n"
        f"A cache without limit finds **{own:.1%}** of the prompt tokens of these sessions kept, each alone, and {whole:.1%}\n"
        f"of all {len(everyone)}: the trace's own rate. Hit rates follow from recorded prompts and the scheduler's own\n"
        f"bookkeeping; times are **modelled** ({PROMPT_RATE:,.0f} prompt tokens a second and {1e3 * STEP:.0f} ms a step).\n"
        f"`home` is rendezvous hashing of the session.\n\n{table(head, rows)}"
    )
    title = "Sessions of agents over replicas"
    write_result(
        "session_affinity", title=title, facts=facts, records={"own": own, "runs": records}, text=text, folder=arguments.out
    )


if __name__ == "__main__":
    main()
