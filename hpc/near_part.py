"""The pairs of one particle, or of a mean over particles, that do not move independently: with what `hpc.motion` needs.

Shells of neighbours are those of the crystal for dots, and those that the atoms themselves show for lists of atoms.

Symbols: r distance [Å], c correlation, n distance, m shell of neighbours, a, b kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpc.motion import correlation_at, correlation_weights, near_damped
from hpc.structure.crystal import REACH, shells
from hpc.structure.material import Kind, Material, kind_pairs
from hpc.structure.variant import Motion
from hpc.transform import sinc

__all__ = ["NearFamily", "NearPart", "crystal_laws", "crystal_part", "particle_part", "shells_of_positions"]

# Sites closer than this [Å] share a position.
_APART = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class NearPart:
    """What the motion of a particle's atoms adds to its damped partial sums: correlated pairs, and a halo."""

    distance: np.ndarray
    """(n,) float64 [Å], of the pairs that move together, unstrained."""
    pairs: np.ndarray
    """(pair, n) float64, how many ordered pairs there are."""
    correlation: np.ndarray
    """(n,) float64, c of each distance."""
    halo_distance: np.ndarray
    """(m,) float64 [Å]."""
    halo_pairs: np.ndarray
    """(pair, m) float64, ordered pairs in the halo, with the atoms of the whole particle."""
    halo_b: float
    """[Å²]"""
    strain: float = 0.0
    """ε of all distances."""

    def damped(self, q: np.ndarray, exponent: np.ndarray, b_scale: float = 1.0) -> np.ndarray:
        """(pair, q) float64: what adds to e^{-b (B_a+B_b) s²} P_ab.

        Args:
            q: (q,) float64 [Å⁻¹].
            exponent: (pair, q) float64, `Coefficients.exponent`.
            b_scale: b; the halo's B is its own.
        """
        near = near_damped(
            self.pairs, self.distance, self.correlation, q, exponent, b_scale=b_scale, strain=self.strain
        )
        waves = sinc((1 + self.strain) * self.halo_distance[:, None] * q)
        return near + (self.halo_pairs @ waves) * np.exp(-self.halo_b * (q / (4 * np.pi)) ** 2)


def crystal_part(
    motion: Motion,
    material: Material,
    kinds: Sequence[Kind],
    *,
    distance: np.ndarray,
    pairs: np.ndarray,
    n_atoms: float,
    strain: float = 0.0,
) -> NearPart:
    """The near part of a dot, with the shells of its crystal.

    Args:
        motion: how atoms move.
        material: the crystal.
        kinds: what scatters in the dot; first the kinds of the material, perhaps partly occupied, then others.
        distance: (n,) float64 [Å], of the dot's pairs below the reach.
        pairs: (pair, n) float64, how many there are.
        n_atoms: atoms of the dot, for the halo.
        strain: ε.

    Raises:
        ValueError: the crystal has fewer shells than values.
    """
    correlation, halo_distance, halo_pairs = crystal_laws(motion, material, kinds, distance)
    moving = correlation != 0
    return NearPart(
        distance=distance[moving],
        pairs=pairs[:, moving],
        correlation=correlation[moving],
        halo_distance=halo_distance,
        halo_pairs=n_atoms * halo_pairs,
        halo_b=motion.halo_b,
        strain=strain,
    )


