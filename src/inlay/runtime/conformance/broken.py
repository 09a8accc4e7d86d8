"""The section broken driver: a framework that does not come up, or only half, in the process of a device.

The import of the framework is made to fail there by a `sitecustomize` on that process's path alone. Expected is an error that
names the device and the backend, and that nothing is left: no process, no folder; and that the next opening works.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from inlay.errors import InlayError
from inlay.runtime.conformance.programs import Prepared, Progress, open_subject, run_trials
from inlay.runtime.conformance.world import World
from inlay.specs.artifact import WeightMap
from inlay.specs.conformance import Case

PLANTED = "planted: the driver of this chip does not answer"
POISON = """
import importlib.metadata, sys

def top_levels(name):
    try:
        files = importlib.metadata.distribution(name).files or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = {{file.parts[0].removesuffix(".py") for file in files if file.suffix in (".py", ".so")}}
    return {{item for item in found if item.isidentifier()}} | {{name.replace("-", "_")}}

class Poison:
    names, left = top_levels({name!r}), {after}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            if self.left == 0:
                raise ImportError({planted!r})
            Poison.left -= 1
        return None

sys.meta_path.insert(0, Poison())
"""
HALF_WAY = 3
"""So many modules of the framework are imported before the planted failure."""


def try_broken(world: World, item: Prepared, *, progress: Progress) -> list[Case]:
    """Cases for one program that is lowered already."""
    labels = ("its import fails", "its import fails half way", "loading fails half way")
    if not item.usable:
        return [item.case(label) for label in labels]
    cases = []
    for number, (label, after) in enumerate(zip(labels, (0, HALF_WAY, None), strict=True)):
        progress(f"break the driver: {number} of {len(labels)}")
        with _own_folder(world) as folder:
            cases.append(_broken(world, item, label, after, folder))
    return cases


def _broken(world: World, item: Prepared, label: str, after: int | None, folder: Path) -> Case:
    framework = world.backend.available().framework
    environment, subject = dict[str, str](), item
    wanted: tuple[str, ...]
    if after is not None:
        poison = folder / "poison"
        poison.mkdir()
        (poison / "sitecustomize.py").write_text(POISON.format(name=framework, after=after, planted=PLANTED))
        environment = {"PYTHONPATH": os.pathsep.join([str(poison), *filter(None, [os.environ.get("PYTHONPATH")])])}
        wanted = ("cpu:", f"backend {world.backend.name}", PLANTED)
    else:
        subject, gone = _without_last_weights(item)
        if not gone:
            return Case(label, "skipped", reason="its program has no weights in its last block")
        wanted = ("cpu:", gone)
    before = _children()
    try:
        with open_subject(world, subject, environment=environment):
            reason = f"loading imports nothing of {framework}" if after is not None else "it loads although weights are gone"
            return Case(label, "skipped" if after is not None else "failed", reason=reason)
    except InlayError as error:
        message = " ".join(error.message.split())
    absent = [text for text in wanted if text not in message]
    if absent:
        return Case(label, "failed", reason=f"the error does not say {absent[0]!r}: {message[:200]}")
    left = [*(_children() - before), *(path.name for path in folder.glob("inlay-*"))]
    if left:
        return Case(label, "failed", reason=f"left behind: {left[0]}")
    with open_subject(world, item) as session:
        fault = run_trials(session, item.subject.trials[:1])[0][1]
    return Case(label, "failed" if fault else "passed", reason=f"afterwards: {fault}" if fault else "")


def _without_last_weights(item: Prepared) -> tuple[Prepared, str]:
    """The same program with the weights of its last block that has any in a file that is not there; and that file's name."""
    used = [block.weights for block in item.stored.cut.blocks if block.weights]
    if not used:
        return item, ""
    gone, name = set(used[-1]), "gone.safetensors"
    weights = {
        key: msgspec.structs.replace(value, file=str(Path(value.file).with_name(name))) if key in gone else value
        for key, value in item.weights.weights.items()
    }
    changed = WeightMap(model_digest=item.weights.model_digest, weights=weights)
    return Prepared(item.subject, item.stored, changed, runs=item.runs, whole=item.whole), "gone"


def _children() -> set[int]:
    """Processes that this one started and that live."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(path.parent.name))
    return found


@contextmanager
def _own_folder(world: World) -> Iterator[Path]:
    """A folder for everything temporary, so that what is left there is this case's."""
    folder = Path(tempfile.mkdtemp(prefix="broken-", dir=world.scratch))
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
