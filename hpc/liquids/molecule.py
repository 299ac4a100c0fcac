"""A molecule from its z-matrix: positions of its conformers, hydrogens on the skeleton, distances between atoms.

Conformers are drawn with the Boltzmann weight of their torsions at the liquid's temperature, and weighted by that of
the repulsion of groups more than three bonds apart (it rules out g+g-, the "pentane effect"). All other
bond lengths and angles are fixed; their vibration enters as a Gaussian width of each distance.

Symbols: positions [Å], n_c conformers, n_s rows of the skeleton, n_a atoms.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from hpc.liquids.liquid import Liquid

__all__ = ["Distances", "bond_counts", "conformers", "distances", "with_hydrogens"]

_CH_LENGTH = 1.10
_XH_ANGLE = 107.0  # H-C-H of methyl and methylene groups
_N_CONFORMER = 2000
_BIN = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """Distances inside the molecule between two elements, averaged over conformers."""

    elements: tuple[str, str]
    r: np.ndarray
    """(n,) float64 [Å]."""
    weight: np.ndarray
    """(n,) float64: ordered pairs of atoms per molecule at r; sums to 2 n_a n_b, or n_a (n_a - 1) for one element."""
    width: np.ndarray
    """(n,) float64 [Å]: root mean square change of r by vibration."""


def bond_counts(liquid: Liquid) -> np.ndarray:
    """(n_s, n_s) int: the smallest number of bonds between two rows of the skeleton."""
    n = len(liquid.rows)
    steps = np.full((n, n), n)
    np.fill_diagonal(steps, 0)
    for a, b in [*((i, row.to[0]) for i, row in enumerate(liquid.rows) if row.to), *liquid.closures]:
        steps[a, b] = steps[b, a] = 1
    for k in range(n):
        steps = np.minimum(steps, steps[:, k, None] + steps[None, k])
    return steps


def conformers(liquid: Liquid, *, count: int = _N_CONFORMER, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Conformers of the skeleton and their weights.

    Args:
        liquid: the liquid.
        count: conformers; one if no dihedral is a torsion.
        seed: of the random dihedrals.

    Returns:
        (n_c, n_s, 3) float64 positions [Å]; (n_c,) float64 weights of sum 1.
    """
    torsions = [row.dihedral for row in liquid.rows if isinstance(row.dihedral, str)]
    count = count if torsions else 1
    rng = np.random.default_rng(seed)
    positions = np.zeros((count, len(liquid.rows), 3))
    for i, row in enumerate(liquid.rows):
        if isinstance(row.dihedral, str):
            dihedral = _drawn_dihedrals(liquid.torsions[row.dihedral], liquid.temperature, rng.random(count))
        else:
            dihedral = np.full(count, np.radians(row.dihedral))
        positions[:, i] = _placed(positions, row.to, row.length, np.radians(row.angle), dihedral)
    energy = _repulsion(liquid, positions)
    weight = np.exp(-(energy - energy.min()) / liquid.temperature)
    return positions, weight / weight.sum()


def _drawn_dihedrals(c: tuple[float, float, float, float], temperature: float, u: np.ndarray) -> np.ndarray:
    """Dihedrals with the Boltzmann weight of their potential, from uniform numbers u in 0..1."""
    phi = np.radians(np.arange(0.0, 360.5, 0.5))
    potential = c[0] + c[1] * (1 + np.cos(phi)) + c[2] * (1 - np.cos(2 * phi)) + c[3] * (1 + np.cos(3 * phi))
    weight = np.exp(-(potential - potential.min()) / temperature)
    integral = np.concatenate([[0.0], np.cumsum((weight[1:] + weight[:-1]) / 2)])
    return np.interp(u * integral[-1], integral, phi)


def _placed(
    positions: np.ndarray, to: tuple[int, ...], length: float, angle: float, dihedral: np.ndarray
) -> np.ndarray:
    """(n_c, 3): the next atom of a z-matrix."""
    if not to:
        return np.zeros((len(positions), 3))
    origin = positions[:, to[0]]
    if len(to) == 1:
        return origin + np.array([length, 0.0, 0.0])
    along = _unit(positions[:, to[1]] - origin)
    if len(to) == 2:
        across = np.broadcast_to([0.0, 1.0, 0.0], along.shape)
        return origin + length * (np.cos(angle) * along + np.sin(angle) * across)
    behind = positions[:, to[2]] - positions[:, to[1]]
    normal = _unit(np.cross(-along, behind))
    in_plane = np.cross(normal, -along)
    side = np.cos(dihedral)[:, None] * in_plane + np.sin(dihedral)[:, None] * normal
    return origin + length * (np.cos(angle) * along + np.sin(angle) * side)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def _repulsion(liquid: Liquid, positions: np.ndarray) -> np.ndarray:
    """(n_c,) repulsion [K] of groups more than three bonds apart: in the liquid, attraction comes from all sides."""
    group = [liquid.groups[row.group] for row in liquid.rows]
    energy = np.zeros(len(positions))
    for i, j in np.argwhere(np.triu(bond_counts(liquid) > 3)):
        sigma = (group[i].sigma + group[j].sigma) / 2
        x = (sigma**2 / ((positions[:, i] - positions[:, j]) ** 2).sum(axis=1)) ** 3
        # Lorentz-Berthelot, Weeks-Chandler-Andersen: cut at the minimum, x = 1/2.
        energy += 4 * np.sqrt(group[i].epsilon * group[j].epsilon) * np.where(x > 0.5, x**2 - x + 0.25, 0.0)
    return energy


