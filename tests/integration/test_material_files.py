"""A material of one's own, as a YAML or CIF file, through the commands that take materials."""

import re

import numpy as np
import pytest
from cif_files import XYZ, cif_text, space_group

from hpc.store import open_store
from hpc.structure.material import Material, load_material

CRYSTAL = """# Made up.
name: mine
space_group: P 63 m c
cell_angstrom: [4.3, 4.3, 7.0, 90, 90, 120]
sites:
  Cd: {element: Cd, position: [1/3, 2/3, 0], occupancy: 1.0, b_iso: 1.1}
  Se: {element: Se, position: [1/3, 2/3, 0.375], occupancy: 0.9, b_iso: 1.2}
"""
# The same; thirds as files give them, and a site of another cell.
CIF = cif_text(
    f"label {XYZ} occupancy B_iso_or_equiv",
    "Cd 0.3333 0.6667 0 1.0 1.1\nSe 0.3333 0.6667 -0.625 0.9 1.2\n",
    a=4.3, c=7.0, gamma=120, symmetry=space_group("P 63 m c"), name="mine",
)  # fmt: skip
GRID = ("experiment=smoke", "grid.diameter_nm=[1.5]", "grid.sigma=[0.05]", "device=cpu")


@pytest.fixture(params=["my crystal's.yaml", "mine.cif"])
def file(request, tmp_path):
    path = tmp_path / request.param
    path.write_text(CIF if path.suffix == ".cif" else CRYSTAL)
    return path


def test_a_store_keeps_the_material_of_a_file(tmp_path, run_command, file):
    command = ["qd-simulate", *GRID, "store.path=a.zarr", "+b_iso.Se=0.5"]
    run_command([*command, f"material={file.name}"])
    config = open_store(tmp_path / "a.zarr").attrs["config"]
    assert "material_file" not in config
    assert Material.from_config(config["material"]) == load_material(file)
    assert config["b_iso"] == {"Se": 0.5}

    # The file may move (a CIF is called by its name), and may be given as the key that it is.
    (tmp_path / "elsewhere").mkdir()
    moved = file.rename(tmp_path / "elsewhere" / file.name)
    name = str(moved).replace("'", "\\'")
    again = run_command([*command, f"material_file='{name}'"])
    assert "complete already" in again.stdout + again.stderr
    # Another material is another store.
    other = run_command([*command, "material=cdse_wurtzite"], returncode=None)
    assert other.returncode == 2 and "Traceback" not in other.stderr


def test_a_pattern_of_a_file(tmp_path, run_command, file):
    options = ["--diameter-nm", "1.5", "--centre", "Cd", "--energy-kev", "22", "--q", "1", "8", "0.5"]
    run_command(["qd-pattern", "sphere", "--material", file, *options, "-o", "a.xy"])
    (tmp_path / "same.yaml").write_text(CRYSTAL)
    run_command(["qd-pattern", "sphere", "--material", "same.yaml", *options, "-o", "b.xy"])
    first, second = (np.loadtxt(tmp_path / name) for name in ("a.xy", "b.xy"))
    np.testing.assert_allclose(first, second, rtol=1e-9)
    header = (tmp_path / "a.xy").read_text()
    assert "# space_group: P 63 m c\n" in header
    assert "Se Se 0.333333 0.666667 0.375 occupancy 0.9\n" in header


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("material=no.yaml", r"no\.yaml cannot be read: No such file"),
        ("material=no.cif", r"no\.cif does not exist"),
        (
            "material=bad.yaml",
            r"bad\.yaml: site Cd of mine: element must be a chemical symbol such as Pb, got 'Cx'",
        ),
        ("material.sites.Pb.position=[0, 0, 1.5]", r"position of site Pb must lie inside the cell"),
        ("material.space_group=P 63 m c", r"space group P 63 m c is hexagonal, .*; got \[5\.936"),
        ("+material.sites.Pb.b=1", r"site Pb has the keys .*, got 'b'"),
    ],
)
def test_a_bad_material_is_one_message_and_no_store(tmp_path, run_command, word, message):
    (tmp_path / "bad.yaml").write_text(CRYSTAL.replace("element: Cd", "element: Cx"))
    answer = run_command(["qd-simulate", *GRID, "store.path=a.zarr", word], returncode=2)
    assert re.search(message, answer.stderr), answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    assert not (tmp_path / "a.zarr").exists()
