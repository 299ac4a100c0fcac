"""A particle given atom by atom: checks, and the sites that the pair engine counts.

Several atoms may share a position when their occupancies add up to at most 1 (mixed sites such as Cd/Zn 0.5/0.5). They
exclude each other: one position holds one atom at a time, so there is no pair at distance 0, and the pairs between two
such positions are those of independent occupations, o_a o_b for every combination. Positions are therefore grouped into
*classes* with the same occupants, the engine counts the pairs of classes, and every combination of occupants of two
classes shares the sum of the two.

Atoms that neither coincide nor keep the distance of a bond are an error of the file: `check_distances`.

Symbols: o occupancy, B Debye-Waller factor [Å²], a, b kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpc.form_factors import check_element
from hpc.structure.material import Kind, kind_pairs

__all__ = ["CLOSEST", "Atoms", "SiteClasses", "expand_to_kinds", "group_sites", "make_atoms"]

#: No two nuclei of a structure come as close [Å]; the shortest bond, of H2, has 0.74 Å.
CLOSEST = 0.3
# Atoms within this distance [Å] share one position: the last digit of a structure file.
_SAME_POSITION = 1e-2
# Partial sums are stored by pairs of kinds, and there are n(n+1)/2 of those.
_MAX_KINDS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Atoms:
    """A particle, atom by atom; made by `make_atoms`, which checks it."""

    position: np.ndarray
    """(atom, 3) float64 [Å]."""
    element: np.ndarray
    """(atom,) str, chemical symbols."""
    label: np.ndarray
    """(atom,) str: the name of its site in the file, or the element."""
    occupancy: np.ndarray
    """(atom,) float64, probability that the atom is there, in (0, 1]."""
    b_iso: np.ndarray
    """(atom,) float64 [Å²], isotropic Debye-Waller factor."""

    def __len__(self) -> int:
        return len(self.position)


def make_atoms(
    position: np.ndarray,
    element: Sequence[str] | np.ndarray,
    *,
    occupancy: float | Sequence[float] | np.ndarray = 1.0,
    b_iso: float | Sequence[float] | np.ndarray = 0.0,
    label: Sequence[str] | np.ndarray | None = None,
) -> Atoms:
    """Check a list of atoms. Atoms of occupancy 0 are left out.

    Args:
        position: (atom, 3) [Å].
        element: (atom,) chemical symbols.
        occupancy: one number for all, or (atom,), in 0 to 1.
        b_iso: one number for all, or (atom,) [Å²], >= 0.
        label: (atom,) names of sites; the elements when None.

    Raises:
        ValueError: no atoms, shapes that do not fit, an unknown element, positions that are not finite, occupancies
            outside 0 to 1, or negative B; the message names the first such atom, counted from 1.
    """
    position = np.asarray(position, dtype=np.float64)
    if position.ndim != 2 or position.shape[1] != 3:
        raise ValueError(f"positions must have the shape (atoms, 3), got {position.shape}")
    n = len(position)
    if n == 0:
        raise ValueError("there are no atoms")
    element = np.asarray(element, dtype=np.str_)
    label = element if label is None else np.asarray(label, dtype=np.str_)
    try:
        o, b = (np.broadcast_to(np.asarray(x, dtype=np.float64), n) for x in (occupancy, b_iso))
    except ValueError:
        raise ValueError(f"occupancy and b_iso must be one number or one for each of the {n} atoms") from None
    if element.shape != (n,) or label.shape != (n,):
        raise ValueError(f"there must be one element for each of the {n} positions, got {element.shape}")
    for symbol in np.unique(element):
        check_element(str(symbol))
    _require(np.isfinite(position).all(axis=1), element, "has a position that is not finite", position)
    _require((o >= 0) & (o <= 1), element, "must have an occupancy in 0 to 1, got", o)
    _require(np.isfinite(b) & (b >= 0), element, "must have b_iso >= 0 Å², got", b)
    there = o > 0
    if not there.any():
        raise ValueError("there are no atoms: every occupancy is 0")
    return Atoms(
        position=position[there],
        element=element[there],
        label=label[there],
        occupancy=o[there],
        b_iso=b[there],
    )


def _require(good: np.ndarray, element: np.ndarray, problem: str, values: np.ndarray) -> None:
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        raise ValueError(f"atom {first + 1} ({element[first]}) {problem} {values[first]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteClasses:
    """Positions grouped by what may occupy them."""

    kinds: tuple[Kind, ...]
    """Every element, occupancy and B that occurs, once for each class that it occurs in."""
    class_of: tuple[int, ...]
    """For each kind, the class of its positions."""
    positions: tuple[np.ndarray, ...]
    """For each class, (n, 3) float64 [Å]."""

    @property
    def n_atoms(self) -> np.ndarray:
        """(kind,) float64, positions of each kind."""
        return np.array([len(self.positions[index]) for index in self.class_of], dtype=np.float64)


def group_sites(atoms: Atoms) -> SiteClasses:
    """Group atoms into kinds, and positions into classes with the same occupants.

    Raises:
        ValueError: atoms closer than `CLOSEST` that do not share a position, occupancies at one position that add up
            to more than 1, or more than 32 kinds.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    n = len(atoms)
    close = cKDTree(atoms.position).query_pairs(CLOSEST, output_type="ndarray")
    position_of = np.arange(n)
    if len(close):
        distance = np.linalg.norm(atoms.position[close[:, 0]] - atoms.position[close[:, 1]], axis=1)
        _refuse_first(atoms, close, distance, distance > _SAME_POSITION, "are not two atoms")
        graph = coo_array((np.ones(len(close)), (close[:, 0], close[:, 1])), shape=(n, n))
        position_of = connected_components(graph, directed=False)[1]
        total = np.bincount(position_of, weights=atoms.occupancy)
        _refuse_first(
            atoms,
            close,
            distance,
            total[position_of[close[:, 0]]] > 1 + 1e-6,
            "lie on top of each other with occupancies that add up to more than 1",
        )
    symbols, symbol_of = np.unique(atoms.element, return_inverse=True)
    described = np.column_stack((symbol_of, atoms.occupancy, atoms.b_iso))
    rows, row_of = np.unique(described, axis=0, return_inverse=True)
    row_of = row_of.ravel()  # NumPy 2.0 gives it another shape
    if len(rows) > _MAX_KINDS:
        raise ValueError(
            f"occupancies and b_iso distinguish {len(rows)} kinds of atoms, at most {_MAX_KINDS} can be told apart; "
            "give one value for each element, or round them"
        )

    # Atoms sorted by position, then by row: the occupants of a position are the same in any order of the file.
    order = np.lexsort((row_of, position_of))
    first = np.flatnonzero(np.diff(position_of[order], prepend=-1))
    occupants = np.diff(np.append(first, n))
    kinds: list[Kind] = []
    class_of: list[int] = []
    positions: list[np.ndarray] = []
    for together in np.unique(occupants):
        starts = first[occupants == together]
        members = order[starts[:, None] + np.arange(together)]
        signatures, which = np.unique(row_of[members], axis=0, return_inverse=True)
        for index, signature in enumerate(signatures):
            for row in signature:
                element, (occupancy, b_iso) = str(symbols[int(rows[row, 0])]), rows[row, 1:].tolist()
                kinds.append(Kind(label=element, element=element, occupancy=occupancy, b_iso=b_iso))
                class_of.append(len(positions))
            positions.append(np.ascontiguousarray(atoms.position[members[which.ravel() == index, 0]]))
    return SiteClasses(kinds=tuple(kinds), class_of=tuple(class_of), positions=tuple(positions))


