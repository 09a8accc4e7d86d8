"""Profiles on disk: appended, found again, several writers, torn and strange lines."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from inlay.cost import ProfileStore
from inlay.errors import InputError
from inlay.specs.precision import Precision
from inlay.specs.profile import Profile, ProfileKey


def profile(name: str = "block", *, median: float = 2.0, **key: object) -> Profile:
    fields = {
        "program": name,
        "sizes": (("B", 1), ("T", 16)),
        "precision": Precision(),
        "backend": "openvino",
        "version": "2026.4",
        "kind": "xeon x1",
        "threads": 1,
    }
    held = ProfileKey(**{**fields, **key})
    return Profile(key=held, median=median, low=median * 0.9, high=median * 1.1, rounds=9, memory=100, taken="2026-11-26")


def test_what_is_kept_is_found_again_and_the_newest_of_a_key_counts(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path / "profiles")
    assert store.read().profiles == {}
    store.append([profile("a"), profile("b")])
    store.append([profile("a", median=3.0)])
    again = ProfileStore(tmp_path / "profiles").read()
    assert again.profiles == {profile("a").key: profile("a", median=3.0), profile("b").key: profile("b")}
    assert again.skipped == 0


@pytest.mark.parametrize(
    "other",
    [
        {"sizes": (("B", 2), ("T", 16))},
        {"precision": Precision(compute="bfloat16")},
        {"backend": "onnxruntime"},
        {"version": "2026.5"},
        {"kind": "xeon x2"},
        {"threads": 2},
        {"fused": False},
        {"name": "other"},
    ],
)
def test_every_part_of_the_key_counts(tmp_path: Path, other: dict[str, object]) -> None:
    store = ProfileStore(tmp_path)
    store.append([profile(), profile(median=5.0, **other)])
    assert len(store.read().profiles) == 2


@pytest.mark.parametrize("kept", range(1, 40, 3))
def test_a_torn_last_line_loses_itself_alone_whatever_comes_after_it(tmp_path: Path, kept: int) -> None:
    store = ProfileStore(tmp_path)
    store.append([profile("a"), profile("b")])
    whole = store.path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    store.path.write_bytes(whole[: len(whole) - len(last) + kept])
    assert [key.program for key in store.read().profiles] == ["a"] and store.read().skipped == 1
    store.append([profile("c")])
    assert [key.program for key in store.read().profiles] == ["a", "c"]


def test_lines_of_another_version_and_impossible_times_are_skipped(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    store.append([profile("a"), profile("b"), profile("c"), profile("d")])
    lines = [json.loads(line) for line in store.path.read_text().splitlines()]
    lines[0]["version"] = 99
    lines[1]["profile"]["low"] = -1.0
    lines[2]["surprise"] = 1
    store.path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "\x00\xff garbage\n")
    found = store.read()
    assert [key.program for key in found.profiles] == ["d"] and found.skipped == 4


def test_several_processes_append_at_once_and_no_line_is_lost(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "from test_profile_store import profile\n"
        "from inlay.cost import ProfileStore\n"
        "store = ProfileStore(Path(sys.argv[1]))\n"
        "for number in range(60):\n"
        "    store.append([profile(f'{sys.argv[2]}-{number}-{part}' * 20) for part in range(3)])\n"
    )
    here = str(Path(__file__).parent)
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name, here]) for name in ("left", "right")]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    found = ProfileStore(tmp_path).read()
    assert len(found.profiles) == 2 * 60 * 3 and found.skipped == 0


def test_a_writer_waits_for_another_one_to_end(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    store.append([profile("a")])
    with store.path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writer = threading.Thread(target=store.append, args=([profile("b")],))
        writer.start()
        writer.join(timeout=0.2)
        assert writer.is_alive() and len(store.read().profiles) == 1
        fcntl.flock(held, fcntl.LOCK_UN)
        writer.join(timeout=30)
    assert len(store.read().profiles) == 2


def test_a_folder_that_cannot_be_written_is_named_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"profiles cannot be kept in .*profiles\.jsonl.*\n?hint: set INLAY_CACHE"):
        ProfileStore(tmp_path / "file").append([profile()])
    os.mkdir(tmp_path / "profiles.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        ProfileStore(tmp_path).read()
    ProfileStore(tmp_path / "nowhere").append([])
    assert not (tmp_path / "nowhere").exists()
