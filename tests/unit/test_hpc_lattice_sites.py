"""Materials and the sites of nested particles."""

from dataclasses import replace

import numpy as np
import pytest

from hpc.structure.lattice_sites import cut_nested_sites
from hpc.structure.material import Kind, Material, load_material, material_names
from hpc.structure.shapes import SHAPES
from hpc.structure.sites import cut_sites, shells
from hpc.structure.variant import Shape, Surface, Variant

PBS = load_material("pbs")
CELL = 5.936


def cut(centre="Pb", diameter=20.0, material=PBS):
    return cut_nested_sites(material, shape="sphere", centre=centre, diameter_max=diameter)


def test_a_material_is_found_by_name_in_any_case():
    assert "pbs" in material_names()
    assert load_material("PbS") == load_material("pbs") == PBS
    assert PBS.labels == ("Pb", "S")
    assert PBS.cell_angstrom[0] == CELL


def test_an_unknown_material_names_those_there_are():
    with pytest.raises(ValueError, match=r"must be one of \[.*'pbs'.*\], got 'unobtainium'"):
        load_material("unobtainium")


def test_b_iso_is_replaced_by_label_or_for_all():
    assert [kind.b_iso for kind in PBS.with_b_iso({"S": 0.7}).kinds] == [PBS.kinds[0].b_iso, 0.7]
    assert [kind.b_iso for kind in PBS.with_b_iso(0.0).kinds] == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"sites \['Pb', 'S'\], got \['Se'\]"):
        PBS.with_b_iso({"Se": 1.0})
    with pytest.raises(ValueError, match=r"b_iso of site S must be >= 0"):
        PBS.with_b_iso({"S": -1.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"occupancy": 0.0}, "occupancy of site Pb"),
        ({"occupancy": 1.01}, "occupancy of site Pb"),
        ({"occupancy": float("nan")}, "occupancy of site Pb"),
        ({"b_iso": -0.1}, "b_iso of site Pb"),
        ({"b_iso": float("inf")}, "b_iso of site Pb"),
    ],
)
def test_an_impossible_site_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PBS.kinds[0], **change)


def test_a_material_file_that_lacks_a_key_says_which():
    with pytest.raises(ValueError, match="'space_group' is missing"):
        Material.from_config({"name": "X", "cell_angstrom": [4] * 3 + [90] * 3, "sites": {}})
    with pytest.raises(ValueError, match="'b_iso' is missing"):
        Material.from_config(
            {"name": "X", "sites": {"Pb": {"element": "Pb", "position": [0, 0, 0], "occupancy": 1}}}
        )
    for position in ((0.0, 0.0), (0.0, 0.0, float("nan"))):
        with pytest.raises(ValueError, match="three fractional coordinates"):
            replace(PBS, positions=(position, (0.5, 0.5, 0.5)))
    with pytest.raises(ValueError, match="no sites"):
        replace(PBS, kinds=())
    with pytest.raises(ValueError, match="six positive numbers"):
        replace(PBS, cell_angstrom=(5.9, 5.9, 5.9))


@pytest.mark.parametrize(
    ("change", "centre", "message"),
    [
        ({"cell_angstrom": (5.9, 5.9, 6.0, 90.0, 90.0, 90.0)}, "Pb", "cubic"),
        ({"cell_angstrom": (5.9, 5.9, 5.9, 90.0, 90.0, 89.0)}, "Pb", "cubic"),
        ({"space_group": "F m x"}, "Pb", "space_group"),
        ({}, "Zn", r"site of PbS \['Pb', 'S'\]"),
        ({}, (0.1, 0.2), "three fractional coordinates"),
        ({}, (0.123456, 0.0, 0.0), "rational"),
    ],
)
def test_what_the_one_pass_engine_cannot_do_is_refused(change, centre, message):
    with pytest.raises(ValueError, match=message):
        cut(centre, material=replace(PBS, **change))


@pytest.mark.parametrize("diameter", [0.0, -1.0, float("nan"), float("inf")])
def test_the_largest_diameter_must_be_positive(diameter):
    with pytest.raises(ValueError, match="diameter_max must be > 0"):
        cut(diameter=diameter)


def test_an_unknown_shape_and_an_empty_particle_are_refused():
    with pytest.raises(ValueError, match=r"shape.name must be one of \['cube', .*\], got 'banana'"):
        cut_nested_sites(PBS, shape="banana", centre="Pb", diameter_max=20)
    with pytest.raises(ValueError, match="holds no site"):
        cut((0.25, 0.25, 0.25), diameter=2.0)


