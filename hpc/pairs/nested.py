"""One pass over the pairs of the largest particle -> pair-distance histograms of every size.

A pair (i, j) belongs to every particle that contains both sites, so it *enters* with the later of their two shells.
The histogram of the particle that ends with shell k is the sum of what entered with shells 0..k: one pass serves all
sizes, integer for integer. Two more savings: only pairs whose second site lies in the same or an earlier shell are
visited (the other half is its mirror image), and the first site runs over one representative of each orbit of the
point symmetry (1/48 of the sites for a centred cubic particle). A shell writes one row of the histogram, which stays
in the first-level cache.

Exact for every nested family of `hpc.structure.lattice_sites`; counts are int64 and overflow nowhere below 10⁹ sites.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit

from hpc.structure.lattice_sites import NestedSites
from hpc.structure.material import kind_pairs

__all__ = [
    "NestedFamily",
    "PairTable",
    "average_over_centres",
    "count_pairs",
    "count_pairs_reference",
    "merge_shells",
]


# Distances that differ by rounding alone [Å].
_SAME = 1e-6


@njit(nogil=True, cache=True, boundscheck=False)
def _count_shells(  # type: ignore[no-untyped-def]  # compiled: numba infers the types
    x, y, z, offset, shells, rep_start, rep_site, rep_kind, rep_weight, pair_of, counts
):
    """Fill the rows `counts[:, shell]` for the given shells."""
    n_kind = offset.shape[0]
    # Distance classes of a strip of sites are computed first (vectorised), then counted (scattered).
    strip = np.empty(1024, dtype=np.int32)
    for shell in shells:
        for rep in range(rep_start[shell], rep_start[shell + 1]):
            site = rep_site[rep]
            xi, yi, zi = x[site], y[site], z[site]
            for kind in range(n_kind):
                row = counts[pair_of[rep_kind[rep], kind], shell]
                for part in range(2):
                    # Earlier shells are met once but count in both orders; the own shell is met from both sides.
                    if part == 0:
                        begin, end, weight = offset[kind, 0], offset[kind, shell], 2 * rep_weight[rep]
                    else:
                        begin, end, weight = offset[kind, shell], offset[kind, shell + 1], rep_weight[rep]
                    while begin < end:
                        size = min(end - begin, 1024)
                        for j in range(size):
                            dx = x[begin + j] - xi
                            dy = y[begin + j] - yi
                            dz = z[begin + j] - zi
                            strip[j] = dx * dx + dy * dy + dz * dz
                        for j in range(size):
                            row[strip[j]] += weight
                        begin += size
        counts[:, shell, 0] = 0  # a site with itself, or a partly occupied skin with its core


def count_pairs(
    sites: NestedSites,
    *,
    threads: int | None = None,
    part: tuple[int, int] = (0, 1),
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Ordered pairs i ≠ j that enter with each shell, by kinds and squared distance, on CPU cores.

    Args:
        sites: the largest particle of the family.
        threads: cores to use; all that this process may use when None. The result does not depend on it.
        part: (i, n) counts the i-th of n shares of about equal cost; the sum of all shares is the whole.
        out: (pair, shell, n_class) int64 zeros in the rows of this share, to be filled; new when None.

    Returns:
        (pair, shell, n_class) int64. `pair` runs over `kind_pairs`; a pair of two kinds holds both orders, so that the
        sum over everything is N(N-1).
    """
    threads = threads or len(os.sched_getaffinity(0))
    n_kind, n_shell = sites.offset.shape[0], len(sites.diameter)
    pairs = kind_pairs(n_kind)
    pair_of = np.zeros((n_kind, n_kind), dtype=np.int64)
    for index, (a, b) in enumerate(pairs):
        pair_of[a, b] = pair_of[b, a] = index
    counts = np.zeros((len(pairs), n_shell, sites.n_class), dtype=np.int64) if out is None else out
    rep_start = np.searchsorted(sites.rep_shell, np.arange(n_shell + 1))
    x, y, z = (np.ascontiguousarray(axis) for axis in sites.position.T)

    # Every shell owns its rows, so threads never meet. Late shells cost most: deal them out like cards, those first.
    mine = np.arange(n_shell - 1, -1, -1)[part[0] :: part[1]]
    hands = [mine[start :: 32 * threads] for start in range(32 * threads)]

    def count(shells: np.ndarray) -> None:
        _count_shells(
            x,
            y,
            z,
            sites.offset,
            shells,
            rep_start,
            sites.representative,
            sites.rep_kind,
            sites.weight,
            pair_of,
            counts,
        )

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, hands))
    return counts


