"""The language model at work: scheduler loop and text on the engine side, runner and sampler on the device side.

Processes enter by name (`inlay.engine.main:main`, `inlay.engine.device:main`); nothing is loaded by importing this.
"""

from __future__ import annotations

__all__: list[str] = []
