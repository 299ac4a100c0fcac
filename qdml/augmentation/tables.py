"""Tables on a device, and smooth functions on few points: where to evaluate them, and the matrix that reads between.

Symbols: q [Å⁻¹], P point of a coarse grid.
"""

from __future__ import annotations

import math

import numpy as np
import torch

__all__ = ["chebyshev_matrix", "chebyshev_nodes", "spline_matrix", "table"]


# Below it a number in a table is 0: products with numbers near the end of float32's range take CPUs ten times longer.
_TINY = 1e-20


def table(values: object, device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A table of numbers on a device, without any that are tiny."""
    array = np.asarray(values, dtype=np.float64)
    return torch.as_tensor(np.where(np.abs(array) < _TINY, 0.0, array), dtype=dtype, device=device)


def spline_matrix(q: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """A uniform grid over the same range, and cubic splines through it: for what is smooth but for kinks.

    Args:
        q: (q,) float64 [Å⁻¹].
        distance: between points of the coarse grid, at most [Å⁻¹].

    Returns:
        (P,) float64 grid [Å⁻¹]; (P, q) float64 matrix: values on the grid @ matrix are values at q.
    """
    from scipy.interpolate import CubicSpline

    grid = np.linspace(q[0], q[-1], max(8, math.ceil((q[-1] - q[0]) / distance) + 1))
    return grid, CubicSpline(grid, np.eye(len(grid)))(q).T


def chebyshev_nodes(low: float, high: float, n: int) -> np.ndarray:
    """(n,) float64 Chebyshev nodes of a range, increasing: for what is analytic."""
    return (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * (np.arange(n) + 0.5) / n)


def chebyshev_matrix(nodes: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(n, q) float64: values at the nodes @ matrix are values at q, of the polynomial through them.

    Barycentric form of the first kind: J.-P. Berrut & L. N. Trefethen, SIAM Rev. 46, 501 (2004), eq. 5.3.
    """
    n = len(nodes)
    weight = (-1.0) ** np.arange(n) * np.sin(np.pi * (np.arange(n) + 0.5) / n)
    distance = q[None, :] - nodes[:, None]
    node, point = np.nonzero(distance == 0)
    distance[node, point] = 1.0
    matrix = weight[:, None] / distance
    matrix /= matrix.sum(axis=0)
    matrix[:, point] = 0.0
    matrix[node, point] = 1.0
    return matrix
