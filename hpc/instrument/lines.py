"""Patterns at other positions: the lines of a source and shifts of Q, in one pass.

A detector at the angle that the reference line λ_0 turns into Q sees, through another line λ_l, the pattern of
Q λ_0/λ_l; a misaligned instrument adds a shift (`hpc.instrument.angles`). `seen` reads the pattern at all of these
positions with a six-point Lagrange polynomial.

Functions take arrays of NumPy, CuPy or torch (array API standard), with any batch axes, and answer in kind.

Symbols: Q, q [Å⁻¹], λ_l, w_l wavelength [Å] and weight of line l, λ_0 the reference line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_compat

__all__ = ["interpolate", "seen"]

Array = Any  # an array of any namespace that follows the array API standard


def interpolate(y: Array, position: Array) -> Array:
    """Values of patterns between the points of their grid.

    Args:
        y: (..., q) on a uniform grid, at least 6 points.
        position: (..., q') in points, 0 to q-1; batch axes as in y, or none for the same positions in all. Positions
            beyond the ends take the value there.

    Returns:
        (..., q'), differentiable with respect to y and position.

    Raises:
        ValueError: fewer than 6 points.
    """
    xp = array_api_compat.array_namespace(y, position)
    n = y.shape[-1]
    if n < 6:
        raise ValueError(f"interpolation needs at least 6 points, got {n}")
    position = xp.clip(position, min=0, max=n - 1)
    first = xp.clip(xp.floor(position) - 2, min=0, max=n - 6)
    t = position - first
    index = xp.astype(first, xp.int64)
    total = None
    for j, weight in enumerate(_lagrange(t)):
        term = weight * _taken(xp, y, index + j)
        total = term if total is None else total + term
    return total


def seen(
    y: Array,
    q: Array,
    wavelengths: Sequence[float],
    weights: Sequence[float],
    shift: Array | float = 0.0,
) -> Array:
    """The pattern that a source of several lines and a misaligned instrument show: Σ_l w_l y((Q + ΔQ) λ_0/λ_l).

    Args:
        y: (..., q) pattern of a single line on the grid q.
        q: (q,) uniform [Å⁻¹], at least 6 points.
        wavelengths: of the lines [Å], the reference line first.
        weights: of the lines, sum 1.
        shift: number, (..., 1) or (..., q), ΔQ of `hpc.instrument.angles` [Å⁻¹].

    Returns:
        (..., q); beyond the ends of the grid it takes the values there.

    Raises:
        ValueError: as many weights as lines are needed, at least one.
    """
    if len(wavelengths) != len(weights) or not len(weights):
        raise ValueError(
            f"a source needs as many weights as wavelengths, at least one, got {len(wavelengths)} and {len(weights)}"
        )
    if len(weights) == 1 and isinstance(shift, int | float) and shift == 0:
        return y
    step = (q[-1] - q[0]) / (q.shape[-1] - 1)
    total = None
    for wavelength, weight in zip(wavelengths, weights, strict=True):
        at = ((q + shift) * (wavelengths[0] / wavelength) - q[0]) / step
        term = weight * interpolate(y, at)
        total = term if total is None else total + term
    return total


def _lagrange(t: Array) -> list[Array]:
    """Weights of the points 0..5 at t."""
    d = [t - j for j in range(6)]
    d01, d45 = d[0] * d[1], d[4] * d[5]
    d23 = d[2] * d[3]
    outer, inner = d01 * d45, d23
    return [
        d[1] * inner * d45 / -120,
        d[0] * inner * d45 / 24,
        outer * d[3] / -12,
        outer * d[2] / 12,
        d01 * inner * d[5] / -24,
        d01 * inner * d[4] / 120,
    ]


def _taken(xp: Any, y: Array, index: Array) -> Array:
    """(..., q') y at whole positions."""
    if index.ndim == 1:
        return xp.take(y, index, axis=-1)
    if y.shape[:-1] != index.shape[:-1]:
        y = xp.broadcast_to(y, (*index.shape[:-1], y.shape[-1]))
    return xp.take_along_axis(y, index, axis=-1)
