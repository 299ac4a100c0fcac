"""A variant and the sizes that are asked for -> the pair tables of all its particles.

`plan_counting` chooses the engine (`hpc.pairs.counting`), cuts the sites and knows what the count will cost;
`count_family` does it all in this process.

Where sites enter a nested family at too many sizes, these are first put on steps of `Sampling.cut_step`
(`hpc.structure.sites.merge_sizes`); the particles of monodisperse ensembles are left as they are. Particles that are
not nested are built row by row, at least one for each `Sampling.size_step` (`hpc.pairs.size_rows`); for monodisperse
ensembles, at exactly their diameter, in a row of no width.

Size-dependent strain ε(D) = c + d/D stretches the particle of each row as a whole, on fixed nodes
(`hpc.pairs.moments`).

Symbols: D diameter [Å], σ relative standard deviation, ε strain, k row.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hpc.device import Device, select_device
from hpc.ensemble import largest_diameter, smallest_diameter
from hpc.memory import require_memory
from hpc.pairs.counting import Counting, CutCounting, LadderCounting, LatticeCounting, near_nodes
from hpc.pairs.moments import Bins, choose_bins
from hpc.pairs.nested import NestedFamily, PairTable
from hpc.pairs.size_rows import NO_WIDTH, rows_of_sites, with_exact
from hpc.pairs.surface import SurfaceCounting
from hpc.structure.crystal import cell_vectors, neighbour_distances
from hpc.structure.lattice_sites import cut_nested_sites
from hpc.structure.material import Kind, equivalent_positions, kind_pairs
from hpc.structure.particles import is_nested, is_random, particle_kinds
from hpc.structure.sites import cut_sites, dot_kinds, find_centre, merge_sizes
from hpc.structure.variant import Faults, Lattice, Variant

__all__ = ["Sampling", "Sizes", "count_family", "plan_counting", "variant_kinds"]

# Of ε(D): no crystal survives as much, and pairs would cross.
_LARGEST_STRAIN = 0.5
# Memory that cutting a particle takes for each of its sites (measured: 155 to 260).
_SITE_BYTES = 300
# Denominators of coordinates that the integer engine takes.
_DENOMINATORS = range(1, 49)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How particles off the perfect lattice are sampled; perfect cuts need none of it."""

    size_step: float = 1.0
    """Widest row of D [Å] for which one particle that is not nested is built."""
    cut_step: float = 0.05
    """Steps of D [Å] to which the sites of nested families are put, if they enter at more sizes than that."""
    realisations: int = 4
    """Particles of each size and cut centre where chance has a part, averaged."""
    tolerance: float = 1e-6
    """Error of the pair sums, relative to I(Q), that the bins of distances keep."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The ensembles that a family has to serve."""

    diameter: np.ndarray
    """(m,) float64 [Å], number means."""
    sigma: np.ndarray
    """(m,) float64; 0 is the one particle of that diameter."""
    tail: float
    """Fraction of the atoms of an ensemble that may lie beyond the smallest and the largest particle."""

    @property
    def largest(self) -> float:
        """Diameter of the largest particle [Å]."""
        return largest_diameter(self.diameter, self.sigma, tail=self.tail)

    @property
    def exact(self) -> np.ndarray:
        """Diameters [Å] of monodisperse ensembles, increasing."""
        return np.unique(self.diameter[self.sigma == 0])

    @property
    def spread(self) -> tuple[float, float] | None:
        """Smallest and largest diameter [Å] of the others; None when there are no others."""
        wide = self.sigma > 0
        if not wide.any():
            return None
        diameter, sigma = self.diameter[wide], self.sigma[wide]
        return (
            smallest_diameter(diameter, sigma, tail=self.tail),
            largest_diameter(diameter, sigma, tail=self.tail),
        )


def variant_kinds(variant: Variant) -> tuple[Kind, ...]:
    """What scatters in the particles of a variant, in the order of every `kind` axis."""
    return dot_kinds(variant) if is_nested(variant) else particle_kinds(variant)


