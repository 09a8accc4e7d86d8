"""Candidates in processes of their own, run once in turn."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from measure_world import World, install_faulty

from inlay.errors import InputError
from inlay.runtime.candidate import MeasureJob
from inlay.runtime.compare import Candidate, artifact_candidate, compare
from inlay.runtime.intervals import ratio_interval

pytestmark = pytest.mark.alone

PROGRAM = """
import time
from inlay.runtime.compare import answer_turns

def main(config):
    def run():
        with open(config["log"], "a") as file:
            file.write(config["name"])
        time.sleep(config["seconds"])
    answer_turns(config["turns"], run)
    time.sleep(0.3)
    with open(config["log"] + ".ended", "a") as file:
        file.write(config["name"])
"""


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> World:
    plugins = tmp_path_factory.mktemp("plugins")
    install_faulty(plugins, monkeypatch)
    (plugins / "plan_program.py").write_text(PROGRAM)
    return World(tmp_path)


def candidate(world: World, name: str, seconds: float = 0.0, **options: str) -> Candidate:
    job = world.job(name, seconds, of="faulty", **options)
    return artifact_candidate(name, job, device=world.device, cluster=world.cluster)


def test_candidates_run_in_turn_and_the_faster_one_is_seen(world: World) -> None:
    states: list[tuple[str, str]] = []
    candidates = [candidate(world, "slow", 0.03), candidate(world, "fast", 0.01)]
    found = compare(candidates, rounds=12, progress=lambda name, state: states.append((name, state)))
    assert found.failures == {} and {name: len(taken) for name, taken in found.samples.items()} == {"slow": 12, "fast": 12}
    assert min(found.samples["slow"]) >= 0.03 and min(found.samples["fast"]) >= 0.01
    ratio = ratio_interval(found.samples["slow"], found.samples["fast"])
    assert 1 < ratio.low <= ratio.value <= ratio.high < 3.5
    assert states[:4] == [("slow", "loading"), ("slow", "ready"), ("fast", "loading"), ("fast", "ready")]
    assert sorted(states[4:]) == [("fast", "done"), ("slow", "done")]


def test_any_program_can_be_a_candidate_and_all_have_their_turn_in_every_round(world: World) -> None:
    log = world.folder / "log"
    candidates = [
        Candidate(name=name, program="plan_program:main", config={"name": name, "seconds": seconds, "log": str(log)})
        for name, seconds in (("a", 0.003), ("b", 0.001), ("c", 0.002))
    ]
    found = compare(candidates, rounds=3)
    assert log.read_text() == "aabbcc" + "abc" + "bca" + "cab"
    assert sorted((world.folder / "log.ended").read_text()) == ["a", "b", "c"]
    assert all(min(found.samples[name]) >= seconds for name, seconds in (("a", 0.003), ("b", 0.001), ("c", 0.002)))


def test_one_that_fails_ends_or_hangs_is_left_out_with_its_reason(world: World) -> None:
    begun = time.monotonic()
    candidates = [
        candidate(world, "good", 0.002),
        candidate(world, "no load", fault="raise", after="0"),
        candidate(world, "dies loading", fault="crash", after="0"),
        candidate(world, "dies", fault="crash", after="5"),
        candidate(world, "hangs", fault="hang", after="6"),
        candidate(world, "breaks", fault="raise", after="4"),
        candidate(world, "wrong", colour="red"),
    ]
    found = compare(candidates, rounds=8, patience=2.5)
    assert list(found.samples) == ["good"] and len(found.samples["good"]) == 8
    assert (
        found.failures["no load"].endswith("cannot load: its framework failed with ZeroDivisionError: planted")
        and "'colour'" in found.failures["wrong"]
    )
    assert "signal 11 (SIGSEGV)" in found.failures["dies loading"] and "signal 11 (SIGSEGV)" in found.failures["dies"]
    assert found.failures["hangs"] == "candidate 'hangs' did not answer within 2.5 s"
    assert "ZeroDivisionError" in found.failures["breaks"] and time.monotonic() - begun < 60


def test_a_run_is_one_pass_over_all_points_of_the_job(world: World) -> None:
    job = world.job("p", 0.003, of="faulty")
    keys = (*job.keys, world.key("p", of="faulty", B=5))
    both = artifact_candidate(
        "p", MeasureJob(keys=keys, pieces=job.pieces, options=job.options), device=world.device, cluster=world.cluster
    )
    found = compare([both], rounds=3)
    assert all(seconds >= 0.006 for seconds in found.samples["p"])


def test_nothing_is_left_running_or_lying_about(world: World) -> None:
    def children() -> set[str]:
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    before, descriptors = children(), len(os.listdir("/proc/self/fd"))
    compare([candidate(world, "a"), candidate(world, "b", fault="crash", after="4")], rounds=4)
    assert children() <= before and len(os.listdir("/proc/self/fd")) == descriptors


def test_candidates_need_names_and_their_jobs_must_fit_the_device(world: World) -> None:
    with pytest.raises(InputError, match=r"candidates are named \[\]"):
        compare([])
    with pytest.raises(InputError, match="each name once"):
        compare([candidate(world, "a"), candidate(world, "a")])
    job = world.job("a")
    foreign = msgspec.structs.replace(job, keys=(msgspec.structs.replace(job.keys[0], kind="abacus x1"),))
    with pytest.raises(InputError, match="'abacus x1'"):
        artifact_candidate("a", foreign, device=world.device, cluster=world.cluster)
