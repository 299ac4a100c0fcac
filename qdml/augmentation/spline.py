"""Smooth functions on few points: a coarse grid, and the matrix that reads between its points.

Symbols: q [Å⁻¹], P point of the coarse grid.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["spline_matrix"]


def spline_matrix(q: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """A uniform grid over the same range, and cubic splines through it.

    Args:
        q: (q,) float64 [Å⁻¹].
        distance: between points of the coarse grid, at most [Å⁻¹].

    Returns:
        (P,) float64 grid [Å⁻¹]; (P, q) float64 matrix: values on the grid @ matrix are values at q.
    """
    from scipy.interpolate import CubicSpline

    grid = np.linspace(q[0], q[-1], max(8, math.ceil((q[-1] - q[0]) / distance) + 1))
    return grid, CubicSpline(grid, np.eye(len(grid)))(q).T
