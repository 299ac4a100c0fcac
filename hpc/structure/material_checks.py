"""What a material file may say: every check between the YAML (or CIF) of a crystal and its first sum.

A crystal that passes has known keys, chemical elements, a space group whose crystal system the cell has, sites inside
the cell, and no two atoms where there is room for one. Sites may share a position, or lie closer than a bond, when
their occupancies say that only one of them is there at a time: mixed occupation, or the orientations of a molecule.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from hpc.structure.material import Material

__all__ = ["check_crystal", "check_keys", "read_number", "read_position", "read_yaml"]

# Atoms closer than this fraction of the sum of their covalent radii are alternatives, not neighbours.
_BOND = 0.6
# Positions within this distance [Å] are one position.
_SAME = 0.05
# Of a sum of occupancies: thirds and sixths are rounded.
_ROUNDING = 1e-3
# Cell lengths [Å] and angles [degrees] that symmetry makes equal may differ by this much.
_METRIC = 0.01


def check_keys(name: str, given: Any, known: Sequence[str]) -> None:
    """Refuse what is not a mapping, and keys that do not exist.

    Raises:
        ValueError: the message names the key, and the one that was probably meant.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{name} must be a mapping with the keys {list(known)}, got {given!r}")
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name} has the keys {list(known)}, got {key!r}{hint}")


def read_number(name: str, value: Any) -> float:
    """A number, or a fraction such as 1/3.

    Raises:
        ValueError: neither of them.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        if isinstance(value, str):
            return float(Fraction(value))
    except (ValueError, ZeroDivisionError):
        pass
    raise ValueError(f"{name} must be a number, or a fraction such as 1/3, got {value!r}")


def read_position(label: str, value: Any) -> tuple[float, ...]:
    """Three fractional coordinates, 0 <= x < 1.

    Raises:
        ValueError: not three numbers, or a site outside the cell.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(f"position of site {label} must be three fractional coordinates, got {value!r}")
    position = tuple(read_number(f"position of site {label}", item) for item in value)
    if not np.all(np.isfinite(position)):
        raise ValueError(f"position of site {label} must be three fractional coordinates, got {value!r}")
    if not all(0 <= x < 1 for x in position):
        inside = [round(x % 1, 6) for x in position]
        raise ValueError(
            f"position of site {label} must lie inside the cell, 0 <= x < 1, got {list(value)}; "
            f"its image there is {inside} (fractions of the cell, not Å)"
        )
    return position


def read_yaml(path: Path | Traversable) -> Any:
    """The content of a YAML file; a key that occurs twice is an error.

    Raises:
        ValueError: the file is missing, or no such YAML.
    """
    import yaml

    class _Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = sorted({str(key) for key in keys if keys.count(key) > 1})
            if twice:
                raise ValueError(f"{path}: the keys {twice} occur twice; give every site a label of its own")
            return super().construct_mapping(node, deep)

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read: {error.strerror}; give the path of a material file"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file; give a material file (.yaml or .cif)") from None
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def check_crystal(material: Material) -> None:
    """Elements, space group, cell, and distances between sites.

    Raises:
        ValueError: the crystal cannot exist, or is not what was meant.
    """
    import gemmi

    for kind in material.kinds:
        element = gemmi.Element(kind.element)
        if element.atomic_number == 0 or element.name != kind.element:
            raise ValueError(
                f"site {kind.label} of {material.name}: element must be a chemical symbol such as Pb, "
                f"got {kind.element!r}"
            )
    group = _space_group(material)
    cell = gemmi.UnitCell(*material.cell_angstrom)
    angles = material.cell_angstrom[3:]
    if max(angles) >= 180 or not (np.isfinite(cell.volume) and cell.volume > 0):
        raise ValueError(
            f"cell_angstrom of {material.name}: no cell has the angles {list(angles)} (alpha, beta, gamma in degrees)"
        )
    if not cell.is_compatible_with_spacegroup(group, _METRIC):
        raise ValueError(
            f"cell_angstrom of {material.name}: the space group {material.space_group} is "
            f"{group.crystal_system_str()}, {_metric(group)}; got {list(material.cell_angstrom)}"
        )
    _check_distances(material, cell)


