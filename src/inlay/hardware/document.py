"""Reading a YAML file into frozen structs, strictly: no duplicate keys, no unknown keys, no wrong types.

Called by cluster files here and by deployment files in `specs`. It knows YAML and structs, not what they mean.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from inlay.errors import InputError

MAXIMUM_BYTES = 4 * 2**20
MAXIMUM_DEPTH = 64

T = TypeVar("T")


def read_document(path: Path, *, error: type[InputError]) -> object:
    """Plain data (dict, list, str, int, float, bool, None) of a YAML file of at most 4 MiB; `error` when it is not."""
    try:
        size = path.stat().st_size
        if size > MAXIMUM_BYTES:
            raise error(f"{path} has {size} bytes, expected at most {MAXIMUM_BYTES}", hint="is this the right file?")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"{path} cannot be read: {cause}", hint="give the path of a YAML file") from cause
    return parse_document(text, source=str(path), error=error)


def parse_document(text: str, *, source: str, error: type[InputError]) -> object:
    """As `read_document`, from text; `source` names it in messages."""
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as cause:
        raise error(f"{source} is not valid YAML: {cause}", hint="check the line named above") from cause


def convert_document(raw: object, kind: type[T], *, source: str, error: type[InputError]) -> T:
    """`raw` as the struct `kind`; raises `error` naming the place, the value, what was expected and the known keys."""
    _check_keys(raw, kind, "", source, error, 0)
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as cause:
        text, _, where = str(cause).partition(" - at ")
        place = where.strip("`").removeprefix("$").removeprefix(".") or "the file"
        value = _value_at(raw, place)
        raise error(f"{source}: {place} is {value!r}: {text}", hint="correct that value") from cause


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _check_keys(raw: object, kind: object, where: str, source: str, error: type[InputError], depth: int) -> None:
    """Walk `raw` along the fields of `kind`: the struct decoder itself would not say which keys it knows."""
    if depth > MAXIMUM_DEPTH:
        raise error(f"{source}: {where} is nested deeper than {MAXIMUM_DEPTH}", hint="flatten it")
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            _check_keys(raw, argument, where, source, error, depth)
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if isinstance(raw, dict):
            hints = typing.get_type_hints(kind)
            _refuse_unknown(raw, hints, where, source, error)
            for name, value in raw.items():
                _check_keys(value, hints[name], f"{where}.{name}" if where else name, source, error, depth + 1)
    elif origin is dict and isinstance(raw, dict):
        for name, value in raw.items():
            _check_keys(value, arguments[1], f"{where}.{name}" if where else name, source, error, depth + 1)
    elif origin is tuple and isinstance(raw, list):
        for index, value in enumerate(raw):
            _check_keys(value, arguments[0], f"{where}[{index}]", source, error, depth + 1)


def _refuse_unknown(raw: dict[str, Any], hints: dict[str, Any], where: str, source: str, error: type[InputError]) -> None:
    unknown = sorted(set(raw) - set(hints))
    if unknown:
        place = where or "the top level"
        raise error(
            f"{source}: unknown key {unknown[0]!r} in {place}, expected one of {sorted(hints)}",
            hint=f"remove {unknown[0]!r} or correct its spelling",
        )


def _value_at(raw: object, place: str) -> object:
    """The value a struct decoder's path (`$.links[0].ends`) points at, as far as it can be followed."""
    for part in re.findall(r"[^.\[\]]+", place):
        if isinstance(raw, list) and part.isdigit() and int(part) < len(raw):
            raw = raw[int(part)]
        elif isinstance(raw, dict) and part in raw:
            raw = raw[part]
        else:
            break
    text = repr(raw)
    return raw if len(text) <= 200 else f"{text[:200]}..."
