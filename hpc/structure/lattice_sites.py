"""A cubic crystal and a shape -> the sites of the largest particle on an integer grid, shell by shell.

A shape is a *gauge*: the smallest diameter of the particle that contains a point. Particles of one shape around one
fixed centre are then nested, and the particle of diameter D is every site whose gauge is at most D. Sites that share a
gauge value enter together and form a *shell*. Surfaces keep the family nested; see `hpc.structure.sites`.

Positions are kept as integers on a cubic grid of spacing `unit` (cell edge over the smallest denominator of the
fractional coordinates), so that a pair's squared distance is an integer class n = |h_i - h_j|² with r = unit·√n.
Valid for undeformed cubic cells whose sites and cut centres have rational coordinates; anything else is refused, and
`hpc.structure.sites` cuts it.

Symbols: h integer position, a cell edge [Å], D diameter [Å].
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpc.structure.crystal import lattice_blocks
from hpc.structure.material import Material, equivalent_positions
from hpc.structure.shapes import Gauge, gauge, reach
from hpc.structure.sites import TOUCHING, apply_surface, find_centre, merge_sizes, shells
from hpc.structure.surface_kinds import split_entries
from hpc.structure.variant import Centre, Shape, Surface

__all__ = [
    "NestedSites",
    "cut_nested_sites",
]

_PLAIN_CUT = Surface()
# The largest denominator of a fractional coordinate that still counts as rational (1/48 covers every cubic
# special position and their midpoints).
_MAX_DENOMINATOR = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedSites:
    """Sites of the largest particle around one cut centre, sorted by kind, then by shell.

    Kinds are those of `hpc.structure.sites.dot_kinds`. A partly occupied skin lies on the positions of its core:
    such a pair of sites is at distance 0, class 0, which is never counted.
    """

    unit: float
    """Grid spacing [Å]."""
    position: np.ndarray
    """(site, 3) int32, relative to the cut centre, in units of `unit`."""
    offset: np.ndarray
    """(kind, shell + 1) int64: sites of kind a in shells < s are position[offset[a, 0] : offset[a, s]]."""
    diameter: np.ndarray
    """(shell,) float64 [Å], increasing: the smallest particle that contains the shell."""
    representative: np.ndarray
    """(rep,) int32 index into position: one site of each orbit of the point symmetry, sorted by shell."""
    weight: np.ndarray
    """(rep,) int32, sites in the orbit, at most 48."""
    rep_kind: np.ndarray
    """(rep,) int32."""
    rep_shell: np.ndarray
    """(rep,) int32."""

    @property
    def n_class(self) -> int:
        """Number of distance classes: the largest possible n = |h_i - h_j|², plus one."""
        reach = int((self.position.astype(np.int64) ** 2).sum(axis=1).max())
        return 4 * reach + 1

    @property
    def atoms(self) -> np.ndarray:
        """(shell, kind) int64, sites that enter with each shell."""
        return np.diff(self.offset, axis=1).T.copy()


def cut_nested_sites(
    material: Material,
    *,
    shape: str | Shape,
    centre: Centre,
    diameter_max: float,
    surface: Surface = _PLAIN_CUT,
    with_surface_kinds: bool = False,
    size_step: float | None = None,
    exact: Sequence[float] = (),
) -> NestedSites:
    """Every site within the largest particle of a nested family.

    Args:
        material: a cubic crystal.
        shape: a name of `hpc.structure.shapes.SHAPES`, or one with its parameters.
        centre: site label, "bond", "cell" or fractional coordinates; see `hpc.structure.sites.find_centre`.
        diameter_max: diameter of the largest particle [Å].
        surface: treatment of the surface.
        with_surface_kinds: every site twice, see `hpc.structure.surface_kinds`.
        size_step: round gauge values to its multiples [Å], for shapes that let hardly two sites enter together: the
            counts take memory and time by the shell. `hpc.structure.sites.merge_sizes` says what that costs in
            accuracy.
        exact: diameters [Å] whose particles rounding leaves as they are.

    Raises:
        ValueError: unknown shape or centre, a cell that is not cubic, coordinates that are not rational,
            a surface that the material cannot have, or a particle without any site.
    """
    if isinstance(shape, str):
        shape = Shape(name=shape)
    if not (np.isfinite(diameter_max) and diameter_max > 0):
        raise ValueError(f"diameter_max must be > 0 Å, got {diameter_max}")
    if size_step is not None and not (np.isfinite(size_step) and size_step > 0):
        raise ValueError(f"size_step must be > 0 Å, got {size_step}")
    of = gauge(shape)
    a, denominator, cell_position, cell_kind, origin = _integer_cell(material, centre)
    unit = a / denominator
    limit = diameter_max * (1 + TOUCHING)

    parts = []
    for block in lattice_blocks(a * np.eye(3), reach(shape, limit)):
        candidate = ((block * denominator)[:, None] + (cell_position - origin)).reshape(-1, 3)
        within = np.flatnonzero(of(candidate * unit) <= limit)
        parts.append((candidate[within], within % len(cell_kind)))
    position = np.concatenate([one for one, _ in parts])
    image = np.concatenate([one for _, one in parts])
    chosen, kind, size = apply_surface(
        material,
        surface,
        position=position * unit,
        kind=cell_kind[image],
        image=image,
        size=of(position * unit),
        of=of,
    )
    n_kind = len(material.kinds) + surface.is_partial
    if with_surface_kinds:
        chosen, kind, size = split_entries(
            material, position * unit, cell_kind[image], (chosen, kind, size), n_kind
        )
        n_kind *= 2
    if size_step is not None:
        size = merge_sizes(size, size_step, exact=[*exact, diameter_max])
    inside = size <= limit
    if not inside.any():
        raise ValueError(
            f"a {material.name} {shape.name} of {diameter_max / 10:g} nm around {centre} holds no site; "
            "ask for a larger diameter or another centre"
        )
    position, kind, size = position[chosen][inside], kind[inside], size[inside]
    diameter, shell = shells(size)
    order = np.lexsort((shell, kind))
    position, kind, shell = position[order].astype(np.int32), kind[order], shell[order]

    n_shell = len(diameter)
    entering = np.bincount(kind * n_shell + shell, minlength=n_kind * n_shell).reshape(n_kind, n_shell)
    start = np.concatenate(([0], np.cumsum(entering.sum(axis=1))[:-1]))
    offset = np.concatenate((np.zeros((n_kind, 1), dtype=np.int64), np.cumsum(entering, axis=1)), axis=1)

    operations = _point_symmetry(cell_position - origin, cell_kind, denominator, position * unit, of)
    representative, weight = _orbits(position, operations)
    by_shell = np.argsort(shell[representative], kind="stable")
    representative, weight = representative[by_shell], weight[by_shell]
    return NestedSites(
        unit=unit,
        position=np.ascontiguousarray(position),
        offset=offset + start[:, None],
        diameter=diameter,
        representative=representative.astype(np.int32),
        weight=weight.astype(np.int32),
        rep_kind=kind[representative].astype(np.int32),
        rep_shell=shell[representative].astype(np.int32),
    )


def _integer_cell(
    material: Material, centre: Centre
) -> tuple[float, int, np.ndarray, np.ndarray, np.ndarray]:
    """Edge, denominator, (site, 3) integer positions and (site,) kinds of one cell, and the centre's position."""
    if not material.is_cubic:
        raise ValueError(
            "the one-pass engine needs a cubic cell (a = b = c, 90°), "
            f"{material.name} has {list(material.cell_angstrom)}"
        )
    fractions = equivalent_positions(material)
    kinds = [np.full(len(images), index) for index, images in enumerate(fractions)]
    everything = np.concatenate((*fractions, find_centre(material, centre)[None]))
    for denominator in range(1, _MAX_DENOMINATOR + 1):
        scaled = everything * denominator
        if np.abs(scaled - np.rint(scaled)).max() < 1e-4:
            integer = np.rint(scaled).astype(np.int32)
            return (
                material.cell_angstrom[0],
                denominator,
                integer[:-1],
                np.concatenate(kinds),
                integer[-1],
            )
    raise ValueError(
        f"sites and centre of {material.name} must have rational coordinates (denominator <= {_MAX_DENOMINATOR}) "
        "for the one-pass engine"
    )


