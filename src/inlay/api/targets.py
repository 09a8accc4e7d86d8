"""Code for devices that are not here: which kinds there are, and a module compiled for one. Wiring only."""

from __future__ import annotations

from pathlib import Path

from inlay.api.programs import CapturedModel, Progress, quiet
from inlay.backends.targets import BUILT_NOT_RUN, target_backend, targets
from inlay.runtime import Cache
from inlay.runtime.targeted import check_folder, compile_for
from inlay.specs.target import Built

__all__ = ["BUILT_NOT_RUN", "check", "compile_for_target", "targets"]


def check(target: str, folder: str | Path) -> None:
    """Raise InputError for an unknown target, listing the known ones, or a folder that holds something else."""
    target_backend(target)
    check_folder(Path(folder))


def compile_for_target(model: CapturedModel, folder: str | Path, *, target: str, progress: Progress = quiet) -> Built:
    """Lower a captured module for a target into `folder`, at its declared points. It is built, not run.

    Raises InputError for an unknown target, UnsupportedError with the reason where the target's compiler refuses it.
    """
    name = target_backend(target)
    return compile_for(model.folder, Path(folder), target=target, backend_name=name, cache=Cache.default(), progress=progress)
