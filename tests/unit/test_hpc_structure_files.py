"""Structure files: what is read, what is refused."""

import logging

import ase.build
import ase.io
import numpy as np
import pytest
from cif_files import ROCKSALT, XYZ, cif_text

from hpc.structure.files import is_crystal, read_material, read_structure, repeat_cell

COLUMNS = f"label type_symbol {XYZ} occupancy"
HEXAGONAL = {"a": 4.135, "c": 6.7, "gamma": 120, "symmetry": "_symmetry_space_group_name_H-M 'P 63 m c'"}
PBS = "Pb1 Pb2+ 0 0 0 1\nS1 S2- 0.5 0.5 0.5 1\n"
WURTZITE = "Cd1 Cd 0.3333 0.6667 0 {cd}\nZn1 Zn 0.3333 0.6667 0 {zn}\nS1 S 0.3333 0.6667 0.375 1\n"


@pytest.fixture
def cif(tmp_path):
    """Write a .cif of sites in a cell."""

    def write(sites, *, extra="", after="", **cell):
        path = tmp_path / "crystal.cif"
        path.write_text(cif_text(f"{COLUMNS} {extra}", sites, **{**ROCKSALT, **cell}) + after)
        return path

    return write


@pytest.fixture
def written(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_symmetry_is_expanded(cif):
    atoms = read_structure(cif(PBS), repeat=(2, 1, 3))
    assert len(atoms) == 8 * 6
    assert {e: int(np.sum(atoms.element == e)) for e in ("Pb", "S")} == {"Pb": 24, "S": 24}
    assert set(atoms.label) == {"Pb1", "S1"}
    expected = ase.build.bulk("PbS", "rocksalt", a=5.936, cubic=True).repeat((2, 1, 3))
    ours, theirs = (
        sorted(zip(elements, np.round(positions, 6).tolist(), strict=True))
        for elements, positions in (
            (atoms.element, atoms.position),
            (expected.get_chemical_symbols(), expected.get_positions()),
        )
    )
    assert ours == theirs


def test_operations_stand_for_the_name_of_the_group(cif):
    operations = "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n'-x, -y, z'\n"
    atoms = read_structure(cif("Pb1 Pb 0.1 0.2 0.3 1\n", symmetry=operations), repeat=(1, 1, 1))
    np.testing.assert_allclose(
        np.sort(atoms.position / 5.936, axis=0), [[0.1, 0.2, 0.3], [0.9, 0.8, 0.3]], atol=1e-12
    )


def test_rounded_special_positions_are_one_position(cif):
    """0.3333 in a hexagonal cell: a third, exactly, and not three positions 10⁻³ Å apart."""
    material = read_material(cif(WURTZITE.format(cd=1, zn=0), **HEXAGONAL))
    np.testing.assert_allclose(
        material.positions, [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.375]], rtol=0, atol=1e-14
    )
    atoms = repeat_cell(material, (3, 3, 3))
    assert len(atoms) == 4 * 27
    distance = np.linalg.norm(atoms.position[:, None] - atoms.position[None], axis=-1)
    bonds = distance[(distance > 0) & (distance < 2.8)]
    along, across = 0.375 * 6.7, np.hypot(4.135 / np.sqrt(3), 0.125 * 6.7)
    np.testing.assert_allclose(np.unique(np.round(bonds, 9)), [along, across], rtol=0, atol=2e-9)


def test_mixed_sites_keep_their_occupancies(cif):
    atoms = read_structure(cif(WURTZITE.format(cd=0.6, zn=0.4), **HEXAGONAL), repeat=(1, 1, 1))
    assert sorted(zip(atoms.element, atoms.occupancy, strict=True)) == [
        *[("Cd", 0.6)] * 2,
        *[("S", 1.0)] * 2,
        *[("Zn", 0.4)] * 2,
    ]
    np.testing.assert_array_equal(
        atoms.position[atoms.element == "Cd"], atoms.position[atoms.element == "Zn"]
    )


@pytest.mark.parametrize(
    ("column", "value", "after"),
    [
        ("B_iso_or_equiv", 0.7, ""),
        ("U_iso_or_equiv", 0.7 / (8 * np.pi**2), ""),
        (
            "",
            "",
            "loop_\n_atom_site_aniso_label\n"
            + "".join(f"_atom_site_aniso_U_{ij}\n" for ij in ("11", "22", "33", "23", "13", "12"))
            + f"Pb1 {0.5 / (8 * np.pi**2)} {0.5 / (8 * np.pi**2)} {1.1 / (8 * np.pi**2)} 0 0 0\n",
        ),
    ],
)
def test_b_and_u_are_read(cif, column, value, after):
    path = cif(
        f"Pb1 Pb 0 0 0 1 {value}\n", extra=column, after=after, symmetry="_space_group_name_H-M_alt 'P 1'"
    )
    atoms = read_structure(path, repeat=(1, 1, 1))
    np.testing.assert_allclose(atoms.b_iso, 0.7, rtol=1e-6)


