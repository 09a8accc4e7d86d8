"""inlay: one model over unlike chips. Names are resolved on first use, so importing this loads nothing."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = [
    "LLM",
    "AsyncLLM",
    "capture",
    "compile",
    "deployment",
    "devices",
    "load",
    "open_gateway",
    "partition",
    "start",
    "timeline",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'inlay' has no attribute {name!r}; it has {', '.join(__all__)}")
    from inlay import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
