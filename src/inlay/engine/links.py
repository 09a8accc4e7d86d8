"""The engine's connections to its device processes: frames in and out, and a watch on their signs of life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

import msgspec

from inlay.errors import DeviceError, TransferError
from inlay.specs.device import Beat, DeviceToEngine, EngineToDevice, Ping, Ready, Stop
from inlay.transport import CONTROL_FRAME, ENGINE_NAME, read_frame, shake_hands_async, write_frame

PING_SECONDS = 2.0
log = logging.getLogger("inlay.engine")


class DeviceLink:
    """One device process as the engine sees it. `lost` is called once, when it ends or stays silent too long."""

    def __init__(self, place: str, *, socket: str, key: bytes, silence: float) -> None:
        self.place = place
        self.alive = False
        self.ready: Ready | None = None
        self.beat: Beat | None = None
        self._socket = socket
        self._key = key
        self._silence = silence
        self._heard = 0.0
        self._reader: asyncio.StreamReader = asyncio.StreamReader()
        self._writer: asyncio.StreamWriter | None = None
        self._decode = msgspec.msgpack.Decoder(DeviceToEngine).decode

    async def open(self, *, seconds: float) -> Ready:
        """Connect, prove the key and wait until the device has loaded."""
        deadline = monotonic() + seconds
        while self._writer is None:
            try:
                self._reader, self._writer = await asyncio.open_unix_connection(self._socket)
            except OSError as error:
                if monotonic() > deadline:
                    raise DeviceError(f"{self.place} did not open its socket within {seconds:.0f} s") from error
                await asyncio.sleep(0.05)
        await shake_hands_async(self._reader, self._writer, key=self._key, name=ENGINE_NAME, connects=True)
        frame = await asyncio.wait_for(read_frame(self._reader), max(1.0, deadline - monotonic()))
        message = self._decode(frame.header)
        if not isinstance(message, Ready):
            raise DeviceError(f"{self.place} began with {type(message).__name__}, expected Ready")
        self.ready, self.alive, self._heard = message, True, monotonic()
        return message

    async def read(self, heard: Callable[[DeviceToEngine], None], lost: Callable[[str], None]) -> None:
        """Pass on what the device says until it is gone."""
        reason = "its connection ended"
        watch = asyncio.create_task(self._watch())
        try:
            while True:
                frame = await read_frame(self._reader)
                self._heard = monotonic()
                message = self._decode(frame.header)
                if isinstance(message, Beat):
                    self.beat = message
                else:
                    heard(message)
        except (TransferError, msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
            reason = str(error)
        finally:
            watch.cancel()
        silent = monotonic() - self._heard
        if silent > self._silence:
            reason = f"silent for {silent:.0f} s"
        self.alive = False
        log.warning("%s is lost: %s", self.place, reason)
        lost(reason)

    def send(self, message: EngineToDevice) -> None:
        """Queue a message; one for a lost device is dropped, its loss is reported by `read`."""
        if self._writer is not None and self.alive:
            write_frame(self._writer, CONTROL_FRAME, msgspec.msgpack.encode(message))

    def close(self) -> None:
        """Tell the device to end."""
        if self._writer is not None:
            self.send(Stop())
            self._writer.close()

    async def _watch(self) -> None:
        """A device that answers nothing for the whole silence limit is cut off, and by that lost."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            self.send(Ping())
            if monotonic() - self._heard > self._silence and self._writer is not None:
                self._writer.transport.abort()
                return
