"""Tables on a device, and smooth functions on few points: a coarse grid, and the matrix that reads between its points.

Symbols: q [Å⁻¹], P point of the coarse grid.
"""

from __future__ import annotations

import math

import numpy as np
import torch

__all__ = ["float32_table", "spline_matrix"]


# Below it a number in a table is 0: products with numbers near the end of float32's range take CPUs ten times longer.
_TINY = 1e-20


def float32_table(values: object, device: torch.device) -> torch.Tensor:
    """A table of numbers on a device, as float32, without any that are tiny."""
    array = np.asarray(values, dtype=np.float64)
    return torch.as_tensor(np.where(np.abs(array) < _TINY, 0.0, array), dtype=torch.float32, device=device)


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