def _point_symmetry(
    cell_position: np.ndarray, cell_kind: np.ndarray, denominator: int, position: np.ndarray, of: Gauge
) -> list[np.ndarray]:
    """The signed permutations (out of 48) about the cut centre that keep both the crystal and the shape."""

    def cell_key(positions: np.ndarray) -> np.ndarray:
        x, y, z = (positions % denominator).T
        return np.sort(((cell_kind * denominator + x) * denominator + y) * denominator + z)

    crystal = cell_key(cell_position)
    # A gauge is one formula: a few hundred sites from all over the particle, and some points beyond it, show
    # whether it keeps an operation.
    probe = position[:: max(1, len(position) // 500)]
    probe = np.concatenate((probe, 1.5 * probe + [0.3, 0.7, 1.1]))
    size = of(probe)
    kept = []
    for permutation in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            operation = np.zeros((3, 3), dtype=np.int32)
            operation[range(3), permutation] = signs
            same_crystal = np.array_equal(cell_key(cell_position @ operation), crystal)
            if same_crystal and np.allclose(of(probe @ operation), size, rtol=1e-9, atol=1e-9):
                kept.append(operation)
    return kept


def _orbits(position: np.ndarray, operations: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One site of each orbit (the one with the largest key) and the size of the orbit."""
    width = 2 * int(np.abs(position).max()) + 1

    def key(positions: np.ndarray) -> np.ndarray:
        x, y, z = positions.astype(np.int64).T
        return (x * width + y) * width + z

    # Most sites are ruled out by the first few operations, so the list shrinks to 1/48 quickly.
    candidate = np.arange(len(position))
    own = key(position)
    stabiliser = np.zeros(len(position), dtype=np.int64)
    for operation in operations:
        image = key(position[candidate] @ operation)
        keep = image <= own[candidate]
        stabiliser[candidate[image == own[candidate]]] += 1
        candidate = candidate[keep]
    return candidate, len(operations) // stabiliser[candidate]
