"""Device processes that make one runner, each in a thread with the null backend: batches, failures and loss along the chain."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inlay.backends import backend
from inlay.backends.null.execute import next_tokens
from inlay.engine.device import DeviceConfig, DeviceProcess
from inlay.errors import OutOfMemoryError, TransferError
from inlay.runtime.cache import MANIFEST_FILE
from inlay.specs.artifact import LowerRequest, WeightMap, stage_interface
from inlay.specs.device import BatchDone, BatchFailed, Beat, DeviceToEngine, Ping, Ready, Row, Stop, Submit
from inlay.specs.sampling import Sampling
from inlay.specs.stage import KvLayer, StageShape
from inlay.transport import CONTROL_FRAME, StreamChannel, shake_hands

LAYER = KvLayer(key_heads=1, key_dim=2, value_heads=1, value_dim=2)
WHOLE = StageShape(vocabulary=53, layers=(LAYER,) * 4)
KEY = bytes(range(32))
PLACES = ("cpu:0/null", "cpu:1/null", "cpu:2/null")
CUTS = (0, 1, 3, 4)


class Engine:
    """The engine's end of every process's control stream."""

    def __init__(self) -> None:
        self.channels: dict[str, StreamChannel] = {}

    def connect(self, place: str, path: Path) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(path))
        assert shake_hands(sock, key=KEY, name="engine", connects=True).name == place
        self.channels[place] = StreamChannel(sock)

    def send(self, place: str, message: Any) -> None:
        assert self.channels[place].send(CONTROL_FRAME, msgspec.msgpack.encode(message))

    def hear(self, place: str, *, seconds: float = 10.0) -> Any:
        """The next message of a process; None when it has gone, an error when it says nothing."""
        channel = self.channels[place]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                frame = channel.receive()
            except TransferError:
                return None
            if frame is not None:
                return msgspec.msgpack.decode(frame.header, type=DeviceToEngine)
            select.select([channel], [], [], 0.05)
        raise AssertionError(f"{place} said nothing for {seconds} s")


class Chain:
    """Three processes as threads; `engine` speaks with all of them."""

    def __init__(self, folder: Path) -> None:
        self.engine = Engine()
        (folder / "weights").mkdir()
        (folder / "weights" / "weights.json").write_bytes(msgspec.json.encode(WeightMap(model_digest="m", weights={})))
        sockets = {place: str(folder / f"{index}.sock") for index, place in enumerate(PLACES)}
        self.processes: dict[str, DeviceProcess] = {}
        self.threads: list[threading.Thread] = []
        for index, (low, high) in enumerate(pairwise(CUTS)):
            artifact = folder / f"artifact-{index}"
            artifact.mkdir()
            shape = WHOLE.piece(low, high, hidden=3)
            manifest = backend("null").lower(None, interface=stage_interface(shape), request=LowerRequest(), directory=artifact)
            (artifact / MANIFEST_FILE).write_bytes(msgspec.json.encode(manifest))
            config = DeviceConfig(
                place=PLACES[index], epoch=1, key=KEY, socket=sockets[PLACES[index]],
                peers={place: path for place, path in sockets.items() if place != PLACES[index]}, model_digest="m",
                artifact=str(artifact), weights=str(folder / "weights"), backend="null", framework_version="0", threads=1,
                capacities=(16, 64), rooms=(4, 4), slots=4, before=PLACES[index - 1] if index else "",
                after=PLACES[index + 1] if index + 1 < len(PLACES) else "",
            )  # fmt: skip
            process = self.processes[PLACES[index]] = DeviceProcess(config)
            thread = threading.Thread(target=process.run, daemon=True)
            thread.start()
            self.threads.append(thread)
        for place in PLACES:
            self.engine.connect(place, Path(sockets[place]))
        for place, (low, high) in zip(PLACES, pairwise(CUTS), strict=True):
            ready = self.engine.hear(place)
            assert isinstance(ready, Ready) and ready.place == place
            assert (ready.stage.first, len(ready.stage.layers)) == (low, high - low)

    def submit(self, number: int, *, order: tuple[str, ...] = PLACES, pause: float = 0.0) -> Submit:
        row = Row(sequence=9, slot=1, tokens=(4, 8, 15 + number), past_length=number, sample=Sampling(temperature=0))
        batch = Submit(batch=number, phase="prefill", capacity=16, first=0, count=2, width=3, rows=(row,))
        for place in order:
            self.engine.send(place, batch)
            time.sleep(pause)
        return batch

    def hear(self) -> list[Any]:
        return [self.engine.hear(place) for place in PLACES]

    def break_next(self, place: str) -> None:
        """The next batch of this process cannot be run; the one after it can."""
        executable: Any = self.processes[place]._runner._executable
        start = executable.start

        def refuse(sizes: dict[str, int]) -> None:
            executable.start = start
            raise OutOfMemoryError("planted")

        executable.start = refuse

    def kill(self, place: str) -> None:
        """End a process: its loop stops, its connections with its neighbours close, as the kernel would close them."""
        self.processes[place]._running = False
        self.engine.send(place, Ping())
        self.threads[PLACES.index(place)].join(5)

    def close(self) -> None:
        for place, thread in zip(PLACES, self.threads, strict=True):
            if thread.is_alive():
                self.engine.send(place, Stop())
                thread.join(5)
        alive = [place for place, thread in zip(PLACES, self.threads, strict=True) if thread.is_alive()]
        for process in self.processes.values():
            process._door.close()
            process._selector.close()
            if process._engine is not None:
                process._engine.close()
        for channel in self.engine.channels.values():
            channel.close()
        assert not alive, "a process did not end"


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    made = Chain(tmp_path)
    try:
        yield made
    finally:
        made.close()


def expected(batch: Submit) -> int:
    import numpy as np

    row = batch.rows[0]
    return int(next_tokens(np.array([row.tokens]), np.array([row.past_length]), 53)[0, -1])


def assert_done(batch: Submit, outcomes: list[Any]) -> None:
    assert all(isinstance(item, BatchDone) and item.batch == batch.batch for item in outcomes), outcomes
    assert [item.results[0].sampled for item in outcomes[:-1]] == [(), ()]
    assert outcomes[-1].results[0].sampled[0].token == expected(batch)


def test_a_batch_goes_through_all_processes_and_the_last_one_samples(chain) -> None:
    for number in range(5):
        assert_done(chain.submit(number), chain.hear())


def test_the_order_in_which_the_processes_are_told_does_not_matter(chain) -> None:
    for number, order in enumerate([PLACES, PLACES[::-1], (PLACES[1], PLACES[2], PLACES[0])]):
        assert_done(chain.submit(number, order=order, pause=0.1), chain.hear())


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_process_that_fails_a_batch_fails_it_for_those_after_it_and_the_next_batch_works(chain, index) -> None:
    chain.break_next(PLACES[index])
    chain.submit(1)
    outcomes = chain.hear()
    failed = BatchFailed(batch=1, code="out_of_memory", message=f"{PLACES[index]}: planted")
    assert all(isinstance(item, BatchDone) for item in outcomes[:index])
    assert outcomes[index:] == [failed] * (3 - index)
    assert_done(chain.submit(2), chain.hear())


def test_a_process_that_waits_answers_nothing_else_before_and_all_of_it_after(chain) -> None:
    batch = chain.submit(1, order=PLACES[:0:-1])
    chain.engine.send(PLACES[2], Ping())
    time.sleep(0.2)
    chain.engine.send(PLACES[0], batch)
    assert_done(batch, chain.hear())
    assert isinstance(chain.engine.hear(PLACES[2]), Beat)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_when_one_process_goes_what_waits_for_it_fails_and_all_of_the_chain_end(chain, victim) -> None:
    waiting = [index for index in range(3) if index > victim]
    chain.submit(1, order=tuple(PLACES[index] for index in waiting))
    time.sleep(0.1)
    chain.kill(PLACES[victim])
    for index in waiting:
        outcome = chain.engine.hear(PLACES[index])
        assert isinstance(outcome, BatchFailed) and outcome.code == "device_lost" and "lost its neighbour" in outcome.message
    for index in range(3):
        if index != victim:
            chain.threads[index].join(5)
            assert not chain.threads[index].is_alive()