def plan_counting(
    variant: Variant, sizes: Sizes, *, q_max: float, device: Device, sampling: Sampling | None = None
) -> Counting:
    """Choose an engine and cut the sites.

    Args:
        variant: the sort of dot.
        sizes: the ensembles that are asked for.
        q_max: largest Q [Å⁻¹] at which the tables will be transformed, strain included.
        device: where pairs will be counted.
        sampling: of particles off the perfect lattice.

    Raises:
        ValueError: a particle without sites or too large for the memory, or a strain ε(D) that no crystal survives.
    """
    sampling = sampling or Sampling()
    cells = np.pi / 6 * sizes.largest**3 / np.linalg.det(cell_vectors(variant.material))
    n_sites = abs(cells) * sum(len(images) for images in equivalent_positions(variant.material))
    stackings = 3 if variant.faults.deformation or variant.faults.growth else 1
    require_memory(
        stackings * n_sites * _SITE_BYTES,
        f"a {variant.material.name} particle of {sizes.largest / 10:.3g} nm, {n_sites:.3g} atoms,",
        "ask for smaller diameters or a smaller sigma",
    )

    def bins(extent: float) -> Bins:
        longest = _stretched(extent, variant.lattice.size_strain, sizes.largest)
        return choose_bins(longest, q_max=q_max, tolerance=sampling.tolerance)

    counting: Counting
    if not is_nested(variant):
        if device.kind == "cuda":
            from hpc.cuda.pairs import check_tolerance

            check_tolerance(sampling.tolerance)
        counting = _plan_ladder(variant, sizes, sampling, bins)
    elif _on_integers(variant):
        counting = _plan_lattice(variant, sizes, sampling, device)
    else:
        counting = _plan_cut(variant, sizes, sampling, bins)
    if variant.motion.surface_b != 1 and is_nested(variant):
        counting = SurfaceCounting(counting)
    if variant.lattice.size_strain == (0.0, 0.0):
        return counting
    return _Strained(counting, variant.lattice.size_strain, exact=sizes.exact, bins=bins(counting.extent))


def count_family(counting: Counting, *, device: Device | None = None) -> NestedFamily:
    """Count every unit in this process, on all CPU cores that it may use.

    Args:
        counting: from `plan_counting`, for the same device.
        device: where to count; CPU cores when None.
    """
    device = device or select_device("cpu")
    require_memory(
        counting.memory,
        f"the pair table of {len(counting.diameter)} sizes",
        "ask for smaller diameters or a smaller sigma",
    )
    tables, threads = counting.tables(), len(os.sched_getaffinity(0))
    for unit in range(len(counting.costs)):
        counting.count(unit, tables, device=device, threads=threads)
    return counting.family(tables)


def _on_integers(variant: Variant) -> bool:
    """Whether all positions lie on integer grids that divide each other: cubic, rational, perfect, undeformed."""
    undeformed = replace(variant.lattice, size_strain=(0.0, 0.0)) == Lattice()
    if not (variant.material.is_cubic and undeformed and variant.faults == Faults()):
        return False
    fractions = np.concatenate(equivalent_positions(variant.material))
    grids = []
    for centre in variant.centres:
        points = np.concatenate((fractions, find_centre(variant.material, centre)[None]))
        fitting = (d for d in _DENOMINATORS if np.abs(points * d - np.rint(points * d)).max() < 1e-4)
        grids.append(next(fitting, 0))
    return all(grid and max(grids) % grid == 0 for grid in grids)


def _plan_lattice(variant: Variant, sizes: Sizes, sampling: Sampling, device: Device) -> LatticeCounting:
    def cut(step: float | None) -> LatticeCounting:
        centres = [
            cut_nested_sites(
                variant.material,
                shape=variant.shape,
                surface=variant.surface,
                centre=centre,
                diameter_max=sizes.largest,
                with_surface_kinds=variant.motion.surface_b != 1,
                size_step=step,
                exact=sizes.exact.tolist(),
            )
            for centre in variant.centres
        ]
        return LatticeCounting(dot_kinds(variant), centres, device, near)

    near = neighbour_distances(variant.material)
    exact = cut(None)
    return cut(sampling.cut_step) if len(exact.diameter) > sizes.largest / sampling.cut_step else exact


def _plan_cut(
    variant: Variant, sizes: Sizes, sampling: Sampling, bins: Callable[[float], Bins]
) -> CutCounting:
    centres = [cut_sites(variant, centre=centre, diameter_max=sizes.largest) for centre in variant.centres]
    if sizes.spread is None:
        # Only these particles are asked for: every site enters with the first that holds it.
        centres = [
            replace(sites, gauge=sizes.exact[np.searchsorted(sizes.exact * (1 + 1e-9), sites.gauge)])
            for sites in centres
        ]
    distinct = np.unique(np.rint(np.concatenate([sites.gauge for sites in centres]) * 1e8))
    if len(distinct) > sizes.largest / sampling.cut_step:
        # The largest particle too ends with its last row.
        borders = [*sizes.exact, sizes.largest]
        centres = [
            replace(sites, gauge=merge_sizes(sites.gauge, sampling.cut_step, exact=borders))
            for sites in centres
        ]
    return CutCounting(centres, bins)


