"""A whole program lowered for a kind of device that need not be here, as a folder to take there. Nothing of it is run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from inlay.backends import backend
from inlay.backends.targets import check_target, targets_of
from inlay.errors import InputError, UnsupportedError
from inlay.graph import Piece, piece_of
from inlay.runtime.cache import Cache, read_manifest
from inlay.runtime.lowering import lower_pieces
from inlay.runtime.obtain import request_for
from inlay.runtime.publish import publish
from inlay.runtime.store import PROGRAM_FILE, WEIGHTS_FOLDER, piece_weights, read_program, read_weights
from inlay.runtime.weights import MAP_FILE, TENSOR_FILE
from inlay.specs.artifact import WeightMap
from inlay.specs.precision import Precision
from inlay.specs.target import BUILT_FILE, Built

Progress = Callable[[str], None]
ARTIFACT = "artifact"


def compile_for(
    program: Path, folder: Path, *, target: str, backend_name: str, cache: Cache, progress: Progress = lambda text: None
) -> Built:
    """Lower the whole captured program for the target and write it to `folder`: the artifact, the weights that it binds,
    and what was built. An older folder is replaced.

    Raises UnsupportedError with node and reason where it cannot be lowered.
    """
    stored, found = read_program(program), backend(backend_name)
    check_folder(folder)
    check_target(found, target)
    request = request_for(stored, backend_name, precision=Precision(), threads=1, target=target)
    whole = (0, len(stored.cut.blocks))
    outcome = lower_pieces(program, [whole], backend_name=backend_name, request=request, cache=cache, progress=progress)[whole]
    if outcome.reason:
        raise UnsupportedError(f"{stored.cut.program.name} cannot be lowered for target {target!r}: {outcome.reason}")
    artifact = cache.artifact(outcome.key)
    manifest = read_manifest(artifact)
    built = Built(
        target=target,
        device=targets_of(found)[target],
        backend=backend_name,
        program=stored.cut.program.name,
        blocks=whole[1],
        points=manifest.points,
        code_bytes=sum((artifact / name).stat().st_size for name in manifest.files),
        figures=manifest.figures,
        fingerprint=manifest.fingerprint,
    )

    weights = msgspec.json.encode(_weights(program, piece_of(stored.cut, *whole)))

    def fill(made: Path) -> None:
        shutil.copytree(artifact, made / ARTIFACT)
        (made / WEIGHTS_FOLDER).mkdir()
        if (program / WEIGHTS_FOLDER / TENSOR_FILE).is_file():
            shutil.copy(program / WEIGHTS_FOLDER / TENSOR_FILE, made / WEIGHTS_FOLDER / TENSOR_FILE)
        (made / WEIGHTS_FOLDER / MAP_FILE).write_bytes(weights)
        shutil.copy(program / PROGRAM_FILE, made / PROGRAM_FILE)
        (made / BUILT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(built)))

    publish(folder, fill, replace=True)
    return built


def _weights(program: Path, piece: Piece) -> WeightMap:
    """The weights under the names of the code, their file named as it lies beside the map."""
    found = piece_weights(read_weights(program), piece)
    own = str((program / WEIGHTS_FOLDER / TENSOR_FILE).absolute())
    weights = {
        name: msgspec.structs.replace(item, file=TENSOR_FILE) if item.file == own else item
        for name, item in found.weights.items()
    }
    return msgspec.structs.replace(found, weights=weights)


def check_folder(folder: Path) -> None:
    """Raise InputError for a folder that holds something other than what `compile_for` wrote."""
    if folder.exists() and not (folder / BUILT_FILE).is_file():
        raise InputError(
            f"{folder} exists and was not built for a target, expected a new folder or such a one", hint="choose another"
        )
