"""The corpus: which files of the Python standard library are read, and which are held out."""

from __future__ import annotations

import hashlib
import json
import sysconfig
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_FILES = 12
HELD_OUT_SMALLEST = 8_000
HELD_OUT_LARGEST = 120_000
TEST_SHARE = 6  # one test file in six is read
# Tables of numbers, files generated on the machine itself, and packages that are not the library's.
SKIPPED_PARTS = ("site-packages", "dist-packages", "encodings", "__pycache__", "_bundled")
SKIPPED_PREFIXES = ("_sysconfigdata", "config-")
TEST_PARTS = ("test", "tests", "idle_test")
TOPICS = "pydoc_data/topics.py"


@dataclass(frozen=True)
class SourceFile:
    """One file of the corpus, named by its path below the standard library's folder."""

    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """The files to train on and the files held out, both in name order."""

    train: list[SourceFile]
    held_out: list[SourceFile]

    def summary(self) -> dict[str, object]:
        """Say how much text there is, and which files are held out."""
        return {
            "train_files": len(self.train),
            "train_bytes": sum(len(file.text.encode()) for file in self.train),
            "held_out_files": [file.name for file in self.held_out],
            "held_out_bytes": sum(len(file.text.encode()) for file in self.held_out),
        }


def fingerprint(name: str) -> int:
    """Return a fixed number for a file name: the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"inlay {name}".encode()).digest()[:8], "big")


def _is_wanted(name: str) -> bool:
    parts = name.split("/")
    if any(part in SKIPPED_PARTS or part.startswith(SKIPPED_PREFIXES) for part in parts):
        return False
    if any(part in TEST_PARTS for part in parts):
        return fingerprint(name) % TEST_SHARE == 0
    return True


def _may_be_held_out(file: SourceFile) -> bool:
    in_tests = any(part in TEST_PARTS for part in file.name.split("/"))
    size = len(file.text.encode())
    return not in_tests and file.name != TOPICS and HELD_OUT_SMALLEST <= size <= HELD_OUT_LARGEST


def read_library(folder: Path | None = None) -> Corpus:
    """Read the standard library's sources and divide them into training and held-out files."""
    folder = folder or Path(sysconfig.get_path("stdlib"))
    files: list[SourceFile] = []
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if not _is_wanted(name):
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            files.append(SourceFile(name, text))
    candidates = sorted(filter(_may_be_held_out, files), key=lambda file: fingerprint(file.name))
    held_out_names = {file.name for file in candidates[:HELD_OUT_FILES]}
    return Corpus(
        train=[file for file in files if file.name not in held_out_names],
        held_out=[file for file in files if file.name in held_out_names],
    )


def save_corpus(corpus: Corpus, conversations: list[list[dict[str, str]]], folder: Path) -> None:
    """Write the corpus to the state folder, so that every later stage reads the same text."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, files in (("train", corpus.train), ("held_out", corpus.held_out)):
        lines = (json.dumps({"name": file.name, "text": file.text}) for file in files)
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    lines = (json.dumps(conversation) for conversation in conversations)
    (folder / "conversations.jsonl").write_text("\n".join(lines) + "\n")


def _read_lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def load_corpus(folder: Path) -> Corpus:
    """Read back what save_corpus wrote."""
    parts = [
        [SourceFile(line["name"], line["text"]) for line in _read_lines(folder / f"{part}.jsonl")]
        for part in ("train", "held_out")
    ]
    return Corpus(train=parts[0], held_out=parts[1])


def load_conversations(folder: Path) -> list[list[dict[str, str]]]:
    """Read back the conversations that save_corpus wrote."""
    lines = (folder / "conversations.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
