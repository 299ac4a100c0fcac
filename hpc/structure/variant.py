"""What one sort of dot is: a crystal, and every way in which the dot departs from a ball cut out of it.

A *variant* combines one choice of each of these, and `conf/` has a group of files for each:

    shape      the gauge function that bounds the particle, and the points it is cut around
    surface    which sites of the outermost layers are kept, or partly occupied
    lattice    deformation of the whole crystal: rhombohedral angle, strain tensor, sublattice displacement, ε(D)
    faults     wrong stacking of {111} layers: a probability per layer, single planes, reconstructed facets
    disorder   radial relaxation, static displacements, vacancies
    coating    a shell of another material on the core
    motion     how atoms move: together with their neighbours, more at the surface; a halo of loose neighbours

Types, units and checks only: a value that nobody can mean is refused here, with the name of its key. What each does
to the atoms is in `hpc.structure.shapes`, `hpc.structure.sites`, `hpc.structure.faults` and
`hpc.structure.particles`, what motion does to the intensity in `hpc.motion`; which engine counts the pairs is decided
in `hpc.pairs.families`. Variants are compared and hashed by value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from hpc.named_files import file_names, read_named
from hpc.structure.crystal import shells
from hpc.structure.material import Material, load_material, material_names
from hpc.structure.shapes import SHAPES

__all__ = [
    "GROUPS",
    "NAMED_CENTRES",
    "Centre",
    "Coating",
    "Disorder",
    "Faults",
    "Lattice",
    "Motion",
    "Shape",
    "Surface",
    "Variant",
    "load_group",
    "plain_changes",
    "read_group",
]

#: A site label, "bond" (middle of a shortest bond), "cell" (middle of the largest hole), or fractional coordinates.
Centre = str | Sequence[float]
#: Centres that every material has, beside its site labels.
NAMED_CENTRES = ("bond", "cell")


def _number(name: str, value: Any, low: float, high: float) -> float:
    """A number from low to high."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in {low:g} to {high:g}, got {value:g}")
    return float(value)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number in {low} to {high}, got {value!r}")
    return value


