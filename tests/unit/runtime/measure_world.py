"""Artifacts that take a stated time, and a backend from outside whose executables fail in a stated way, for measuring tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest

from inlay.backends import backend
from inlay.hardware import Cluster, device_kind, probe
from inlay.runtime.candidate import MeasureJob, Piece
from inlay.specs.artifact import Interface, LowerRequest
from inlay.specs.precision import Precision
from inlay.specs.profile import ProfileKey
from inlay.specs.stage import Port

FAULTY = '''
"""The null backend, with a fault: option `fault` says which, `after` in how manieth run (0 = when it is loaded)."""
import os, signal, sys, time
from inlay.backends import backend as known

def fail(fault):
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "leave":
        print("going home", flush=True)
        os._exit(3)
    if fault == "hang":
        time.sleep(600)
    if fault == "raise":
        raise ZeroDivisionError("planted")

class Faulty:
    name, dynamic = "faulty", True

    def __getattr__(self, name):
        return getattr(known("null"), name)

    def validate(self, manifest):
        return "optimal"

    def load(self, directory, *, manifest, weights, threads, options):
        fault, after = options.get("fault", ""), int(options.get("after", "0"))
        rest = {key: value for key, value in options.items() if key not in ("fault", "after")}
        executable = known("null").load(directory, manifest=manifest, weights=weights, threads=threads, options=rest)
        if after == 0:
            fail(fault)
        run, runs = executable.run, [0]
        def counted(sizes):
            runs[0] += 1
            if runs[0] == after:
                fail(fault)
            run(sizes)
        executable.run = counted
        return executable

backend = Faulty()
'''


class World:
    """The local machine, a folder for artifacts, and jobs over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster: Cluster = probe()
        self.device = next(iter(self.cluster.devices))

    def artifact(self, interface: Interface | None = None, *, of: str = "null") -> str:
        """The folder of a lowered program that computes nothing."""
        found = interface or Interface(
            inputs=(Port(name="x", dtype="float32", shape=("B", 8)), Port(name="ids", dtype="int64", shape=("B",))),
            outputs=(Port(name="y", dtype="float32", shape=("B", "2*B")),),
        )
        directory = self.folder / f"artifact-{len(list(self.folder.iterdir()))}"
        directory.mkdir()
        manifest = backend("null").lower(None, interface=found, request=LowerRequest(), directory=directory)
        manifest = msgspec.structs.replace(manifest, backend=of)
        (directory / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        return str(directory)

    def key(self, program: str, *, of: str = "null", **sizes: int) -> ProfileKey:
        """A key for the first device."""
        return ProfileKey(
            program=program,
            sizes=tuple((sizes or {"B": 2}).items()),
            precision=Precision(),
            backend=of,
            version="1",
            kind=device_kind(self.cluster, self.device),
            threads=1,
        )

    def job(self, program: str, seconds: float = 0.0, *, of: str = "null", **options: str) -> MeasureJob:
        """One artifact at one size, said to take so long."""
        return MeasureJob(
            keys=(self.key(program, of=of),),
            pieces=(Piece(directory=self.artifact(of=of)),),
            options={"seconds_per_run": str(seconds), **options},
        )


def install_faulty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the faulty backend known to every process that starts from now on, by the door that plugins use."""
    described = folder / "faulty-1.0.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[inlay.backends]\nfaulty = faulty_plugin:backend\n")
    (folder / "faulty_plugin.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