def with_hydrogens(liquid: Liquid, skeleton: np.ndarray) -> tuple[np.ndarray, list[str], list[int]]:
    """Put the hydrogens of every group on its atom.

    Args:
        liquid: the liquid.
        skeleton: (n_c, n_s, 3) float64 [Å].

    Returns:
        (n_c, n_a, 3) float64 positions, the skeleton first; the n_a elements; for each atom the row that it sits on.

    Raises:
        ValueError: a group has a number of bonds for which no place is known.
    """
    steps = bond_counts(liquid)
    positions = [skeleton]
    elements = [liquid.groups[row.group].element for row in liquid.rows]
    owner = list(range(len(liquid.rows)))
    for i, row in enumerate(liquid.rows):
        n = liquid.groups[row.group].hydrogens
        if not n:
            continue
        bonded = np.flatnonzero(steps[i] == 1)
        beyond = [int(k) for k in np.flatnonzero(steps[bonded[0]] == 1) if k != i] if len(bonded) == 1 else []
        direction = _hydrogen_directions(skeleton, i, bonded, beyond, n)
        if direction is None:
            raise ValueError(
                f"{liquid.name}: no place is known for {n} hydrogens on {row.label} with {len(bonded)} bonds; "
                "give them rows of the skeleton"
            )
        positions.append(skeleton[:, i, None] + _CH_LENGTH * direction)
        elements += ["H"] * n
        owner += [i] * n
    return np.concatenate(positions, axis=1), elements, owner


def _hydrogen_directions(
    skeleton: np.ndarray, i: int, bonded: np.ndarray, beyond: list[int], n: int
) -> np.ndarray | None:
    """(n_c, n, 3) unit vectors from atom i to its hydrogens."""
    inward = _unit(skeleton[:, bonded] - skeleton[:, i, None])
    outward = _unit(-inward.sum(axis=1))
    if n == 1 and len(bonded) in (2, 3):
        return outward[:, None]
    if n == 2 and len(bonded) == 2:
        half = np.radians(_XH_ANGLE / 2)
        normal = _unit(np.cross(inward[:, 0], inward[:, 1]))
        return np.stack([np.cos(half) * outward + s * np.sin(half) * normal for s in (1, -1)], axis=1)
    if len(bonded) == 1 and beyond and n in (2, 3):
        # Methyl: staggered, 109.5° to the bond; =CH2: in the plane of the double bond, 120°.
        away = skeleton[:, beyond[0]] - skeleton[:, bonded[0]]
        away = _unit(away - (away * outward).sum(axis=1, keepdims=True) * outward)
        side = np.cross(outward, away)
        tilt = np.radians(180 - 109.5 if n == 3 else 60.0)
        turn = np.radians([60.0, 180.0, 300.0] if n == 3 else [0.0, 180.0])
        return np.stack(
            [np.cos(tilt) * outward + np.sin(tilt) * (np.cos(t) * away + np.sin(t) * side) for t in turn],
            axis=1,
        )
    return None


def distances(liquid: Liquid, *, count: int = _N_CONFORMER, seed: int = 0) -> list[Distances]:
    """Distances inside the molecule, by pair of elements.

    Args:
        liquid: the liquid.
        count: conformers.
        seed: of the conformers.

    Returns:
        One entry per pair of elements that occurs.
    """
    skeleton, share = conformers(liquid, count=count, seed=seed)
    positions, elements, owner = with_hydrogens(liquid, skeleton)
    steps = bond_counts(liquid)[np.ix_(owner, owner)] + (
        (np.arange(len(owner)) >= len(liquid.rows))[:, None].astype(int)
        + (np.arange(len(owner)) >= len(liquid.rows))[None]
    )
    kinds = sorted(set(elements))
    sums: dict[tuple[str, str, float], list[np.ndarray]] = {}
    n_bin = 1 + int(np.ptp(positions, axis=1).max() * np.sqrt(3) / _BIN)
    for i in range(len(elements)):
        for j in range(i):
            a, b = min(elements[i], elements[j]), max(elements[i], elements[j])
            width = liquid.vibration[int("H" in (a, b))][min(int(steps[i, j]), 3) - 1]
            r = np.linalg.norm(positions[:, i] - positions[:, j], axis=1)
            index = (r / _BIN).astype(int)
            table = sums.setdefault((a, b, width), [np.zeros(n_bin), np.zeros(n_bin)])
            table[0] += np.bincount(index, weights=2 * share, minlength=n_bin)
            table[1] += np.bincount(index, weights=2 * share * r, minlength=n_bin)
    result = []
    for a, b in itertools.combinations_with_replacement(kinds, 2):
        parts: list[np.ndarray] = []
        for (x, y, width), (weight, moment) in sums.items():
            if (x, y) == (a, b):
                keep = weight > 0
                filled = weight[keep]
                parts.append(np.stack([moment[keep] / filled, filled, np.full_like(filled, width)]))
        if parts:
            r, weight, widths = np.concatenate(parts, axis=1)
            result.append(Distances(elements=(a, b), r=r, weight=weight, width=widths))
    return result
