"""Three ways to count the pairs of a family, behind one interface.

    lattice   perfect cuts of a cubic crystal: integer distance classes, one pass for all sizes (`nested`)
    cut       any other nested family: deformed lattices, stacking faults, other cells (`structure.sites`, `cut`)
    ladder    what depends on a particle's own surface or on chance: one by one (`structure.particles`, `single`)

The work falls into *units*. A unit fills rows of the tables that no other unit touches (integers may be shared: they
add up in any order). So units may be counted on any rank and in any order, and the sum of the tables over ranks, which
adds zeros, has the same bits for any number of them.

A *row* stands for the particles of diameters from one value up to the next.

Symbols: D diameter [Å], k row, n distance class or node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from hpc.device import Device
from hpc.pairs.cut import count_cut_pairs
from hpc.pairs.moments import Bins
from hpc.pairs.nested import NestedFamily, PairTable, average_over_centres, count_pairs, merge_shells
from hpc.pairs.single import pair_weights
from hpc.structure.crystal import REACH
from hpc.structure.lattice_sites import NestedSites
from hpc.structure.material import Kind, kind_pairs
from hpc.structure.particles import build_particle, particle_kinds
from hpc.structure.sites import Sites
from hpc.structure.variant import Centre, Variant

__all__ = ["Counting", "CutCounting", "LadderCounting", "LatticeCounting", "near_nodes"]

# Pairs that one unit of a one-pass engine visits: seconds at most, so that ranks end together.
_VISITS = 2e8


class Counting(Protocol):
    """The pairs of one family, before they are counted."""

    @property
    def engine(self) -> str:
        """Its name, for people."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What scatters."""

    @property
    def diameter(self) -> np.ndarray:
        """(k,) float64 [Å], increasing: where each row begins."""

    @property
    def size(self) -> np.ndarray:
        """(k,) float64 [Å]: the diameter that stands for each row."""

    @property
    def extent(self) -> float:
        """No two sites are farther apart [Å]."""

    @property
    def near_distance(self) -> np.ndarray:
        """(n,) float64 [Å], increasing: every distance below `hpc.structure.crystal.REACH` that a table may have."""

    @property
    def costs(self) -> np.ndarray:
        """(unit,) float64, pairs that each unit visits."""

    @property
    def memory(self) -> int:
        """Bytes of the tables, and of the family that is made of them."""

    def tables(self) -> list[np.ndarray]:
        """Zeros, to be filled by `count`."""

    def count(self, unit: int, tables: list[np.ndarray], *, device: Device, threads: int) -> None:
        """Add what one unit counts."""

    def family(self, tables: list[np.ndarray]) -> NestedFamily:
        """The pair tables, once all units are in."""


def _middles(diameter: np.ndarray) -> np.ndarray:
    """(k,) the middle of each row; the last one, which has no end, stands for itself."""
    return np.append((diameter[:-1] + diameter[1:]) / 2, diameter[-1])


class LatticeCounting:
    """Perfect cuts of a cubic crystal around one or several centres."""

    engine = "lattice"

    def __init__(
        self,
        kinds: tuple[Kind, ...],
        centres: Sequence[NestedSites],
        device: Device,
        near_distance: np.ndarray,
    ) -> None:
        """Cut the work into units: parts of about equal cost of each centre; on a GPU each centre at once."""
        self.kinds, self._centres, self.near_distance = kinds, list(centres), near_distance
        self.diameter, _, _ = merge_shells(centres)
        self.size = _middles(self.diameter)
        self.extent = max(_extent(one.unit * one.position) for one in centres)
        self._units, costs = [], []
        for index, sites in enumerate(centres):
            visits = len(sites.representative) * len(sites.position) / 2
            parts = 1 if device.kind == "cuda" else int(np.ceil(visits / _VISITS))
            self._units += [(index, part, parts) for part in range(parts)]
            costs += [visits / parts] * parts
        self.costs = np.array(costs)

    @property
    def memory(self) -> int:
        """The integer tables and the one of their mean."""
        n_pair = len(kind_pairs(len(self.kinds)))
        sizes = [8 * n_pair * len(one.diameter) * one.n_class for one in self._centres]
        return sum(sizes) + max(sizes)

    def tables(self) -> list[np.ndarray]:
        """(pair, shell, class) int64 for each centre."""
        n_pair = len(kind_pairs(len(self.kinds)))
        return [np.zeros((n_pair, len(one.diameter), one.n_class), dtype=np.int64) for one in self._centres]

    def count(self, unit: int, tables: list[np.ndarray], *, device: Device, threads: int) -> None:
        """Add part of the shells of one centre, or all of them on a GPU."""
        centre, part, parts = self._units[unit]
        if device.kind == "cuda":
            from hpc.cuda.nested import count_pairs_cuda

            tables[centre] += device.to_host(count_pairs_cuda(self._centres[centre], device))
        else:
            count_pairs(self._centres[centre], threads=threads, part=(part, parts), out=tables[centre])

    def family(self, tables: list[np.ndarray]) -> NestedFamily:
        """Mean over the centres."""
        return average_over_centres(self._centres, tables)


