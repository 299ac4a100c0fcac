"""Patterns at other positions: the lines of a source and shifts of Q, in one pass.

A detector at the angle that the reference line λ_0 turns into Q sees, through another line λ_l, the pattern of
Q λ_0/λ_l; a misaligned instrument adds a shift (`hpc.instrument.angles`). `seen` reads the pattern at all of these
positions.

Between its points a pattern is a quintic spline: an FFT turns its values into coefficients of B-splines (M. Unser, IEEE
Signal Process. Mag. 16 (6), 22 (1999)), six of which make a polynomial between two points. At the grid's own points
that is the pattern itself. For PbS dots at a step of 0.015 Å⁻¹ the error is 4e-8 of the peak at 4 nm and 2e-5 at 10 nm,
where a Catmull-Rom kernel has 3e-3; at 20 nm it is 2e-5 at 0.0075 and 6e-3 at 0.015 Å⁻¹, too coarse for such dots.

Functions take arrays of NumPy, CuPy or torch (array API standard), with any batch axes, and answer in kind.

Symbols: Q, q [Å⁻¹], λ_l, w_l wavelength [Å] and weight of line l, λ_0 the reference line.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import array_api_compat
import numpy as np

from hpc.gather import constant, gather, plus_product, plus_times
from hpc.instrument.ends import continued, fft_length

__all__ = ["interpolate", "seen"]

Array = Any  # an array of any namespace that follows the array API standard

# Points by which the ends are continued: the coefficients forget what is farther away, by 0.43 per point.
_PAD = 24


def interpolate(y: Array, position: Array) -> Array:
    """Values of patterns between the points of their grid.

    Args:
        y: (..., q) on a uniform grid, at least 4 points.
        position: (..., q') in points, 0 to q-1; its batch axes broadcast with those of y. Positions beyond the ends
            take the value there.

    Returns:
        (..., q'), differentiable with respect to y and position.

    Raises:
        ValueError: fewer than 4 points.
    """
    xp = array_api_compat.array_namespace(y, position)
    position = xp.clip(position, min=0, max=y.shape[-1] - 1)
    below = xp.floor(position)
    return _read(xp, _polynomials(_coefficients(xp, y)), xp.astype(below, xp.int64), position - below)


def seen(
    y: Array,
    q: Array,
    wavelengths: Sequence[Array | float],
    weights: Sequence[Array | float],
    shift: Array | float = 0.0,
) -> Array:
    """The pattern that a source of several lines and a misaligned instrument show: Σ_l w_l y((Q + ΔQ) λ_0/λ_l).

    Args:
        y: (..., q) pattern of a single line on the grid q.
        q: (q,) uniform [Å⁻¹], at least 4 points.
        wavelengths: of the lines, numbers or (..., 1) [Å], the reference line first.
        weights: of the lines, numbers or (..., 1), sum 1.
        shift: number, (..., 1) or (..., q), ΔQ of `hpc.instrument.angles` [Å⁻¹].

    Returns:
        (..., q); beyond the ends of the grid it takes the values there. Differentiable with respect to y and shift.

    Raises:
        ValueError: as many weights as lines are needed, at least one; fewer than 4 points.
    """
    if len(wavelengths) != len(weights) or not len(weights):
        raise ValueError(
            "a source needs as many weights as wavelengths, at least one, "
            f"got {len(wavelengths)} wavelengths and {len(weights)} weights"
        )
    no_shift = isinstance(shift, int | float) and shift == 0
    xp = array_api_compat.array_namespace(y, q)
    n = y.shape[-1]
    step = (q[-1] - q[0]) / (n - 1)
    point = xp.arange(n, dtype=xp.int64, device=array_api_compat.device(y))
    polynomials = _polynomials(_coefficients(xp, y))
    total = None
    for wavelength, weight in zip(wavelengths, weights, strict=True):
        ratio = wavelengths[0] / wavelength
        if no_shift and isinstance(ratio, float) and ratio == 1:
            term = y
        else:
            # Counted from each point of the grid, so that float32 keeps its digits for the fraction.
            offset = q * ((ratio - 1) / step) + shift * (ratio / step)
            offset = xp.clip(offset, min=-xp.astype(point, q.dtype), max=xp.astype(n - 1 - point, q.dtype))
            below = xp.floor(offset)
            term = _read(xp, polynomials, xp.astype(below, xp.int64) + point, offset - below)
        if total is None:
            total = weight * term
        elif isinstance(weight, int | float):
            total = plus_times(total, term, weight)
        else:
            total = plus_product(total, weight, term)
    return total


def _coefficients(xp: Any, y: Array) -> Array:
    """(..., q + 2 pad) coefficients of quintic B-splines, times 1/120; the ends are continued by reflection."""
    n = y.shape[-1]
    if n < 4:
        raise ValueError(f"interpolation needs at least 4 points, got {n}")
    pad = min(_PAD, n - 1)
    length = fft_length(n + 2 * pad)
    spectrum = xp.fft.rfft(continued(xp, y, pad, length), axis=-1)
    smooth = xp.fft.irfft(spectrum * constant(_inverse, length, like=y), n=length, axis=-1)
    return smooth[..., : n + 2 * pad]


@lru_cache(maxsize=16)
def _inverse(length: int) -> np.ndarray:
    """(length/2 + 1,) float64 1/120 over the transform of the quintic B-spline, whose values are 66, 26, 1 (/120)."""
    angle = 2 * np.pi * np.fft.rfftfreq(length)
    return 1 / (66 + 52 * np.cos(angle) + 2 * np.cos(2 * angle))


def _polynomials(c: Array) -> list[Array]:
    """Coefficients of 1, t, ..., t⁵ between point i and the next, (..., q + 2 pad - 5) each, i counted from 2."""
    n = c.shape[-1] - 5
    c0, c1, c2, c3, c4, c5 = (c[..., j : j + n] for j in range(6))
    near, far = c1 + c3, c0 + c4
    odd_near, odd_far = c3 - c1, c4 - c0
    return [
        plus_times(plus_times(far, near, 26.0), c2, 66.0),
        5 * plus_times(odd_far, odd_near, 10.0),
        10 * plus_times(plus_times(far, near, 2.0), c2, -6.0),
        10 * plus_times(odd_far, odd_near, -2.0),
        5 * plus_times(plus_times(far, near, -4.0), c2, 6.0),
        plus_times(plus_times(c5 - c0, c4 - c1, -5.0), c3 - c2, 10.0),
    ]


def _read(xp: Any, polynomials: list[Array], below: Array, t: Array) -> Array:
    """Values between points.

    Args:
        xp: namespace.
        polynomials: of `_polynomials`.
        below: (..., q') int64, the grid point below each position.
        t: (..., q') distance to it, 0 to 1.
    """
    batch, width = polynomials[0].shape[:-1], polynomials[0].shape[-1]
    index = below + (min(_PAD, (width + 4) // 3) - 2)
    if batch and below.ndim > 1 and batch != below.shape[:-1]:
        both = np.broadcast_shapes(batch, below.shape[:-1])
        polynomials = [xp.broadcast_to(a, (*both, width)) for a in polynomials]
        index = xp.broadcast_to(index, (*both, below.shape[-1]))
    total = gather(polynomials[5], index)
    for a in reversed(polynomials[:5]):
        total = plus_product(gather(a, index), total, t)
    return total
