"""Real processes: where they run, what they see, how they end and how that is told."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inlay import workers
from inlay.errors import DeviceLostError, InputError
from inlay.workers import Worker, WorkerSpec, start, stop_all

SECRET = bytes(range(100, 132))
PROGRAMS = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
Starter = Callable[..., Worker]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Starter]:
    """Starts a program of worker_programs.py and ends it after the test."""
    started: list[Worker] = []

    def begin(function: str, *, program: str | None = None, **fields: Any) -> Worker:
        config = {"to": str(tmp_path / "told"), "secret": SECRET, "directory": str(tmp_path), **fields.pop("config", {})}
        spec = WorkerSpec(
            name=fields.pop("name", "cpu:0/openvino"),
            program=program or f"worker_programs:{function}",
            run_directory=str(tmp_path),
            config=config,
            environment={"PYTHONPATH": PROGRAMS, **fields.pop("environment", {})},
            **fields,
        )
        started.append(start(spec))
        return started[-1]

    yield begin
    stop_all([worker for worker in started if not worker._closed], 0.0)


def ended(worker: Worker, seconds: float = 60.0) -> bool:
    return bool(select.select([worker], [], [], seconds)[0])


def told(worker: Worker, tmp_path: Path) -> str:
    """What the process wrote to `config["to"]`."""
    path = tmp_path / "told"
    while not path.exists():
        worker.check()
        time.sleep(0.005)
    return path.read_text()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_face_is_sorted_and_complete() -> None:
    assert sorted(workers.__all__, key=lambda name: (name[0].islower(), name)) == workers.__all__
    assert all(hasattr(workers, name) for name in workers.__all__)


def test_it_is_pinned_before_the_program_is_loaded(run: Starter, tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    found = json.loads(told(run("report", cores=(core,)), tmp_path))
    assert found["affinity"] == [core]


def test_without_cores_it_may_run_where_its_supervisor_may(run: Starter, tmp_path: Path) -> None:
    assert json.loads(told(run("report"), tmp_path))["affinity"] == sorted(os.sched_getaffinity(0))


def test_a_core_that_does_not_exist_ends_it_with_the_reason(run: Starter) -> None:
    worker = run("report", cores=(0, 4000))
    assert ended(worker)
    assert worker.exit_status() == 2
    assert "cores [0, 4000] were asked for" in worker.log_tail()


def test_the_environment_is_set_before_it_starts(run: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")  # the supervisor's own setting must not decide
    environment = json.loads(told(run("report", threads=3, environment={"EXTRA": "yes"}), tmp_path))["environment"]
    expected = {
        "OMP_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "OMP_WAIT_POLICY": "passive",
        "OMP_PROC_BIND": "false",
        "TOKENIZERS_PARALLELISM": "false",
        "EXTRA": "yes",
    }
    assert {name: environment.get(name) for name in expected} == expected


def test_the_configuration_arrives_and_is_visible_nowhere(run: Starter, tmp_path: Path) -> None:
    worker = run("report")
    found = json.loads(told(worker, tmp_path))
    assert found["secret"] == SECRET.hex()
    visible = [bytes.fromhex(found[place]) for place in ("cmdline", "environ")]
    visible += [Path(f"/proc/{worker.pid}/{place}").read_bytes() for place in ("cmdline", "environ")]
    visible += [repr(worker).encode(), repr(worker.spec).encode(), worker.spec.log_path.read_bytes()]
    for place in visible:
        assert SECRET not in place
        assert SECRET.hex().encode() not in place
        assert str(tmp_path / "told").encode() not in place
    assert b"cpu:0/openvino" in visible[0], "the name is for ps"


def test_it_inherits_no_descriptor_and_loads_no_framework(run: Starter, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    found = json.loads(told(run("report"), tmp_path))
    os.close(read_end)
    os.close(write_end)
    assert found["stdin"] == "/dev/null"
    assert not [name for name in found["descriptors"] if name.startswith(("pipe", "socket", "/memfd"))]
    assert found["heavy"] == []


def test_a_descriptor_that_is_passed_keeps_its_number(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    spec = WorkerSpec(
        name="speaker",
        program="worker_programs:speak",
        run_directory=str(tmp_path),
        config={"descriptor": write_end},
        environment={"PYTHONPATH": PROGRAMS},
    )
    worker = start(spec, pass_descriptors=[write_end])
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read() == b"hello"
    assert worker.stop(60.0) in (0, -signal.SIGTERM)


def test_the_terminals_interrupt_does_not_reach_it(run: Starter, tmp_path: Path) -> None:
    worker = run("report")
    found = json.loads(told(worker, tmp_path))
    assert found["session"] == found["group"] == worker.pid


def test_its_death_is_seen_through_the_descriptor(run: Starter, tmp_path: Path) -> None:
    worker = run("report")
    told(worker, tmp_path)
    assert worker.alive()
    assert worker.exit_status() is None
    assert not ended(worker, 0)
    os.kill(worker.pid, signal.SIGKILL)
    assert ended(worker)
    assert not worker.alive()
    assert worker.exit_status() == -signal.SIGKILL
    with pytest.raises(DeviceLostError, match="signal 9"):
        worker.check()


def test_its_death_wakes_an_asyncio_supervisor(run: Starter) -> None:
    async def supervise() -> int | None:
        worker = run("leave", config={"status": 5})
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(worker.fileno(), gone.set)
        await gone.wait()
        asyncio.get_running_loop().remove_reader(worker.fileno())
        return worker.exit_status()

    assert asyncio.run(supervise()) == 5


def test_a_program_that_fails_tells_why_and_its_last_lines(run: Starter) -> None:
    worker = run("fail")
    assert ended(worker)
    error = worker.lost()
    assert worker.exit_status() == 5, "the exit code of its InlayError"
    assert "cannot hold 21 GiB" in error.message
    assert "cpu:0/openvino" in error.message
    assert str(worker.spec.log_path) in str(error.hint)
    tail = worker.log_tail().splitlines()
    assert len(tail) == 20
    assert "line 29" in tail
    assert "line 0" not in tail


def test_a_program_that_crashes_leaves_its_traceback(run: Starter) -> None:
    worker = run("crash")
    assert ended(worker)
    assert worker.exit_status() == 1
    assert "ZeroDivisionError: planted" in worker.log_tail()
    assert "worker_programs.py" in worker.log_tail()


@pytest.mark.parametrize("program", ["worker_programs", "worker_programs:nothing", "no_such_module:main", ":main"])
def test_a_program_that_does_not_exist_is_named(run: Starter, program: str) -> None:
    worker = run("", program=program)
    assert ended(worker)
    assert worker.exit_status() != 0
    assert program.split(":")[0] in worker.log_tail()


def test_the_log_of_an_earlier_process_is_not_shown_as_its_own(run: Starter) -> None:
    first = run("crash")
    assert ended(first)
    second = run("leave", config={"status": 0})
    assert ended(second)
    assert second.log_tail() == ""
    assert run("leave", config={"status": 0}, epoch=1).spec.log_path != first.spec.log_path


def test_stop_lets_it_end_in_order(run: Starter, tmp_path: Path) -> None:
    worker = run("orderly")
    told(worker, tmp_path)
    assert worker.stop(60.0) == 7
    assert worker.stop(60.0) == 7
    assert not running(worker.pid)


def test_stop_kills_a_process_that_ignores_the_request_and_its_children(run: Starter, tmp_path: Path) -> None:
    worker = run("stubborn")
    child = int(told(worker, tmp_path))
    assert running(child)
    assert worker.stop(0.05) == -signal.SIGKILL
    assert not Path(f"/proc/{worker.pid}").exists(), "not reaped"
    deadline = time.monotonic() + 30
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not running(child)


def test_children_left_behind_end_with_it(run: Starter, tmp_path: Path) -> None:
    worker = run("stubborn")
    child = int(told(worker, tmp_path))
    worker.kill()
    assert ended(worker)
    assert worker.exit_status() == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not running(child)


def test_several_are_stopped_within_one_grace_period(run: Starter) -> None:
    several = [run("wait", name=f"cpu:{index}/null") for index in range(3)]
    assert stop_all(several, 60.0) == [-signal.SIGTERM] * 3


def test_it_dies_with_its_supervisor(run: Starter, tmp_path: Path) -> None:
    supervisor = run("supervise")
    child = int(told(supervisor, tmp_path))
    assert running(child)
    os.kill(supervisor.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not running(child)


def test_nothing_is_started_from_a_configuration_that_is_not_plain_data(tmp_path: Path) -> None:
    spec = WorkerSpec(name="x", program="a:b", run_directory=str(tmp_path), config={"a": object()})
    with pytest.raises(InputError, match="not plain data"):
        start(spec)


@pytest.mark.parametrize("fields", [{"threads": 0}, {"python": "/no/such/python"}, {"run_directory": "/proc/nowhere"}])
def test_what_cannot_be_started_is_an_input_error(tmp_path: Path, fields: dict[str, Any]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InputError, match="`x`"):
        start(WorkerSpec(**({"name": "x", "program": "a:b", "run_directory": str(tmp_path)} | fields)))
    assert len(os.listdir("/proc/self/fd")) == before


def test_stopping_gives_the_descriptors_back(run: Starter) -> None:
    before = len(os.listdir("/proc/self/fd"))
    run("wait").stop(0.0)
    assert len(os.listdir("/proc/self/fd")) == before
