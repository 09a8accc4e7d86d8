"""The engine's link to a device: what a device says that makes no sense loses that device, and nothing waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from inlay.engine.links import DeviceLink
from inlay.specs.device import KvFailed, Ready
from inlay.specs.precision import Precision
from inlay.specs.stage import StageShape
from inlay.transport import CONTROL_FRAME, shake_hands_async, write_frame

KEY = bytes(range(32))
FAILED = msgspec.msgpack.encode(KvFailed(transfer=1, sequence=1, cause="lease", message="text"))


@pytest.mark.parametrize(
    "said",
    [FAILED.replace(b"text", b"\xff\xfe\xfd\xfc"), FAILED[:-1], b"\xc1", msgspec.msgpack.encode({"type": "nonsense"})],
    ids=["broken text", "cut off", "not msgpack", "unknown message"],
)
def test_a_device_that_talks_nonsense_is_lost_with_the_reason_and_what_it_said_before_is_heard(tmp_path: Path, said) -> None:
    ready = Ready(
        place="cpu:0/null", epoch=1, framework="null", framework_version="1", stage=StageShape(vocabulary=1, layers=()),
        precision=Precision(), capacities=(16,), slots=1,
    )  # fmt: skip

    ended = asyncio.Event()

    async def device(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands_async(reader, writer, key=KEY, name="cpu:0/null", connects=False)
        for header in (msgspec.msgpack.encode(ready), FAILED, said):
            write_frame(writer, CONTROL_FRAME, header)
        await writer.drain()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.set()

    async def engine() -> tuple[list[object], list[str]]:
        server = await asyncio.start_unix_server(device, tmp_path / "s")
        heard: list[object] = []
        lost: list[str] = []
        link = DeviceLink("cpu:0/null", socket=str(tmp_path / "s"), key=KEY, silence=60.0)
        assert await link.open(seconds=10) == ready
        await asyncio.wait_for(link.read(heard.append, lost.append), 20)
        assert not link.alive
        link.close()
        await ended.wait()
        server.close()
        await server.wait_closed()
        return heard, lost

    heard, lost = asyncio.run(engine())
    assert [type(item) for item in heard] == [KvFailed] and len(lost) == 1 and lost[0]
