"""A pattern is not periodic, an FFT is: how its ends are continued.

Both ends are reflected in their end points, which keeps value and slope; a straight line leads back to the beginning.
"""

from __future__ import annotations

from typing import Any

import array_api_compat

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
        y: (..., q).
        pad: points by which either end is continued, at most q - 1.
        length: of the period, at least q + 2 pad.

    Returns:
        (..., length), y from the index `pad` on.
    """
    n = y.shape[-1]
    left = 2 * y[..., :1] - xp.flip(y[..., 1 : pad + 1], axis=-1)
    right = 2 * y[..., -1:] - xp.flip(y[..., n - 1 - pad : n - 1], axis=-1)
    rest = length - n - 2 * pad
    way = (xp.arange(rest, dtype=y.dtype, device=array_api_compat.device(y)) + 1) / (rest + 1)
    back = right[..., -1:] + (left[..., :1] - right[..., -1:]) * way
    return xp.concat([left, y, right, back], axis=-1)
