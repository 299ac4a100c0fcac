"""Ensembles of sizes: lognormal weights over shells, strain as a scaling of Q.

The number distribution of diameters is lognormal with mean D and standard deviation σD:

    s² = ln(1 + σ²),  μ = ln D - s²/2,  F(x) = Φ((ln x - μ)/s)

Particles of a nested family change only where a shell enters, so the ensemble average is a finite sum, exact for any
σ: particle k has the weight w_k = F(D_{k+1}) - F(D_k). σ = 0 is the one particle of diameter D. Intensities are
Σ_k w_k I_k / Σ_k w_k N_k, electron units per atom.

Isotropic strain ε stretches every distance by (1+ε): P(Q) becomes P(Q(1+ε)). P is band-limited (no distance beyond the
largest diameter), so its values on a grid finer than Nyquist give it everywhere: `Resampler` interpolates with a
Kaiser-windowed sinc of 24 taps at 2.5 times Nyquist, error below 1e-9 of the largest value
(J. F. Kaiser & R. W. Schafer, IEEE Trans. ASSP 28, 105 (1980) for the window). Form and Debye-Waller factors add a few
Å to the band, with next to no amplitude there: their products with P may be interpolated instead of P, and the error
stays the same.

Symbols: D diameter, σ relative standard deviation, ε strain, k particle of the family, q [Å⁻¹].
"""

from __future__ import annotations

from functools import cache
from typing import Any

import array_api_compat
import numpy as np
from numpy.polynomial.chebyshev import chebfit, chebvander

__all__ = [
    "OVERHANG",
    "OVERSAMPLING",
    "Resampler",
    "fine_step",
    "largest_diameter",
    "largest_sigma",
    "number_weights",
    "smallest_diameter",
    "volume_mean_diameter",
]

Array = Any

