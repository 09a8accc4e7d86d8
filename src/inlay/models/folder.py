"""A model folder as files: finding it and reading its JSON, with the refusals that all readers here share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inlay.errors import ModelError

MAXIMUM_JSON_BYTES = 64 * 2**20


def check_folder(folder: str | Path) -> Path:
    """The folder as a Path; ModelError when there is none."""
    path = Path(folder)
    if not path.is_dir():
        found = "a file" if path.is_file() else "not there"
        raise ModelError(
            f"model folder {str(path)!r} is {found}, expected a folder with config.json",
            hint="give the path of a downloaded Hugging Face model; inlay downloads nothing by itself",
        )
    return path


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """The JSON object in `folder/name`, or None where there is no such file; ModelError when it is not one."""
    path = folder / name
    if not path.is_file():
        return None
    try:
        size = path.stat().st_size
        if size > MAXIMUM_JSON_BYTES:
            raise ModelError(f"{path} has {size} bytes, expected at most {MAXIMUM_JSON_BYTES}", hint="is the file damaged?")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
        raise ModelError(f"{path} cannot be read as JSON: {cause}", hint="download the file again") from cause
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, expected a JSON object", hint="download the file again")
    return content
