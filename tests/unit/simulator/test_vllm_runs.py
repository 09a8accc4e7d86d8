"""Two measured runs of vLLM: times fitted on the first 100 requests give the other 200 within the goals. The fit is here."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from simulator_vllm import FITTED, GOALS, RUNS, Run, errors, fit, read, simulated, table_of


@pytest.mark.thorough
@pytest.mark.timeout(400)
@pytest.mark.parametrize("run", RUNS, ids=[run.file for run in RUNS])
def test_what_was_fitted_on_the_first_requests_holds_for_the_rest(run: Run) -> None:
    requests = read(run)
    found = fit(run, requests)
    misses = errors(simulated(run, requests, found)[FITTED:], requests[FITTED:])
    for name, goal in GOALS.items():
        assert abs(misses[name]["mean"]) <= goal
        assert abs(misses[name]["median"]) <= goal
    slower = msgspec.structs.replace(found, fixed=1.2 * found.fixed)
    planted = errors(simulated(run, requests, slower)[FITTED:], requests[FITTED:])
    assert abs(planted["TPOT"]["mean"]) > GOALS["TPOT"]


def test_a_pool_of_the_wrong_size_gives_other_waiting_times() -> None:
    """With twice the KV that there was nobody waits as long as was measured: the real block count matters."""
    run = RUNS[0]
    requests = read(run)
    found = table_of([-4.24, -8.83, -9.22, -16.0])
    misses = [errors(simulated(given, requests, found), requests) for given in (run, run._replace(pages=2 * run.pages))]
    real, doubled = (item["TTFT"]["mean"] for item in misses)
    assert abs(real) < 0.2 < abs(doubled)