def _numbers(name: str, value: Any, count: int, low: float, high: float) -> tuple[float, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != count:
        raise ValueError(f"{name} must be a list of {count} numbers, got {value!r}")
    return tuple(_number(f"{name}[{i}]", item, low, high) for i, item in enumerate(value))


def _by_label(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping of site labels to values, got {value!r}")
    return {str(label): item for label, item in value.items()}


def _one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, got {value!r}")
    return value


def _set(instance: object, **values: Any) -> None:
    """Store values in their one form (floats, tuples, plain dicts): equal settings are then equal objects."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A nested family of bodies. D is the diameter of the ball of equal volume."""

    name: str
    """A name of `hpc.structure.shapes.SHAPES`."""
    aspect: float | None = None
    """Ratio whose meaning is the shape's: {100} over {111} distance, length over width."""
    thickness_nm: float | None = None
    """Fixed thickness of a platelet, which then grows sideways only."""
    axis: tuple[float, ...] = (0.0, 0.0, 1.0)
    """Long (or short) axis, a direction [uvw] of the crystal."""
    centres: tuple[Centre, ...] | None = None
    """Points to cut around, averaged; null for every site where an atom mostly is (`Material.cut_centres`)."""

    def __post_init__(self) -> None:
        form = SHAPES[_one_of("shape.name", self.name, sorted(SHAPES))]
        axis = _numbers("shape.axis", self.axis, 3, -1e3, 1e3)
        if not any(axis):
            raise ValueError("shape.axis must be a direction [u, v, w], got [0, 0, 0]")
        if axis != (0.0, 0.0, 1.0) and not form.axis:
            raise ValueError(f"shape.axis: a {self.name} has no axis; remove it")
        if self.aspect is not None:
            if form.aspect is None:
                raise ValueError(f"shape.aspect: a {self.name} has no aspect; remove it")
            _set(self, aspect=_number("shape.aspect", self.aspect, 0.02, 50))
        if self.thickness_nm is not None:
            if not form.thickness:
                raise ValueError(f"shape.thickness_nm: a {self.name} has no fixed thickness; remove it")
            if self.aspect is not None:
                raise ValueError(
                    "shape.thickness_nm and shape.aspect exclude each other; set one of them to null"
                )
            _set(self, thickness_nm=_number("shape.thickness_nm", self.thickness_nm, 0.1, 100))
        _set(self, axis=axis, centres=_centres(self.centres))


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """Sites of one kind that lack neighbours are left out, or partly occupied."""

    site: str | None = None
    """Label of the kind whose surface is treated; null for the plain cut."""
    neighbours: int = 0
    """A site with fewer nearest neighbours of other kinds than this within the particle belongs to the skin."""
    occupancy: float = 0.0
    """Of skin sites, times the site's own: 0 removes them (with all neighbours asked for, other kinds end the dot)."""

    def __post_init__(self) -> None:
        _whole("surface.neighbours", self.neighbours, 0, 24)
        _set(self, occupancy=_number("surface.occupancy", self.occupancy, 0, 1))
        if self.site is not None and not isinstance(self.site, str):
            raise ValueError(f"surface.site must be a site label or null, got {self.site!r}")
        if (self.site is None) != (self.neighbours == 0):
            raise ValueError(
                "surface.site and surface.neighbours belong together: a label and at least 1, or null and 0; "
                f"got {self.site!r} and {self.neighbours}"
            )

    @property
    def is_partial(self) -> bool:
        """Whether skin sites are partly occupied: they are then a kind of their own."""
        return self.site is not None and 0 < self.occupancy < 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """Deformation of the crystal; the same in every part of the particle."""

    alpha_deg: float = 90.0
    """Rhombohedral cell angle of a cubic crystal, edges kept: 89.6 elongates [111] by 0.7 %."""
    strain: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    """Tensor e_xx, e_yy, e_zz, e_yz, e_xz, e_xy in cartesian axes, x along a and z along c*; e_yz is half an angle."""
    displacement: Mapping[str, tuple[float, ...]] | None = field(default=None, hash=False)
    """Site label -> cartesian shift of its sublattice [Å]."""
    size_strain: tuple[float, ...] = (0.0, 0.0)
    """Isotropic ε(D) = first + second / D[nm]: constant and inverse-linear."""

    def __post_init__(self) -> None:
        alpha = _number("lattice.alpha_deg", self.alpha_deg, 60, 120)
        if alpha == 120:
            raise ValueError("lattice.alpha_deg must be below 120: there the cell is flat")
        shifts = {
            label: _numbers(f"lattice.displacement.{label}", shift, 3, -2, 2)
            for label, shift in _by_label("lattice.displacement", self.displacement or {}).items()
        }
        _set(
            self,
            alpha_deg=alpha,
            strain=_numbers("lattice.strain", self.strain, 6, -0.2, 0.2),
            displacement=shifts or None,
            size_strain=_numbers("lattice.size_strain", self.size_strain, 2, -0.2, 0.2),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Stacking faults on {111} of cubic crystals."""

    deformation: float = 0.0
    """Probability per layer that one step of the stacking is wrong (ABC|BCA), Warren's α."""
    growth: float = 0.0
    """Probability per layer that the stacking reverses for good (ABC|BA), Warren's β; 1 is the hexagonal stacking."""
    planes: int = 0
    """Single planes per dot, at heights that are uniform over it."""
    plane: Literal["twin", "deformation"] = "twin"
    facets: int = 0
    """{111} facets of 8 whose outermost layers lie in the wrong stacking position."""
    bilayers: int = 1
    """Depth of such a facet, in {111} bilayers."""
    inward: float = 0.0
    """Shift of such a facet towards the centre [Å]."""

    def __post_init__(self) -> None:
        _whole("faults.planes", self.planes, 0, 100)
        _one_of("faults.plane", self.plane, ("twin", "deformation"))
        _whole("faults.facets", self.facets, 0, 8)
        _whole("faults.bilayers", self.bilayers, 1, 20)
        _set(
            self,
            deformation=_number("faults.deformation", self.deformation, 0, 1),
            growth=_number("faults.growth", self.growth, 0, 1),
            inward=_number("faults.inward", self.inward, -2, 2),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Disorder:
    """What differs from site to site of one dot."""

    relaxation: float = 0.0
    """Radial shift of the outermost atoms [Å], outwards > 0; times exp(-depth / decay)."""
    decay: float = 2.0
    """[Å]"""
    core: float = 0.0
    """Root mean square static displacement along one direction [Å]."""
    surface: float = 0.0
    """The same for atoms within `depth` of the surface, instead of `core` when larger."""
    depth: float = 3.0
    """[Å]"""
    vacancies: Mapping[str, float] | None = field(default=None, hash=False)
    """Site label -> fraction of its sites that are empty, at random."""

    def __post_init__(self) -> None:
        vacancies = {
            label: _number(f"disorder.vacancies.{label}", share, 0, 1)
            for label, share in _by_label("disorder.vacancies", self.vacancies or {}).items()
        }
        for label, share in vacancies.items():
            if share == 1:
                raise ValueError(f"disorder.vacancies.{label} must be below 1: no site of {label} is left")
        _set(
            self,
            relaxation=_number("disorder.relaxation", self.relaxation, -2, 2),
            decay=_number("disorder.decay", self.decay, 0.01, 1000),
            core=_number("disorder.core", self.core, 0, 2),
            surface=_number("disorder.surface", self.surface, 0, 2),
            depth=_number("disorder.depth", self.depth, 0, 1000),
            vacancies=vacancies or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Coating:
    """A shell of another material with the same structure type, coherent with the core."""

    material: str | None = None
    """Name of a material of `conf/material`; null for none."""
    thickness_nm: float = 0.0
    """Of the shell; D is the diameter of the whole dot."""
    relaxed: bool = True
    """The misfit relaxes radially (isotropic elasticity); otherwise every site keeps the core's lattice."""
    poisson_ratio: float = 0.29
    """Of both materials. PbS: 0.29 from c11, c12, c44 = 124, 33, 23 GPa (Madelung) by Voigt, Reuss and Hill."""

    def __post_init__(self) -> None:
        if self.material is not None:
            name = str(self.material).lower()
            _set(self, material=_one_of("coating.material", name, material_names()))
        thickness = _number("coating.thickness_nm", self.thickness_nm, 0, 100)
        if (self.material is None) != (thickness == 0):
            raise ValueError(
                "coating.material and coating.thickness_nm belong together: a name and a thickness > 0, or null and 0; "
                f"got {self.material!r} and {thickness:g}"
            )
        if not isinstance(self.relaxed, bool):
            raise ValueError(f"coating.relaxed must be true or false, got {self.relaxed!r}")
        poisson_ratio = _number("coating.poisson_ratio", self.poisson_ratio, 0, 0.5)
        _set(self, thickness_nm=thickness, poisson_ratio=poisson_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """Atoms that do not move independently of each other, or not all alike."""

    correlation: tuple[float, ...] = ()
    """c of the first shells of neighbours, by distance: B_ij = (B_i + B_j)(1 - c); 1 is rigid, < 0 opposite motion."""
    smooth: float = 0.0
    """r_c [Å] of the law c(r) = r_c/r, at most 1, instead."""
    shells: tuple[float, ...] = ()
    """Distances [Å] of the shells, and last the one where c has fallen to 0; empty for those of the crystal."""
    halo: tuple[float, ...] = ()
    """Neighbours in a disordered shell around the dot, per atom and as fractions of those in the first shells."""
    halo_b: float = 3.0
    """Debye-Waller factor of their distances [Å²]."""
    surface_b: float = 1.0
    """Factor on B of sites that lack nearest neighbours."""

    def __post_init__(self) -> None:
        correlation = _any_numbers("motion.correlation", self.correlation, -1, 1)
        halo = _any_numbers("motion.halo", self.halo, -10, 10)
        shells = _any_numbers("motion.shells", self.shells, 0.5, 15)
        needed = max(len(correlation), len(halo)) + 1
        if shells and (len(shells) < needed or list(shells) != sorted(set(shells))):
            raise ValueError(
                f"motion.shells must be increasing distances, at least {needed}: one for each value of "
                f"motion.correlation and motion.halo and one where c has fallen to 0; got {list(shells)}"
            )
        smooth = _number("motion.smooth", self.smooth, 0, 10)
        if correlation and smooth:
            raise ValueError(
                "motion.correlation and motion.smooth are two laws for the same thing; set motion.correlation to [] or "
                "motion.smooth to 0"
            )
        _set(
            self,
            correlation=correlation,
            smooth=smooth,
            shells=shells,
            halo=halo,
            halo_b=_number("motion.halo_b", self.halo_b, 0, 100),
            surface_b=_number("motion.surface_b", self.surface_b, 0, 100),
        )

    @property
    def is_correlated(self) -> bool:
        """Whether any pair moves together."""
        return self.smooth > 0 or any(self.correlation)

    @property
    def has_near_part(self) -> bool:
        """Whether near neighbours add anything, by their motion or a halo."""
        return self.is_correlated or any(self.halo)


def _any_numbers(name: str, value: Any, low: float, high: float) -> tuple[float, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{name} must be a list of numbers, one for each shell of neighbours, got {value!r}")
    return _numbers(name, value, len(value), low, high)


GROUPS: dict[str, type] = {
    "shape": Shape,
    "surface": Surface,
    "lattice": Lattice,
    "faults": Faults,
    "disorder": Disorder,
    "coating": Coating,
    "motion": Motion,
}
"""Configuration group -> what it makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One sort of dot."""

    material: Material
    shape: Shape
    surface: Surface = Surface()
    lattice: Lattice = Lattice()
    faults: Faults = Faults()
    disorder: Disorder = Disorder()
    coating: Coating = Coating()
    motion: Motion = Motion()

    def __post_init__(self) -> None:
        labels = self.material.labels
        for centre in self.centres:
            if isinstance(centre, str) and centre not in (*labels, *NAMED_CENTRES):
                raise ValueError(
                    f"shape.centres: a centre must be a site of {self.material.name} {list(labels)}, one of "
                    f"{list(NAMED_CENTRES)}, or three fractional coordinates; got {centre!r}"
                )
        for key, names in (
            ("surface.site", [] if self.surface.site is None else [self.surface.site]),
            ("lattice.displacement", self.lattice.displacement or {}),
            ("disorder.vacancies", self.disorder.vacancies or {}),
        ):
            if unknown := sorted(set(names) - set(labels)):
                raise ValueError(f"{key}: {self.material.name} has the sites {list(labels)}, got {unknown}")
        if self.lattice.alpha_deg != 90 and not self.material.is_cubic:
            raise ValueError(
                f"lattice.alpha_deg deforms cubic cells, {self.material.name} has "
                f"{list(self.material.cell_angstrom)}; use lattice.strain"
            )
        if n_shells := max(len(self.motion.correlation), len(self.motion.halo)):
            shells(self.material, n_shells + 1)  # says how many there are

    @property
    def centres(self) -> tuple[Centre, ...]:
        """The points to cut around."""
        return self.material.cut_centres if self.shape.centres is None else self.shape.centres

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Variant:
        """Read a variant from the composed YAML.

        Args:
            config: `material` and `shape`, and any other of `GROUPS`. A group is a mapping of some or all of its keys,
                or the name of its file in `conf/`; a material may also be a `Material`. What is left out is neutral.

        Raises:
            ValueError: a key that does not exist, a value of the wrong type or outside its range; the message names
                the key.
        """
        if unknown := sorted(set(config) - {"material", *GROUPS}):
            raise ValueError(f"a variant has the keys {['material', *GROUPS]}, got {unknown}")
        if missing := [key for key in ("material", "shape") if config.get(key) is None]:
            raise ValueError(f"a variant needs {missing}; for example material: pbs, shape: sphere")
        material = config["material"]
        if isinstance(material, str):
            material = load_material(material)
        elif not isinstance(material, Material):
            material = Material.from_config(material)
        groups = {name: read_group(name, config[name]) for name in GROUPS if config.get(name) is not None}
        return cls(material=material, **groups)

    def to_mapping(self) -> dict[str, Any]:
        """What is not neutral, as plain numbers, lists and mappings; `from_config` reads it back."""
        mapping: dict[str, Any] = {"material": self.material.name}
        for group in GROUPS:
            if changed := plain_changes(getattr(self, group)):
                mapping[group] = changed
        return mapping


def _centres(value: Any) -> tuple[Centre, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ValueError(
            f"shape.centres must be a list with at least one cut centre, or null for all site labels; got {value!r}"
        )
    return tuple(
        item if isinstance(item, str) else _numbers(f"shape.centres[{i}]", item, 3, -1e3, 1e3)
        for i, item in enumerate(value)
    )


def read_group(name: str, value: Any) -> Any:
    """One group of a variant, from keys and values or the name of a file.

    Raises:
        ValueError: a key that does not exist, a value of the wrong type or outside its range.
    """
    kind = GROUPS[name]
    if isinstance(value, str):
        value = load_group(name, value)
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping of keys to values or the name of a file, got {value!r}")
    known = [item.name for item in fields(kind)]
    if unknown := sorted(str(key) for key in set(value) - set(known)):
        raise ValueError(f"{name} has the keys {known}, got {[f'{name}.{key}' for key in unknown]}")
    if name == "shape" and "name" not in value:
        raise ValueError(f"shape.name is missing; choose one of {sorted(SHAPES)}")
    return kind(**value)


def load_group(group: str, name: str) -> Any:
    """The content of `conf/<group>/<name>.yaml`.

    Raises:
        ValueError: there is no such file; the message lists those there are.
    """
    _one_of(group, name, file_names(group))
    return read_named(group, name) or {}


def plain_changes(group: Any) -> dict[str, Any]:
    """The fields that differ from their defaults (all of those without one), as plain YAML."""
    return {
        item.name: _plain(getattr(group, item.name))
        for item in fields(group)
        if getattr(group, item.name) != item.default
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
