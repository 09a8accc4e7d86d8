"""The conformance kit: what `inlay conform` tries of a backend, through the same processes as `compile` and `run`.

`run.py` puts the sections together. Torch doors, each run in a process of its own: `capturing` (with `opinfo`, `calls`,
`models`) makes programs and their truth, `lowering` is a compile process, and `executing` loads and runs what came of it in
the backend's environment. The process that asks for all this loads neither torch nor a framework.
"""

from __future__ import annotations

__all__: list[str] = []