def _space_group(material: Material) -> Any:
    import gemmi

    name = material.space_group
    alpha, _, gamma = material.cell_angstrom[3:]
    group = gemmi.find_spacegroup_by_name(name, alpha, gamma)
    if group is None:
        raise ValueError(
            f"space_group of {material.name} is not a known symbol: {name!r}; "
            "write the Hermann-Mauguin symbol, such as 'F m -3 m' or 'P n m a'"
        )
    if group.ext in ("1", "2") and ":" not in name:
        raise ValueError(
            f"space_group of {material.name}: {name!r} has two choices of the origin; write '{name}:1' or '{name}:2'"
        )
    if group.ext == "R" and ":" not in name:
        raise ValueError(f"space_group of {material.name}: write '{name}:R' for rhombohedral axes")
    return group


def _metric(group: Any) -> str:
    """What the lattice of a space group asks of the cell."""
    if group.ext == "R":
        return "on rhombohedral axes: a = b = c, alpha = beta = gamma"
    unique = group.monoclinic_unique_axis()
    if unique in ("a", "b", "c"):
        others = [
            angle for axis, angle in zip("abc", ("alpha", "beta", "gamma"), strict=True) if axis != unique
        ]
        return f"{others[0]} = {others[1]} = 90"
    hexagonal = "a = b, alpha = beta = 90, gamma = 120"
    return {
        "orthorhombic": "alpha = beta = gamma = 90",
        "tetragonal": "a = b, alpha = beta = gamma = 90",
        "trigonal": hexagonal,
        "hexagonal": hexagonal,
        "cubic": "a = b = c, alpha = beta = gamma = 90",
    }.get(group.crystal_system_str(), "any cell")


def _check_distances(material: Material, cell: Any) -> None:
    """Sites that are too close must not be there at the same time."""
    import gemmi

    from hpc.structure.material import equivalent_positions

    metric = np.array(cell.orth.mat.tolist()).T
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    images = equivalent_positions(material)
    total = np.array([kind.occupancy for kind in material.kinds])
    for a, b in itertools.combinations_with_replacement(range(len(images)), 2):
        one, two = material.kinds[a], material.kinds[b]
        offset = images[b] - images[a][0]
        offset = ((offset - np.rint(offset))[:, None] + shifts).reshape(-1, 3)
        distance = np.linalg.norm(offset @ metric, axis=1)
        if a == b:
            distance = distance[distance > 1e-5]
        same, sites = distance < _SAME, f"{one.label} and {two.label} of {material.name}"
        if a == b and same.any():
            raise ValueError(
                f"two equivalent positions of site {one.label} of {material.name} are {distance.min():.2g} Å apart: "
                f"its coordinates {list(material.positions[a])} are those of a special position, but rounded; "
                "write them in full, or as fractions such as 1/3"
            )
        if same.any():
            total[a] += two.occupancy
            total[b] += one.occupancy
        bond = _BOND * (gemmi.Element(one.element).covalent_r + gemmi.Element(two.element).covalent_r)
        close = ~same & (distance < bond)
        if close.any() and one.occupancy + two.occupancy > 1 + _ROUNDING:
            raise ValueError(
                f"the sites {sites} are {distance[close].min():.3g} Å apart, closer than a bond "
                f"({bond:.2g} Å at least); correct a position or the cell, or give occupancies that add up to 1 "
                "where one excludes the other"
            )
    if (total > 1 + _ROUNDING).any():
        kind = material.kinds[int(total.argmax())]
        raise ValueError(
            f"the sites of {material.name} that share the position of {kind.label} have occupancies that add up to "
            f"{total.max():g}, more than 1"
        )
