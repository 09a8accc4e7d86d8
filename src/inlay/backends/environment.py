"""Environments of their own: the Python of a framework that clashes with the main one, and what is installed for it.

Nothing is started and no framework is imported to find out. Asked by `manifest`, and by whoever starts a process that
lowers or loads. `make environments` builds them.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inlay.backends.registry import backend
from inlay.errors import UnsupportedError

FOLDER = ".environments"
VARIABLE = "INLAY_ENVIRONMENTS"
OURS = "inlay"


@dataclass(frozen=True, slots=True)
class Environment:
    """A folder that `python -m venv` made, called as the backends that live in it name it."""

    name: str
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> tuple[str, ...]:
        """Its site-packages, whatever version of Python it has."""
        return tuple(str(path) for path in sorted(self.folder.glob("lib/python*/site-packages")))

    @property
    def is_running(self) -> bool:
        """Whether this very process runs in it."""
        return Path(sys.prefix).resolve() == self.folder.resolve()

    def version(self, package: str) -> str | None:
        """The installed version of a distribution."""
        found = self._distribution(package)
        return None if found is None else found.version

    def fault(self) -> str:
        """Why no process can be started in it, as far as its files tell; empty where nothing speaks against it."""
        if not self.python.is_file() or not os.access(self.python, os.X_OK):
            return f"environment {str(self.folder)!r} has no bin/python that can be started"
        theirs, ours = self._distribution(OURS), importlib.metadata.distribution(OURS)
        if theirs is None:
            return f"environment {str(self.folder)!r} does not hold {OURS}"
        if (theirs.version, source_of(theirs)) != (ours.version, source_of(ours)):
            return (
                f"environment {str(self.folder)!r} holds {OURS} {theirs.version} of {source_of(theirs)}, "
                f"expected {ours.version} of {source_of(ours)}"
            )
        return ""

    def _distribution(self, package: str) -> importlib.metadata.Distribution | None:
        found = importlib.metadata.distributions(name=package, path=list(self.packages))
        return next(iter(found), None)


def environment_folders(variables: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Where environments are looked for, in order: INLAY_ENVIRONMENTS alone where it is set; else `.environments` in the
    current folder, then beside the running one (`.venv` or another environment)."""
    stated = variables.get(VARIABLE)
    if stated:
        return (Path(stated).absolute(),)
    around = Path(sys.prefix).absolute().parent
    return tuple(dict.fromkeys((Path(FOLDER).absolute(), around if around.name == FOLDER else around / FOLDER)))


def find_environment(name: str, variables: Mapping[str, str] = os.environ) -> Environment | None:
    """The first environment of that name, broken or not, or None. An empty name has none."""
    for folder in environment_folders(variables) if name else ():
        if (folder / name).is_dir():
            return Environment(name, folder / name)
    return None


def package_version(package: str, environment: str = "") -> str | None:
    """The installed version of a distribution, found without importing it: in that environment where there is one, else in
    the running one."""
    found = find_environment(environment)
    if found is not None:
        return found.version(package)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def source_of(distribution: importlib.metadata.Distribution) -> str:
    """Where a distribution was installed from, as pip notes it; "a registry" where it notes nothing."""
    return distribution.read_text("direct_url.json") or "a registry"


def home_of(name: str) -> str:
    """The environment that the backend of this name lives in, as it declares; empty for the main one."""
    return str(getattr(backend(name), "environment", ""))


def environment_of(name: str) -> Environment | None:
    """The environment that processes of a backend run in, or None where that is the running one."""
    found = find_environment(home_of(name))
    return None if found is None or found.is_running else found


def python_of(name: str) -> str:
    """The interpreter for every process that lowers or loads for the backend of this name.

    Raises UnsupportedError, naming the folder, for an environment in which none can be started.
    """
    found = environment_of(name)
    if found is None:
        return sys.executable
    fault = found.fault()
    if fault:
        raise UnsupportedError(f"backend {name} cannot be started: {fault}", hint=remedy(found.name))
    return str(found.python)


def remedy(environment: str) -> str:
    """What makes an environment good again."""
    return f"`make environment-{environment}` builds it anew where its folder is removed"