@pytest.mark.parametrize(
    ("sites", "cell", "message"),
    [
        ("", {}, "holds no atoms"),
        ("Xx1 Xx 0 0 0 1\n", {}, "element must be a chemical symbol"),
        ("Pb1 Pb ? 0 0 1\n", {}, "site Pb1 has no finite coordinates"),
        ("Pb1 Pb 0 0 0 1.2\n", {}, "site Pb1 must have an occupancy in 0 to 1, got 1.2"),
        ("Pb1 Pb 0 0 0 -0.5\n", {}, "site Pb1 must have an occupancy in 0 to 1, got -0.5"),
        ("Pb1 Pb 0 0 0 0\n", {}, "every occupancy is 0"),
        (
            "Pb1 Pb 0 0 0 0.7\nSn1 Sn 0 0 0 0.4\n",
            {},
            "share the position of Pb1 .* add up to 1.1, more than 1",
        ),
        (
            "Pb1 Pb 0 0 0 0.7\nSn1 Sn 0 0 0 0.2\nGe1 Ge 0 0 0 0.2\n",
            {},
            "share the position of Pb1 .* add up to 1.1, more than 1",
        ),
        ("Pb1 Pb 0 0 0 1\nS1 S 0.03 0 0 1\n", {}, "sites Pb1 and S1 are 0.178 Å apart, closer than a bond"),
        ("Pb1 Pb 0 0 0 0.5\nS1 S 0.2 0 0 0.5\n", {}, "sites Pb1 and S1 are 1.19 Å apart, closer than a bond"),
        ("S1 S 0.1 0 0 0.16\n", {}, "sites S1 and S1 are 0.839 Å apart, closer than a bond"),
        (PBS, {"symmetry": ""}, "has no symmetry: neither a space group nor operations"),
        (PBS, {"symmetry": "_space_group_name_H-M_alt 'F x -3'"}, "'F x -3' is not a known space group"),
        (
            PBS,
            {"symmetry": "_space_group_name_H-M_alt 'F d -3 m'"},
            "'F d -3 m' has two choices of the origin",
        ),
        (
            PBS,
            {"symmetry": "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nx+1/4,y,z\n"},
            "2 symmetry operations are not those of a tabulated space-group setting",
        ),
        (
            PBS,
            {"symmetry": "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,w\n"},
            "a symmetry operation cannot be read",
        ),
        (PBS, {"c": 6.5}, "does not have the symmetry F m -3 m"),
        (PBS, {"a": "?"}, "has no unit cell"),
    ],
)
def test_bad_crystals_are_refused(cif, sites, cell, message):
    with pytest.raises(ValueError, match=message):
        read_structure(cif(sites, **cell), repeat=(1, 1, 1))


def test_disorder_groups_are_refused(cif):
    path = cif("Pb1 Pb 0 0 0 0.5 1\n", extra="disorder_group")
    with pytest.raises(ValueError, match="site Pb1 belongs to disorder group 1"):
        read_structure(path, repeat=(1, 1, 1))
    path = cif("Pb1 Pb 0 0 0 0.5 .\n", extra="disorder_group")
    assert len(read_structure(path, repeat=(1, 1, 1))) == 4


