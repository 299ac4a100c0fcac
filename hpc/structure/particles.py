"""Particles one by one: what depends on a dot's own surface or on chance, so that no family of sizes is nested.

A particle is cut out of the undeformed crystal (`hpc.structure.sites`), and then, in this order,

    planes, stacking   one explicit sequence of {111} layers, probabilities and planes drawn       (`planes`)
    facets             the outermost layers of {111} facets shift, and move inwards                (`planes`)
    coating            sites nearer to the surface than the thickness become the shell's material,
                       the misfit of the two lattices relaxes radially                             (`elasticity`)
    deformation        of the whole crystal, sublattices displaced                                 (`sites`)
    relaxation         radially, amplitude · exp(-depth / decay), outwards > 0
    disorder           Gaussian displacements, independent from site to site

The depth of a site is half of the difference of the particle's diameter and its own gauge: the distance to the surface
of a ball. Bodies with faces have it in units of the ball of equal volume.

The same seed, realisation and diameter give the same particle, in any order of calls and on any rank; every ingredient
draws from a generator of its own, so that one more leaves the others as they are. Random vacancies are not drawn: their
mean is exact in the occupancies of the kinds. One that is off leaves every bit as it was.

Symbols: D diameter of the particle, g gauge of a site, t thickness of the shell [Å].
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hpc.structure.elasticity import misfit_stretch
from hpc.structure.faults import Stacking, frame_layer, layers_within, random_stacking
from hpc.structure.material import Kind, Material, equivalent_positions, load_material
from hpc.structure.planes import facet_shifts, single_planes
from hpc.structure.shapes import reach
from hpc.structure.sites import Sites, base_kinds, cut_sites, deformation, find_centre
from hpc.structure.surface_kinds import surface_kinds
from hpc.structure.variant import Centre, Coating, Disorder, Faults, Lattice, Motion, Shape, Variant

__all__ = ["build_particle", "is_nested", "is_random", "particle_kinds"]

# Atoms nearer to each other than this [Å] are an error of the settings: half of the shortest bond of any molecule.
_OVERLAP = 0.5
# Sites at one position: the two parts of a partly occupied skin [Å].
_SAME = 1e-6
# The generators of one particle, by what they are for.
_STACKING, _PLANES, _FACETS, _DISPLACEMENTS = range(4)


def is_nested(variant: Variant) -> bool:
    """Whether one pass over the largest particle serves all sizes, chance included."""
    faults, disorder = variant.faults, variant.disorder
    # Which neighbours a surface site has lost depends on the stacking.
    asks_neighbours = variant.surface.site is not None or variant.motion.surface_b != 1
    surface_of_stacking = asks_neighbours and _is_stacked(faults)
    moves = disorder.relaxation or disorder.core or disorder.surface
    return not (faults.planes or faults.facets or moves or variant.coating.material or surface_of_stacking)


def is_random(variant: Variant) -> bool:
    """Whether realisations of a particle that is not nested differ."""
    faults, disorder = variant.faults, variant.disorder
    return bool(faults.planes or faults.facets or disorder.core or disorder.surface) or _is_stacked(faults)


def _is_stacked(faults: Faults) -> bool:
    return faults.deformation > 0 or faults.growth > 0


def particle_kinds(variant: Variant) -> tuple[Kind, ...]:
    """The kinds of `build_particle`: those of the core, then the shell's with its material in their label.

    As `hpc.structure.sites.dot_kinds`, except that a site of the core is one whole scatterer where a skin is partly
    occupied.
    """
    kinds = _whole_kinds(variant)
    if variant.coating.material is None:
        return kinds
    return kinds + _whole_kinds(_shell_variant(variant))


def _whole_kinds(variant: Variant) -> tuple[Kind, ...]:
    kinds = list(base_kinds(variant))
    if variant.surface.is_partial:
        index = variant.material.labels.index(str(variant.surface.site))
        kinds[index] = replace(kinds[index], occupancy=kinds[index].occupancy + kinds[-1].occupancy)
    surface_b = variant.motion.surface_b
    return surface_kinds(kinds, surface_b) if surface_b != 1 else tuple(kinds)


def _shell_variant(variant: Variant) -> Variant:
    """The shell's material with its kinds in the order of the core's, and what is said about sites in its labels."""
    core, shell = variant.material, load_material(str(variant.coating.material))
    order = _matching_kinds(core, shell)
    name = {
        mine: f"{shell.labels[theirs]} ({shell.name})"
        for mine, theirs in zip(core.labels, order, strict=True)
    }
    material = replace(
        core,
        name=shell.name,
        kinds=tuple(
            replace(shell.kinds[i], label=label) for i, label in zip(order, name.values(), strict=True)
        ),
    )
    vacancies = {name[label]: share for label, share in (variant.disorder.vacancies or {}).items()}
    surface = variant.surface
    return Variant(
        material=material,
        shape=Shape(name="sphere"),
        surface=surface if surface.site is None else replace(surface, site=name[surface.site]),
        disorder=Disorder(vacancies=vacancies or None),
        motion=Motion(surface_b=variant.motion.surface_b),
    )


def _matching_kinds(core: Material, shell: Material) -> list[int]:
    """For each kind of the core, the kind of the shell on the same positions.

    Raises:
        ValueError: the two do not have the same structure.
    """

    def positions(material: Material) -> list[np.ndarray]:
        return [np.unique(np.round(p, 4) % 1, axis=0) for p in equivalent_positions(material)]

    theirs, order = positions(shell), []
    for mine in positions(core):
        order += [i for i, other in enumerate(theirs) if np.array_equal(mine, other) and i not in order][:1]
    if not len(order) == len(core.kinds) == len(shell.kinds):
        raise ValueError(
            f"coating.material must have its sites where {core.name} ({core.space_group}) has them, "
            f"got {shell.name} ({shell.space_group}) with other positions"
        )
    return order


def build_particle(
    variant: Variant,
    *,
    centre: Centre,
    diameter: float,
    seed: int,
    realisation: int = 0,
    realisations: int = 1,
) -> tuple[tuple[Kind, ...], list[np.ndarray]]:
    """One particle of any variant.

    Args:
        variant: the sort of dot.
        centre: site label, "bond", "cell" or fractional coordinates.
        diameter: D [Å].
        seed: of everything random, >= 0.
        realisation: which of several particles that differ by chance alone, 0 <= realisation < realisations.
        realisations: how many there will be; heights of planes are stratified over them.

    Returns:
        The kinds, the same for all particles of a variant, and for each kind the (n, 3) float64 positions [Å]
        relative to the cut centre; n may be 0.

    Raises:
        ValueError: settings that exclude each other, a coating of another structure, a particle without any site, or
            atoms nearer than 0.5 Å to each other.
    """
    if not 0 <= realisation < realisations:
        raise ValueError(
            f"realisation must be at least 0 and below realisations = {realisations}, got {realisation}"
        )
    _check(variant)
    draw = _Draw(seed, realisation, realisations, diameter)
    middle = find_centre(variant.material, centre)

    perfect = replace(variant, lattice=Lattice())
    stacking = _stacking(perfect, centre, middle, diameter, draw)
    sites = _merge_skin(perfect, cut_sites(perfect, centre=centre, diameter_max=diameter, stacking=stacking))
    if variant.motion.surface_b != 1:
        sites = _core_or_surface(sites)
    position, kind = sites.position, sites.kind
    depth = (diameter - sites.gauge) / 2
    if variant.faults.facets:
        rng = draw.generator(_FACETS)
        position = position + facet_shifts(variant.material, variant.faults, middle, position, rng)
    if variant.coating.material is not None:
        position = position * _misfit(variant, sites.gauge / 2, diameter)[:, None]
    position = position @ deformation(variant.lattice).T + _sublattice_shift(variant)[kind]
    if variant.disorder.relaxation:
        position = position + _relaxation(variant.disorder, position, depth)
    if variant.disorder.core or variant.disorder.surface:
        rng = draw.generator(_DISPLACEMENTS)
        position = position + _displacements(variant.disorder, depth, rng)
    if not is_nested(variant):
        _check_overlap(variant, position, diameter)

    kinds = particle_kinds(variant)
    if variant.coating.material is not None:
        in_shell = depth < 10 * variant.coating.thickness_nm * (1 - 1e-9)
        kind = kind + in_shell * (len(kinds) // 2)
    return kinds, [np.ascontiguousarray(position[kind == index]) for index in range(len(kinds))]


class _Draw:
    """The random numbers of one particle."""

    def __init__(self, seed: int, realisation: int, realisations: int, diameter: float) -> None:
        # 1e-6 Å: the same diameter, whatever the last bit says.
        self._particle = (seed, round(diameter * 1e6))
        self._realisation, self._realisations = realisation, realisations

    def generator(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([*self._particle, purpose, self._realisation])

    def stratified(self, purpose: int, index: int) -> float:
        """A uniform number in 0..1; over all realisations, one in each of as many equal parts."""
        # Realisations are >= 0 and below their number, which is therefore free to stand for all of them.
        common = np.random.default_rng([*self._particle, purpose, self._realisations, index])
        order = common.permutation(self._realisations)
        within = np.random.default_rng([*self._particle, purpose, self._realisation, index]).random()
        return float((order[self._realisation] + within) / self._realisations)


def _check(variant: Variant) -> None:
    faults, disorder = variant.faults, variant.disorder
    places = np.round(np.concatenate(equivalent_positions(variant.material)), 4) % 1
    if len(np.unique(places, axis=0)) < len(places):
        raise ValueError(
            f"the sites of {variant.material.name} share positions: of two kinds at one position only one is there, "
            "which a list of atoms cannot say; use a variant that is nested"
        )
    if faults.facets and (faults.planes or _is_stacked(faults)):
        raise ValueError(
            "faults.facets are cut from a perfect crystal; set faults.planes, faults.deformation and faults.growth to 0"
        )
    if variant.shape.thickness_nm is not None and (
        disorder.relaxation or disorder.surface or variant.coating.material
    ):
        raise ValueError(
            "disorder.relaxation, disorder.surface and coating need the depth below the surface, which a platelet of "
            "fixed thickness does not have; set shape.aspect instead of shape.thickness_nm"
        )


def _stacking(
    variant: Variant, centre: Centre, middle: np.ndarray, diameter: float, draw: _Draw
) -> Stacking | None:
    """The sequence of layers of this particle, None for the perfect crystal."""
    faults, material = variant.faults, variant.material
    if not (faults.planes or _is_stacked(faults)):
        return None
    # Planes lie on any {111}; layers with a probability on (111), like the exact mean over all stackings.
    axis = int(4 * draw.stratified(_PLANES, 0)) if faults.planes else 0
    # One cell more than the body: neighbours of surface sites are looked for beyond it.
    n_layers = layers_within(material, reach(variant.shape, diameter) + material.cell_angstrom[0])
    stacking = random_stacking(faults, n_layers, draw.generator(_STACKING), axis=axis)
    if not faults.planes:
        return stacking
    cut = cut_sites(replace(variant, faults=Faults()), centre=centre, diameter_max=diameter)
    layer = frame_layer(material, middle, cut.position, axis=axis)
    heights = (draw.stratified(_PLANES, 1 + index) for index in range(faults.planes))
    return single_planes(stacking, faults, (int(layer.min()), int(layer.max())), lambda: next(heights))


def _merge_skin(variant: Variant, sites: Sites) -> Sites:
    """One entry for a site of the core where the skin is partly occupied: both parts are at one position there."""
    if not variant.surface.is_partial:
        return sites
    from scipy.spatial import cKDTree

    index, n_kind = variant.material.labels.index(str(variant.surface.site)), len(base_kinds(variant))
    # The skin, of whatever surroundings, where there is a core site, of whatever surroundings.
    core = np.flatnonzero(sites.kind % n_kind == index)
    skin = np.flatnonzero(sites.kind % n_kind == n_kind - 1)
    keep = np.ones(len(sites.kind), dtype=bool)
    if len(core) and len(skin):
        apart, _ = cKDTree(sites.position[core]).query(sites.position[skin])
        keep[skin[apart < _SAME]] = False
    return replace(
        sites,
        position=sites.position[keep],
        kind=sites.kind[keep],
        gauge=sites.gauge[keep],
        group=sites.group[keep],
    )


def _core_or_surface(sites: Sites) -> Sites:
    """One entry for a site: of the core where it has all its neighbours. Its gauge is the one that it enters with."""
    n_kind = len(sites.kinds) // 2
    is_core = sites.kind < n_kind
    # Both entries of a site have the same position, bit for bit.
    key = np.column_stack((sites.position, sites.kind % n_kind))
    _, site = np.unique(key, axis=0, return_inverse=True)
    site = site.ravel()
    with_core = np.zeros(site.max() + 1, dtype=bool)
    with_core[site[is_core]] = True
    gauge = np.full(len(with_core), np.inf)
    np.minimum.at(gauge, site, sites.gauge)
    keep = is_core | ~with_core[site]
    return replace(
        sites,
        position=sites.position[keep],
        kind=sites.kind[keep],
        gauge=gauge[site][keep],
        group=sites.group[keep],
    )


def _misfit(variant: Variant, radius: np.ndarray, diameter: float) -> np.ndarray:
    """(site,) float64: by how much the misfit of core and shell stretches the position of each site."""
    coating, core, shell = variant.coating, variant.material, load_material(str(variant.coating.material))
    if not coating.relaxed:
        return np.ones(len(radius))
    if not (core.is_cubic and shell.is_cubic):
        raise ValueError(
            f"coating.relaxed: the misfit of {core.name} and {shell.name} is not the same in all directions, as both "
            "cells must be cubic for; set coating.relaxed to false"
        )
    return 1 + misfit_stretch(
        radius,
        core_radius=diameter / 2 - 10 * coating.thickness_nm,
        outer_radius=diameter / 2,
        misfit=shell.cell_angstrom[0] / core.cell_angstrom[0] - 1,
        poisson_ratio=coating.poisson_ratio,
    )


def _sublattice_shift(variant: Variant) -> np.ndarray:
    """(kind, 3) float64 [Å], the skin as the kind that it belongs to."""
    shifts = variant.lattice.displacement or {}
    labels = [*variant.material.labels, *([str(variant.surface.site)] if variant.surface.is_partial else [])]
    of_core = np.array([shifts.get(label, (0.0, 0.0, 0.0)) for label in labels])
    return np.concatenate((of_core, of_core)) if variant.motion.surface_b != 1 else of_core


def _relaxation(disorder: Disorder, position: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(site, 3) float64 [Å]: along the line from the centre; an atom in the centre stays."""
    distance = np.linalg.norm(position, axis=1)
    outwards = position / np.where(distance > 0, distance, 1.0)[:, None]
    return outwards * (disorder.relaxation * np.exp(-depth / disorder.decay))[:, None]


