"""`python -m inlay.cli`: the same as the `inlay` command."""

from __future__ import annotations

from inlay.cli.main import main

if __name__ == "__main__":
    main()
