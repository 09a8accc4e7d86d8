"""The SDK: the one place that wires rooms together. No logic of its own.

`language` runs language models, in a program or behind HTTP; `programs` captures, cuts, compiles and runs any module.
"""

from __future__ import annotations

from inlay.api.language import (
    CHUNK,
    LLM,
    SLOTS,
    AsyncLLM,
    Completion,
    DeviceReport,
    deployment,
    describe,
    devices,
    open_gateway,
    read_deployment,
    run_gateway,
    start,
    stream_chat,
    timeline,
    timeline_drawing,
)
from inlay.api.programs import (
    CapturedModel,
    Opened,
    capture,
    capture_file,
    compile,
    explain_plan,
    load,
    partition,
    read_plan,
)

__all__ = [
    "CHUNK",
    "LLM",
    "SLOTS",
    "AsyncLLM",
    "CapturedModel",
    "Completion",
    "DeviceReport",
    "Opened",
    "capture",
    "capture_file",
    "compile",
    "deployment",
    "describe",
    "devices",
    "explain_plan",
    "load",
    "open_gateway",
    "partition",
    "read_deployment",
    "read_plan",
    "run_gateway",
    "start",
    "stream_chat",
    "timeline",
    "timeline_drawing",
]