class CutCounting:
    """Nested families of sites at real positions."""

    engine = "cut"

    def __init__(self, centres: Sequence[Sites], choose_bins: Callable[[float], Bins]) -> None:
        """Put the sizes at which sites of any centre enter on one axis of rows.

        Args:
            centres: the sites around each cut centre.
            choose_bins: extent [Å] -> bins of distances.
        """
        self.kinds, self._centres = centres[0].kinds, list(centres)
        # Gauges that differ by rounding alone are one row.
        keys = [np.rint(sites.gauge * 1e8) for sites in centres]
        common, first = np.unique(np.concatenate(keys), return_index=True)
        self.diameter = np.concatenate([sites.gauge for sites in centres])[first]
        self.size = _middles(self.diameter)
        self.extent = max(_extent(sites.position) for sites in centres)
        self._bins = choose_bins(self.extent)
        self.near_distance = near_nodes(self._bins)
        self._rows = [np.searchsorted(common, key) for key in keys]
        self._strips = self._cut_into_strips()
        self.costs = np.array([self._visits(start, stop) for start, stop in self._strips])

    def _visits(self, start: int, stop: int) -> float:
        """Pairs that enter with these rows."""
        before = [np.count_nonzero(row < start) for row in self._rows]
        after = [np.count_nonzero(row < stop) for row in self._rows]
        return sum((b * b - a * a) / 2 for a, b in zip(before, after, strict=True))

    def _cut_into_strips(self) -> list[tuple[int, int]]:
        """Rows of each unit: about equal numbers of pairs."""
        sites = sum(np.bincount(row, minlength=len(self.diameter)) for row in self._rows)
        pairs = np.cumsum(sites) ** 2 / 2
        n = int(np.ceil(pairs[-1] / _VISITS))
        borders = np.searchsorted(pairs, pairs[-1] * np.arange(1, n) / n) + 1
        edges = np.unique([0, *borders, len(self.diameter)])
        return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))

    @property
    def memory(self) -> int:
        """The table, and the family's."""
        return 16 * len(kind_pairs(len(self.kinds))) * len(self.diameter) * self._bins.n_nodes

    def tables(self) -> list[np.ndarray]:
        """(pair, k, node) float64."""
        return [np.zeros((len(kind_pairs(len(self.kinds))), len(self.diameter), self._bins.n_nodes))]

    def count(self, unit: int, tables: list[np.ndarray], *, device: Device, threads: int) -> None:
        """Add a strip of rows of the mean over centres, on CPU cores."""
        start, stop = self._strips[unit]
        for sites, rows in zip(self._centres, self._rows, strict=True):
            count_cut_pairs(sites, rows, self._bins, tables[0], strip=(start, stop), threads=threads)
        tables[0][:, start:stop] /= len(self._centres)

    def family(self, tables: list[np.ndarray]) -> NestedFamily:
        """Expected numbers of sites and pairs."""
        atoms = np.zeros((len(self.diameter), len(self.kinds)))
        for sites, rows in zip(self._centres, self._rows, strict=True):
            present = np.diag(sites.weight)[sites.group]
            np.add.at(atoms, (rows, sites.kind), present / len(self._centres))
        return NestedFamily(
            diameter=self.diameter, atoms=atoms, pairs=_tables_on_nodes(tables[0], self._bins)
        )


