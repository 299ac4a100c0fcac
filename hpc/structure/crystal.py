"""The endless crystal: vectors of its cell, blocks of cells, neighbours and their shells.

Symbols: r [Å].
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from hpc.structure.material import Material, equivalent_positions, kind_pairs

__all__ = [
    "APART",
    "REACH",
    "SHELL",
    "cell_vectors",
    "lattice_blocks",
    "nearest_neighbours",
    "neighbour_distances",
    "shells",
    "vectors_to_others",
]

#: Sites closer than this [Å] share a position (mixed occupancy): they are not neighbours, nor bonded.
APART = 0.1
#: Neighbours lie within this multiple of the shortest distance: a first shell that a small distortion has split is one.
SHELL = 1.2
#: Neighbours are looked for within this [Å]; pairs farther apart move independently (`hpc.motion`).
REACH = 20.0
# Distances within 3 % of the first are one shell: those that a small distortion has split.
_SAME_SHELL = 1.03


def cell_vectors(material: Material) -> np.ndarray:
    """(3, 3) float64 [Å], rows a, b, c: x along a, y in the plane of a and b, z along c*."""
    a, b, c, *angles = material.cell_angstrom
    # cos 90° is exactly 0: cubic positions are then the integer engine's, bit for bit.
    cos_a, cos_b, cos_c = (0.0 if angle == 90 else np.cos(np.radians(angle)) for angle in angles)
    sin_c = np.sqrt(1 - cos_c**2)
    y = (cos_a - cos_b * cos_c) / sin_c
    height2 = 1 - cos_b**2 - y**2
    if height2 <= 0:
        raise ValueError(f"cell_angstrom of {material.name}: no cell has the angles {angles}")
    return np.array([[a, 0, 0], [b * cos_c, b * sin_c, 0], [c * cos_b, c * y, c * np.sqrt(height2)]])


def lattice_blocks(cell: np.ndarray, radius: float) -> Iterator[np.ndarray]:
    """Every cell that may hold a point within `radius` [Å] of a point of cell (0, 0, 0).

    Yields:
        (cells, 3) int32 indices, in lexicographic order: a plane of cells at a time, so that memory stays small.
    """
    # The planes of index i lie 1/|column i of the inverse| apart.
    count = (radius * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int) + 2
    first, *others = (np.arange(-n, n + 1, dtype=np.int32) for n in count)
    plane = np.stack(np.meshgrid(*others, indexing="ij"), axis=-1).reshape(-1, 2)
    for index in first:
        yield np.column_stack((np.full(len(plane), index), plane))


def nearest_neighbours(material: Material, label: str) -> list[np.ndarray]:
    """For each equivalent position of a label, (n, 3) float64 vectors [Å] to its nearest neighbours of other kinds."""
    index = material.labels.index(label)
    found = []
    for start in equivalent_positions(material)[index]:
        vectors = vectors_to_others(material, index, start)
        length = np.linalg.norm(vectors, axis=1)
        found.append(vectors[length <= SHELL * length.min()])
    return found


def vectors_to_others(material: Material, kind: int, start: np.ndarray) -> np.ndarray:
    """(n, 3) float64 [Å] from the fractional position of a kind to sites of other kinds (of any, if there is one kind).

    All that may be as close as the nearest, and some more.
    """
    cell = cell_vectors(material)
    images = equivalent_positions(material)
    others = [of_kind for index, of_kind in enumerate(images) if index != kind or len(images) == 1]
    fraction = np.concatenate(others) - start
    blocks = np.concatenate(list(lattice_blocks(cell, SHELL * np.linalg.norm(cell, axis=1).sum() / 2)))
    vectors = ((blocks[:, None] + fraction) @ cell).reshape(-1, 3)
    return vectors[np.linalg.norm(vectors, axis=1) > APART]


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
            r = r[(r > APART) & (r < REACH)]
            first, number = _distinct(r)
            r = r[first]
            pair = np.full(len(r), pair_of[min(a, b), max(a, b)])
            found.append((r, pair, number * len(of_a) / atoms))
    distance, pair, number = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(distance, kind="stable")
    return distance[order], pair[order], number[order]
