"""Stop strings in streamed text: nothing of a stop string is ever shown, however the tokens cut it."""

from __future__ import annotations


class StopFilter:
    """Holds back the end of the text while it may still become one of the stop strings."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """Text that can be shown now. After a stop string was found `stopped` is true and nothing more comes."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        pending = self._held + text
        found = [at for at in (pending.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return pending[: min(found)]
        keep = max(self._possible(pending, stop) for stop in self._stops)
        self._held = pending[len(pending) - keep :]
        return pending[: len(pending) - keep]

    def flush(self) -> str:
        """What is still held back, when the text has ended otherwise."""
        held, self._held = self._held, ""
        return "" if self.stopped else held

    @staticmethod
    def _possible(text: str, stop: str) -> int:
        """Length of the longest end of `text` that begins `stop`."""
        return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