class LadderCounting:
    """Particles one by one; a unit is one size, with all its centres and realisations."""

    engine = "ladder"

    def __init__(
        self,
        variant: Variant,
        *,
        diameter: np.ndarray,
        size: np.ndarray,
        realisations: int,
        seed: int,
        choose_bins: Callable[[float], Bins],
    ) -> None:
        """Build the largest particles, to know how many atoms there are and how far apart.

        Args:
            variant: what is built.
            diameter: (k,) float64 [Å], where each row begins.
            size: (k,) float64 [Å], the diameter of the particle that is built for it.
            realisations: particles of each size and centre, averaged.
            seed: of the particles.
            choose_bins: extent [Å] -> bins of distances.
        """
        self.diameter, self.size = diameter, size
        self._variant, self._realisations, self._seed = variant, realisations, seed
        # Several rows may share a particle: around the exact diameter of a monodisperse ensemble.
        self._sizes, self._particle = np.unique(size, return_inverse=True)
        self.kinds = particle_kinds(variant)
        largest = [np.concatenate(self._build(self._sizes[-1], centre, 0)) for centre in variant.centres]
        # Other realisations may reach farther: by chance (beyond eight standard deviations lies 1e-15) or on
        # other facets.
        margin = 8 * max(variant.disorder.core, variant.disorder.surface) + 5 * (variant.faults.facets > 0)
        self.extent = max(_extent(positions) for positions in largest) + 2 * margin
        self._bins = choose_bins(self.extent)
        self.near_distance = near_nodes(self._bins)
        n_atoms = max(len(positions) for positions in largest)
        builds = len(variant.centres) * realisations
        self.costs = builds / 2 * (n_atoms * (self._sizes / self._sizes[-1]) ** 3) ** 2

    def _build(self, size: float, centre: Centre, realisation: int) -> list[np.ndarray]:
        _, positions = build_particle(
            self._variant,
            centre=centre,
            diameter=float(size),
            seed=self._seed,
            realisation=realisation,
            realisations=self._realisations,
        )
        return positions

    @property
    def memory(self) -> int:
        """The tables of the particles, and those of the rows and their differences."""
        tables = len(self._sizes) + 2 * len(self.size)
        return 8 * len(kind_pairs(len(self.kinds))) * tables * self._bins.n_nodes

    def tables(self) -> list[np.ndarray]:
        """(pair, particle, node) and (particle, kind) float64."""
        n_kind = len(self.kinds)
        return [
            np.zeros((len(kind_pairs(n_kind)), len(self._sizes), self._bins.n_nodes)),
            np.zeros((len(self._sizes), n_kind)),
        ]

    def count(self, unit: int, tables: list[np.ndarray], *, device: Device, threads: int) -> None:
        """Add the mean particle of one size."""
        weights, atoms = tables
        builds = [(centre, r) for centre in self._variant.centres for r in range(self._realisations)]
        for centre, realisation in builds:
            positions = self._build(self._sizes[unit], centre, realisation)
            atoms[unit] += [len(one) for one in positions]
            weights[:, unit] += pair_weights(positions, self._bins, threads=threads, device=device)
        atoms[unit] /= len(builds)
        weights[:, unit] /= len(builds)

    def family(self, tables: list[np.ndarray]) -> NestedFamily:
        """What each row has more than the one before."""
        weights, atoms = tables

        def entering(table: np.ndarray) -> np.ndarray:
            return np.diff(table[self._particle], axis=0, prepend=0.0)

        return NestedFamily(
            diameter=self.diameter,
            atoms=entering(atoms),
            pairs=_tables_on_nodes([entering(table) for table in weights], self._bins),
        )


def near_nodes(bins: Bins) -> np.ndarray:
    """(n,) float64 [Å]: the nodes at which pairs may still move together."""
    return bins.nodes[bins.nodes < REACH]


def _tables_on_nodes(entering: Iterable[np.ndarray], bins: Bins) -> tuple[PairTable, ...]:
    # + 0.0: the sum over ranks turns -0.0 into 0.0, one rank alone would not.
    return tuple(PairTable(distance=bins.nodes, entering=table + 0.0) for table in entering)


def _extent(position: np.ndarray) -> float:
    """Twice the largest distance from the centre."""
    return 2 * float(np.sqrt(np.einsum("ij,ij->i", position, position).max()))