def _refuse_first(
    atoms: Atoms, pairs: np.ndarray, distance: np.ndarray, bad: np.ndarray, problem: str
) -> None:
    if bad.any():
        which = int(np.lexsort((pairs[:, 1], pairs[:, 0], ~bad))[0])
        i, j = sorted(int(x) for x in pairs[which])
        raise ValueError(
            f"atoms {i + 1} ({atoms.label[i]}) and {j + 1} ({atoms.label[j]}) {problem}: they are "
            f"{distance[which]:.3g} Å apart (occupancies {atoms.occupancy[i]:g} and {atoms.occupancy[j]:g}); "
            "remove one of them from the structure"
        )


def expand_to_kinds(partial: np.ndarray, sites: SiteClasses) -> np.ndarray:
    """Partial sums of pairs of kinds from those of pairs of classes.

    Two kinds of one class share its pairs in both orders, a at one position and b at the other and the reverse.

    Args:
        partial: (class pair, ...) float64, ordered pairs i ≠ j, both orders of two classes together.
        sites: kinds and the class of each.

    Returns:
        (kind pair, ...) float64, the same for kinds.
    """
    row = {pair: index for index, pair in enumerate(kind_pairs(len(sites.positions)))}
    out = []
    for a, b in kind_pairs(len(sites.kinds)):
        c, d = sorted((sites.class_of[a], sites.class_of[b]))
        out.append((2 if a != b and c == d else 1) * partial[row[c, d]])
    return np.stack(out)