def crystal_laws(
    motion: Motion, material: Material, kinds: Sequence[Kind], distance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a crystal makes of the laws of motion: c at given distances, and the halo's pairs.

    Args:
        motion: how atoms move.
        material: the crystal.
        kinds: what scatters in the dot; first the kinds of the material, perhaps partly occupied, then others.
        distance: (n,) float64 [Å].

    Returns:
        (n,) float64 c; (m,) float64 distances of the halo [Å]; (pair, m) float64 ordered pairs in it per atom.

    Raises:
        ValueError: the crystal has fewer shells than values.
    """
    n_halo = len(motion.halo)
    m = max(len(motion.correlation), n_halo)
    nodes, neighbours = shells(material, m + 1) if m else (np.empty(1), np.zeros((1, 1)))
    row = {pair: index for index, pair in enumerate(kind_pairs(len(kinds)))}
    halo_pairs = np.zeros((len(row), n_halo))
    for index, (a, b) in enumerate(kind_pairs(len(material.kinds)) if n_halo else []):
        # Occupied pairs of the crystal, whatever the occupancy of the dot's kinds is.
        occupied, asked = (
            kinds_[a].occupancy * kinds_[b].occupancy for kinds_ in (material.kinds, tuple(kinds))
        )
        halo_pairs[row[a, b]] = occupied / asked * np.array(motion.halo) * neighbours[:n_halo, index]
    if motion.shells:
        nodes = np.array(motion.shells)
    return correlation_at(motion, distance, nodes), nodes[:n_halo], halo_pairs


class NearFamily:
    """The near part of every size of a variant, as matrix products.

    Columns are the pairs of two kinds at one distance that move together, and the halo, which goes with the atoms.
    """

    def __init__(
        self,
        motion: Motion,
        material: Material,
        kinds: Sequence[Kind],
        *,
        distance: np.ndarray,
        pairs: np.ndarray,
        n_atoms: np.ndarray,
    ) -> None:
        """Choose the columns.

        Args:
            motion: how atoms move.
            material: the crystal.
            kinds: of the dots, as for `crystal_laws`.
            distance: (n,) float64 [Å].
            pairs: (pair, k, n) float64, ordered pairs of particle k.
            n_atoms: (k,) float64, atoms of particle k.
        """
        correlation, self._halo_distance, self._halo_pairs = crystal_laws(motion, material, kinds, distance)
        self._pair, column = np.nonzero((correlation != 0) & pairs.any(axis=1))
        self._distance, self._correlation, self._halo_b = distance[column], correlation[column], motion.halo_b
        halo = [n_atoms] if any(motion.halo) else []
        #: (k, column) float64.
        self.table: np.ndarray = (
            np.stack([*pairs[self._pair, :, column], *halo], axis=1)
            if (len(column) or halo)
            else np.zeros((len(n_atoms), 0))
        )

    def waves(
        self, q: np.ndarray, *, undamped: np.ndarray, exponent: np.ndarray, b_scale: float, strain: float
    ) -> np.ndarray:
        """What each column adds to the intensity.

        Args:
            q: (q,) float64 [Å⁻¹].
            undamped: (pair, q) float64, `Coefficients.undamped`.
            exponent: (pair, q) float64, `Coefficients.exponent`.
            b_scale: factor on every B, the halo's aside.
            strain: ε.

        Returns:
            (column, q) float64 [electron units].
        """
        stretch = 1 + strain
        exponents = b_scale * exponent[self._pair]
        damped = np.exp((self._correlation[:, None] - 1) * exponents) - np.exp(-exponents)
        near = undamped[self._pair] * damped * sinc(stretch * self._distance[:, None] * q)
        if self.table.shape[1] == len(near):
            return near
        waves = self._halo_pairs @ sinc(stretch * self._halo_distance[:, None] * q)
        halo = np.sum(undamped * waves, axis=0) * np.exp(-self._halo_b * (q / (4 * np.pi)) ** 2)
        return np.concatenate((near, halo[None]))


def particle_part(motion: Motion, nodes: np.ndarray, *, distance: np.ndarray, pairs: np.ndarray) -> NearPart:
    """The near part of a list of atoms, with shells of its own.

    Args:
        motion: how atoms move.
        nodes: (m + 1,) float64 [Å], distances of shells and of one more, `shells_of_positions`.
        distance: (n,) float64 [Å], of all pairs below the reach.
        pairs: (pair, n) float64, how many there are.
    """
    n_halo = len(motion.halo)
    halo_pairs = np.zeros((len(pairs), n_halo))
    if n_halo:
        # A neighbour belongs to the shell that it is nearest to.
        halo_pairs = pairs @ correlation_weights(distance, nodes[: n_halo + 1]).T * np.array(motion.halo)
    correlation = correlation_at(motion, distance, nodes)
    moving = correlation != 0
    return NearPart(
        distance=distance[moving],
        pairs=pairs[:, moving],
        correlation=correlation[moving],
        halo_distance=nodes[:n_halo],
        halo_pairs=halo_pairs,
        halo_b=motion.halo_b,
    )


def shells_of_positions(position: np.ndarray, n: int) -> np.ndarray:
    """Distances of the first shells of neighbours of a list of atoms: maxima of its radial density.

    Smoothed over 0.1 Å; a maximum is the highest point within 0.3 Å either way, and at least a tenth of the highest.

    Args:
        position: (atom, 3) float64 [Å].
        n: how many.

    Returns:
        (n,) float64 [Å], increasing.

    Raises:
        ValueError: there are fewer within the reach.
    """
    from scipy.spatial import cKDTree

    step, tree = 0.01, cKDTree(position)
    # Atoms in the middle have all their neighbours; a thousand of them show where these are.
    middle = np.argsort(np.linalg.norm(position - position.mean(axis=0), axis=1), kind="stable")[:1000]
    edges = np.arange(_APART, REACH, step)
    around = [
        np.linalg.norm(position[tree.query_ball_point(position[i], REACH)] - position[i], axis=1)
        for i in middle
    ]
    count, _ = np.histogram(np.concatenate(around), edges)
    r = (edges[:-1] + edges[1:]) / 2
    kernel = np.exp(-0.5 * (np.arange(-30, 31) * step / 0.1) ** 2)
    density = np.convolve(count / r**2, kernel, mode="same")
    padded = np.pad(density, 30)
    highest = np.lib.stride_tricks.sliding_window_view(padded, 61).max(axis=1)
    found = r[(density == highest) & (density > 0.1 * density.max(initial=0.0))]
    if len(found) < n:
        raise ValueError(
            f"{n} shells of neighbours are needed (one more than values of motion), the particle shows {len(found)} "
            f"within {REACH:g} Å at {[round(float(x), 2) for x in found]} Å; give fewer values, or motion.shells"
        )
    return found[:n]
