"""The profiles on disk: one line of JSON each, only ever appended. The one file of this room that touches the disk.

`api` opens it at the cache's `profiles/`, hands its content to the partitioner, and appends what the runtime measured.
Failures are not kept: what failed once may have failed for want of memory or time.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from inlay.errors import InputError
from inlay.specs.profile import Profile, ProfileKey

STORE_VERSION = 1
FILE_NAME = "profiles.jsonl"


class _Line(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    version: int
    profile: Profile


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """All that a store holds, the newest of each key; `skipped` lines were torn, impossible or of another version."""

    profiles: dict[ProfileKey, Profile] = {}
    skipped: int = 0


class ProfileStore:
    """A folder with one append-only file, safe under several processes: a line is written whole, under a lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE_NAME

    def append(self, profiles: Iterable[Profile]) -> None:
        """Keep these. Raises InputError when the folder cannot be written."""
        lines = [_Line(version=STORE_VERSION, profile=item) for item in profiles]
        if not lines:
            return
        data = b"".join(msgspec.json.encode(line, order="sorted") + b"\n" for line in lines)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                _write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as cause:
            raise InputError(
                f"profiles cannot be kept in {self.path}: {cause}", hint="set INLAY_CACHE to another folder"
            ) from cause

    def read(self) -> Stored:
        """Everything kept so far; nothing where there is no file yet. Raises InputError when it cannot be read."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Stored()
        except OSError as cause:
            raise InputError(f"profiles cannot be read from {self.path}: {cause}", hint="check its permissions") from cause
        decoder = msgspec.json.Decoder(_Line)
        profiles: dict[ProfileKey, Profile] = {}
        skipped = 0
        for text in data.splitlines():
            try:
                line = decoder.decode(text)
            except msgspec.DecodeError:
                skipped += bool(text.strip())
                continue
            held = line.profile
            if line.version == STORE_VERSION and 0 < held.low <= held.median <= held.high < math.inf:
                profiles[held.key] = held
            else:
                skipped += 1
        return Stored(profiles=profiles, skipped=skipped)


def _write(descriptor: int, data: bytes) -> None:
    """Append whole lines. A line that a dying process left torn is closed first, so that it spoils none but itself."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        data = b"\n" + data
    while data:
        data = data[os.write(descriptor, data) :]
