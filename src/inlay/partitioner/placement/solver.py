"""HiGHS, made so that it never writes to the terminal."""

from __future__ import annotations

import highspy


class Solver(highspy.Highs):  # type: ignore[misc]  # it brings no types
    """As highspy's own, but silent from its first moment: plainly made it greets on standard output."""

    def enableCallbacks(self) -> None:  # overrides: called by the constructor before anything is printed
        """See highspy."""
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()
