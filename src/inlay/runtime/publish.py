"""Publish a folder of the cache in one step, so that readers see all of it or nothing, also with two writers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def publish(directory: Path, fill: Callable[[Path], None], *, replace: bool = False) -> bool:
    """Fill a temporary folder beside `directory` and rename it there; True where this call's content is what lies there.

    Where another process was first its folder stays, unless `replace` moves an unusable one aside.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name[:32]}-", dir=directory.parent))
    try:
        fill(temporary)
        if replace and directory.exists():
            aside = Path(tempfile.mkdtemp(prefix=".replaced-", dir=directory.parent))
            os.replace(directory, aside / directory.name)
            shutil.rmtree(aside, ignore_errors=True)
        try:
            os.rename(temporary, directory)
        except OSError:
            if not directory.is_dir():
                raise
            return False
        return True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