def _displacements(disorder: Disorder, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(site, 3) float64 [Å], Gaussian."""
    near = max(disorder.core, disorder.surface)
    rms = np.where(depth <= disorder.depth, near, disorder.core)
    return rng.normal(size=(len(depth), 3)) * rms[:, None]


def _check_overlap(variant: Variant, position: np.ndarray, diameter: float) -> None:
    from scipy.spatial import cKDTree

    pairs = cKDTree(position).query_pairs(_OVERLAP, output_type="ndarray")
    if len(pairs):
        i, j = pairs[0]
        raise ValueError(
            f"{len(pairs)} pairs of atoms of the particle of {diameter / 10:g} nm are nearer than {_OVERLAP} Å "
            f"(the first {np.linalg.norm(position[i] - position[j]):.3f} Å); reduce {_moving(variant)}"
        )


def _moving(variant: Variant) -> str:
    """What moves atoms of this variant from the sites of a crystal."""
    groups: dict[str, tuple[object, tuple[str, ...]]] = {
        "faults": (variant.faults, ("facets", "inward")),
        "lattice": (variant.lattice, ("displacement",)),
        "disorder": (variant.disorder, ("relaxation", "core", "surface")),
    }
    moving = [
        f"{group}.{key} = {getattr(part, key)}"
        for group, (part, keys) in groups.items()
        for key in keys
        if getattr(part, key)
    ]
    if variant.coating != Coating():
        moving.append(f"coating.material = {variant.coating.material}")
    return ", ".join(moving)