#: Fine grid over Nyquist. Together with `_TAPS` it sets the interpolation error.
OVERSAMPLING = 2.5
_TAPS = 24
#: Points of the fine grid that must lie beyond the last point asked for.
OVERHANG = _TAPS // 2 + 2
_TAP = np.arange(1 - _TAPS // 2, 1 + _TAPS // 2)
_BETA = np.pi * _TAPS / 2 * (1 - 1 / OVERSAMPLING)
# The kernel at each tap is a polynomial in the position between two grid points, to rounding with this degree: products
# with its coefficients are faster than Bessel functions.
_DEGREE = 16
# Output points of one dense block of the banded interpolation matrix: large enough for BLAS, small enough that the
# zeros beside the band cost less than the calls.
_BLOCK = 32


def _lognormal_parameters(diameter: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    s = np.sqrt(np.log1p(sigma**2))
    return np.log(diameter) - s**2 / 2, s


def volume_mean_diameter(diameter: np.ndarray | float, sigma: np.ndarray | float) -> np.ndarray:
    """D_vol = D (1 + σ²)³, the volume-weighted mean diameter of a lognormal number distribution."""
    return np.asarray(diameter) * (1 + np.asarray(sigma) ** 2) ** 3


def largest_diameter(diameter: np.ndarray, sigma: np.ndarray, *, tail: float) -> float:
    """Where the size distributions may be cut: beyond it lies a fraction <= `tail` of the atoms of every ensemble.

    The atoms of a lognormal number distribution are lognormal too, with μ + 3s² (volume weights).

    Args:
        diameter: (m,) mean diameters.
        sigma: (m,) relative standard deviations.
        tail: fraction of the atoms, 0 < tail < 1.
    """
    from scipy.special import ndtri

    mu, s = _lognormal_parameters(np.asarray(diameter, dtype=float), np.asarray(sigma, dtype=float))
    cut = np.exp(mu + 3 * s**2 + s * ndtri(1 - tail))
    return float(np.max(np.where(np.asarray(sigma) == 0, diameter, cut)))


def largest_sigma(diameter: np.ndarray | float, largest: float, *, tail: float) -> np.ndarray:
    """The widest distribution of each mean diameter that leaves a fraction `tail` of its atoms beyond `largest`.

    The inverse of `largest_diameter`: ln(largest/D) = 5s²/2 + zs, with z the quantile of 1 - tail.

    Args:
        diameter: (...,) mean diameters, at most `largest`, same unit.
        largest: the diameter beyond which atoms are left out.
        tail: fraction of the atoms, 0 < tail < 1/2.

    Returns:
        (...,) float64, relative standard deviations.
    """
    from scipy.special import ndtri

    z, room = ndtri(1 - tail), np.log(largest / np.asarray(diameter, dtype=np.float64))
    s = (np.sqrt(z**2 + 10 * room) - z) / 5
    return np.sqrt(np.expm1(s**2))


def smallest_diameter(diameter: np.ndarray, sigma: np.ndarray, *, tail: float) -> float:
    """The same at the other end: below it lies a fraction <= `tail` of the atoms of every ensemble.

    Args:
        diameter: (m,) mean diameters.
        sigma: (m,) relative standard deviations.
        tail: fraction of the atoms, 0 < tail < 1.
    """
    from scipy.special import ndtri

    mu, s = _lognormal_parameters(np.asarray(diameter, dtype=float), np.asarray(sigma, dtype=float))
    return float(np.exp(mu + 3 * s**2 + s * ndtri(tail)).min())


def number_weights(shell_diameter: np.ndarray, diameter: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Exact lognormal number weights of the particles of a nested family.

    Args:
        shell_diameter: (k,) float64, increasing: where each shell enters. Particle k exists for diameters from
            shell_diameter[k] up to the next one; the last one takes the rest of the distribution.
        diameter: (m,) float64, number-mean diameters, same unit.
        sigma: (m,) float64, relative standard deviations; 0 is the one particle of that diameter.

    Returns:
        (m, k) float64. Rows sum to 1, less what lies below the first shell.

    Raises:
        ValueError: a size that is not positive, a negative σ, or a particle below the first shell.
    """
    from scipy.special import ndtr

    diameter, sigma = np.broadcast_arrays(np.asarray(diameter, dtype=float), np.asarray(sigma, dtype=float))
    if not (np.all(np.isfinite(diameter)) and np.all(diameter > 0)):
        raise ValueError(f"diameters must be > 0, got {np.min(diameter):g}")
    if not (np.all(np.isfinite(sigma)) and np.all(sigma >= 0)):
        raise ValueError(f"sigma must be >= 0, got {np.min(sigma):g}")
    mu, s = _lognormal_parameters(diameter, sigma)
    with np.errstate(divide="ignore", invalid="ignore"):
        edges = (np.log(shell_diameter)[None, :] - mu[:, None]) / s[:, None]
    # The first shell of a site-centred family has diameter 0: its log is -inf, its distribution function 0.
    below = ndtr(edges)
    weights = np.diff(below, axis=1, append=1.0)
    for row in np.flatnonzero(sigma == 0):
        # 1e-9: the same rounding tolerance with which sites are cut.
        particle = int(np.searchsorted(shell_diameter, diameter[row] * (1 + 1e-9), side="right")) - 1
        if particle < 0:
            raise ValueError(
                f"no site lies within a diameter of {diameter[row]:g}; ask for a larger particle"
            )
        weights[row] = 0.0
        weights[row, particle] = 1.0
    return weights


def fine_step(diameter_max: float) -> float:
    """Step [Å⁻¹] of the grid on which partial sums of particles up to `diameter_max` [Å] are kept.

    A distance r gives an oscillation of period 2π/r in Q; Nyquist's step for the largest one is π/diameter_max.
    """
    return np.pi / diameter_max / OVERSAMPLING


@cache
def _kernel() -> np.ndarray:
    """(degree + 1, tap) Chebyshev coefficients of the Kaiser-windowed sinc, over 0..1 between two points."""
    from scipy.special import i0

    node = np.cos(np.pi * (np.arange(4 * _DEGREE) + 0.5) / (4 * _DEGREE))
    offset = (node[:, None] + 1) / 2 - _TAP
    window = i0(_BETA * np.sqrt(np.clip(1 - (2 * offset / _TAPS) ** 2, 0, None))) / i0(_BETA)
    return chebfit(node, np.sinc(offset) * window, _DEGREE)


class Resampler:
    """Interpolation of even, band-limited functions from the grid j·step, j = 0..n-1, to given points.

    The matrix has 24 entries in each column. It is applied as dense blocks of 32 output points, which are matrix
    products on any device.
    """

    def __init__(self, q: np.ndarray, *, step: float, n_fine: int, xp: Any = np) -> None:
        """Build the weights for points q.

        Args:
            q: (q,) float64 [Å⁻¹], increasing, >= 0.
            step: spacing of the fine grid [Å⁻¹].
            n_fine: points of the fine grid, which starts at 0.
            xp: namespace of the arrays that will be resampled.

        Raises:
            ValueError: q reaches beyond the fine grid (less half the taps).
        """
        position = np.asarray(q, dtype=float) / step
        if position.size == 0 or position[0] < 0 or position[-1] > n_fine - 1 - _TAPS // 2:
            raise ValueError(
                f"q must lie in 0 to {(n_fine - 1 - _TAPS // 2) * step:.6g} Å⁻¹, which the partial sums cover; "
                f"got {np.min(q):g} to {np.max(q):g}"
            )
        nearest = np.floor(position)
        weights = chebvander(2 * (position - nearest) - 1, _DEGREE) @ _kernel()
        taps = nearest[:, None].astype(np.int64) + _TAP
        n_q = len(position)
        starts = np.arange(0, n_q, _BLOCK)
        #: Where each block's columns begin on the fine grid, and how many there are in every block.
        self._first = np.maximum(taps[starts, 0], 0)
        stops = np.minimum(starts + _BLOCK, n_q)
        width = int((taps[stops - 1, -1] - self._first).max()) + 1
        self._first = np.minimum(self._first, n_fine - width)
        self._n_q, self._width = n_q, width

        block, point = np.divmod(np.arange(n_q), _BLOCK)
        column = np.abs(taps) - self._first[block][:, None]
        matrices = np.zeros((len(starts), width, _BLOCK))
        beyond = taps < 0
        index = (
            np.broadcast_to(block[:, None], taps.shape),
            column,
            np.broadcast_to(point[:, None], taps.shape),
        )
        matrices[tuple(i[~beyond] for i in index)] = weights[~beyond]
        # The function is even: taps left of 0 are added to their mirror images.
        np.add.at(matrices, tuple(i[beyond] for i in index), weights[beyond])
        self._matrices = xp.asarray(matrices)

    def __call__(self, values: Array) -> Array:
        """The functions at the points.

        Args:
            values: (m, n_fine) float64, on the fine grid.

        Returns:
            (m, q) float64.
        """
        xp = array_api_compat.array_namespace(values)
        out = xp.empty((values.shape[0], self._n_q), dtype=values.dtype)
        for block, first in enumerate(self._first):
            points = slice(block * _BLOCK, min((block + 1) * _BLOCK, self._n_q))
            size = points.stop - points.start
            out[:, points] = values[:, first : first + self._width] @ self._matrices[block][:, :size]
        return out
