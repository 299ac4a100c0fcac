"""Crystals: the cell, its symmetry-distinct sites, and what scatters there.

A material is a file of `conf/material`, or any YAML file like those, or a CIF; what a file may say is checked in
`hpc.structure.material_checks`.

A *kind* is one sort of scatterer: an element with an occupancy and a Debye-Waller factor. Every sum over atoms in this
package is resolved by kinds, so that form factors and B enter only at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpc.named_files import file_names

__all__ = [
    "MATERIAL_FILES",
    "Kind",
    "Material",
    "equivalent_positions",
    "kind_pairs",
    "load_material",
    "material_names",
]

#: Endings of files that `load_material` reads.
MATERIAL_FILES = (".yaml", ".yml", ".cif")
# A site that is filled less than this is one of several alternatives.
_MOSTLY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One sort of scatterer: its element, how much of it there is and how much it moves."""

    label: str
    element: str
    occupancy: float
    """Fraction of the equivalent positions that are filled, 0 < occupancy <= 1."""
    b_iso: float
    """Isotropic Debye-Waller factor B [Å²]."""

    def __post_init__(self) -> None:
        if not 0 < self.occupancy <= 1:
            raise ValueError(f"occupancy of site {self.label} must lie in (0, 1], got {self.occupancy}")
        if not (np.isfinite(self.b_iso) and self.b_iso >= 0):
            raise ValueError(f"b_iso of site {self.label} must be >= 0 Å², got {self.b_iso}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A crystal: name, space group, cell and its symmetry-distinct sites."""

    name: str
    space_group: str
    cell_angstrom: tuple[float, ...]
    """a, b, c [Å], α, β, γ [degrees]."""
    kinds: tuple[Kind, ...]
    """What scatters at each symmetry-distinct site."""
    positions: tuple[tuple[float, ...], ...]
    """For each kind, the fractional coordinates of one of its equivalent positions."""

    def __post_init__(self) -> None:
        if len(self.cell_angstrom) != 6 or min(self.cell_angstrom) <= 0:
            raise ValueError(
                f"cell_angstrom of {self.name} must be six positive numbers a b c alpha beta gamma, "
                f"got {list(self.cell_angstrom)}"
            )
        if not self.kinds:
            raise ValueError(f"material {self.name} has no sites; add at least one under `sites`")
        for kind, position in zip(self.kinds, self.positions, strict=True):
            if len(position) != 3 or not np.all(np.isfinite(position)):
                raise ValueError(
                    f"position of site {kind.label} must be three fractional coordinates, got {position}"
                )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Material:
        """Read a material from the mapping of a `conf/material/*.yaml` file.

        Numbers of sites may be fractions in words, such as "1/3".

        Raises:
            ValueError: a key is missing or unknown, a value is outside its range, or no such crystal can exist.
        """
        from hpc.structure.material_checks import check_crystal, check_keys, read_number, read_position

        check_keys("material", config, ("name", "space_group", "cell_angstrom", "sites"))
        try:
            sites = config["sites"]
            if not isinstance(sites, Mapping):
                raise ValueError(f"sites must be a mapping of labels to sites, got {sites!r}")
            for label, site in sites.items():
                check_keys(f"site {label}", site, ("element", "position", "occupancy", "b_iso"))
            kinds = tuple(
                Kind(
                    label=str(label),
                    element=str(site["element"]),
                    occupancy=read_number(f"occupancy of site {label}", site["occupancy"]),
                    b_iso=read_number(f"b_iso of site {label}", site["b_iso"]),
                )
                for label, site in sites.items()
            )
            cell = config["cell_angstrom"]
            if isinstance(cell, str) or not isinstance(cell, Sequence):
                raise ValueError(f"cell_angstrom must be six numbers a b c alpha beta gamma, got {cell!r}")
            material = cls(
                name=str(config["name"]),
                space_group=str(config["space_group"]),
                cell_angstrom=tuple(read_number("cell_angstrom", x) for x in cell),
                kinds=kinds,
                positions=tuple(read_position(str(label), site["position"]) for label, site in sites.items()),
            )
        except KeyError as missing:
            raise ValueError(f"material: the key {missing} is missing; see conf/material/pbs.yaml") from None
        check_crystal(material)
        return material

    def to_config(self) -> dict[str, Any]:
        """The mapping that `from_config` reads, of plain numbers and words."""
        return {
            "name": self.name,
            "space_group": self.space_group,
            "cell_angstrom": list(self.cell_angstrom),
            "sites": {
                kind.label: {
                    "element": kind.element,
                    "position": list(position),
                    "occupancy": kind.occupancy,
                    "b_iso": kind.b_iso,
                }
                for kind, position in zip(self.kinds, self.positions, strict=True)
            },
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Site labels, in the order of every `kind` axis."""
        return tuple(kind.label for kind in self.kinds)

    @property
    def cut_centres(self) -> tuple[str, ...]:
        """Labels of the sites that dots are cut around unless told otherwise.

        Those where an atom mostly is, once for atoms that share a position. The orientations of a molecule, each
        of which is rarely there, are left out: they cost as much, and average no more of the surface.
        """
        total: dict[tuple[float, ...], float] = {}
        first: dict[tuple[float, ...], str] = {}
        for kind, position in zip(self.kinds, self.positions, strict=True):
            total[position] = total.get(position, 0.0) + kind.occupancy
            first.setdefault(position, kind.label)
        mostly = tuple(label for position, label in first.items() if total[position] >= _MOSTLY)
        return mostly or self.labels

    @property
    def is_cubic(self) -> bool:
        """Whether the cell is a cube."""
        a, b, c, *angles = self.cell_angstrom
        return a == b == c and angles == [90.0, 90.0, 90.0]

    def with_b_iso(self, b_iso: Mapping[str, float] | float) -> Material:
        """The same material with other Debye-Waller factors: one for all sites, or by site label.

        Raises:
            ValueError: a label is not a site of this material.
        """
        if not isinstance(b_iso, Mapping):
            b_iso = dict.fromkeys(self.labels, b_iso)
        unknown = sorted(set(b_iso) - set(self.labels))
        if unknown:
            raise ValueError(f"b_iso: {self.name} has the sites {list(self.labels)}, got {unknown}")
        kinds = (replace(kind, b_iso=float(b_iso.get(kind.label, kind.b_iso))) for kind in self.kinds)
        return replace(self, kinds=tuple(kinds))


def kind_pairs(n_kind: int) -> list[tuple[int, int]]:
    """The unordered pairs of kinds a <= b, in the order of every `pair` axis."""
    return list(itertools.combinations_with_replacement(range(n_kind), 2))


def material_names() -> list[str]:
    """Names of the materials that ship with the package (`conf/material/*.yaml`)."""
    return file_names("material")


def load_material(name: str | Path) -> Material:
    """A material of the package by its name in any case, or the crystal of a .yaml or .cif file.

    Raises:
        ValueError: there is no such material, with a list of those there are; or a file that cannot be read as one.
    """
    from importlib.resources import files

    from hpc.structure.material_checks import read_yaml

    path = Path(name)
    if path.suffix.lower() == ".cif":
        from hpc.structure.files import read_material

        return read_material(path)
    if path.suffix.lower() in MATERIAL_FILES:
        try:
            return Material.from_config(read_yaml(path))
        except ValueError as error:
            raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    if str(name).lower() not in material_names():
        raise ValueError(
            f"material must be one of {material_names()}, got {str(name)!r}; or give the path of a .yaml or .cif file"
        )
    return Material.from_config(read_yaml(files("conf") / "material" / f"{str(name).lower()}.yaml"))


def equivalent_positions(material: Material) -> list[np.ndarray]:
    """For each kind, (n, 3) float64 fractional coordinates in 0..1 of its equivalent positions in one cell.

    Raises:
        ValueError: the space group is not known.
    """
    import gemmi

    group = gemmi.find_spacegroup_by_name(material.space_group)
    if group is None:
        raise ValueError(f"space_group of {material.name} is not a known symbol: {material.space_group!r}")
    positions = []
    for position in material.positions:
        images = np.array([operation.apply_to_xyz(list(position)) for operation in group.operations()]) % 1
        # Equal to 1e-6, but not rounded to that: a third is not 0.333333.
        _, first = np.unique(np.rint(images * 1e6) % 1_000_000, axis=0, return_index=True)
        positions.append(np.round(images[first], 12) % 1)
    return positions
