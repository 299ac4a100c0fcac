"""Dots of one variant for a fit: pair numbers of any lognormal ensemble, with their derivatives.

A particle of a counted family holds what has entered so far, W_k = Σ_{j<=k} e_j. An ensemble is the mean over
particles,

    C_n(D_v, σ) = Σ_k w_k W_kn,   w_k = F(ln D_{k+1}) - F(ln D_k),   F(x) = Φ((x - μ)/s),
    s² = ln(1 + σ²),  μ = ln D_v - 7s²/2,

with the volume-weighted mean D_v = D(1 + σ²)³, which patterns fix better than D. Derivatives of w are
differences of the normal density: exact. Only the particles and distances that an ensemble reaches are touched.

Symbols: D diameters [Å], σ relative standard deviation, k particle, n distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hpc.device import select_device
from hpc.pairs.families import Sizes, count_family, plan_counting
from hpc.structure.material import Kind, kind_pairs
from hpc.structure.particles import is_nested
from hpc.structure.variant import Variant

__all__ = ["CountedDots", "Ensemble", "count_dots"]

# Of the weights that are left out at either end.
_TAIL = 1e-9
# Particles that are not nested are built one by one, from this diameter on [Å]: smaller ones hold next to no atoms.
_SMALLEST = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Mean numbers of sites and pairs, and their derivatives by ln D_v and σ: row 0, 1, 2."""

    atoms: np.ndarray
    """(3, kind) float64."""
    tables: tuple[tuple[np.ndarray, np.ndarray], ...]
    """For each pair of kinds: (n,) float64 distances [Å] and (3, n) float64 ordered pairs."""
    beyond: float
    """Fraction of the atoms that would lie in particles larger than the largest counted one."""


class CountedDots:
    """The pair tables of one variant up to a largest diameter."""

    def __init__(self, variant: Variant, *, largest: float, q_max: float) -> None:
        """Count all particles.

        Args:
            variant: the sort of dot.
            largest: diameter of the largest particle [Å].
            q_max: largest Q [Å⁻¹] at which the tables will be used.
        """
        sizes = _all_sizes(variant, largest)
        counting = plan_counting(variant, sizes, q_max=q_max, device=select_device("cpu"))
        family = count_family(counting)
        self.variant, self.largest = variant, largest
        self.kinds: tuple[Kind, ...] = counting.kinds
        self.pairs = kind_pairs(len(self.kinds))
        with np.errstate(divide="ignore"):
            self._log_diameter = np.log(family.diameter)
        self._atoms = np.cumsum(family.atoms, axis=0)
        self._distances = [table.distance for table in family.pairs]
        self._whole = [np.cumsum(table.entering, axis=0) for table in family.pairs]
        #: Pairs of kinds whose tables have the same distances.
        self.shared: list[list[int]] = []
        for index, distance in enumerate(self._distances):
            for group in self.shared:
                if np.array_equal(self._distances[group[0]], distance):
                    group.append(index)
                    break
            else:
                self.shared.append([index])
        # The columns that each particle reaches: distances increase.
        self._reach = [
            np.maximum.accumulate([(np.flatnonzero(row)[-1] + 1 if row.any() else 0) for row in whole])
            for whole in self._whole
        ]

    def ensemble(self, log_volume_diameter: float, sigma: float) -> Ensemble:
        """The mean over a lognormal distribution.

        Args:
            log_volume_diameter: ln D_v, D_v in Å.
            sigma: σ > 0.
        """
        from scipy.special import ndtr

        s2 = np.log1p(sigma**2)
        s = np.sqrt(s2)
        ds, dmu = sigma / (s * (1 + sigma**2)), -7 * sigma / (1 + sigma**2)
        z = (self._log_diameter - (log_volume_diameter - 3.5 * s2)) / s
        density = np.where(np.isfinite(z), np.exp(-0.5 * np.where(np.isfinite(z), z, 0) ** 2), 0.0)
        density /= np.sqrt(2 * np.pi)
        # Distribution function at the edges and its derivatives by ln D_v and σ.
        zz = np.where(np.isfinite(z), z, 0.0)
        edges = np.stack([ndtr(z), -density / s, -density * (zz * ds + dmu) / s])
        weights = np.diff(edges, axis=1, append=np.array([[1.0], [0.0], [0.0]]))
        first = max(int(np.searchsorted(edges[0], _TAIL)) - 1, 0)
        # Atoms are distributed as D³ times the number density.
        share = self._atoms.sum(axis=1)
        share_weights = weights[0] * share
        last = int(np.searchsorted(-share_weights[::-1].cumsum()[::-1], -_TAIL * share_weights.sum()))
        window = slice(first, max(last, first + 1))
        tables = []
        for distance, whole, reach in zip(self._distances, self._whole, self._reach, strict=True):
            columns = slice(0, int(reach[window.stop - 1]))
            tables.append((distance[columns], weights[:, window] @ whole[window, columns]))
        # In volume weights μ is larger by 3s².
        beyond = ndtr(-(np.log(self.largest) - (log_volume_diameter - 0.5 * s2)) / s)
        return Ensemble(atoms=weights @ self._atoms, tables=tuple(tables), beyond=float(beyond))


@lru_cache(maxsize=8)
def count_dots(variant: Variant, largest: float, q_max: float) -> CountedDots:
    """The same, kept for the next pattern."""
    return CountedDots(variant, largest=largest, q_max=q_max)


def _all_sizes(variant: Variant, largest: float) -> Sizes:
    """Ensembles that ask for every particle up to the largest."""
    from scipy.special import ndtr

    if is_nested(variant):
        # A nested family holds all smaller ones, whatever the spread; it only has to be > 0.
        return Sizes(diameter=np.array([largest]), sigma=np.array([1e-6]), tail=0.5)
    # A lognormal distribution of atoms from the smallest to the largest, at two standard deviations.
    middle, s = np.sqrt(_SMALLEST * largest), np.log(largest / _SMALLEST) / 4
    sigma = np.sqrt(np.expm1(s**2))
    diameter = middle * np.exp(-2.5 * s**2)
    return Sizes(diameter=np.array([diameter]), sigma=np.array([sigma]), tail=float(ndtr(-2.0)))
