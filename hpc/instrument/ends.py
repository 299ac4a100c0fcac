"""A pattern is not periodic, an FFT is: how its ends are continued.

Both ends are reflected in their end points, which keeps value and slope; a straight line leads back to the beginning.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hpc.gather import constant

__all__ = ["continued", "fft_length"]

Array = Any  # an array of any namespace that follows the array API standard


def fft_length(least: int) -> int:
    """The next even number without prime factors above 5."""
    while True:
        rest = least
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1 and least % 2 == 0:
            return least
        least += 1


def continued(xp: Any, y: Array, pad: int, length: int) -> Array:
    """Patterns made periodic.

    Args:
        xp: namespace of y.
        y: (..., q) floating.
        pad: points by which either end is continued, at most q - 1.
        length: of the period, at least q + 2 pad.

    Returns:
        (..., length), y and the way back to its beginning.
    """
    n = y.shape[-1]
    ends = xp.concat([y[..., n - 1 - pad :], y[..., : pad + 1]], axis=-1)
    return xp.concat([y, ends @ constant(_way_back, pad, length - n, like=y)], axis=-1)


def _way_back(pad: int, m: int) -> np.ndarray:
    """(2 pad + 2, m) float64: last and first pad + 1 points of a pattern @ matrix are the m points behind it."""
    j = np.arange(pad)
    behind = np.zeros((2 * pad + 2, pad))
    behind[pad], behind[pad - 1 - j, j] = 2, -1
    before = behind[::-1, ::-1]
    way = np.arange(1, m - 2 * pad + 1) / (m - 2 * pad + 1)
    return np.concatenate([behind, behind[:, -1:] * (1 - way) + before[:, :1] * way, before], axis=1)
