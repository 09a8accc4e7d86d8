"""The identity of a model: what a KV page, a cached weight or a deployment is bound to."""

from __future__ import annotations

import hashlib
from pathlib import Path

from inlay.errors import ModelError
from inlay.models.checkpoint import open_checkpoint
from inlay.models.safetensors_header import read_header

WHOLE_UP_TO = 256 * 2**20
SAMPLE_BYTES = 64 * 2**10
SAMPLE_EVERY = 16 * 2**20
_TEXTS = ("config.json", "generation_config.json", "tokenizer.json")


def model_digest(folder: str | Path) -> str:
    """sha256, in hexadecimal, of a model's facts and weights; independent of where the folder lies.

    Weight files up to 256 MiB count whole; of larger ones the header, the size, 64 KiB out of every 16 MiB and the
    modification time count, so a large file that is copied without its time gets another digest.
    """
    checkpoint = open_checkpoint(folder)
    digest = hashlib.sha256(b"inlay model 1\0")
    for name in _TEXTS:
        path = checkpoint.folder / name
        if path.is_file():
            _feed(digest, name, path.read_bytes())
    for path in checkpoint.files:
        _feed(digest, path.name, read_header(path).raw)
        _feed_weights(digest, path)
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, name: str, content: bytes) -> None:
    # Lengths first: otherwise two different folders could give one stream of bytes.
    digest.update(f"{name}\0{len(content)}\0".encode())
    digest.update(content)


def _feed_weights(digest: hashlib._Hash, path: Path) -> None:
    try:
        status = path.stat()
        whole = status.st_size <= WHOLE_UP_TO
        stamp = "whole" if whole else f"sampled {status.st_mtime_ns}"
        digest.update(f"{stamp}\0{status.st_size}\0".encode())
        with path.open("rb") as file:
            if whole:
                while block := file.read(2**20):
                    digest.update(block)
                return
            for position in range(0, status.st_size, SAMPLE_EVERY):
                file.seek(position)
                digest.update(file.read(SAMPLE_BYTES))
    except OSError as cause:
        raise ModelError(f"{path} cannot be read: {cause}", hint="check its permissions") from cause
