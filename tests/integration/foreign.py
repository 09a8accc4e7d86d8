"""A Python environment made for a test, and a backend that lives in it: the reference under another name.

Its interpreter is a real one with a prefix of its own; it sees the packages of the running environment, and its own
metadata says which of them it holds.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import sysconfig
import venv
from pathlib import Path

NAME = "foreign"
ENTRY = "[inlay.backends]\nforeign = foreign_plugin:backend\n"
PLUGIN = """
import msgspec
from inlay.backends import backend as named
from inlay.backends.manifest import availability, fingerprint, judge

class ForeignBackend:
    name, dynamic, environment = "foreign", True, "foreign"

    def available(self):
        return availability("foreign", ("torch",), environment="foreign")

    def supports(self, program, *, device):
        return msgspec.structs.replace(named("reference").supports(program, device=device), backend="foreign")

    def lower(self, exported, **rest):
        made = named("reference").lower(exported, **rest)
        return msgspec.structs.replace(
            made, backend="foreign", fingerprint=fingerprint(("torch",), environment="foreign", extra=PREFIX())
        )

    def validate(self, manifest):
        made = {key: value for key, value in manifest.fingerprint.items() if key != "lowered in"}
        return judge(msgspec.structs.replace(manifest, fingerprint=made), "foreign", ("torch",), environment="foreign")

    def load(self, directory, **rest):
        return named("reference").load(directory, **rest)

def PREFIX():
    import sys
    return {"lowered in": sys.prefix}

backend = ForeignBackend()
"""


def make_environment(folder: Path, *, packages: dict[str, str], inlay: bool = True) -> Path:
    """An environment in `folder` that holds these versions; inlay as the running one has it."""
    venv.create(folder, with_pip=False, symlinks=True)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "seen.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in _running_site()))
    for name, version in packages.items():
        note_package(site, name, version)
    if inlay:
        ours = importlib.metadata.distribution("inlay")
        target = note_package(site, "inlay", ours.version)
        for file in ("direct_url.json", "entry_points.txt"):
            if (text := ours.read_text(file)) is not None:
                (target / file).write_text(text)
    return folder


def note_package(site: Path, name: str, version: str) -> Path:
    """Metadata of one package, as pip leaves it; any version that was there goes."""
    stem = name.replace("-", "_")
    for old in site.glob(f"{stem}-*.dist-info"):
        shutil.rmtree(old)
    target = site / f"{stem}-{version}.dist-info"
    target.mkdir()
    (target / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return target


def install_plugin(folder: Path) -> str:
    """The backend `foreign`, registered by its entry point in `folder`; the PYTHONPATH that shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "foreign_plugin.py").write_text(PLUGIN)
    (note_package(folder, "foreign_plugin", "1.0") / "entry_points.txt").write_text(ENTRY)
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def _running_site() -> list[str]:
    found = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return list(dict.fromkeys(path for path in found if path in sys.path))
