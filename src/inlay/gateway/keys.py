"""API keys: only their digests are kept, and every comparison takes the same time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from inlay.errors import InputError

_PREFIX = "sha256:"


class KeyRing:
    """The keys that may call. Each is given as itself or as `sha256:<64 hex digits>` of itself; none means open.

    Raises InputError for an empty key or a malformed digest.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(_digest_of(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def tenant_of(self, authorization: str | None) -> str | None:
        """The tenant behind an `Authorization` header, or None when its key is not on the ring.

        A tenant is named by the start of its key's digest. Every key is compared, whichever matches.
        """
        scheme, _, key = (authorization or "").partition(" ")
        given = _hash(key.strip())
        found = None
        for digest in self._digests:
            if hmac.compare_digest(digest, given):
                found = digest.hex()[:16]
        return found if scheme.lower() == "bearer" else None


def _digest_of(key: str) -> bytes:
    if key.startswith(_PREFIX):
        try:
            digest = bytes.fromhex(key[len(_PREFIX) :])
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise InputError(
                f"an API key digest has {len(key) - len(_PREFIX)} characters, expected 64 hex digits after `sha256:`"
            )
        return digest
    if not key.strip():
        raise InputError("an API key is empty, expected some text", hint="leave keys out to let everyone call")
    return _hash(key.strip())


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
