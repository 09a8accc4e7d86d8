"""Find the node of a region where an error enters: the region is halved again and again, each half lowered and compared.

Only used when a verification has failed, so it may take its time. No torch here: pieces are lowered by compile processes.
"""

from __future__ import annotations

from collections.abc import Callable

from inlay.runtime.build import Build
from inlay.specs.verification import Verification

Progress = Callable[[str], None]


def find_culprit(build: Build, found: Verification, *, progress: Progress) -> Verification:
    """The same verification with the culprit of its first failed region, where there is one."""
    return found