def test_the_first_shells_of_rocksalt():
    sites = cut("Pb")
    np.testing.assert_allclose(
        sites.diameter[:4], CELL * np.array([0, 1, np.sqrt(2), np.sqrt(3)]), rtol=1e-12
    )
    # around Pb: itself, 6 S, 12 Pb, 8 S
    assert sites.atoms[:4].tolist() == [[1, 0], [0, 6], [12, 0], [0, 8]]


@pytest.mark.parametrize("centre", ["Pb", "S", (0.25, 0, 0), (0.25, 0.25, 0.25), (0.05, 0.2, 0.1)])
def test_every_site_inside_is_there_once_and_nothing_else(centre):
    diameter = 21.0
    sites = cut(centre, diameter)
    # Independent: all points of the half-cell grid, even sum Pb, odd sum S.
    origin = (
        {"Pb": (0, 0, 0), "S": (0.5, 0.5, 0.5)}.get(centre, centre) if isinstance(centre, str) else centre
    )
    grid = np.stack(np.meshgrid(*[np.arange(-10, 11)] * 3, indexing="ij"), -1).reshape(-1, 3)
    position = CELL * (grid / 2 - np.array(origin))
    inside = np.linalg.norm(position, axis=1) <= diameter / 2
    for kind in range(2):
        expected = position[inside & (grid.sum(axis=1) % 2 == kind)]
        begin, end = sites.offset[kind, 0], sites.offset[kind, -1]
        found = sites.position[begin:end] * sites.unit
        assert len(found) == len(expected)
        order = [np.lexsort(np.rint(points * 1e6).T) for points in (found, expected)]
        np.testing.assert_allclose(found[order[0]], expected[order[1]], atol=1e-9)


def test_a_smaller_particle_is_the_beginning_of_each_kind():
    large = cut("S", 30.0)
    for shell in (1, 3, 11, len(large.diameter) - 2):
        small = cut("S", large.diameter[shell])
        np.testing.assert_allclose(small.diameter, large.diameter[: shell + 1])
        for kind in range(2):
            ours = large.position[large.offset[kind, 0] : large.offset[kind, shell + 1]]
            theirs = small.position[small.offset[kind, 0] : small.offset[kind, -1]]
            assert {tuple(h) for h in ours} == {tuple(h) for h in theirs}


def test_a_site_on_the_surface_belongs_to_the_particle():
    exact = CELL * np.sqrt(18)  # a full shell lies here; its square root is rounded
    assert len(cut(diameter=exact).position) > len(cut(diameter=exact * (1 - 1e-6)).position)
    assert len(cut(diameter=exact).position) == len(cut(diameter=exact * (1 + 1e-6)).position)


@pytest.mark.parametrize(
    ("centre", "order"), [("Pb", 48), ((0.25, 0, 0), 8), ((0.25, 0.25, 0.25), 24), ((0.05, 0.2, 0.1), 1)]
)
def test_orbits_cover_every_site_once(centre, order):
    sites = cut(centre, 24.0)
    assert sites.weight.sum() == len(sites.position)
    assert sites.weight.max() == order
    assert np.all(order % sites.weight == 0)
    assert np.all(np.diff(sites.rep_shell) >= 0)
    # Orbits keep kind and shell, so that their weights count the sites of every shell and kind.
    counted = np.zeros_like(sites.atoms)
    np.add.at(counted, (sites.rep_shell, sites.rep_kind), sites.weight)
    np.testing.assert_array_equal(counted, sites.atoms)


def test_a_third_kind_and_a_finer_cell():
    fluorite = Material(
        name="CaF2",
        space_group="F m -3 m",
        cell_angstrom=(5.46, 5.46, 5.46, 90.0, 90.0, 90.0),
        kinds=(
            Kind(label="Ca", element="Ca", occupancy=1, b_iso=0.5),
            Kind(label="F", element="F", occupancy=1, b_iso=0.7),
        ),
        positions=(
            (0, 0, 0),
            (0.25, 0.25, 0.25),
        ),
    )
    sites = cut("Ca", 12.0, fluorite)
    assert sites.unit == pytest.approx(5.46 / 4)
    # around Ca: itself, 8 F at a√3/4, 12 Ca at a/√2
    assert sites.atoms[:3].tolist() == [[1, 0], [0, 8], [12, 0]]


