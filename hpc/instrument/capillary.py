"""Absorption in a capillary: the transmission factor of a cylinder across the beam.

    A(μR, θ) = (1/πR²) ∫ exp(-μ (l_in + l_out)) dA

over the cross section, with the paths of the beam to a point and of the scattered beam from it (International Tables
for Crystallography C (2006), eq. 6.3.3.1 and section 6.3.3.2; 1/A is tabulated there). The beam is wider than the
capillary.

The integral is done once by quadrature (error below 4e-6), at Chebyshev nodes of sin²θ and of μR; ln A is then μR times
a polynomial of both. Its error is below 1e-5 up to μR = 1.7, 5e-5 up to 3.3 and 5e-4 at 4.

Arrays of NumPy, CuPy or torch (array API standard), with any batch axes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import array_api_compat
import numpy as np
from numpy.polynomial.chebyshev import chebvander

from hpc.gather import constant, plus_product

__all__ = ["MU_R_MAX", "capillary_absorption"]

Array = Any  # an array of any namespace that follows the array API standard

#: Largest μR of the table.
MU_R_MAX = 4.0
_DEGREE_ANGLE, _DEGREE_MU = 14, 10


def capillary_absorption(two_theta: Array, mu_r: Array | float) -> Array:
    """Share of the intensity that gets through, 0 to 1.

    Args:
        two_theta: (..., q) [rad].
        mu_r: μR, number or (..., 1), 0 to `MU_R_MAX`; larger values count as that.

    Returns:
        (..., q), differentiable with respect to both.
    """
    xp = array_api_compat.array_namespace(two_theta)
    where = {"dtype": two_theta.dtype, "device": array_api_compat.device(two_theta)}
    mu = xp.clip(mu_r if hasattr(mu_r, "shape") else xp.asarray(mu_r, **where), max=MU_R_MAX)
    strength = xp.stack(_chebyshev(mu * (2 / MU_R_MAX) - 1, _DEGREE_MU), axis=-1)
    series = strength @ constant(_coefficients, like=two_theta)
    # The sum of the series in 2 sin²θ - 1 by Clenshaw's recurrence, which keeps two numbers of each point.
    twice = -2 * xp.cos(two_theta)
    last, total = series[..., -1], plus_product(series[..., -2], twice, series[..., -1])
    for n in range(_DEGREE_ANGLE - 2, 0, -1):
        last, total = total, plus_product(series[..., n] - last, twice, total)
    return xp.exp(mu * (series[..., 0] - last + twice / 2 * total))


def _chebyshev(x: Array, degree: int) -> list[Array]:
    """T_0 to T_degree, one by one."""
    terms = [1.0 + 0 * x, x]
    for _ in range(degree - 1):
        terms.append(2 * x * terms[-1] - terms[-2])
    return terms


@cache
def _coefficients() -> np.ndarray:
    """(μR, angle) Chebyshev coefficients of ln A / μR."""
    x, y = (np.cos(np.pi * (np.arange(n + 1) + 0.5) / (n + 1)) for n in (_DEGREE_MU, _DEGREE_ANGLE))
    mu = MU_R_MAX * (1 + x) / 2
    values = np.log(_quadrature(np.arccos(-y), mu)) / mu[:, None]
    half = np.linalg.solve(chebvander(x, _DEGREE_MU), values)
    return np.linalg.solve(chebvander(y, _DEGREE_ANGLE), half.T).T


def _quadrature(two_theta: np.ndarray, mu_r: np.ndarray) -> np.ndarray:
    """(μR, angle) transmission by a sum over points of the disc: Gauss in r², even in the angle."""
    n_radius, n_angle = 64, 256
    node, weight = np.polynomial.legendre.leggauss(n_radius)
    radius = np.sqrt((node + 1) / 2)[:, None]
    phi = 2 * np.pi * (np.arange(n_angle) + 0.5) / n_angle
    x, y = (radius * np.cos(phi)).ravel(), (radius * np.sin(phi)).ravel()
    share = np.repeat(weight / 2 / n_angle, n_angle)
    result = np.empty((mu_r.size, two_theta.size))
    for column, angle in enumerate(two_theta):
        along = x * np.cos(angle) + y * np.sin(angle)
        across = y * np.cos(angle) - x * np.sin(angle)
        path = np.sqrt(1 - y**2) + x + np.sqrt(1 - across**2) - along
        result[:, column] = np.exp(-mu_r[:, None] * path) @ share
    return result
