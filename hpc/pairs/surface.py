"""Pairs of core and surface, from those of the core and of all sites: see `hpc.structure.surface_kinds`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hpc.device import Device
from hpc.pairs.counting import Counting
from hpc.pairs.nested import NestedFamily, PairTable
from hpc.structure.material import kind_pairs

__all__ = ["SurfaceCounting", "separate_surface"]


class SurfaceCounting:
    """A nested family whose sites at the surface are kinds of their own."""

    def __init__(self, counting: Counting) -> None:
        """Take a family whose second half of kinds is counted as "any"."""
        self._counting = counting
        self.engine, self.kinds, self.costs = counting.engine, counting.kinds, counting.costs
        self.diameter, self.size, self.extent = counting.diameter, counting.size, counting.extent
        self.near_distance = counting.near_distance

    @property
    def memory(self) -> int:
        """Tables of core and "any", and those of core and surface."""
        return 2 * self._counting.memory

    def tables(self) -> list[np.ndarray]:
        """Those of core and "any"."""
        return self._counting.tables()

    def count(self, unit: int, tables: list[np.ndarray], *, device: Device, threads: int) -> None:
        """Count core and "any"."""
        self._counting.count(unit, tables, device=device, threads=threads)

    def family(self, tables: list[np.ndarray]) -> NestedFamily:
        """Core and surface."""
        return separate_surface(self._counting.family(tables), len(self.kinds) // 2)


def separate_surface(family: NestedFamily, n_kind: int) -> NestedFamily:
    """Core and "any" -> core and surface.

    Args:
        family: whose kinds K and up are "any".
        n_kind: K.
    """
    row = {pair: index for index, pair in enumerate(kind_pairs(2 * n_kind))}
    tables: dict[tuple[int, int], PairTable] = {}
    for a, b in kind_pairs(n_kind):
        core, any_ = (a, b), (a + n_kind, b + n_kind)
        # Of one kind: core with any is one table, in both orders.
        mixed = [(a, b + n_kind)] if a == b else [(a, b + n_kind), (b, a + n_kind)]
        distance, dense = _on_one_axis([family.pairs[row[pair]] for pair in (core, any_, *mixed)])
        of_core, of_any, *of_mixed = dense
        both = [table - (2 if a == b else 1) * of_core for table in of_mixed]
        surface = of_any - of_core - sum(both)
        for pair, table in zip((core, any_, *mixed), (of_core, surface, *both), strict=True):
            tables[pair] = PairTable(distance=distance, entering=table)
    atoms = family.atoms.copy()
    atoms[:, n_kind:] -= atoms[:, :n_kind]
    return replace(family, atoms=atoms, pairs=tuple(tables[pair] for pair in row))


def _on_one_axis(tables: Sequence[PairTable]) -> tuple[np.ndarray, list[np.ndarray]]:
    """All distances of some tables, and the tables on them."""
    distance = np.unique(np.concatenate([table.distance for table in tables]))
    dense = []
    for table in tables:
        entering = np.zeros((len(table.entering), len(distance)))
        entering[:, np.searchsorted(distance, table.distance)] = table.entering
        dense.append(entering)
    return distance, dense
