"""The fixture that captures each example module once a session."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from programs import Subject, subject


@pytest.fixture(scope="session")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """A captured example by its name; artifacts made of it are kept for the session."""
    root, made = tmp_path_factory.mktemp("programs"), dict[str, Subject]()

    def find(name: str) -> Subject:
        import torch
        from modules import EXAMPLES

        if name not in made:
            torch.manual_seed(0)
            wanted = EXAMPLES[name]
            inner = next(point for point in wanted.points if all(size > 1 for size in point.values()))
            made[name] = subject(
                wanted.make(), wanted.inputs(**inner), wanted.dynamic, wanted.points, root / name.replace(" ", "-")
            )
        return made[name]

    return find
