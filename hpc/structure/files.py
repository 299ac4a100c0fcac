"""Structure files -> atoms, or the crystal that particles are cut from.

| file | what is read |
|---|---|
| .cif | a crystal (gemmi): symmetry, occupancies, B or U (isotropic, or the equivalent of a tensor; 0 without) |
| .pdb, .ent, .cif of a molecule | coordinates as they stand (gemmi): occupancies, and B as the mean over each element |
| .xyz, .vasp, POSCAR, ... | coordinates as they stand (ASE); `occupancy` and `b_iso` columns of an extended .xyz |

Of several frames or models the last is taken. Of alternative locations of an atom (PDB) the most occupied one is taken,
the first of equals, with the occupancy of all of them together: they exclude each other. A crystal file is a unit cell,
not a particle: it has to be repeated, or become a `Material` from which a shape is cut. The block of repeated cells
holds fractional coordinates 0 <= x < n, without the closing faces.

What is refused: a crystal without symmetry, in a setting that is not tabulated, or with disorder that a sum over
independent sites cannot describe (disorder groups, alternative positions closer than a bond), besides what
`hpc.structure.atoms` refuses.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hpc.structure.atoms import CLOSEST, Atoms, make_atoms
from hpc.structure.crystal import cell_vectors
from hpc.structure.material import Kind, Material, equivalent_positions
from hpc.structure.material_checks import check_crystal

__all__ = ["is_crystal", "read_material", "read_structure", "repeat_cell"]

_log = logging.getLogger(__name__)

# Images of a site within this distance [Å] are one position: files give 1/3 as 0.3333.
_SAME_IMAGE = 0.05
# Atoms closer than this fraction of the sum of their covalent radii are alternatives, not neighbours.
_BOND = 0.6


def read_structure(path: str | Path, *, repeat: Sequence[int] | None = None) -> Atoms:
    """The atoms of a structure file.

    Args:
        path: the file.
        repeat: unit cells along a, b, c; needed for a crystal (.cif), and only possible with a cell.

    Raises:
        ValueError: the file is missing or unreadable, empty, or describes something that cannot be summed.
    """
    path = _existing(path)
    if repeat is not None and (len(repeat) != 3 or min(repeat) < 1):
        raise ValueError(f"repeat must be three whole numbers >= 1, got {list(repeat)}")
    if is_crystal(path):
        if repeat is None:
            raise ValueError(
                f"{path} describes a crystal, not a particle: repeat its cell (--repeat 3 3 3) or cut a shape out of "
                "it (--shape sphere --diameter-nm 4)"
            )
        return repeat_cell(read_material(path), repeat)
    if _is_macromolecular(path):
        if repeat is not None:
            raise ValueError(f"{path} cannot be repeated: coordinates of PDB files are taken as they stand")
        return _checked(path, _read_pdb(path))
    return _checked(path, _read_with_ase(path, repeat))


def is_crystal(path: str | Path) -> bool:
    """Whether the file describes a crystal (a .cif that is not one of a macromolecule) rather than a particle."""
    path = Path(path)
    return path.suffix.lower() == ".cif" and not (path.is_file() and _is_macromolecular(path))


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise ValueError(
            f"{path} does not exist; give a structure file (.xyz, .cif, ...) or a shape such as 'sphere'"
        )
    return Path(path)


def _is_macromolecular(path: Path) -> bool:
    if path.suffix.lower() == ".cif":
        return b"_atom_site.Cartn_x" in path.read_bytes()
    return path.suffix.lower() in (".pdb", ".ent")


def _unreadable(path: Path, error: Exception, expected: str) -> ValueError:
    return ValueError(
        f"{path} cannot be read as a structure ({type(error).__name__}: {error}); expected {expected}"
    )


def _checked(path: Path, columns: dict[str, Any]) -> Atoms:
    if len(columns["element"]) == 0:
        raise ValueError(f"{path} holds no atoms")
    try:
        return make_atoms(**columns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_with_ase(path: Path, repeat: Sequence[int] | None) -> dict[str, Any]:
    import ase
    import ase.io

    try:
        atoms = ase.io.read(path)
    except Exception as error:  # ASE's readers raise whatever their formats make them raise
        raise _unreadable(path, error, "a file that ASE reads, such as .xyz") from error
    assert isinstance(atoms, ase.Atoms)  # without an index, ASE gives one structure: the last
    periodic = atoms.cell.rank == 3 and bool(atoms.pbc.all())
    if repeat is not None and not periodic:
        raise ValueError(f"{path} cannot be repeated: it has no unit cell")
    if repeat is not None:
        atoms = atoms.repeat(tuple(repeat))
    elif periodic:
        _log.warning("%s has a unit cell; its atoms are taken as one particle, as they stand", path)
    return {
        "position": atoms.get_positions(),
        "element": atoms.get_chemical_symbols(),
        "occupancy": atoms.arrays.get("occupancy", 1.0),
        "b_iso": atoms.arrays.get("b_iso", 0.0),
    }


def _read_pdb(path: Path) -> dict[str, Any]:
    import gemmi

    try:
        structure = gemmi.read_structure(str(path))
    except Exception as error:
        raise _unreadable(path, error, "PDB or mmCIF coordinates") from error
    atoms: list[Any] = []
    occupancy: list[float] = []
    alternatives: dict[tuple[str, ...], list[int]] = {}
    if len(structure):
        for member in structure[-1].all():
            atom = member.atom
            if atom.has_altloc():
                key = (member.chain.name, str(member.residue.seqid), atom.name)
                alternatives.setdefault(key, []).append(len(atoms))
            atoms.append(atom)
            occupancy.append(atom.occ)
    dropped = set()
    for name, places in alternatives.items():
        total = sum(occupancy[place] for place in places)
        # Occupancies have two decimals.
        if total > 1.0 + 0.005 * len(places):
            raise ValueError(
                f"{path}: the alternative locations of atom {' '.join(name)} have occupancies that add up to "
                f"{total:g}, more than 1"
            )
        kept = max(places, key=lambda place: occupancy[place])
        dropped |= {place for place in places if place != kept}
        occupancy[kept] = min(total, 1.0)
    if dropped:
        _log.warning("%s: of %d atoms the most occupied alternative is taken", path, len(alternatives))
    kept_atoms = [atom for place, atom in enumerate(atoms) if place not in dropped]
    element = np.array([atom.element.name for atom in kept_atoms], dtype=np.str_)
    b_iso = np.array([atom.b_iso for atom in kept_atoms], dtype=np.float64)
    for symbol in np.unique(element):
        b_iso[element == symbol] = b_iso[element == symbol].mean()
    return {
        "position": np.array([atom.pos.tolist() for atom in kept_atoms]).reshape(-1, 3),
        "element": element,
        "occupancy": [kept for place, kept in enumerate(occupancy) if place not in dropped],
        "b_iso": b_iso,
    }


def read_material(path: str | Path) -> Material:
    """The crystal of a .cif file.

    Raises:
        ValueError: the file is missing or unreadable, has no cell, sites or symmetry, a setting that is not tabulated,
            or disorder that independent sites cannot describe.
    """
    import gemmi

    path = _existing(path)
    try:
        document = gemmi.cif.read(str(path))
        blocks = [block for block in document if block.find_loop("_atom_site_fract_x")]
        small = gemmi.make_small_structure_from_block(blocks[0]) if blocks else None
    except Exception as error:  # gemmi raises what its C++ exceptions become
        raise _unreadable(path, error, "CIF") from error
    if small is None or not len(small.sites):
        raise ValueError(f"{path} holds no atoms: no block of it lists _atom_site_fract_x")
    if not small.cell.is_crystal():
        raise ValueError(f"{path} has no unit cell: _cell_length_a, ..., _cell_angle_gamma are needed")
    group = _space_group(path, small)
    kinds: list[Kind] = []
    positions: list[tuple[float, ...]] = []
    for index, site in enumerate(small.sites):
        name = f"{path}: site {site.label}"
        if site.disorder_group:
            raise ValueError(
                f"{name} belongs to disorder group {site.disorder_group}: atoms that are there together or not at all "
                "are not supported; choose one of the alternatives and remove the others"
            )
        if not 0 <= site.occ <= 1:
            raise ValueError(f"{name} must have an occupancy in 0 to 1, got {site.occ:g}")
        if site.occ == 0:
            continue
        if not np.isfinite(site.fract.tolist()).all():
            raise ValueError(f"{name} has no finite coordinates")
        u_iso = site.u_iso
        if not u_iso and site.aniso.nonzero():
            u_iso = small.cell.calculate_u_eq(site.aniso)
        labels = [kind.label for kind in kinds]
        label = site.label if site.label not in labels else f"{site.label}#{index + 1}"
        try:
            kinds.append(
                Kind(
                    label=label,
                    element=site.element.name,
                    occupancy=site.occ,
                    b_iso=8 * np.pi**2 * u_iso,
                )
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        positions.append(tuple(site.fract.tolist()))
    if not kinds:
        raise ValueError(f"{path} holds no atoms: every occupancy is 0")
    material = Material(
        name=path.stem,
        space_group=group.xhm(),
        cell_angstrom=tuple(small.cell.parameters),
        kinds=tuple(kinds),
        positions=tuple(positions),
    )
    equivalent = _equivalent(material)
    _refuse_alternatives(path, material, equivalent)
    material = replace(material, positions=tuple(tuple(_in_cell(images[0])) for images in equivalent))
    try:
        check_crystal(material)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return material


def _in_cell(position: np.ndarray) -> list[float]:
    """Fractional coordinates 0 <= x < 1; -1e-17 is 0, not 1."""
    return [0.0 if x == 1.0 else float(x) for x in position % 1]


def _space_group(path: Path, small: Any) -> Any:
    import gemmi

    name = small.spacegroup_hm or small.spacegroup_hall
    if small.symops:
        try:
            operations = gemmi.GroupOps([gemmi.Op(operation) for operation in small.symops])
        except RuntimeError as error:
            raise ValueError(f"{path}: a symmetry operation cannot be read: {error}") from None
        group = gemmi.find_spacegroup_by_ops(operations)
        if group is None:
            raise ValueError(
                f"{path}: its {len(small.symops)} symmetry operations are not those of a tabulated space-group "
                "setting; write it in a standard setting, or in P 1 with all atoms of the cell"
            )
    elif name:
        group = small.spacegroup
        if group is None:
            raise ValueError(f"{path}: {name!r} is not a known space group")
        if group.ext in ("1", "2") and ":" not in name and not small.spacegroup_hall:
            raise ValueError(
                f"{path}: {name!r} has two choices of the origin; add the symmetry operations, or ':1' or ':2'"
            )
    else:
        raise ValueError(
            f"{path} has no symmetry: neither a space group nor operations; "
            "add _space_group_name_H-M_alt 'P 1' if it lists all atoms of the cell"
        )
    if not small.cell.is_compatible_with_spacegroup(group, 0.01):
        raise ValueError(
            f"{path}: the cell {[round(x, 4) for x in small.cell.parameters]} does not have the symmetry {group.xhm()}"
        )
    return group


def _equivalent(material: Material) -> list[np.ndarray]:
    """For each kind, (n, 3) float64 fractional coordinates of its equivalent positions; the first is its own.

    Images that lie on top of each other are one position, at their mean: files give a third as 0.3333.
    """
    import gemmi

    cell = cell_vectors(material)
    operations = list(gemmi.find_spacegroup_by_name(material.space_group).operations())
    positions = []
    for position in material.positions:
        left = np.array([operation.apply_to_xyz(list(position)) for operation in operations])
        unique = []
        while len(left):
            offset = left - left[0]
            offset -= np.rint(offset)
            same = np.linalg.norm(offset @ cell, axis=1) < _SAME_IMAGE
            unique.append(left[0] + offset[same].mean(axis=0))
            left = left[~same]
        positions.append(np.array(unique))
    return positions


def _refuse_alternatives(path: Path, material: Material, equivalent: list[np.ndarray]) -> None:
    """Positions closer than a bond of which one is not fully occupied exclude each other: not independent sites."""
    import gemmi

    cell = cell_vectors(material)
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    total = np.array([kind.occupancy for kind in material.kinds])
    for a, b in itertools.combinations_with_replacement(range(len(equivalent)), 2):
        one, two = material.kinds[a], material.kinds[b]
        offset = equivalent[b] - equivalent[a][0]
        offset = ((offset - np.rint(offset))[:, None] + shifts).reshape(-1, 3)
        distance = np.linalg.norm(offset @ cell, axis=1)
        shared = distance < _SAME_IMAGE  # mixed occupation of one position
        bond = _BOND * (gemmi.Element(one.element).covalent_r + gemmi.Element(two.element).covalent_r)
        limit = bond if min(one.occupancy, two.occupancy) < 1 else CLOSEST
        if a != b and shared.any():
            total[a] += two.occupancy
            total[b] += one.occupancy
        if (~shared & (distance < limit)).any():
            raise ValueError(
                f"{path}: the sites {one.label} and {two.label} are {distance[~shared].min():.3g} Å apart, closer than "
                "a bond: alternative positions of one atom are not supported; keep one of them, or write a material "
                "file (.yaml), where independent occupancies are what is asked for (conf/material/fapbbr3.yaml)"
            )
    if (total > 1 + 1e-6).any():
        kind = material.kinds[int(total.argmax())]
        raise ValueError(
            f"{path}: the sites that share the position of {kind.label} have occupancies that add up to "
            f"{total.max():g}, more than 1"
        )


def repeat_cell(material: Material, repeat: Sequence[int]) -> Atoms:
    """A block of unit cells, 0 <= x < n in fractional coordinates.

    Args:
        material: the crystal.
        repeat: unit cells along a, b, c, each >= 1.
    """
    fractions = equivalent_positions(material)
    numbers = [len(images) for images in fractions]
    corner = np.stack(np.meshgrid(*[np.arange(n) for n in repeat], indexing="ij"), axis=-1).reshape(-1, 1, 3)
    fractional = (corner + np.concatenate(fractions)).reshape(-1, 3)

    def column(values: list[Any]) -> np.ndarray:
        return np.tile(np.repeat(values, numbers), len(corner))

    return make_atoms(
        fractional @ cell_vectors(material),
        column([kind.element for kind in material.kinds]),
        occupancy=column([kind.occupancy for kind in material.kinds]),
        b_iso=column([kind.b_iso for kind in material.kinds]),
        label=column([kind.label for kind in material.kinds]),
    )
