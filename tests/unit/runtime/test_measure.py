"""Measuring in processes: the meter tells the time it is given, and one candidate's fault stays its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from measure_world import World, install_faulty

from inlay.errors import ClusterError, InputError
from inlay.runtime.candidate import LoadedJob, MeasureJob, Piece, Wire, plausible
from inlay.runtime.measure import group_jobs, main, measure
from inlay.specs.artifact import Interface, WeightMap, WeightReference, stage_interface
from inlay.specs.profile import Profile
from inlay.specs.stage import KvLayer, Port, StageShape

pytestmark = pytest.mark.alone


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def faulty(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    install_faulty(tmp_path_factory.mktemp("plugins"), monkeypatch)


def run(world: World, jobs: list[MeasureJob], **options: Any) -> tuple[dict[str, Profile], dict[str, str]]:
    profiles, failures = measure(jobs, device=world.device, cluster=world.cluster, **options)
    return {item.key.program: item for item in profiles}, {item.key.program: item.reason for item in failures}


def takes(profile: Profile, seconds: float) -> bool:
    """Whether that was measured. Sleeping is never too short; how much too long it is depends on who else wants the core."""
    return seconds <= profile.low <= profile.median <= profile.high and profile.low < 1.5 * seconds + 0.005


def test_a_run_is_measured_as_the_time_that_it_is_said_to_take(world: World) -> None:
    states: list[tuple[str, str]] = []
    jobs = [world.job("short", 0.0), world.job("long", 0.02), world.job("middle", 0.005)]
    profiles, failures = run(world, jobs, progress=lambda key, state: states.append((key.program, state)))
    assert failures == {} and list(profiles) == ["short", "long", "middle"]
    assert takes(profiles["long"], 0.02) and takes(profiles["middle"], 0.005) and takes(profiles["short"], 0.0)
    assert all(item.rounds == 10 and item.taken[:2] == "20" for item in profiles.values())
    for name in profiles:
        assert [state for program, state in states if program == name] == ["loading", "timing", "done"]


def test_sizes_of_one_job_are_timed_apart_and_bound_again(world: World) -> None:
    stage = StageShape(vocabulary=11, layers=(KvLayer(key_heads=1, key_dim=4, value_heads=1, value_dim=4),))
    keys = tuple(world.key("stage", B=1, T=width, P=4, R=1) for width in (1, 8))
    directory = world.artifact(stage_interface(stage))
    job = MeasureJob(keys=keys, pieces=(Piece(directory=directory),), options={"seconds_per_token": "0.002"})
    profiles, failures = measure([job], device=world.device, cluster=world.cluster, rounds=3)
    assert not failures and [dict(item.key.sizes)["T"] for item in profiles] == [1, 8]
    assert takes(profiles[0], 0.002) and takes(profiles[1], 0.016)


def test_pieces_run_in_order_as_one_thing_over_the_same_buffer(world: World) -> None:
    first = world.artifact(Interface(inputs=(), outputs=(Port(name="y", dtype="float32", shape=("B",)),)))
    second = world.artifact(
        Interface(inputs=(Port(name="x", dtype="float32", shape=("B",)),), outputs=(Port(name="z", dtype="bool", shape=()),))
    )
    wired = Piece(directory=second, wires=(Wire(input=0, piece=0, output=0),))
    job = MeasureJob(keys=(world.key("chain"),), pieces=(Piece(directory=first), wired), options={"seconds_per_run": "0.01"})
    loaded = LoadedJob(job)
    point = loaded.point(job.keys[0])
    assert point._buffers[1][0] is point._buffers[0][0]
    loaded.close()
    profiles, failures = run(world, [job], rounds=3)
    assert failures == {} and takes(profiles["chain"], 0.02)
    forward = msgspec.structs.replace(wired, wires=(Wire(input=0, piece=1, output=0),))
    _, failures = run(world, [msgspec.structs.replace(job, pieces=(Piece(directory=first), forward))])
    assert "expected an earlier piece's" in failures["chain"]


@pytest.mark.usefixtures("faulty")
def test_a_candidate_that_fails_is_a_reason_and_the_others_go_on(world: World) -> None:
    jobs = [
        world.job("a", 0.003, of="faulty"),
        world.job("fails to load", of="faulty", fault="raise", after="0"),
        world.job("unknown option", of="faulty", colour="red"),
        world.job("fails when it runs", of="faulty", fault="raise", after="1"),
        world.job("fails in a later round", 0.003, of="faulty", fault="raise", after="6"),
        world.job("b", 0.003, of="faulty"),
    ]
    states: list[tuple[str, str]] = []
    profiles, failures = run(world, jobs, progress=lambda key, state: states.append((key.program, state)))
    assert list(profiles) == ["a", "b"] and all(takes(item, 0.003) for item in profiles.values())
    assert failures == {
        "fails to load": "backend faulty cannot load: its framework failed with ZeroDivisionError: planted",
        "unknown option": "null has no option 'colour', expected one of: seconds_per_run, seconds_per_token, "
        "seconds_per_past_token",
        "fails when it runs": "ZeroDivisionError: planted",
        "fails in a later round": "ZeroDivisionError: planted",
    }
    assert [program for program, state in states if state == "failed"] == list(failures)


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("after", ["0", "1", "7"], ids=["as it is loaded", "in its first run", "in a later round"])
def test_a_crashing_process_is_a_reason_and_the_others_are_timed_in_another(world: World, after: str) -> None:
    jobs = [
        world.job("a", 0.003, of="faulty"),
        world.job("crashes", 0.003, of="faulty", fault="crash", after=after),
        world.job("b", 0.003, of="faulty"),
        world.job("leaves", 0.003, of="faulty", fault="leave", after=after),
    ]
    profiles, failures = run(world, jobs, rounds=8)
    doing = "loaded" if after == "0" else "timed"
    assert failures == {
        "crashes": f"its process was ended by signal 11 (SIGSEGV) while it was being {doing}",
        "leaves": f"its process ended with status 3 (going home) while it was being {doing}",
    }
    assert list(profiles) == ["a", "b"] and all(item.rounds == 8 for item in profiles.values())


@pytest.mark.usefixtures("faulty")
def test_a_candidate_that_does_not_end_is_a_reason_and_its_process_is_ended(world: World) -> None:
    jobs = [world.job("b", 0.003, of="faulty"), world.job("hangs", of="faulty", fault="hang", after="3")]
    profiles, failures = run(world, jobs, patience=1.5)
    assert list(profiles) == ["b"] and failures == {"hangs": "its process did not end within 1.5 s while it was being timed"}


def test_a_process_that_cannot_begin_is_the_reason_of_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inlay.runtime.measure.PROGRAM", "inlay.runtime.measure:nobody")
    profiles, failures = run(world, [world.job("a"), world.job("b")])
    assert profiles == {} and list(failures) == ["a", "b"]
    assert "ended with status 2" in failures["a"] and "no function 'nobody'" in failures["b"]


def test_the_time_budget_ends_the_rounds_but_never_the_first(world: World) -> None:
    profiles, failures = run(world, [world.job("a", 0.03), world.job("b", 0.03)], rounds=500, seconds=0.3)
    assert failures == {} and all(1 <= item.rounds < 12 for item in profiles.values())
    profiles, failures = run(world, [world.job("a", 0.03), world.job("b", 0.03)], seconds=1e-6)
    assert [item.rounds for item in profiles.values()] == [1, 1]


def test_patience_is_with_one_candidate_not_with_all_of_them(world: World) -> None:
    profiles, failures = run(world, [world.job("a", 0.01), world.job("b", 0.01)], rounds=10**6, seconds=4.0, patience=3.0)
    assert failures == {} and all(item.rounds > 20 for item in profiles.values())


def test_memory_is_what_loading_and_running_added_beside_the_framework(world: World) -> None:
    large = Interface(inputs=(), outputs=(Port(name="y", dtype="float32", shape=("B", 1 << 18)),))
    keys = (world.key("large", B=64), world.key("large", B=2))
    job = MeasureJob(keys=keys, pieces=(Piece(directory=world.artifact(large)),))
    profiles, _ = measure([world.job("small"), job], device=world.device, cluster=world.cluster, rounds=2)
    small, first, second = (item.memory for item in profiles)
    assert small < 4 << 20 and 64 << 20 <= first < 68 << 20 and 2 << 20 <= second < 6 << 20


def test_a_measuring_process_loads_its_own_framework_only(world: World) -> None:
    script = (
        "import sys, json; from inlay.runtime.measure import main; status = main(json.loads(sys.argv[1]));"
        "print(status, sorted({'torch', 'openvino', 'onnxruntime', 'transformers'} & set(sys.modules)))"
    )
    config = {
        "jobs": msgspec.to_builtins([world.job("a")]), "rounds": 1,
        "events": str(world.folder / "events"), "current": str(world.folder / "current"),
    }  # fmt: skip
    import subprocess

    found = subprocess.run([sys.executable, "-c", script, json.dumps(config)], capture_output=True, text=True, check=True)
    assert found.stdout.split(maxsplit=1) == ["0", "[]\n"]
    states = [json.loads(line)["state"] for line in (world.folder / "events").read_text().splitlines()]
    assert states == ["loading", "timing", "done"]


def test_an_artifact_in_another_precision_than_its_key_says_is_refused(world: World) -> None:
    job = world.job("a")
    keys = tuple(
        msgspec.structs.replace(key, precision=msgspec.structs.replace(key.precision, compute="bfloat16")) for key in job.keys
    )
    _, failures = run(world, [msgspec.structs.replace(job, keys=keys)])
    assert "computes in Precision(" in failures["a"]


def test_a_damaged_artifact_is_a_reason_that_names_the_file(world: World) -> None:
    job, good = world.job("a"), world.job("b")
    Path(job.pieces[0].directory, "manifest.json").write_text("{")
    profiles, failures = run(world, [job, good])
    assert list(profiles) == ["b"] and "manifest.json" in failures["a"] and "cannot be read" in failures["a"]
    gone = msgspec.structs.replace(good, pieces=(msgspec.structs.replace(good.pieces[0], weights=str(world.folder / "no")),))
    assert "is absent or names files that are gone" in run(world, [gone])[1]["b"]


def test_jobs_that_do_not_belong_to_the_device_are_refused(world: World) -> None:
    def refused(job: MeasureJob, match: str, *more: MeasureJob) -> None:
        with pytest.raises(InputError, match=match):
            run(world, [job, *more])

    job = world.job("a")

    def with_key(**fields: Any) -> MeasureJob:
        return msgspec.structs.replace(job, keys=(msgspec.structs.replace(job.keys[0], **fields),))

    refused(with_key(kind="another x1"), "on 'another x1' with 1 threads in a job for `cpu:")
    refused(with_key(threads=7), "with 7 threads")
    refused(job, "asked for twice", job)
    refused(MeasureJob(keys=(), pieces=job.pieces), "0 keys and 1 pieces")
    refused(MeasureJob(keys=job.keys, pieces=()), "1 keys and 0 pieces")
    mixed = (*job.keys, msgspec.structs.replace(job.keys[0], backend="reference"))
    refused(msgspec.structs.replace(job, keys=mixed), "key of reference")
    for name, value in {"rounds": 0, "seconds": 0.0, "patience": float("nan")}.items():
        with pytest.raises(InputError, match=rf"{name} is {value}, expected more than zero"):
            run(world, [job], **{name: value})
    with pytest.raises(ClusterError, match="cpu:99"):
        measure([job], device="cpu:99", cluster=world.cluster)
    with pytest.raises(InputError, match="known fields: jobs, events"):
        main({"job": []})


def test_jobs_share_a_process_by_backend_while_their_weights_fit(world: World) -> None:
    reference = WeightReference(file="f", tensor="t", dtype="float32", shape=(10, 10), digest="d")
    directory = world.artifact()
    manifest = json.loads(Path(directory, "manifest.json").read_text())
    Path(directory, "manifest.json").write_text(json.dumps({**manifest, "weights": ["w"]}))
    piece = Piece(directory=directory, weights=WeightMap(model_digest="m", weights={"w": reference}))
    jobs = [
        MeasureJob(keys=(world.key(str(number), of=name),), pieces=(piece,))
        for number, name in enumerate(["null", "reference", "null", "null", "reference"])
    ]
    names = [[job.keys[0].program for job in group] for group in group_jobs(jobs, limit=800)]
    assert names == [["0", "2"], ["3"], ["1", "4"]]
    assert [len(group) for group in group_jobs(jobs, limit=1)] == [1, 1, 1, 1, 1]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool", "complex64"])
def test_inputs_have_plausible_values_of_every_dtype(dtype: str) -> None:
    port = Port(name="x", dtype=dtype, shape=(64, 3))
    values = plausible(port, (64, 3), bound=5, generator=np.random.default_rng(1))
    assert values.dtype.name == dtype and values.shape == (64, 3)
    if "int" in dtype:
        assert values.min() == 0 and values.max() == 4
        assert plausible(port, (), bound=1, generator=np.random.default_rng(1)).tolist() == 0
    elif dtype == "bool":
        assert 0 < values.sum() < values.size
    else:
        assert 0.6 < values.astype(np.complex128).std() < 2.0 and abs(values.astype(np.complex128).mean()) < 0.4


def test_bounds_of_whole_numbers_are_checked(world: World) -> None:
    with pytest.raises(InputError, match="'x' of uint8 has bound 257, expected 1 to 256"):
        plausible(Port(name="x", dtype="uint8", shape=()), (), bound=257, generator=np.random.default_rng(0))
    job = world.job("a")

    def values(bounds: dict[str, int]) -> list[int]:
        asked = msgspec.structs.replace(job, pieces=(msgspec.structs.replace(job.pieces[0], bounds=bounds),))
        loaded = LoadedJob(asked)
        point = loaded.point(world.key("a", B=400))
        return [int(value) for value in point._buffers[0][1].read()]

    assert set(values({})) == {0, 1} and set(values({"ids": 3})) == {0, 1, 2}
    with pytest.raises(InputError, match="bound for port 'idz', expected one of: ids, x"):
        values({"idz": 3})


def test_a_stage_gets_tokens_lengths_and_rows_that_exist(world: World) -> None:
    stage = StageShape(vocabulary=7, layers=(KvLayer(key_heads=1, key_dim=4, value_heads=1, value_dim=4),))
    job = MeasureJob(
        keys=(world.key("s", B=40, T=5, P=3, R=300),), pieces=(Piece(directory=world.artifact(stage_interface(stage))),)
    )
    loaded = LoadedJob(job)
    point = loaded.point(job.keys[0])
    tokens, lengths, rows = (point._buffers[0][port].read() for port in range(3))
    assert set(tokens.ravel()) == set(range(7)) and set(lengths) == {0, 1, 2, 3} and 150 < rows.max() < 200
    point.bind()
    point.run()
    loaded.close()