def _plan_ladder(
    variant: Variant, sizes: Sizes, sampling: Sampling, bins: Callable[[float], Bins]
) -> LadderCounting:
    diameter: np.ndarray = np.empty(0)
    size = diameter
    if sizes.spread is not None:
        low, high = sizes.spread
        # Where sites of a faulted crystal enter depends on chance; those of the perfect one stand for them.
        perfect = replace(variant, faults=Faults())
        gauge = [cut_sites(perfect, centre=c, diameter_max=high).gauge for c in variant.centres]
        diameter, size = rows_of_sites(np.concatenate(gauge), low=low, high=high, step=sampling.size_step)
        # Below the first site of a centre there is nothing to build.
        whole = size >= max(one.min() for one in gauge)
        diameter, size = diameter[whole], size[whole]
    diameter, size = with_exact(diameter, size, sizes.exact)
    return LadderCounting(
        variant,
        diameter=diameter,
        size=size,
        realisations=sampling.realisations if is_random(variant) else 1,
        seed=sampling.seed,
        choose_bins=bins,
    )


class _Strained:
    """A family of which the particle of each row is stretched by 1 + ε(D)."""

    def __init__(
        self, counting: Counting, size_strain: tuple[float, ...], *, exact: np.ndarray, bins: Bins
    ) -> None:
        """Add rows for the exact diameters, since ε(D) differs within a row."""
        self._counting, self._bins = counting, bins
        self.engine, self.kinds, self.costs = counting.engine, counting.kinds, counting.costs
        here = np.maximum(np.abs(counting.diameter[:, None] - exact), np.abs(counting.size[:, None] - exact))
        missing = exact[here.min(axis=0, initial=np.inf) > NO_WIDTH * exact]
        self.diameter, self.size = with_exact(counting.diameter, counting.size, missing)
        # The row that each lies in; 2e-9: sites that touch the surface belong to the particle.
        self._row = np.searchsorted(counting.diameter, self.diameter * (1 + 2e-9), side="right") - 1
        strain = np.array([_strain_at(size_strain, size) for size in self.size])
        if np.abs(strain).max() > _LARGEST_STRAIN:
            worst = int(np.abs(strain).argmax())
            raise ValueError(
                f"lattice.size_strain: ε(D) must lie in -{_LARGEST_STRAIN} to {_LARGEST_STRAIN} for every particle, it "
                f"is {strain[worst]:.3g} at {self.size[worst] / 10:.3g} nm; choose a smaller inverse-linear term"
            )
        self._factor = 1 + strain
        self.near_distance = near_nodes(bins)
        self.extent = min(_stretched(counting.extent, size_strain, counting.diameter[-1]), bins.extent)

    @property
    def memory(self) -> int:
        """Those of the unstrained family, and the strained particles and their differences."""
        n_pair = len(kind_pairs(len(self.kinds)))
        return self._counting.memory + 16 * n_pair * len(self.size) * self._bins.n_nodes

    def tables(self) -> list[np.ndarray]:
        """Those of the unstrained family."""
        return self._counting.tables()

    def count(self, unit: int, tables: list[np.ndarray], *, device: Device, threads: int) -> None:
        """Count in the unstrained family."""
        self._counting.count(unit, tables, device=device, threads=threads)

    def family(self, tables: list[np.ndarray]) -> NestedFamily:
        """Whole particles, stretched; then what each has more than the one before."""
        plain = self._counting.family(tables)

        def strained(table: PairTable) -> PairTable:
            whole = np.cumsum(table.entering, axis=0)[self._row]
            whole = self._bins.stretched(whole, self._factor, distance=table.distance)
            return PairTable(distance=self._bins.nodes, entering=np.diff(whole, axis=0, prepend=0.0))

        atoms = np.diff(np.cumsum(plain.atoms, axis=0)[self._row], axis=0, prepend=0.0)
        return NestedFamily(
            diameter=self.diameter, atoms=atoms, pairs=tuple(strained(table) for table in plain.pairs)
        )


def _strain_at(size_strain: tuple[float, ...], size: float) -> float:
    """ε of a particle of diameter `size` [Å]; a single atom, at size 0, has none."""
    constant, inverse = size_strain
    return constant + 10 * inverse / size if size > 0 else 0.0


def _stretched(extent: float, size_strain: tuple[float, ...], largest: float) -> float:
    """An upper estimate of the longest distance [Å] of all particles of a strained family."""
    constant, inverse = size_strain
    if constant == inverse == 0:
        return extent
    # (1 + ε(D)) D grows with D; 2 % for shapes whose extent is not proportional to D.
    return extent * (1 + abs(constant) + 10 * abs(inverse) / largest) * 1.02
