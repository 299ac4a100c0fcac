"""Variants: what is read from YAML, what is refused and how."""

import pickle
from pathlib import Path

import pytest
import yaml

from hpc.structure.material import Material, load_material
from hpc.structure.variant import GROUPS, Disorder, Lattice, Shape, Surface, Variant

CONF = Path(__file__).resolve().parents[2] / "conf"
PBS = load_material("pbs")
WURTZITE = {
    "name": "CdS",
    "space_group": "P 63 m c",
    "cell_angstrom": [4.13, 4.13, 6.71, 90, 90, 120],
    "sites": {
        "Cd": {"element": "Cd", "position": [1 / 3, 2 / 3, 0], "occupancy": 1, "b_iso": 1},
        "S": {"element": "S", "position": [1 / 3, 2 / 3, 0.375], "occupancy": 1, "b_iso": 1},
    },
}


def read(**groups):
    return Variant.from_config({"material": PBS, "shape": "sphere", **groups})


def test_what_is_left_out_is_neutral():
    assert read() == Variant(material=PBS, shape=Shape(name="sphere"))
    assert read(surface=None, lattice={}) == read()
    assert read().to_mapping() == {"material": "PbS", "shape": {"name": "sphere"}}
    assert read().centres == ("Pb", "S")


def test_some_keys_of_a_group_are_enough():
    variant = read(
        shape={"name": "rod", "aspect": 2, "axis": [1, 1, 0], "centres": ["Pb", "bond", [0, 0, 0.25]]},
        surface={"site": "S", "neighbours": 4},
        lattice={"alpha_deg": 89.6, "displacement": {"Pb": [0.1, 0, 0]}},
        disorder={"vacancies": {"S": 0.1}},
    )
    assert variant.shape == Shape(
        name="rod", aspect=2.0, axis=(1.0, 1.0, 0.0), centres=("Pb", "bond", (0.0, 0.0, 0.25))
    )
    assert variant.surface == Surface(site="S", neighbours=4)
    assert variant.lattice == Lattice(alpha_deg=89.6, displacement={"Pb": (0.1, 0.0, 0.0)})
    assert variant.disorder == Disorder(vacancies={"S": 0.1})
    # What is stored is plain YAML, and reads back.
    mapping = variant.to_mapping()
    assert mapping["lattice"] == {"alpha_deg": 89.6, "displacement": {"Pb": [0.1, 0.0, 0.0]}}
    assert Variant.from_config(yaml.safe_load(yaml.safe_dump(mapping))) == variant


