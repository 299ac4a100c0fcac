"""Neighbours in the endless crystal: distances, shells, how many there are.

Symbols: r [Å].
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hpc.structure.material import Material, equivalent_positions, kind_pairs
from hpc.structure.sites import cell_vectors, lattice_blocks

__all__ = ["REACH", "neighbour_distances", "shells"]

#: Neighbours are looked for within this [Å]; pairs farther apart move independently (`hpc.motion`).
REACH = 20.0
# Distances within 3 % of the first are one shell: those that a small distortion has split.
_SAME_SHELL = 1.03
# Sites closer than this [Å] share a position (mixed occupancy).
_APART = 0.1


def shells(material: Material, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first shells of neighbours of the endless crystal.

    Distances up to 3 % beyond the first of a shell belong to it; its distance is their mean over the pairs.

    Args:
        material: any crystal.
        n: how many.

    Returns:
        (n,) float64 distances [Å], increasing; (n, pair) float64 ordered pairs of sites per atom, in the order of
        `kind_pairs`, both orders of two kinds together. Times occupancies, it is the number of neighbours.

    Raises:
        ValueError: n is below 1, or reaches beyond `REACH`.
    """
    if n < 1:
        raise ValueError(f"the number of shells must be at least 1, got {n}")
    distance, pair, number = _bulk_pairs(material)
    first: list[int] = []
    start = 0.0
    for index, r in enumerate(distance):
        if not first or r > start * _SAME_SHELL:
            first.append(index)
            start = r
    # The last may go on beyond the reach.
    if n >= len(first):
        raise ValueError(
            f"{material.name} has {len(first) - 1} shells of neighbours within {REACH:g} Å, {n} are asked for; "
            "use fewer"
        )
    stop = first[n]
    shell = np.searchsorted(first, np.arange(stop), side="right") - 1
    neighbours = np.zeros((n, len(kind_pairs(len(material.kinds)))))
    np.add.at(neighbours, (shell, pair[:stop]), number[:stop])
    mean = np.bincount(shell, number[:stop] * distance[:stop]) / np.bincount(shell, number[:stop])
    return mean, neighbours


def neighbour_distances(material: Material) -> np.ndarray:
    """(n,) float64 [Å], increasing: all distances of the endless crystal below `REACH`."""
    distance, _, _ = _bulk_pairs(material)
    return distance[_distinct(distance)[0]]


def _distinct(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the first of each distance that differs by more than rounding, and how many there are."""
    _, first, number = np.unique(np.rint(r * 1e6), return_index=True, return_counts=True)
    return first, number


@lru_cache(maxsize=16)
def _bulk_pairs(material: Material) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) distances [Å], pairs of kinds, ordered pairs of sites per atom: the endless crystal within the reach."""
    cell = cell_vectors(material)
    images = equivalent_positions(material)
    atoms = sum(len(one) * kind.occupancy for one, kind in zip(images, material.kinds, strict=True))
    blocks = np.concatenate(list(lattice_blocks(cell, REACH)))
    pair_of = {pair: index for index, pair in enumerate(kind_pairs(len(images)))}
    found = []
    for a, of_a in enumerate(images):
        for b, of_b in enumerate(images):
            # All equivalent positions have the same surroundings.
            vectors = ((blocks[:, None] + of_b - of_a[0]) @ cell).reshape(-1, 3)
            r = np.linalg.norm(vectors, axis=1)
            r = r[(r > _APART) & (r < REACH)]
            first, number = _distinct(r)
            r = r[first]
            pair = np.full(len(r), pair_of[min(a, b), max(a, b)])
            found.append((r, pair, number * len(of_a) / atoms))
    distance, pair, number = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(distance, kind="stable")
    return distance[order], pair[order], number[order]
