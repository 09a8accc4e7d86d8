"""How far a result is from the truth, and how far it may be: by the type of the value, whole numbers exactly."""

from __future__ import annotations

import numpy as np

from inlay.backends import Array
from inlay.runtime.verify import difference
from inlay.specs.verification import TOLERANCES


def fault_of(found: Array, truth: Array) -> tuple[float, str]:
    """The error relative to the largest number of the truth, and what is wrong with the result ("" where nothing is).

    Shape and type must be the truth's; not-a-number and infinities must stand where the truth has them.
    """
    if found.dtype != truth.dtype or found.shape != truth.shape:
        is_, wanted = f"{found.dtype.name} {list(found.shape)}", f"{truth.dtype.name} {list(truth.shape)}"
        return float("inf"), f"the result is {is_}, expected {wanted}"
    if found.dtype.kind in "biu":
        wrong = int((found != truth).sum())
        return (1.0, f"{wrong} of {truth.size} whole numbers or truth values are wrong") if wrong else (0.0, "")
    if found.dtype.kind == "c":
        parts = [fault_of(found.real.copy(), truth.real.copy()), fault_of(found.imag.copy(), truth.imag.copy())]
        return max(parts)
    one, two = found.astype(np.float64), truth.astype(np.float64)
    strange = int((np.isnan(one) != np.isnan(two)).sum() + (np.isinf(two) & (one != two) & ~np.isnan(one)).sum())
    strange += int((np.isinf(one) & np.isfinite(two)).sum())
    error, limit = difference(found, truth).relative, TOLERANCES[found.dtype.name]
    if strange:
        return error, f"{strange} of {truth.size} numbers are infinite or no number where the truth is not, or the reverse"
    if error > limit:
        return error, f"relative error {error:.1e}, expected at most {limit:.0e}"
    return error, ""
