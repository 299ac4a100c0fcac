"""Sites that lack nearest neighbours as kinds of their own, so that they may move more than those of the core.

A site has its full surroundings from the diameter on at which the last of its nearest neighbours (of other kinds)
enters. Families stay nested when a site is two entries: one of the kind "any", which enters with the site, and one of
the core, which enters with the last neighbour. The site is at the surface where only the first is there, and pairs are
bilinear, so

    N_ss = N_aa - N_cc - N_cs,   N_cs = N_ca - 2 N_cc        (c core, s surface, a any; both orders together)

give the pairs of core and surface of every size, integer for integer (`hpc.pairs.surface`). Neighbours are within 1.2
times the shortest distance, of the sites that are there once `surface` has been applied.

Symbols: g gauge [Å], K number of kinds without this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hpc.structure.crystal import APART, SHELL, nearest_neighbours
from hpc.structure.material import Kind, Material

__all__ = ["split_entries", "surface_kinds"]

# Sites of several kinds may share a position: that many more are looked at.
_SHARED = 4


def surface_kinds(kinds: Sequence[Kind], surface_b: float) -> tuple[Kind, ...]:
    """The kinds of the core, then those of the surface with B times `surface_b`."""
    surface = [replace(kind, label=f"{kind.label} surface", b_iso=kind.b_iso * surface_b) for kind in kinds]
    return (*kinds, *surface)


def split_entries(
    material: Material,
    position: np.ndarray,
    site_kind: np.ndarray,
    entries: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_kind: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every entry twice: as the core from its last neighbour on, and as "any" from the start.

    Args:
        material: the crystal.
        position: (site, 3) float64 [Å], undeformed.
        site_kind: (site,) int, index into the material's kinds.
        entries: of `apply_surface`: (entry,) sites, kinds and gauges [Å].
        n_kind: K.

    Returns:
        The same for twice as many entries, "any" with the kinds K and up; the gauge is infinite where neighbours are
        missing.
    """
    chosen, kind, size = entries
    first = np.full(len(position), np.inf)
    np.minimum.at(first, chosen, size)
    full = _last_neighbour(material, position, site_kind, first)
    return (
        np.concatenate((chosen, chosen)),
        np.concatenate((kind, kind + n_kind)),
        np.concatenate((np.maximum(size, full[chosen]), size)),
    )


def _last_neighbour(
    material: Material, position: np.ndarray, site_kind: np.ndarray, first: np.ndarray
) -> np.ndarray:
    """(site,) float64 [Å]: the gauge of the last nearest neighbour that enters; infinite where one is not there."""
    from scipy.spatial import cKDTree

    full = np.full(len(position), np.inf)
    alone = len(material.kinds) == 1
    for index, label in enumerate(material.labels):
        mine = np.flatnonzero(site_kind == index)
        others = np.flatnonzero((site_kind != index) | alone)
        if not (len(mine) and len(others)):
            continue
        vectors = np.linalg.norm(nearest_neighbours(material, label)[0], axis=1)
        distance, neighbour = cKDTree(position[others]).query(
            position[mine], k=np.arange(1, len(vectors) + _SHARED + 1)
        )
        near = (distance > APART) & (distance <= SHELL * vectors.min() * (1 + 1e-6))
        # What is not found has an index beyond the last.
        gauge = np.append(first[others], np.inf)[np.minimum(neighbour, len(others))]
        last = np.where(near, gauge, -np.inf).max(axis=1)
        full[mine] = np.where(near.sum(axis=1) >= len(vectors), last, np.inf)
    return full
