"""Crystals: the cell, its symmetry-distinct sites, and what scatters there.

A *kind* is one sort of scatterer: an element with an occupancy and a Debye-Waller factor. Every sum over atoms in this
package is resolved by kinds, so that form factors and B enter only at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["Kind", "Material", "equivalent_positions", "kind_pairs", "load_material", "material_names"]


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

        Raises:
            ValueError: a key is missing or a value is outside its range.
        """
        try:
            kinds = tuple(
                Kind(
                    label=str(label),
                    element=str(site["element"]),
                    occupancy=float(site["occupancy"]),
                    b_iso=float(site["b_iso"]),
                )
                for label, site in config["sites"].items()
            )
            return cls(
                name=str(config["name"]),
                space_group=str(config["space_group"]),
                cell_angstrom=tuple(float(x) for x in config["cell_angstrom"]),
                kinds=kinds,
                positions=tuple(
                    tuple(float(x) for x in site["position"]) for site in config["sites"].values()
                ),
            )
        except KeyError as missing:
            raise ValueError(f"material: the key {missing} is missing; see conf/material/pbs.yaml") from None

    @property
    def labels(self) -> tuple[str, ...]:
        """Site labels, in the order of every `kind` axis."""
        return tuple(kind.label for kind in self.kinds)

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
    from importlib.resources import files

    folder = files("conf") / "material"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def load_material(name: str) -> Material:
    """The material of `conf/material/<name>.yaml`, the name in any case.

    Raises:
        ValueError: there is no such material; the message lists those there are.
    """
    from importlib.resources import files

    import yaml

    if name.lower() not in material_names():
        raise ValueError(f"material must be one of {material_names()}, got {name!r}")
    text = (files("conf") / "material" / f"{name.lower()}.yaml").read_text()
    return Material.from_config(yaml.safe_load(text))


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
