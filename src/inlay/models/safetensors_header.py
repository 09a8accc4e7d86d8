"""The safetensors format: an own, strict header reader and an atomic writer.

Format: 8 bytes little-endian length, a JSON header of that length, then the tensors' bytes without holes
(https://github.com/huggingface/safetensors). The library's numpy reader refuses bfloat16 and copies; this one does neither.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inlay.errors import ModelError

MAXIMUM_HEADER_BYTES = 100_000_000
_DTYPES = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "U16": ("uint16", 2),
    "I16": ("int16", 2),
    "U32": ("uint32", 4),
    "I32": ("int32", 4),
    "U64": ("uint64", 8),
    "I64": ("int64", 8),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
    "C64": ("complex64", 8),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
}
_TAGS = {name: tag for tag, (name, _) in _DTYPES.items()}


class TensorEntry(msgspec.Struct, frozen=True):
    """Where one tensor lies: file, dtype by numpy's or ml_dtypes' name, shape, byte offset in the file, byte length."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


class Header(msgspec.Struct, frozen=True):
    """One file's tensors by name, its free-form metadata, and the header's own bytes."""

    entries: dict[str, TensorEntry]
    metadata: dict[str, str]
    raw: bytes


def read_header(path: Path) -> Header:
    """The checked header of one file. Raises ModelError for anything that the format or the file's size forbids."""
    raw, start, size = _read_raw(path)
    try:
        content = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as cause:
        raise ModelError(f"{path}: its header is not JSON: {cause}", hint="download the file again") from cause
    if not isinstance(content, dict):
        raise ModelError(f"{path}: its header is a {type(content).__name__}, expected an object", hint="download it again")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelError(f"{path}: __metadata__ is {metadata!r}, expected texts by name", hint="download the file again")
    entries = {name: _entry(path, name, item, start, size) for name, item in content.items()}
    _check_coverage(path, entries, start, size)
    return Header(entries, metadata, raw)


def write_tensors(
    path: Path, tensors: Mapping[str, np.ndarray[Any, Any]], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all: to a temporary file beside it, then renamed over it.

    Tensors start at multiples of 64 bytes as far as their sizes allow (largest items first). Raises ModelError for
    a dtype that the format lacks.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    arrays = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    end = 0
    for name, array in arrays:
        tag = _TAGS.get(array.dtype.name)
        if tag is None or name == "__metadata__":
            raise ModelError(f"tensor {name!r} has dtype {array.dtype.name}, expected one of {sorted(_TAGS)}", hint="cast it")
        header[name] = {"dtype": tag, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for _, array in arrays:
                little = array.astype(array.dtype.newbyteorder("<"), copy=False) if array.dtype.byteorder == ">" else array
                file.write(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read_raw(path: Path) -> tuple[bytes, int, int]:
    """Header bytes, where the data starts, and the size of the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length < 2 or length > MAXIMUM_HEADER_BYTES or 8 + length > size:
                raise ModelError(
                    f"{path} has {size} bytes and says its header has {length}, "
                    f"expected a header inside the file and of at most {MAXIMUM_HEADER_BYTES} bytes",
                    hint="the file is truncated or not a safetensors file: download it again",
                )
            return file.read(length), 8 + length, size
    except OSError as cause:
        raise ModelError(f"{path} cannot be read: {cause}", hint="check its permissions") from cause


def _entry(path: Path, name: str, item: object, start: int, size: int) -> TensorEntry:
    where = f"{path}: tensor {name!r}"
    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise ModelError(f"{where} is {item!r}, expected dtype, shape and data_offsets", hint="download the file again")
    if item["dtype"] not in _DTYPES:
        raise ModelError(f"{where} has dtype {item['dtype']!r}, expected one of {sorted(_DTYPES)}", hint="use other weights")
    shape, offsets = item["shape"], item["data_offsets"]
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise ModelError(f"{where} has shape {shape!r} and offsets {offsets!r}, expected counts", hint="download it again")
    dtype, itemsize = _DTYPES[item["dtype"]]
    length = itemsize
    for extent in shape:
        length *= extent
    first, last = offsets
    if last - first != length:
        raise ModelError(f"{where} has {last - first} bytes, expected {length} for {dtype}{shape}", hint="download it again")
    if start + last > size:
        raise ModelError(
            f"{where} ends at byte {start + last} of a file of {size} bytes", hint="the file is truncated: download it again"
        )
    return TensorEntry(path, dtype, tuple(shape), start + first, length)


def _check_coverage(path: Path, entries: dict[str, TensorEntry], start: int, size: int) -> None:
    """The format wants the data without holes and overlaps: bytes that nobody names could hide anything."""
    position = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].length)):
        if entry.offset != position:
            fault = "overlaps the tensor before it" if entry.offset < position else "leaves a hole before it"
            raise ModelError(f"{path}: tensor {name!r} starts at {entry.offset} and {fault}", hint="download the file again")
        position += entry.length
    if position != size:
        raise ModelError(f"{path} has {size} bytes, expected {position} by its header", hint="download the file again")


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name is given twice")
    return content