def test_variants_are_compared_hashed_and_sent_by_value():
    one, same = (read(lattice={"displacement": {"Pb": [0, 0, shift]}}) for shift in (0.1, 0.1))
    other = read(lattice={"displacement": {"Pb": [0, 0, 0.2]}})
    assert {one, same, other} == {one, other}
    assert hash(one) == hash(same)
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_may_be_named_by_its_file(group):
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    for name in names:
        by_name = read(**{group: name})
        content = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
        assert by_name == read(**{group: content})
    with pytest.raises(ValueError, match=f"{group} must be one of .*, got 'banana'"):
        read(**{group: "banana"})


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"surfaces": {}}, r"a variant has the keys .*, got \['surfaces'\]"),
        ({"shape": {"aspect": 2}}, "shape.name is missing"),
        ({"shape": {"name": "cube", "size": 2}}, r"shape has the keys .*, got \['shape.size'\]"),
        ({"shape": {"name": "banana"}}, "shape.name must be one of .*, got 'banana'"),
        ({"shape": {"name": "cube", "aspect": 2}}, "shape.aspect: a cube has no aspect"),
        ({"shape": {"name": "cube", "axis": [1, 1, 0]}}, "shape.axis: a cube has no axis"),
        ({"shape": {"name": "rod", "thickness_nm": 1}}, "shape.thickness_nm: a rod has no fixed"),
        ({"shape": {"name": "platelet", "thickness_nm": 1, "aspect": 1}}, "exclude each other"),
        ({"shape": {"name": "rod", "axis": [0, 0, 0]}}, "shape.axis must be a direction"),
        ({"shape": {"name": "rod", "axis": [0, 1]}}, "shape.axis must be a list of 3 numbers"),
        ({"shape": {"name": "rod", "aspect": "long"}}, "shape.aspect must be a finite number, got 'long'"),
        ({"shape": {"name": "rod", "aspect": 0}}, "shape.aspect must lie in 0.02 to 50, got 0"),
        ({"shape": {"name": "sphere", "centres": []}}, "shape.centres must be a list with at least one"),
        ({"shape": {"name": "sphere", "centres": "Pb"}}, "shape.centres must be a list"),
        ({"shape": {"name": "sphere", "centres": ["Zn"]}}, r"a site of PbS \['Pb', 'S'\], one of .*'bond'"),
        ({"shape": {"name": "sphere", "centres": [[0, 1]]}}, r"shape.centres\[0\] must be a list of 3"),
        ({"surface": {"site": "Zn", "neighbours": 4}}, r"surface.site: PbS has the sites .*, got \['Zn'\]"),
        ({"surface": {"site": "S"}}, "surface.site and surface.neighbours belong together"),
        ({"surface": {"neighbours": 3}}, "surface.site and surface.neighbours belong together"),
        ({"surface": {"site": "S", "neighbours": 2.5}}, "surface.neighbours must be a whole number"),
        (
            {"surface": {"site": "S", "neighbours": 6, "occupancy": 1.5}},
            "surface.occupancy must lie in 0 to 1",
        ),
        ({"surface": {"site": 7, "neighbours": 6}}, "surface.site must be a site label"),
        ({"lattice": {"alpha_deg": 12}}, "lattice.alpha_deg must lie in 60 to 120, got 12"),
        ({"lattice": {"alpha_deg": 120}}, "lattice.alpha_deg must be below 120"),
        ({"lattice": {"alpha_deg": True}}, "lattice.alpha_deg must be a finite number, got True"),
        ({"lattice": {"strain": [0.1] * 5}}, "lattice.strain must be a list of 6 numbers"),
        ({"lattice": {"strain": [0, 0, 0, 0, 0, 0.5]}}, r"lattice.strain\[5\] must lie in -0.2 to 0.2"),
        ({"lattice": {"displacement": {"Zn": [0, 0, 0]}}}, r"lattice.displacement: PbS has .*\['Zn'\]"),
        ({"lattice": {"displacement": {"Pb": 0.1}}}, "lattice.displacement.Pb must be a list of 3"),
        ({"lattice": {"displacement": [0.1]}}, "lattice.displacement must be a mapping"),
        ({"lattice": {"size_strain": [0.1]}}, "lattice.size_strain must be a list of 2"),
        ({"lattice": 3}, "lattice must be a mapping of keys to values or the name of a file, got 3"),
        ({"faults": {"growth": 1.1}}, "faults.growth must lie in 0 to 1"),
        ({"faults": {"deformation": float("nan")}}, "faults.deformation must be a finite number"),
        ({"faults": {"planes": -1}}, "faults.planes must be a whole number in 0 to 100"),
        ({"faults": {"plane": "screw"}}, "faults.plane must be one of"),
        ({"faults": {"facets": 9}}, "faults.facets must be a whole number in 0 to 8"),
        ({"disorder": {"decay": 0}}, "disorder.decay must lie in 0.01 to 1000"),
        ({"disorder": {"core": -0.1}}, "disorder.core must lie in 0 to 2"),
        ({"disorder": {"vacancies": {"S": 1.2}}}, "disorder.vacancies.S must lie in 0 to 1"),
        ({"disorder": {"vacancies": {"S": 1}}}, "disorder.vacancies.S must be below 1"),
        ({"disorder": {"vacancies": {"Zn": 0.1}}}, "disorder.vacancies: PbS has the sites"),
        ({"coating": {"material": "banana", "thickness_nm": 1}}, "coating.material must be one of"),
        ({"coating": {"material": "pbs"}}, "coating.material and coating.thickness_nm belong together"),
        ({"coating": {"thickness_nm": 1}}, "coating.material and coating.thickness_nm belong together"),
        ({"coating": {"relaxed": "yes"}}, "coating.relaxed must be true or false, got 'yes'"),
    ],
)
def test_what_nobody_can_mean_is_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        read(**groups)


def test_a_variant_needs_a_material_and_a_shape():
    with pytest.raises(ValueError, match=r"a variant needs \['shape'\]"):
        Variant.from_config({"material": "pbs"})
    with pytest.raises(ValueError, match=r"a variant needs \['material'\]"):
        Variant.from_config({"shape": "sphere", "material": None})


def test_a_rhombohedral_angle_is_for_cubic_cells():
    wurtzite = Material.from_config(WURTZITE)
    shape = Shape(name="sphere")
    assert Variant(material=wurtzite, shape=shape, lattice=Lattice(strain=(0.1, 0, 0, 0, 0, 0)))
    with pytest.raises(ValueError, match="lattice.alpha_deg deforms cubic cells"):
        Variant(material=wurtzite, shape=shape, lattice=Lattice(alpha_deg=89.0))