def count_pairs_reference(sites: NestedSites) -> np.ndarray:
    """The same counts from all N² pairs, without symmetry or ordering by shells: what tests compare with."""
    n_kind, n_shell = sites.offset.shape[0], len(sites.diameter)
    kind = np.repeat(np.arange(n_kind), np.diff(sites.offset[:, [0, -1]], axis=1)[:, 0])
    shell = np.concatenate([np.repeat(np.arange(n_shell), np.diff(row)) for row in sites.offset])
    counts = np.zeros((n_kind * (n_kind + 1) // 2, n_shell, sites.n_class), dtype=np.int64)
    pair_of = {frozenset(pair): index for index, pair in enumerate(kind_pairs(n_kind))}
    for i, h in enumerate(sites.position.astype(np.int64)):
        n = ((sites.position - h) ** 2).sum(axis=1)
        later = np.maximum(shell, shell[i])
        for other in range(n_kind):
            chosen = (kind == other) & (np.arange(len(kind)) != i)
            np.add.at(counts[pair_of[frozenset((int(kind[i]), other))]], (later[chosen], n[chosen]), 1)
    counts[:, :, 0] = 0  # a skin with its core, at one position
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTable:
    """Pairs of two kinds by distance."""

    distance: np.ndarray
    """(n,) float64 [Å], increasing, only distances that occur."""
    entering: np.ndarray
    """(shell, n) float64, ordered pairs that enter with each shell (mean over cut centres)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedFamily:
    """Every particle of one shape: sites and pair distances that enter as the diameter grows."""

    diameter: np.ndarray
    """(shell,) float64 [Å], increasing. Particle k is what has diameters diameter[k] <= D < diameter[k + 1]."""
    atoms: np.ndarray
    """(shell, kind) float64, sites that enter with each shell (mean over cut centres)."""
    pairs: tuple[PairTable, ...]
    """One table for each of `kind_pairs`."""

    def near(self, distance: np.ndarray) -> np.ndarray:
        """Pairs that enter at the smallest distances, on one axis for all pairs of kinds.

        Args:
            distance: (n,) float64 [Å], increasing: every one that occurs below some reach, and others.

        Returns:
            (pair, shell, n) float64.
        """
        entering = np.zeros((len(self.pairs), len(self.diameter), len(distance)))
        for index, table in enumerate(self.pairs):
            own = table.distance[table.distance <= distance[-1] + _SAME]
            column = np.searchsorted(distance, own - _SAME)
            assert np.abs(distance[column] - own).max(initial=0) <= _SAME, "a near distance is missing"
            entering[index][:, column] = table.entering[:, : len(own)]
        return entering


def merge_shells(centres: Sequence[NestedSites]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The shells of several cut centres of one material on a common axis.

    Returns:
        (shell,) float64 diameters [Å]; (shell, kind) float64 sites that enter, mean over centres; for each centre the
        (its shells,) indices of its shells on the common axis.
    """
    # Diameters of different centres that differ by rounding alone are one shell.
    keys = [np.rint(sites.diameter * 1e8) for sites in centres]
    common = np.unique(np.concatenate(keys))
    rows = [np.searchsorted(common, key) for key in keys]
    diameter = np.zeros(len(common))
    atoms = np.zeros((len(common), centres[0].offset.shape[0]))
    for sites, row in zip(centres, rows, strict=True):
        diameter[row] = sites.diameter
        atoms[row] += sites.atoms / len(centres)
    return diameter, atoms, rows


def average_over_centres(centres: Sequence[NestedSites], counts: Sequence[np.ndarray]) -> NestedFamily:
    """Mean over the cut centres of one material.

    The mean of patterns is the pattern of the mean, because the intensity is linear in the pair counts.

    Args:
        centres: the sites around each centre.
        counts: `count_pairs` of each.
    """
    diameter, atoms, rows = merge_shells(centres)
    # Centres between sites need a finer grid; squared distances on the coarser ones are stretched to the finest.
    unit = min(sites.unit for sites in centres)
    if any(abs(sites.unit / unit - round(sites.unit / unit)) > 1e-6 for sites in centres):
        raise ValueError(
            f"cut centres must lie on grids that divide each other, got spacings {[s.unit for s in centres]} Å; "
            "average the patterns of such centres instead"
        )
    stretch = [round(sites.unit / unit) ** 2 for sites in centres]
    tables = []
    for pair in range(len(counts[0])):
        occurring = [np.flatnonzero(count[pair].any(axis=0)) for count in counts]
        squares = [n * factor for n, factor in zip(occurring, stretch, strict=True)]
        classes = np.unique(np.concatenate(squares))
        entering = np.zeros((len(diameter), len(classes)))
        for count, row, n, square in zip(counts, rows, occurring, squares, strict=True):
            entering[np.ix_(row, np.searchsorted(classes, square))] += count[pair][:, n]
        entering /= len(centres)
        tables.append(PairTable(distance=unit * np.sqrt(classes), entering=entering))
    return NestedFamily(diameter=diameter, atoms=atoms, pairs=tuple(tables))
