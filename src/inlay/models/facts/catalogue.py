"""Facts by name from the shipped catalogue, or of any folder or file with a Hugging Face config.json. Nothing is downloaded."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import yaml

from inlay.errors import ModelError
from inlay.models.facts.architecture import ModelFacts
from inlay.models.facts.config import facts_of_config


class CatalogueEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model of the shipped file: its config, whose word that is, and its parameters in billions as stated (all, active)."""

    source: str
    stated: tuple[float, float]
    config: dict[str, Any]
    aliases: tuple[str, ...] = ()


@cache
def catalogue_entries() -> dict[str, CatalogueEntry]:
    """The shipped models by name."""
    text = resources.files("inlay.models.facts").joinpath("models.yaml").read_text(encoding="utf-8")
    return msgspec.convert(yaml.safe_load(text), dict[str, CatalogueEntry])


def model_names() -> tuple[str, ...]:
    """The names of the shipped models."""
    return tuple(catalogue_entries())


def read_facts(model: str | Path) -> ModelFacts:
    """The facts of a model by its name (case, an owner before it and `-` or `_` do not matter), or of a folder or config.json.

    Raises ModelError that suggests the nearest name, UnsupportedError for a kind of layer without a closed form.
    """
    path = Path(model)
    if path.exists():
        file = path / "config.json" if path.is_dir() else path
        return facts_of_config(_config(file), name=path.resolve().name if path.is_dir() else path.stem, source=str(file))
    known = {_spelled(alias): name for name, entry in catalogue_entries().items() for alias in (name, *entry.aliases)}
    wanted = _spelled(str(model).rpartition("/")[2])
    if wanted not in known:
        near = list(dict.fromkeys(known[item] for item in difflib.get_close_matches(wanted, known, n=3, cutoff=0.6)))
        raise ModelError(
            f"model {str(model)!r} is neither a folder nor in the catalogue, expected one of {', '.join(catalogue_entries())}",
            hint=f"did you mean {' or '.join(near)}?" if near else "give the folder of its config.json",
        )
    return _shipped(known[wanted])


@cache
def _shipped(name: str) -> ModelFacts:
    entry = catalogue_entries()[name]
    return facts_of_config(entry.config, name=name, source=entry.source)


def _spelled(name: str) -> str:
    return name.lower().replace("_", "-")


def _config(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as cause:
        raise ModelError(f"{file} cannot be read: {cause}", hint="give a folder with a Hugging Face config.json") from cause
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds {type(found).__name__}, expected an object", hint="is this a config.json?")
    return found
