"""What of a pattern is seen: grids even in angle, windows, beam stop, gaps of a detector.

Windows are masks over 2θ or over Q alike; both ends belong to a window. A beam stop is the lower end of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import array_api_compat
import numpy as np

__all__ = ["angle_grid", "check_angles", "visible"]

Array = Any  # an array of any namespace that follows the array API standard


def check_angles(first: float, last: float, step: float) -> None:
    """Whether a window of 2θ [degrees] can be measured.

    Raises:
        ValueError: it is empty, has no step, fewer than 16 points, or leaves 0 to 180°.
    """
    if not all(math.isfinite(value) for value in (first, last, step)):
        raise ValueError(f"2θ needs finite numbers FIRST LAST STEP, got {first} {last} {step}")
    if not (first >= 0 and last <= 180):
        raise ValueError(f"2θ must lie in 0 to 180°, got {first:g}° to {last:g}°")
    if not first < last:
        raise ValueError(f"the window of 2θ is empty: it begins at {first:g}° and ends at {last:g}°")
    if not step > 0:
        raise ValueError(f"the step of 2θ must be > 0°, got {step:g}°")
    if (last - first) / step < 15:
        raise ValueError(
            f"a window of 2θ needs at least 16 points, got {first:g}° to {last:g}° in steps of {step:g}°"
        )


def angle_grid(first: float, last: float, step: float) -> np.ndarray:
    """(n,) float64 2θ from first to last, which is included where the step meets it; unit of the arguments, degrees."""
    check_angles(first, last, step)
    return first + step * np.arange(math.floor((last - first) / step * (1 + 1e-12) + 1e-9) + 1)


def visible(
    x: Array, first: Array | float, last: Array | float, gaps: Sequence[tuple[float, float]] = ()
) -> Array:
    """Boolean mask of what is seen.

    Args:
        x: (q,) or (..., q), 2θ or Q.
        first: lower end, number or (..., 1): beam stop or first step.
        last: upper end, number or (..., 1).
        gaps: (low, high) of each blind part; its ends are seen.

    Returns:
        (..., q) bool.
    """
    xp = array_api_compat.array_namespace(x)
    mask = xp.logical_and(x >= first, x <= last)
    for low, high in gaps:
        mask = xp.logical_and(mask, xp.logical_not(xp.logical_and(x > low, x < high)))
    return mask
