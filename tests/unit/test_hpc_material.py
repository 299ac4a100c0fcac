"""Material files: what is read, and what is refused with the key, what came and what to do."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from cif_files import XYZ, cif_text, space_group

from hpc.structure.material import Material, equivalent_positions, load_material, material_names

PBS = {
    "name": "PbS",
    "space_group": "F m -3 m",
    "cell_angstrom": [5.936, 5.936, 5.936, 90, 90, 90],
    "sites": {
        "Pb": {"element": "Pb", "position": [0, 0, 0], "occupancy": 1.0, "b_iso": 1.28},
        "S": {"element": "S", "position": [0.5, 0.5, 0.5], "occupancy": 1.0, "b_iso": 1.25},
    },
}
WURTZITE = {
    "name": "CdSe",
    "space_group": "P 63 m c",
    "cell_angstrom": [4.299, 4.299, 7.01, 90, 90, 120],
    "sites": {
        "Cd": {"element": "Cd", "position": ["1/3", "2/3", 0], "occupancy": 1.0, "b_iso": 1.0},
        "Se": {"element": "Se", "position": ["1/3", "2/3", 0.3767], "occupancy": 1.0, "b_iso": 1.0},
    },
}
MINE = """name: mine
space_group: F m -3 m
cell_angstrom: [6, 6, 6, 90, 90, 90]
sites:
  Pb: {element: Pb, position: [0, 0, 0], occupancy: 1, b_iso: 1}
  S: {element: S, position: [1/2, 1/2, 1/2], occupancy: 1/2, b_iso: 1}
