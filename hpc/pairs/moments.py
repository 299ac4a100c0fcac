"""Moments of pair distances in fine bins -> weights on fixed nodes.

Distances r go into bins of width h with 4 power sums M_m = Σ t^m, where t = r/h - bin - 1/2 lies in [-1/2, 1/2). They
give the sum over the pairs of any cubic of t, so that of any function of r which is smooth on the scale of h, by its
interpolating cubic. Here the functions are the Lagrange polynomials of 16 Chebyshev nodes in a *coarse* bin of many
fine ones, and

    w = M · T,    Σ_pairs f(r) = Σ_n w_n f(r_n) + error    for f(r) = sin(Qr)/(Qr)

with one constant matrix T for all coarse bins. The weights are linear in the moments and the nodes are the same for
every particle: weights may be added, subtracted and averaged over sizes, kinds, realisations and ranks, and one table
of sines serves all of them. There are about four fine bins to a node.

Interpolating a wave at p Chebyshev nodes is off by at most A_p = (Qw/2)^p / (2^(p-1) p!) of its amplitude, w being the
width of the bin (L. N. Trefethen, Approximation Theory and Approximation Practice, chapters 4 and 7). Bins err in
either direction. How much of that remains in I(Q) depends on order: where displacements are 0.01 Å and more, next to
nothing; in a perfect crystal the distances repeat so regularly that errors add up, relative to the low intensity
between reflections, in proportion to the square of the diameter. `estimated_error` is for that case.

Symbols: r distance, h width of a fine bin [Å]; t offset in units of h; w weight: a number of pairs.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

__all__ = ["MOMENTS", "NODES", "Bins", "choose_bins", "estimated_error"]

#: Power sums of a fine bin: M_0 ... M_3.
MOMENTS = 4
#: Nodes of a coarse bin.
NODES = 16

# Error of I(Q) over (A_4 + A_16), for the largest distance of 100 Å: measured on perfect spheres of PbS and of
# identical atoms on a simple cubic lattice, 2 to 24 nm, where it is 10 or less. It grows as the square of the distance,
_ERROR_AT_100_ANGSTROM = 12.0
# and is taken as that of this distance [Å] in clusters of a few atoms.
_SMALLEST_EXTENT = 20.0
# Share of the coarse bins in the error: their nodes are cheap.
_COARSE_SHARE = 1 / 8
# Widths in terms of Q beyond which the series behind A_p says nothing.
_MAX_FINE_PHASE, _MAX_COARSE_PHASE = 1.0, 6.0
# Relative to I(Q): what float64 sums of N² terms leave, and beyond which a pattern is no use.
_SMALLEST_TOLERANCE, _LARGEST_TOLERANCE = 1e-11, 1e-2
# Below this Q [Å⁻¹] bins need not grow any more.
_SMALLEST_Q_MAX = 0.1


def _chebyshev(n: int) -> np.ndarray:
    """(n,) Chebyshev nodes of the interval -1/2..1/2, increasing."""
    return -np.cos(np.pi * (2 * np.arange(n) + 1) / (2 * n)) / 2


def _lagrange(x: np.ndarray, n: int) -> np.ndarray:
    """(..., n) values at x in -1/2..1/2 of the Lagrange polynomials of n Chebyshev nodes."""
    # Discrete orthogonality of Chebyshev polynomials, ℓ_j(x) = (1 + 2 Σ_k T_k(x_j) T_k(x)) / n: stable for any n.
    order = np.arange(n)
    at_x = np.cos(np.arccos(np.clip(2 * x, -1, 1))[..., None] * order)
    at_nodes = np.cos(np.arccos(2 * _chebyshev(n))[:, None] * order)
    return (at_x * np.where(order == 0, 1 / n, 2 / n)) @ at_nodes.T


@functools.lru_cache(maxsize=16)
def _transfer(fine: int) -> np.ndarray:
    """(fine · MOMENTS, NODES) float64, the matrix T."""
    node = _chebyshev(MOMENTS)
    # The cubics through the nodes of a fine bin: ℓ_j(t) = Σ_m t^m powers[m, j].
    powers = np.linalg.inv(np.vander(node, MOMENTS, increasing=True))
    position = (np.arange(fine)[:, None] + 0.5 + node) / fine - 0.5
    matrix = np.einsum("mj,bjn->bmn", powers, _lagrange(position, NODES)).reshape(fine * MOMENTS, NODES)
    matrix.setflags(write=False)
    return matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """The fine bins of pair distances from 0, and the nodes that their moments are brought to."""

    width: float
    """Width of a fine bin [Å]."""
    fine: int
    """Fine bins in a coarse bin."""
    count: int
    """Number of fine bins, a multiple of `fine`."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.width) and self.width > 0):
            raise ValueError(f"the width of a bin must be > 0 Å, got {self.width}")
        if self.fine < 1 or self.count < 1 or self.count % self.fine:
            raise ValueError(
                f"the number of bins must be a positive multiple of `fine`, got {self.count} and {self.fine}"
            )

    @property
    def extent(self) -> float:
        """Distances must lie below this [Å]."""
        return self.width * self.count

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return self.count // self.fine * NODES

    @property
    def nodes(self) -> np.ndarray:
        """(n_nodes,) float64 [Å], increasing."""
        middle = np.arange(self.count // self.fine)[:, None] + 0.5
        return ((middle + _chebyshev(NODES)) * (self.fine * self.width)).ravel()

    @property
    def transfer(self) -> np.ndarray:
        """(fine · MOMENTS, NODES) float64: moments of the fine bins of a coarse bin -> weights of its nodes."""
        return _transfer(self.fine)

    def node_weights(self, moments: np.ndarray) -> np.ndarray:
        """Weights of the nodes from the moments of the fine bins; linear.

        Args:
            moments: (..., count, MOMENTS) float64, sums of t^m over pairs.

        Returns:
            (..., n_nodes) float64.
        """
        shape = moments.shape[:-2]
        return (moments.reshape(*shape, -1, self.fine * MOMENTS) @ self.transfer).reshape(
            *shape, self.n_nodes
        )

    def moments_of(self, distance: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Moments of a plain list of distances: the reference of the pair engines.

        Args:
            distance: (n,) float64 [Å], below `extent`.
            pairs: (n,) float64, number of pairs at each.

        Returns:
            (count, MOMENTS) float64.
        """
        scaled = distance / self.width
        bin_ = scaled.astype(np.int64)
        t = scaled - bin_ - 0.5
        return np.stack([np.bincount(bin_, pairs * t**m, self.count) for m in range(MOMENTS)], axis=-1)

    def stretched(
        self, weights: np.ndarray, factor: np.ndarray, *, distance: np.ndarray | None = None
    ) -> np.ndarray:
        """Weights at stretched distances, brought back to the nodes: row k is a particle strained by factor[k] - 1.

        Interpolation within coarse bins, less than the error of the weights themselves.

        Args:
            weights: (k, n) float64, number of pairs at each distance.
            factor: (k,) float64.
            distance: (n,) float64 [Å]; the nodes when None.

        Returns:
            (k, n_nodes) float64.

        Raises:
            ValueError: a distance that carries pairs is stretched beyond the bins.
        """
        distance = self.nodes if distance is None else distance
        coarse = self.fine * self.width
        out = np.zeros((len(weights), self.n_nodes))
        for row, (pairs, stretch) in enumerate(zip(weights, factor, strict=True)):
            carrying = np.flatnonzero(pairs)
            scaled = distance[carrying] * (stretch / coarse)
            bin_ = scaled.astype(np.int64)
            if scaled.size and (bin_.max() + 1) * self.fine > self.count:
                raise ValueError(
                    f"the bins reach to {self.extent:g} Å, but a pair is stretched to {scaled.max() * coarse:g} Å; "
                    "choose bins for the largest strained particle"
                )
            shares = pairs[carrying, None] * _lagrange(scaled - bin_ - 0.5, NODES)
            node = bin_[:, None] * NODES + np.arange(NODES)
            out[row] = np.bincount(node.ravel(), shares.ravel(), self.n_nodes)
        return out


def _interpolation_error(half_phase: float, n: int) -> float:
    """A_n: of a wave at n Chebyshev nodes of a bin, relative to its amplitude; half_phase is Q times half the bin."""
    return half_phase**n / (2 ** (n - 1) * math.factorial(n))


def _half_phase(error: float, n: int) -> float:
    """The inverse of `_interpolation_error`."""
    return (error * 2 ** (n - 1) * math.factorial(n)) ** (1 / n)


def _addition(extent: float) -> float:
    """Error of I(Q) over that of a wave."""
    return _ERROR_AT_100_ANGSTROM * (max(extent, _SMALLEST_EXTENT) / 100) ** 2


def estimated_error(bins: Bins, q_max: float) -> float:
    """Upper estimate of the error of I(Q), relative to I(Q), for 0 <= Q <= q_max [Å⁻¹].

    Calibrated on perfect crystals that fill the bins up to `bins.extent`; displaced atoms do better by orders.
    """
    fine = _interpolation_error(q_max * bins.width / 2, MOMENTS)
    coarse = _interpolation_error(q_max * bins.width * bins.fine / 2, NODES)
    return _addition(bins.extent) * (fine + coarse)


def choose_bins(extent: float, *, q_max: float, tolerance: float = 1e-6, width: float | None = None) -> Bins:
    """Bins that keep a tolerance.

    Args:
        extent: no two sites are farther apart [Å].
        q_max: largest Q of the patterns [Å⁻¹].
        tolerance: of I(Q), relative to I(Q), by `estimated_error`.
        width: of a fine bin [Å], when it is not to be chosen.

    Raises:
        ValueError: an argument is outside its range, or the width is too coarse for the tolerance.
    """
    if not (np.isfinite(extent) and extent >= 0):
        raise ValueError(f"extent must be a distance >= 0 Å, got {extent}")
    if not (np.isfinite(q_max) and q_max >= 0):
        raise ValueError(f"q_max must be >= 0 1/Å, got {q_max}")
    if not _SMALLEST_TOLERANCE <= tolerance <= _LARGEST_TOLERANCE:
        raise ValueError(
            f"tolerance must lie in {_SMALLEST_TOLERANCE:g} to {_LARGEST_TOLERANCE:g}, got {tolerance:g}"
        )
    q_max = max(q_max, _SMALLEST_Q_MAX)
    # A coarse bin more than asked for: bins.extent is what the estimate looks at.
    reach = extent + 2 * _MAX_COARSE_PHASE / q_max
    share = tolerance / _addition(reach)
    coarse_phase = min(_half_phase(share * _COARSE_SHARE, NODES), _MAX_COARSE_PHASE)
    fine_phase = min(_half_phase(share * (1 - _COARSE_SHARE), MOMENTS), _MAX_FINE_PHASE)
    largest = 2 * fine_phase / q_max
    if width is not None and not 0 < width <= largest:
        raise ValueError(
            f"a bin width of {width:g} Å is too coarse (or not > 0) for a tolerance of {tolerance:g} up to "
            f"Q = {q_max:g} 1/Å and distances up to {extent:g} Å; use {largest * 0.99:.3g} Å or less, or leave it out"
        )
    if width is None:
        fine = math.ceil(coarse_phase / fine_phase)
        width = 2 * coarse_phase / q_max / fine
    else:
        fine = max(1, int(2 * coarse_phase / q_max / width))
    # The last distance must lie inside its bin, whatever the last bit says.
    return Bins(width=width, fine=fine, count=fine * (int(extent * (1 + 1e-9) / (width * fine)) + 1))
