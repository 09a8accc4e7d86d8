"""Catalogue: data sheets found by name or alias, however `-` and `_` are written."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property

from inlay.errors import ClusterError
from inlay.hardware.catalogue.sheet import DataSheet


def spelled(name: str) -> str:
    """The one spelling of a name: lower case, `_` for `-` and for spaces."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


@dataclass(frozen=True)
class Catalogue:
    """Data sheets in the order of their files. Raises ClusterError where a name or an alias means two chips."""

    sheets: tuple[DataSheet, ...]

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for sheet in self.sheets:
            for name in (sheet.name, *sheet.aliases):
                other = seen.setdefault(spelled(name), sheet.name)
                if other != sheet.name:
                    raise ClusterError(
                        f"{name!r} names both chip {other!r} and chip {sheet.name!r}, expected one",
                        hint="give the new chip another name or alias",
                    )

    @cached_property
    def _by_name(self) -> dict[str, DataSheet]:
        return {spelled(name): sheet for sheet in self.sheets for name in (sheet.name, *sheet.aliases)}

    def sheet(self, name: str) -> DataSheet:
        """The chip of that name or alias; ClusterError that suggests the nearest known ones."""
        wanted = spelled(name)
        if wanted in self._by_name:
            return self._by_name[wanted]
        near = difflib.get_close_matches(wanted, self._by_name, n=3, cutoff=0.6)
        suggested = list(dict.fromkeys(self._by_name[item].name for item in near))
        raise ClusterError(
            f"chip {name!r} is not in the catalogue, expected one of its {len(self.sheets)} chips",
            hint=f"did you mean {' or '.join(suggested)}?" if suggested else "`inlay chips` lists them; --file adds your own",
        )

    def __contains__(self, name: str) -> bool:
        return spelled(name) in self._by_name

    def joined(self, other: Catalogue) -> Catalogue:
        """Both; where a name is in both, `other`'s chip stands in its place."""
        theirs = {spelled(sheet.name): sheet for sheet in other.sheets}
        kept = tuple(theirs.pop(spelled(sheet.name), sheet) for sheet in self.sheets)
        return Catalogue((*kept, *theirs.values()))
