"""Checks the documentation: generated pages, links, code, and that no path of a machine is in it. Part of `make check`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from generate import stale_pages

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
MACHINE = re.compile(r"/(?:work|root|home/\w+)/")


def pages() -> list[Path]:
    """All pages of the repository that people read."""
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "demo" / "README.md"]


def faults_of(page: Path) -> list[str]:
    """Broken links and python that does not parse."""
    text, found = page.read_text(), []
    for target in LINK.findall(text):
        if "://" not in target and not (page.parent / target).exists():
            found.append(f"link to {target}, which is not there")
    for block in PYTHON.findall(text):
        try:
            compile(block, str(page), "exec")
        except SyntaxError as error:
            found.append(f"python does not parse: {error}")
    return [f"{page.relative_to(ROOT)}: {fault}" for fault in found]


def machine_paths() -> list[str]:
    """Tracked text files that name a path of the machine they were written on."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    found = []
    for name in filter(None, listed):
        path = ROOT / name
        if path.suffix in {".md", ".py", ".toml", ".yaml", ".json", ".txt", ""} and path.is_file() and path != Path(__file__):
            match = MACHINE.search(path.read_text(errors="replace"))
            if match:
                found.append(f"{name}: names the machine path {match.group(0)}")
    return found


def main() -> int:
    """Print what is wrong; 1 when anything is."""
    found = [f"docs/reference/{name}: out of date, run docs/generate.py" for name in stale_pages(write=False)]
    found += [fault for page in pages() for fault in faults_of(page)] + machine_paths()
    sys.stdout.write("".join(f"{fault}\n" for fault in found) or "docs: all links resolve, generated pages are up to date\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
