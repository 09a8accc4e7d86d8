"""Messages between the driver of a stitched program and its device processes; arrays travel beside them by name."""

from __future__ import annotations

import msgspec

DRIVER = "driver"
"""The destination of values that go to the process that asked."""


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag="begin"):
    """Run these regions, in order, at these sizes. Values that no region here gives come as arrays of the same run.

    `send` maps values to their destinations: the driver, or devices by name.
    """

    run: int
    sizes: dict[str, int]
    regions: tuple[str, ...]
    send: dict[str, tuple[str, ...]]


class StopRuns(msgspec.Struct, frozen=True, tag="stop"):
    """End the process in order."""


class Loaded(msgspec.Struct, frozen=True, kw_only=True, tag="loaded"):
    """All regions are loaded: seconds it took, resident bytes, and what the frameworks say of themselves by region."""

    device: str
    seconds: float
    memory: int
    reports: dict[str, dict[str, str]]


class LoadFailed(msgspec.Struct, frozen=True, kw_only=True, tag="load_failed"):
    """The regions cannot be loaded; the process ends."""

    device: str
    code: str
    message: str
    hint: str | None = None


class RunDone(msgspec.Struct, frozen=True, kw_only=True, tag="run_done"):
    """A device has done its part of a run: seconds of each region by the wall clock, without waiting for values, and the
    bytes of each value that it sent to other devices, counted once for each of them."""

    run: int
    device: str
    seconds: dict[str, float]
    moved: dict[str, int] = {}


class RunError(msgspec.Struct, frozen=True, kw_only=True, tag="run_error"):
    """A region of a run failed, or what it waited for will not come."""

    run: int
    device: str
    region: str
    code: str
    message: str


DriverToDevice = Begin | StopRuns
DeviceToDriver = Loaded | LoadFailed | RunDone | RunError