def test_a_crystal_is_not_a_particle(cif):
    path = cif(PBS)
    assert is_crystal(path)
    with pytest.raises(ValueError, match=r"describes a crystal, not a particle: .*--repeat .*--shape"):
        read_structure(path)
    with pytest.raises(ValueError, match=r"repeat must be three whole numbers >= 1, got \[0, 1, 1\]"):
        read_structure(path, repeat=(0, 1, 1))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xyz", "", "cannot be read as a structure"),
        ("a.xyz", "3\n\nPb 0 0 0\n", "cannot be read as a structure"),
        ("a.xyz", "0\n\n", "holds no atoms"),
        ("a.xyz", "1\n\nPb inf 0 0\n", r"atom 1 \(Pb\) has a position that is not finite"),
        ("a.xyz", "1\n\nX 0 0 0\n", "element must be a chemical symbol"),
        ("a.cif", "", "holds no atoms"),
        ("a.cif", "what is this?", "cannot be read as a structure"),
        ("a.cif", "data_a\n_cell_length_a 4\n", "holds no atoms"),
        ("a.pdb", "", "holds no atoms"),
        ("a.pdb", "this is not a structure\n", "holds no atoms"),
        ("POSCAR", "PbS\n", "cannot be read as a structure"),
    ],
)
def test_unreadable_and_empty_files_are_refused(written, name, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_structure(written(name, content), repeat=(1, 1, 1) if name.endswith(".cif") else None)
    assert name in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist; give a structure file"):
        read_structure(tmp_path / "a.xyz")


def test_of_several_frames_the_last_is_read(written):
    atoms = read_structure(written("a.xyz", "1\n\nPb 0 0 0\n2\n\nS 1 2 3\nS 4 5 6\n"))
    np.testing.assert_array_equal(atoms.position, [[1, 2, 3], [4, 5, 6]])
    assert atoms.element.tolist() == ["S", "S"]


def test_extended_xyz_may_carry_occupancies_and_b(written):
    header = "Properties=species:S:1:pos:R:3:occupancy:R:1:b_iso:R:1"
    atoms = read_structure(written("a.xyz", f"2\n{header}\nPb 0 0 0 0.5 1.3\nS 3 0 0 1 1.2\n"))
    np.testing.assert_array_equal(atoms.occupancy, [0.5, 1])
    np.testing.assert_array_equal(atoms.b_iso, [1.3, 1.2])


@pytest.mark.parametrize("name", ["POSCAR", "a.vasp"])
def test_a_file_with_a_cell_is_a_particle_or_repeated(tmp_path, caplog, name):
    path = tmp_path / name
    ase.io.write(path, ase.build.bulk("PbS", "rocksalt", a=5.936, cubic=True), format="vasp")
    with caplog.at_level(logging.WARNING):
        assert len(read_structure(path)) == 8
    assert "has a unit cell; its atoms are taken as one particle" in caplog.text
    assert len(read_structure(path, repeat=(2, 2, 1))) == 32


def test_what_has_no_cell_cannot_be_repeated(written):
    with pytest.raises(ValueError, match="cannot be repeated: it has no unit cell"):
        read_structure(written("a.xyz", "1\n\nPb 0 0 0\n"), repeat=(2, 2, 2))
    with pytest.raises(ValueError, match="PDB files are taken as they stand"):
        read_structure(written("a.pdb", _pdb(("PB", "", 1.0, 0.0))), repeat=(2, 2, 2))


def _pdb(*atoms):
    """Atoms 3 Å apart: name, alternative, occupancy, B."""
    lines = [
        f"HETATM{i:5d} {name:<4s}{alternative or ' '}DOT A   1    {3.0 * i:8.3f}{0:8.3f}{0:8.3f}"
        f"{occupancy:6.2f}{b:6.2f}          {name:>2s}"
        for i, (name, alternative, occupancy, b) in enumerate(atoms, 1)
    ]
    return "\n".join([*lines, "END"]) + "\n"


def test_pdb_b_is_the_mean_over_each_element(written):
    atoms = read_structure(
        written("a.pdb", _pdb(("PB", "", 1, 1.0), ("PB", "", 0.5, 3.0), ("S", "", 1, 0.5), ("S", "", 0, 9.0)))
    )
    assert atoms.element.tolist() == ["Pb", "Pb", "S"]
    np.testing.assert_allclose(atoms.occupancy, [1, 0.5, 1])
    np.testing.assert_allclose(atoms.b_iso, [2, 2, 4.75])
    np.testing.assert_allclose(atoms.position[:, 0], [3, 6, 9])


def test_pdb_alternatives_the_most_occupied_stands_for_all(written, caplog):
    text = _pdb(("PB", "", 1, 0), ("S", "A", 0.3, 0), ("S", "B", 0.5, 0))
    with caplog.at_level(logging.WARNING):
        atoms = read_structure(written("a.pdb", text))
    assert "of 1 atoms the most occupied alternative is taken" in caplog.text
    np.testing.assert_allclose(atoms.position[:, 0], [3, 9])
    np.testing.assert_allclose(atoms.occupancy, [1, 0.8])
    with pytest.raises(ValueError, match="alternative locations of atom A 1 S .* add up to 1.3"):
        read_structure(written("a.pdb", _pdb(("S", "A", 0.6, 0), ("S", "B", 0.7, 0))))


def test_of_several_models_the_last_is_read(written):
    one, two = _pdb(("PB", "", 1, 0)), _pdb(("PB", "", 1, 0), ("S", "", 1, 0))
    models = "".join(
        f"MODEL        {i}\n{text.replace('END', 'ENDMDL')}" for i, text in enumerate((one, two), 1)
    )
    assert len(read_structure(written("a.pdb", models + "END\n"))) == 2


def test_coordinates_in_mmcif_are_a_particle(tmp_path, written):
    import gemmi

    path = tmp_path / "a.cif"
    gemmi.read_structure(
        str(written("a.pdb", _pdb(("PB", "", 1, 0), ("S", "", 1, 0))))
    ).make_mmcif_document().write_file(str(path))
    assert not is_crystal(path)
    assert read_structure(path).element.tolist() == ["Pb", "S"]
