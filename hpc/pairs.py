"""Off-lattice particles: all N² pair distances into a moment histogram, and that into partial sums.

Every pair goes into a bin of width h with the moments M0..M3 of its offset from the bin's middle. Four moments fix a
2-point Gauss rule for the distances inside the bin, and Σ sin(Qr)/(Qr) over the pairs becomes the sum over the two
nodes (G. H. Golub & J. H. Welsch, Math. Comp. 23, 221 (1969), for the rule). The rule is exact for polynomials of
degree 3, so the error of a bin is at most (Qh/2)⁴/4! of its pairs: 1e-5 at Q = 20 Å⁻¹ with h = 0.0125 Å, and below 1e-6
of the total, because the pairs of many bins err in either direction. A bin whose pairs share one distance (a perfect
lattice) is exact.

Symbols: r distance, h bin width, t offset from the middle of the bin, all [Å].
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from hpc.debye import partial_sums
from hpc.material import kind_pairs

__all__ = ["BIN_WIDTH", "gauss_nodes", "pair_moments", "partial_sums_of_positions"]

#: Bin width [Å] that keeps the error below 1e-6 for Q <= 20 Å⁻¹, even where displacements are as small as a bin (0.02 Å
#: gives 2e-6 there); it shrinks as 1/Q beyond.
BIN_WIDTH = 0.0125
# Sums of float64 depend on their order; a fixed number of partial histograms makes them independent of the cores.
_STRIPS = 16


@njit(nogil=True, cache=True, boundscheck=False)
def _add_pairs(  # type: ignore[no-untyped-def]  # compiled: numba infers the types
    first, second, same, begin, step, width, moments
):
    """Add the pairs of every `step`-th site of `first` with those of `second` (each pair once when `same`)."""
    for i in range(begin, len(first), step):
        x, y, z = first[i, 0], first[i, 1], first[i, 2]
        for j in range(i + 1 if same else 0, len(second)):
            dx, dy, dz = second[j, 0] - x, second[j, 1] - y, second[j, 2] - z
            r = np.sqrt(dx * dx + dy * dy + dz * dz)
            bin_ = int(r / width)
            t = r - (bin_ + 0.5) * width
            moments[bin_, 0] += 1.0
            moments[bin_, 1] += t
            moments[bin_, 2] += t * t
            moments[bin_, 3] += t * t * t


def pair_moments(first: np.ndarray, second: np.ndarray | None, *, width: float, n_bins: int) -> np.ndarray:
    """Moment histogram of pair distances.

    Args:
        first: (n, 3) float64 positions [Å].
        second: (m, 3) float64 positions of another kind; None for the pairs within `first`.
        width: bin width [Å].
        n_bins: number of bins; every distance must lie below width · n_bins.

    Returns:
        (n_bins, 4) float64: number of ordered pairs (both orders) and the sums of t, t², t³.
    """
    partial = np.zeros((_STRIPS, n_bins, 4))

    def strip(index: int) -> None:
        _add_pairs(
            first, first if second is None else second, second is None, index, _STRIPS, width, partial[index]
        )

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(strip, range(_STRIPS)))
    return 2 * partial.sum(axis=0)


def gauss_nodes(moments: np.ndarray, *, width: float) -> tuple[np.ndarray, np.ndarray]:
    """The 2-point Gauss rule of every occupied bin.

    Args:
        moments: (n_bins, 4) float64 of `pair_moments`.
        width: bin width [Å].

    Returns:
        (nodes,) float64 distances [Å] and (nodes,) float64 numbers of pairs. A bin without spread gives one node.
    """
    occupied = np.flatnonzero(moments[:, 0])
    count, m1, m2, m3 = moments[occupied].T
    middle = (occupied + 0.5) * width
    mean = m1 / count
    variance = np.maximum(m2 / count - mean**2, 0.0)
    # Below rounding of the second moment there is no spread to speak of.
    narrow = variance <= 1e-14 * width**2
    safe = np.where(narrow, 1.0, variance)
    skew = np.where(narrow, 0.0, (m3 / count - 3 * mean * m2 / count + 2 * mean**3) / safe)
    # Nodes at mean + x with x² - skew·x - variance = 0; weights from the mean being 0.
    root = np.sqrt(skew**2 / 4 + variance)
    low, high = skew / 2 - root, skew / 2 + root
    share = np.where(narrow, 1.0, high / np.where(narrow, 1.0, high - low))
    nodes = np.concatenate((middle + mean + np.where(narrow, 0.0, low), (middle + mean + high)[~narrow]))
    weights = np.concatenate((count * share, (count * (1 - share))[~narrow]))
    return nodes, weights


def partial_sums_of_positions(positions: list[np.ndarray], q: np.ndarray) -> np.ndarray:
    """P_ab(Q) of a particle given by the positions of its sites.

    Args:
        positions: for each kind, (n, 3) float64 [Å].
        q: (q,) float64 [Å⁻¹].

    Returns:
        (pair, q) float64, in the order of `kind_pairs`, ordered pairs i ≠ j.

    Raises:
        ValueError: two sites coincide.
    """
    everything = np.concatenate(positions)
    extent = float(np.linalg.norm(everything.max(axis=0) - everything.min(axis=0)))
    width = BIN_WIDTH * min(1.0, 20.0 / max(float(q[-1]), 1e-300))
    n_bins = int(extent / width) + 2
    out = np.zeros((len(positions) * (len(positions) + 1) // 2, len(q)))
    for index, (a, b) in enumerate(kind_pairs(len(positions))):
        moments = pair_moments(
            np.ascontiguousarray(positions[a]),
            None if a == b else np.ascontiguousarray(positions[b]),
            width=width,
            n_bins=n_bins,
        )
        distance, count = gauss_nodes(moments, width=width)
        if distance.size and distance.min() < 1e-3:
            raise ValueError(
                "two sites lie on top of each other (distance 0); remove the duplicate from the structure"
            )
        # Strips of nodes bound the memory of the sine table.
        for start in range(0, len(distance), 4096):
            part = slice(start, start + 4096)
            out[index] += partial_sums(count[part], distance[part], q)
    return out
