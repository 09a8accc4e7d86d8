"""What was built for a device that need not be here: the description that lies beside its code."""

from __future__ import annotations

import msgspec

BUILT_FILE = "built.json"


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """One program lowered for a target and not run: the device it is for, in words; the backend; the sizes it is for; bytes
    of its code; what its compiler says of it (`figures`), and the versions that made it."""

    target: str
    device: str
    backend: str
    program: str
    blocks: int
    points: tuple[dict[str, int], ...]
    code_bytes: int
    figures: dict[str, int | float]
    fingerprint: dict[str, str]
