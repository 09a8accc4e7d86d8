"""Build: the folder of a compiled Partition. It holds the plan, the code of every piece, the weights that come from no
checkpoint, and the reference of every block. Written from the cache, read without torch and without the model's code.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from inlay.backends import backend
from inlay.backends.manifest import file_digest
from inlay.backends.targets import BUILT_NOT_RUN
from inlay.errors import ArtifactError
from inlay.graph import Piece, piece_of
from inlay.runtime.cache import MANIFEST_FILE, read_manifest
from inlay.runtime.publish import publish
from inlay.runtime.store import PROGRAM_FILE, WEIGHTS_FOLDER, StoredProgram, piece_weights, read_program
from inlay.runtime.weights import MAP_FILE, TENSOR_FILE, read_weight_map
from inlay.specs.artifact import WeightMap
from inlay.specs.partition import Partition
from inlay.specs.target import BUILT_FILE, Built

BUILD_VERSION = 1
PARTITION_FILE, ARTIFACTS, REFERENCES = "partition.json", "artifacts", "reference"


class BuiltPiece(msgspec.Struct, frozen=True, kw_only=True):
    """One loaded unit of a region: blocks first to end, not included, and the name of its artifact's folder."""

    first: int
    end: int
    artifact: str


class BuiltRegion(msgspec.Struct, frozen=True, kw_only=True):
    """A region as it runs: its place, its threads and cores, its pieces in order."""

    id: str
    device: str
    backend: str
    threads: int
    pieces: tuple[BuiltPiece, ...]
    options: dict[str, str] = {}


class BuildManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in a Build. `references` maps each block to the folder of its reference; `files` every other file to its
    sha256; `built_not_run` lists regions compiled for a device that this machine does not have."""

    version: int
    program: str
    name: str
    regions: tuple[BuiltRegion, ...]
    references: tuple[str, ...]
    files: dict[str, str]
    built_not_run: tuple[str, ...] = ()


class Build:
    """A Build on disk, checked. `pieces_of` and `weights_of` give what a device process loads."""

    def __init__(self, folder: Path, manifest: BuildManifest, stored: StoredProgram, partition: Partition) -> None:
        self.folder, self.manifest, self.stored, self.partition = folder, manifest, stored, partition

    def piece(self, built: BuiltPiece) -> Piece:
        """Ports and weights of a built piece."""
        return piece_of(self.stored.cut, built.first, built.end)

    def weights_of(self, piece: Piece) -> WeightMap:
        """The weights of a piece under the names of its code."""
        return piece_weights(read_build_weights(self.folder), piece)

    def artifact_count(self) -> tuple[int, int]:
        """How many artifacts there are, and the bytes of their code together."""
        folders = [item for item in (self.folder / ARTIFACTS).iterdir() if item.is_dir()]
        size = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
        return len(folders), size


def write_build(
    target: Path,
    *,
    partition: Partition,
    program: Path,
    regions: Sequence[BuiltRegion],
    artifacts: Mapping[str, Path],
    references: Sequence[Path],
    partition_text: bytes,
    built_not_run: Sequence[str] = (),
) -> None:
    """Put a Build together from the cache and publish it whole. An older Build of that name is replaced."""
    stored = read_program(program)

    def fill(folder: Path) -> None:
        (folder / PARTITION_FILE).write_bytes(partition_text)
        shutil.copy(program / PROGRAM_FILE, folder / PROGRAM_FILE)
        (folder / WEIGHTS_FOLDER).mkdir()
        for name in (MAP_FILE, TENSOR_FILE):
            if (program / WEIGHTS_FOLDER / name).is_file():
                shutil.copy(program / WEIGHTS_FOLDER / name, folder / WEIGHTS_FOLDER / name)
        for name, source in artifacts.items():
            shutil.copytree(source, folder / ARTIFACTS / name)
        for source in dict.fromkeys(references):
            shutil.copytree(source, folder / REFERENCES / source.name)
        names = (PARTITION_FILE, PROGRAM_FILE, f"{WEIGHTS_FOLDER}/{MAP_FILE}")
        manifest = BuildManifest(
            version=BUILD_VERSION,
            program=partition.program,
            name=stored.cut.program.name,
            regions=tuple(regions),
            references=tuple(source.name for source in references),
            files={name: file_digest(folder / name) for name in names if name != PARTITION_FILE},
            built_not_run=tuple(built_not_run),
        )
        (folder / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))

    if target.exists() and not (target / MANIFEST_FILE).is_file():
        raise ArtifactError(f"{target} exists and is no Build, expected a new folder or an older Build", hint="choose another")
    publish(target, fill, replace=True)


def read_build(folder: Path) -> Build:
    """A Build with every file of it checked against its digest. Raises ArtifactError naming the file."""
    path = folder / MANIFEST_FILE
    if (folder / BUILT_FILE).is_file():
        raise _for_elsewhere(folder)
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=BuildManifest)
        partition = msgspec.json.decode((folder / PARTITION_FILE).read_bytes(), type=Partition)
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(f"{folder} is no Build that can be read: {error}", hint="make one with `inlay compile`") from error
    if manifest.version != BUILD_VERSION:
        raise ArtifactError(
            f"Build {folder} has version {manifest.version}, expected {BUILD_VERSION}", hint="recompile it with this inlay"
        )
    for name, digest in manifest.files.items():
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            raise ArtifactError(f"file {str(folder / name)!r} is missing or does not have its digest", hint="compile it again")
    build = Build(folder, manifest, read_program(folder), partition)
    for region in manifest.regions:
        for piece in region.pieces:
            check_artifact(folder / ARTIFACTS / piece.artifact, backend_name=region.backend, region=region.id)
    return build


def _for_elsewhere(folder: Path) -> ArtifactError:
    """What is said of a folder that was compiled for a target, instead of a Build."""
    try:
        built = msgspec.json.decode((folder / BUILT_FILE).read_bytes(), type=Built)
    except (OSError, msgspec.DecodeError) as error:
        return ArtifactError(f"{folder / BUILT_FILE} cannot be read: {error}", hint="compile it again")
    return ArtifactError(
        f"{folder} is for target {built.target!r} ({built.device}): {BUILT_NOT_RUN}",
        hint="take it to such a device; without --target, `inlay compile` makes a Build that runs here",
    )


def check_artifact(directory: Path, *, backend_name: str, region: str) -> None:
    """Digest of every file, then whether the framework that is here takes it. Raises ArtifactError: "recompile"."""
    manifest = read_manifest(directory)
    found = backend(backend_name)
    here = found.available()
    if not here.available:
        raise ArtifactError(
            f"region {region} needs backend {backend_name}, which is not here: {here.reason}", hint=here.hint or "install it"
        )
    if found.validate(manifest) != "optimal":
        made = ", ".join(f"{name} {version}" for name, version in sorted(manifest.fingerprint.items()))
        raise ArtifactError(
            f"artifact {directory.name[:12]} of region {region} was lowered with {made}, and {here.framework} {here.version} "
            "or this machine is another: recompile",
            hint="run `inlay compile` again",
        )


def read_build_weights(folder: Path) -> WeightMap:
    """The weights of a Build. Raises ArtifactError."""
    found = read_weight_map(folder / WEIGHTS_FOLDER)
    if found is None:
        raise ArtifactError(f"weights of Build {folder} are absent, or the checkpoint has gone elsewhere", hint="compile again")
    return found