"""
CIF = cif_text(
    f"label {XYZ} B_iso_or_equiv",
    "Cd 0.3333 0.6667 0 1.1\nSe 0.3333 0.6667 -0.6233 1.2\n",
    a=4.3, c=7.0, gamma=120, symmetry=space_group("P 63 m c"), name="mine",
)  # fmt: skip


def changed(config: dict, changes: dict) -> dict:
    """A copy with values replaced, by dotted names; None removes a key."""
    config = deepcopy(config)
    for name, value in changes.items():
        *path, key = name.split(".")
        place = config
        for step in path:
            place = place[step]
        if value is None:
            del place[key]
        else:
            place[key] = value
    return config


@pytest.mark.parametrize("name", material_names())
def test_a_material_survives_its_mapping(name):
    material = load_material(name)
    assert Material.from_config(material.to_config()) == material


def test_fractions_are_exact():
    material = Material.from_config(WURTZITE)
    assert material.positions[0] == (1 / 3, 2 / 3, 0.0)
    assert [len(images) for images in equivalent_positions(material)] == [2, 2]


def test_a_yaml_file_is_a_material(tmp_path):
    path = tmp_path / "Mine.YAML"
    path.write_text(MINE)
    material = load_material(path)
    assert material == load_material(str(path))
    assert material.name == "mine"
    assert material.kinds[1].occupancy == 0.5
    assert material.positions[1] == (0.5, 0.5, 0.5)


def test_a_cif_file_is_a_material_and_lies_in_the_cell(tmp_path):
    path = tmp_path / "mine.cif"
    path.write_text(CIF)
    material = load_material(path)
    np.testing.assert_allclose(material.positions, [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.3767]], atol=1e-14)
    assert Material.from_config(material.to_config()) == material


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("no.yaml", None, r"no\.yaml cannot be read: No such file"),
        ("no.cif", None, r"no\.cif does not exist"),
        ("a.yaml", "", r"a\.yaml: material must be a mapping with the keys .*, got None"),
        ("a.yaml", "name: [1", r"a\.yaml is not YAML: .*line 1"),
        ("a.yml", "\0\1", r"a\.yml is not YAML"),
        (
            "a.yaml",
            MINE.replace("  S:", "  Pb:"),
            r"a\.yaml: the keys \['Pb'\] occur twice; give every site a label of its own",
        ),
        (
            "a.yaml",
            MINE.replace("Pb,", "Qq,"),
            r"a\.yaml: site Pb of mine: element must be a chemical symbol",
        ),
    ],
)
def test_a_file_that_cannot_be_read_says_so(tmp_path, file, text, message):
    path = tmp_path / file
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_material(path)


def test_binary_files_are_no_material(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not a text file"):
        load_material(path)


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        # keys
        (PBS, {"spacegroup": "P 1"}, r"got 'spacegroup'; did you mean 'space_group'\?"),
        (PBS, {"sites.Pb.b": 1.0}, r"site Pb has the keys \['element', .*\], got 'b'"),
        (PBS, {"sites.Pb.biso": 1.0}, r"did you mean 'b_iso'"),
        (PBS, {"sites.S.occupancy": None}, r"the key 'occupancy' is missing"),
        (PBS, {"sites": ["Pb", "S"]}, r"sites must be a mapping of labels to sites"),
        (PBS, {"sites.Pb": "Pb"}, r"site Pb must be a mapping with the keys"),
        (PBS, {"sites": {}}, r"has no sites"),
        # values
        (PBS, {"sites.Pb.b_iso": "big"}, r"b_iso of site Pb must be a number, or a fraction .*, got 'big'"),
        (PBS, {"sites.Pb.b_iso": "1/0"}, r"b_iso of site Pb must be a number"),
        (PBS, {"sites.Pb.b_iso": True}, r"b_iso of site Pb must be a number"),
        (PBS, {"sites.Pb.occupancy": 1.2}, r"occupancy of site Pb must lie in \(0, 1\], got 1\.2"),
        (PBS, {"sites.Pb.occupancy": [1]}, r"occupancy of site Pb must be a number"),
        (PBS, {"sites.Pb.element": "PB"}, r"element must be a chemical symbol such as Pb, got 'PB'"),
        (PBS, {"sites.Pb.element": "X"}, r"element must be a chemical symbol"),
        # positions
        (PBS, {"sites.S.position": [0.5, 0.5]}, r"position of site S must be three fractional coordinates"),
        (PBS, {"sites.S.position": "0 0 0"}, r"position of site S must be three fractional coordinates"),
        (PBS, {"sites.S.position": [0, 0, float("nan")]}, r"site S must be three fractional coordinates"),
        (
            PBS,
            {"sites.S.position": [1.5, -0.25, 0]},
            r"site S must lie inside the cell, .* got \[1\.5, -0\.25, 0\]; its image there is \[0\.5, 0\.75, 0",
        ),
        (PBS, {"sites.S.position": [1, 0, 0]}, r"must lie inside the cell"),
        # cell and space group
        (PBS, {"cell_angstrom": 5.936}, r"cell_angstrom must be six numbers"),
        (PBS, {"cell_angstrom": [5.9, 5.9, 5.9]}, r"six positive numbers"),
        (PBS, {"cell_angstrom": [5.9, 5.9, -5.9, 90, 90, 90]}, r"six positive numbers"),
        (PBS, {"space_group": "F m 3 x"}, r"space_group of PbS is not a known symbol: 'F m 3 x'; write the"),
        (PBS, {"space_group": "F d -3 m"}, r"two choices of the origin; write 'F d -3 m:1' or 'F d -3 m:2'"),
        (PBS, {"space_group": "P 1", "cell_angstrom": [5, 5, 5, 90, 90, 180]}, r"no cell has the angles"),
        (PBS, {"space_group": "P 1", "cell_angstrom": [5, 5, 5, 60, 60, 130]}, r"no cell has the angles"),
        (
            PBS,
            {"cell_angstrom": [5.9, 5.9, 6.1, 90, 90, 90]},
            r"F m -3 m is cubic, a = b = c, alpha = beta = gamma = 90; got \[5\.9, 5\.9, 6\.1",
        ),
        (WURTZITE, {"cell_angstrom": [4.3, 4.3, 7, 90, 90, 90]}, r"is hexagonal, a = b, .* gamma = 120; got"),
        (WURTZITE, {"space_group": "P n m a"}, r"is orthorhombic, alpha = beta = gamma = 90; got"),
        (WURTZITE, {"space_group": "P 1 21/c 1"}, r"is monoclinic, alpha = gamma = 90; got"),
        # R groups: hexagonal axes unless the name says otherwise
        (
            PBS,
            {"space_group": "R -3 m", "cell_angstrom": [4, 4, 4, 60, 60, 60]},
            r"write 'R -3 m:R' for rhombohedral axes",
        ),
        # distances
        (
            PBS,
            {"sites.S.position": [0.05, 0, 0]},
            r"sites Pb and S of PbS are 0\.297 Å apart, closer than a bond",
        ),
        (
            PBS,
            {"sites.S.position": [0.2, 0, 0]},
            r"are 1\.19 Å apart, closer than a bond \(1\.5 Å at least\)",
        ),
        (PBS, {"sites.S.position": [0, 0, 0]}, r"share the position of Pb have occupancies that add up to 2"),
        (
            WURTZITE,
            {"sites.Cd.position": [0.333, 0.667, 0]},
            r"equivalent positions of site Cd .* rounded; write them in full, or as fractions such as 1/3",
        ),
    ],
)
def test_what_cannot_be_a_crystal_is_refused(base, changes, message):
    with pytest.raises(ValueError, match=message):
        Material.from_config(changed(base, changes))


def test_sites_that_exclude_each_other_may_be_close():
    """Mixed occupation of one position; a split site; but not more atoms than there is room for."""
    se = {"element": "Se", "position": [0.5, 0.5, 0.5], "occupancy": 0.4, "b_iso": 1.0}
    mixed = Material.from_config(changed(PBS, {"sites.S.occupancy": 0.6, "sites.Se": se}))
    assert mixed.labels == ("Pb", "S", "Se")
    with pytest.raises(ValueError, match=r"add up to 1\.1, more than 1"):
        Material.from_config(changed(PBS, {"sites.S.occupancy": 0.7, "sites.Se": se}))
    split = {"sites.S.position": [0.48, 0.5, 0.5], "sites.S.occupancy": "1/6"}
    assert len(equivalent_positions(Material.from_config(changed(PBS, split)))[1]) == 24
    with pytest.raises(ValueError, match="sites S and S of PbS are .* closer than a bond"):
        Material.from_config(changed(PBS, {**split, "sites.S.occupancy": 0.6}))


def test_rhombohedral_and_two_origin_settings_by_name():
    rhombohedral = {"space_group": "R -3 m:R", "cell_angstrom": [4.2, 4.2, 4.2, 60, 60, 60]}
    assert Material.from_config(changed(PBS, rhombohedral)).space_group == "R -3 m:R"
    diamond = {"space_group": "F d -3 m:2", "sites": {"Si": {**PBS["sites"]["Pb"], "position": ["1/8"] * 3}}}
    (images,) = equivalent_positions(Material.from_config(changed(PBS, diamond)))
    assert len(images) == 8


def test_dots_are_cut_around_what_is_mostly_there():
    assert load_material("pbs").cut_centres == ("Pb", "S")
    assert load_material("cspbbr3_orthorhombic").cut_centres == ("Cs", "Pb", "Br1", "Br2")
    # not around one orientation of a molecule
    assert load_material("fapbbr3").cut_centres == ("Pb", "Br")
    # once for two elements on one position
    zinc = {"element": "Zn", "position": ["1/3", "2/3", 0], "occupancy": 0.4, "b_iso": 1.0}
    mixed = changed(WURTZITE, {"sites.Cd.occupancy": 0.6, "sites.Zn": zinc})
    assert Material.from_config(mixed).cut_centres == ("Cd", "Se")
    # where nothing is mostly there, around everything
    rare = changed(PBS, {"sites.Pb.occupancy": 0.2, "sites.S.occupancy": 0.3})
    assert Material.from_config(rare).cut_centres == ("Pb", "S")


def test_every_material_says_where_its_numbers_come_from():
    folder = Path(__file__).resolve().parents[2] / "conf" / "material"
    for path in sorted(folder.glob("*.yaml")):
        comment = " ".join(line for line in path.read_text().splitlines() if line.startswith("#"))
        assert "Cell: " in comment and "B_iso" in comment, f"{path.name}: no source of the cell or of B"
