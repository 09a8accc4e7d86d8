"""Checks the documentation: reference pages equal the code, links resolve, no machine path, Python blocks parse.

Run by `make check`; prints what is wrong, one line each, and exits 1.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import generate

ROOT = Path(__file__).resolve().parent.parent
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root)(?:/|$)", re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:src|href|srcset)=\"([^\"]+)\"")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)
LARGE = 4 * 2**20


def project_files() -> list[Path]:
    """What is, or would be, in the repository: tracked files and new ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive without its history
        listed = [str(path.relative_to(ROOT)) for part in ("src", "docs", "tests") for path in (ROOT / part).rglob("*")]
    return sorted({ROOT / name for name in listed if (ROOT / name).is_file()})


def pages() -> list[Path]:
    """The Markdown pages whose links are promises of ours."""
    beside = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "demo/README.md")]
    return [path for path in [*beside, *sorted((ROOT / "docs").rglob("*.md"))] if path.is_file()]


def anchors(text: str) -> set[str]:
    """The names by which a page's headings can be linked to, as GitHub makes them."""
    plain = (re.sub(r"[`*]", "", heading).strip().lower() for heading in HEADING.findall(FENCE.sub("", text)))
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading)) for heading in plain}


def link_faults(page: Path) -> Iterator[str]:
    """Relative links and images that lead nowhere."""
    text = CODE.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
    for match in LINK.finditer(text):
        target = match[1] or match[2]
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        if name.startswith("/") or not found.exists() or not found.is_relative_to(ROOT):
            yield f"{page.relative_to(ROOT)}: link {target!r} does not resolve"
        elif anchor and found.suffix == ".md" and anchor not in anchors(found.read_text(encoding="utf-8")):
            yield f"{page.relative_to(ROOT)}: link {target!r} names no heading of that page"


def path_faults(file: Path) -> Iterator[str]:
    """Paths that exist on one machine only."""
    if file.stat().st_size > LARGE:
        return
    data = file.read_bytes()
    if b"\0" in data[:8192]:
        return
    text = data.decode("utf-8", "replace")
    for match in MACHINE_PATH.finditer(text):
        yield f"{file.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: names a path of one machine ({match[0]})"


def code_faults(page: Path) -> Iterator[str]:
    """Fenced Python blocks that do not parse."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if match[1] in ("python", "py"):
            line = text.count("\n", 0, match.start()) + 2
            try:
                compile("\n" * (line - 1) + match[2], str(page.relative_to(ROOT)), "exec")
            except SyntaxError as error:
                yield f"{page.relative_to(ROOT)}:{error.lineno}: {error.msg}"


def faults() -> Iterator[str]:
    """Everything that is wrong."""
    for name in generate.stale_pages():
        yield f"docs/reference/{name}: differs from the code; run: python docs/generate.py"
    for page in pages():
        yield from link_faults(page)
        yield from code_faults(page)
    for file in project_files():
        yield from path_faults(file)


def main() -> int:
    """Print the faults; the exit status."""
    found = list(faults())
    sys.stdout.writelines(f"{fault}\n" for fault in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