SURFACES = {
    "plain": Surface(),
    "Pb outside": Surface(site="S", neighbours=6),
    "skin": Surface(site="S", neighbours=4, occupancy=0.25),
}


@pytest.mark.parametrize("centre", ["Pb", "bond", (0.05, 0.2, 0.1)])
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_and_surface_is_what_the_general_cut_gives(shape, surface, centre):
    variant = Variant(material=PBS, shape=Shape(name=shape), surface=SURFACES[surface])
    sites = cut_nested_sites(
        PBS, shape=variant.shape, surface=variant.surface, centre=centre, diameter_max=24.0
    )
    general = cut_sites(variant, centre=centre, diameter_max=24.0)
    diameter, shell = shells(general.gauge)
    np.testing.assert_allclose(sites.diameter, diameter, atol=1e-9)
    assert len(sites.offset) == len(general.kinds)
    entering = np.zeros_like(sites.atoms)
    np.add.at(entering, (shell, general.kind), 1)
    np.testing.assert_array_equal(sites.atoms, entering)

    def rows(kind, shell, position):
        table = np.column_stack((kind, shell, np.rint(position * 1e6)))
        return table[np.lexsort(table.T)]

    n_kind, n_shell = sites.offset.shape[0], len(diameter)
    kind = np.repeat(np.arange(n_kind), np.diff(sites.offset[:, [0, -1]], axis=1)[:, 0])
    own_shell = np.concatenate([np.repeat(np.arange(n_shell), np.diff(row)) for row in sites.offset])
    np.testing.assert_allclose(
        rows(kind, own_shell, sites.position * sites.unit),
        rows(general.kind, shell, general.position),
        atol=1.5,
    )


@pytest.mark.parametrize(
    ("shape", "order"),
    [
        (Shape(name="cube"), 48),
        (Shape(name="truncated_octahedron"), 48),
        (Shape(name="ellipsoid", aspect=2.0), 16),
        (Shape(name="rod", axis=(1.0, 0.0, 0.0)), 16),
        (Shape(name="ellipsoid", aspect=0.5, axis=(1.0, 1.0, 1.0)), 12),
        (Shape(name="rod", axis=(1.0, 1.0, 0.0)), 8),
        (Shape(name="ellipsoid", axis=(1.0, 2.0, 4.0)), 2),
        (Shape(name="platelet", thickness_nm=1.0), 16),
    ],
)
@pytest.mark.parametrize("surface", SURFACES)
def test_the_symmetry_that_a_shape_leaves(shape, order, surface):
    sites = cut_nested_sites(PBS, shape=shape, surface=SURFACES[surface], centre="Pb", diameter_max=30.0)
    assert sites.weight.max() == order
    counted = np.zeros_like(sites.atoms)
    np.add.at(counted, (sites.rep_shell, sites.rep_kind), sites.weight)
    np.testing.assert_array_equal(counted, sites.atoms)


def test_merged_shells_keep_every_site_and_the_exact_particles():
    shape = Shape(name="ellipsoid", aspect=1.7, axis=(1.0, 2.0, 3.0))
    fine = cut_nested_sites(PBS, shape=shape, centre="Pb", diameter_max=30.0)
    exact = 22.22
    coarse = cut_nested_sites(PBS, shape=shape, centre="Pb", diameter_max=30.0, size_step=0.5, exact=[exact])
    assert len(fine.diameter) > 150
    assert len(coarse.diameter) < 65
    np.testing.assert_array_equal(coarse.atoms.sum(axis=0), fine.atoms.sum(axis=0))

    def atoms(sites, diameter):
        return sites.atoms[sites.diameter <= diameter * (1 + 1e-9)].sum(axis=0)

    for diameter in (exact, 30.0):
        np.testing.assert_array_equal(atoms(coarse, diameter), atoms(fine, diameter))
    # Everything else moves by half a step at most.
    for diameter in (10.0, 17.3, 29.0):
        assert np.all(atoms(fine, diameter - 0.25) <= atoms(coarse, diameter))
        assert np.all(atoms(coarse, diameter) <= atoms(fine, diameter + 0.25))


def test_a_step_that_is_no_length_is_refused():
    with pytest.raises(ValueError, match="size_step must be > 0"):
        cut_nested_sites(PBS, shape="rod", centre="Pb", diameter_max=20.0, size_step=0.0)
