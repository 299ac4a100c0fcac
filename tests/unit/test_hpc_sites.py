"""Sites of any crystal: centres, surfaces, deformation, steps of size."""

from dataclasses import replace

import numpy as np
import pytest

from hpc.structure.crystal import cell_vectors, lattice_blocks, nearest_neighbours
from hpc.structure.faults import Stacking
from hpc.structure.material import Material, equivalent_positions, load_material
from hpc.structure.shapes import SHAPES
from hpc.structure.sites import cut_sites, deformation, dot_kinds, find_centre, merge_sizes, shells
from hpc.structure.variant import Disorder, Faults, Lattice, Shape, Surface, Variant

PBS = load_material("pbs")
CELL = 5.936


def material(name, group, cell, sites):
    return Material.from_config(
        {
            "name": name,
            "space_group": group,
            "cell_angstrom": cell,
            "sites": {
                label: {"element": element, "position": position, "occupancy": 1, "b_iso": 1}
                for label, (element, position) in sites.items()
            },
        }
    )


WURTZITE = material(
    "CdS",
    "P 63 m c",
    [4.13, 4.13, 6.71, 90, 90, 120],
    {"Cd": ("Cd", [1 / 3, 2 / 3, 0]), "S": ("S", [1 / 3, 2 / 3, 0.375])},
)
BLENDE = material("ZnS", "F -4 3 m", [5.41] * 3 + [90] * 3, {"Zn": ("Zn", [0, 0, 0]), "S": ("S", [0.25] * 3)})
TRICLINIC = material(
    "X", "P 1", [4, 5, 6, 75, 85, 100], {"A": ("Pb", [0.1, 0.2, 0.3]), "B": ("S", [0.6, 0.6, 0.7])}
)
GOLD = material("Au", "F m -3 m", [4.08] * 3 + [90] * 3, {"Au": ("Au", [0, 0, 0])})
FLUORITE = material(
    "CaF2", "F m -3 m", [5.46] * 3 + [90] * 3, {"Ca": ("Ca", [0, 0, 0]), "F": ("F", [0.25] * 3)}
)
CATIONS_OUTSIDE = Surface(site="S", neighbours=6)


def variant(of=PBS, shape="sphere", **groups):
    return Variant(material=of, shape=Shape(name=shape) if isinstance(shape, str) else shape, **groups)


def rounded(positions, digits=6):
    """Points as a set; 0.0 turns -0.0 into 0.0."""
    return {tuple(point) for point in np.round(positions, digits) + 0.0}


def test_cell_vectors_have_the_lengths_and_angles_of_the_cell():
    for of in (PBS, WURTZITE, TRICLINIC):
        vectors = cell_vectors(of)
        lengths = np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose(lengths, of.cell_angstrom[:3], rtol=1e-12)
        cosines = (vectors @ vectors.T) / np.outer(lengths, lengths)
        angles = np.degrees(np.arccos([cosines[1, 2], cosines[0, 2], cosines[0, 1]]))
        np.testing.assert_allclose(angles, of.cell_angstrom[3:], rtol=1e-12)
        assert np.all(vectors[np.triu_indices(3, 1)] == 0)
    with pytest.raises(ValueError, match="no cell has the angles"):
        cell_vectors(replace(PBS, cell_angstrom=(4.0, 4.0, 4.0, 60.0, 60.0, 150.0)))


@pytest.mark.parametrize("of", [PBS, WURTZITE, TRICLINIC])
def test_blocks_of_cells_cover_the_ball(of):
    cell, radius = cell_vectors(of), 21.0
    blocks = np.concatenate(list(lattice_blocks(cell, radius)))
    wide = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    # A point of a cell less a point of cell (0, 0, 0): both corners of either.
    corners = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    near = (np.linalg.norm((wide + corners) @ cell, axis=-1) <= radius).any(axis=0)
    assert near.sum() > 100
    assert {tuple(h) for h in wide[near]} <= {tuple(h) for h in blocks}


@pytest.mark.parametrize(
    ("of", "centre", "expected"),
    [
        (PBS, "S", (0.5, 0.5, 0.5)),
        (PBS, "bond", (0.25, 0, 0)),
        (PBS, "cell", (0.25, 0.25, 0.25)),
        (PBS, (1.25, -0.5, 0), (0.25, 0.5, 0)),
        (BLENDE, "bond", (0.125, 0.125, 0.125)),
        (BLENDE, "cell", (0, 0, 0.5)),
        (GOLD, "bond", (0.25, 0.25, 0)),
        (GOLD, "cell", (0, 0, 0.5)),
    ],
)
def test_centres(of, centre, expected):
    np.testing.assert_allclose(find_centre(of, centre), expected, atol=1e-6)


def test_the_bond_of_wurtzite_is_its_shortest():
    middle = find_centre(WURTZITE, "bond")
    cell = cell_vectors(WURTZITE)
    blocks = np.concatenate(list(lattice_blocks(cell, 10.0)))
    distances = []
    for images in equivalent_positions(WURTZITE):
        vectors = ((blocks[:, None] + images - middle) @ cell).reshape(-1, 3)
        distances.append(np.linalg.norm(vectors, axis=1).min())
    shortest = np.linalg.norm(nearest_neighbours(WURTZITE, "Cd")[0], axis=1).min()
    np.testing.assert_allclose(distances, shortest / 2, atol=1e-4)


@pytest.mark.parametrize("centre", ["Zn", (0.1, 0.2), (0.1, 0.2, float("nan"))])
def test_an_impossible_centre_is_refused(centre):
    with pytest.raises(ValueError, match=r"centre must be a site"):
        cut_sites(variant(), centre=centre, diameter_max=20.0)


@pytest.mark.parametrize("diameter", [0.0, -1.0, float("nan"), float("inf")])
def test_the_largest_diameter_must_be_positive(diameter):
    with pytest.raises(ValueError, match="diameter_max must be > 0"):
        cut_sites(variant(), centre="Pb", diameter_max=diameter)


def test_an_empty_particle_is_refused():
    with pytest.raises(ValueError, match="holds no site"):
        cut_sites(variant(), centre="cell", diameter_max=2.0)
    with pytest.raises(ValueError, match="holds no site"):
        cut_sites(variant(surface=CATIONS_OUTSIDE), centre="S", diameter_max=2.0)


@pytest.mark.parametrize(
    ("of", "label", "n", "distance"),
    [
        (PBS, "S", 6, CELL / 2),
        (BLENDE, "Zn", 4, 5.41 * np.sqrt(3) / 4),
        (WURTZITE, "S", 4, 2.52),
        (GOLD, "Au", 12, 2.885),
    ],
)
def test_nearest_neighbours(of, label, n, distance):
    for vectors in nearest_neighbours(of, label):
        assert len(vectors) == n
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), distance, rtol=0.01)


@pytest.mark.parametrize("of", [WURTZITE, TRICLINIC])
@pytest.mark.parametrize("centre", [0, "bond", (0.3, 0.8, 0.1)])
def test_a_crystal_that_is_not_cubic_is_cut_site_by_site(of, centre):
    centre = of.labels[0] if centre == 0 else centre
    sites = cut_sites(variant(of), centre=centre, diameter_max=22.0)
    cell = cell_vectors(of)
    wide = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    for kind, images in enumerate(equivalent_positions(of)):
        expected = ((wide + images - find_centre(of, centre)) @ cell).reshape(-1, 3)
        expected = expected[np.linalg.norm(expected, axis=1) <= 11.0]
        found = sites.position[sites.kind == kind]
        assert len(found) == len(expected)
        distance = np.linalg.norm(found[:, None] - expected[None], axis=-1)
        assert distance.min(axis=1).max() < 1e-9
    np.testing.assert_allclose(sites.gauge, 2 * np.linalg.norm(sites.position, axis=1), atol=1e-9)
    assert sites.weight.tolist() == [[1.0]]
    assert not sites.group.any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("of", "neighbours"), [(PBS, 4), (PBS, 6), (WURTZITE, 3), (WURTZITE, 4)])
def test_every_site_that_is_kept_has_its_neighbours(of, shape, neighbours):
    """By counting, in the particles of several sizes, the cations around every anion and every anion left out."""
    surface = Surface(site="S", neighbours=neighbours)
    treated = cut_sites(variant(of, shape, surface=surface), centre="S", diameter_max=26.0)
    plain = cut_sites(variant(of, shape), centre="S", diameter_max=26.0)
    bond = 1.2 * np.linalg.norm(nearest_neighbours(of, "S")[0], axis=1).min()
    removed = 0
    for diameter in (14.0, 20.0, 26.0):
        cations = plain.position[(plain.kind == 0) & (plain.gauge <= diameter)]
        anions = plain.position[(plain.kind == 1) & (plain.gauge <= diameter)]
        count = (np.linalg.norm(anions[:, None] - cations[None], axis=-1) <= bond).sum(axis=1)
        expected = anions[count >= neighbours]
        removed += len(anions) - len(expected)
        kept = treated.position[(treated.kind == 1) & (treated.gauge <= diameter)]
        assert rounded(kept) == rounded(expected)
        assert ((treated.kind == 0) & (treated.gauge <= diameter)).sum() == len(cations)
    # A cube of rocksalt has three neighbours at its corners, four at its edges.
    assert removed > 0


def test_a_partly_occupied_skin_adds_up():
    surface = Surface(site="S", neighbours=6, occupancy=0.25)
    dot = variant(surface=surface, disorder=Disorder(vacancies={"S": 0.2}))
    kinds = dot_kinds(dot)
    assert [kind.label for kind in kinds] == ["Pb", "S", "S skin"]
    assert [kind.element for kind in kinds] == ["Pb", "S", "S"]
    assert [kind.occupancy for kind in kinds] == pytest.approx([1, 0.8 * 0.75, 0.8 * 0.25])
    sites = cut_sites(dot, centre="Pb", diameter_max=30.0)
    removed = cut_sites(variant(surface=CATIONS_OUTSIDE), centre="Pb", diameter_max=30.0)
    plain = cut_sites(variant(), centre="Pb", diameter_max=30.0)
    assert sites.kinds == kinds
    for kind, twin, of in ((1, removed, 1), (2, plain, 1), (0, plain, 0)):
        np.testing.assert_allclose(sites.gauge[sites.kind == kind], twin.gauge[twin.kind == of], rtol=1e-12)
    # The core lies on skin positions: amplitudes there add up to the occupancy of the site.
    core, skin = (sites.position[sites.kind == kind] for kind in (1, 2))
    assert rounded(core) < rounded(skin)


@pytest.mark.parametrize(
    ("surface", "kinds"),
    [(Surface(site="S", neighbours=6, occupancy=1.0), 2), (CATIONS_OUTSIDE, 2), (Surface(), 2)],
)
def test_a_skin_that_is_full_or_empty_is_no_kind(surface, kinds):
    dot = variant(surface=surface)
    assert dot_kinds(dot) == PBS.kinds
    assert len(cut_sites(dot, centre="Pb", diameter_max=20.0).kinds) == kinds


def test_a_full_skin_is_the_plain_cut():
    full = cut_sites(
        variant(surface=Surface(site="S", neighbours=6, occupancy=1.0)), centre="S", diameter_max=25.0
    )
    plain = cut_sites(variant(), centre="S", diameter_max=25.0)
    np.testing.assert_array_equal(full.position, plain.position)
    np.testing.assert_array_equal(full.gauge, plain.gauge)


def test_more_neighbours_than_there_are_is_refused():
    with pytest.raises(ValueError, match="a site S of PbS has 6 nearest neighbours of other kinds, got 7"):
        cut_sites(variant(surface=Surface(site="S", neighbours=7)), centre="S", diameter_max=20.0)


@pytest.mark.parametrize("alpha", [89.6, 61.0, 105.0])
def test_a_rhombohedral_cell_keeps_its_edges_and_has_the_angle(alpha):
    edges = deformation(Lattice(alpha_deg=alpha)) @ (CELL * np.eye(3))
    lengths = np.linalg.norm(edges, axis=0)
    np.testing.assert_allclose(lengths, CELL, rtol=1e-12)
    cosines = (edges.T @ edges)[np.triu_indices(3, 1)] / CELL**2
    np.testing.assert_allclose(np.degrees(np.arccos(cosines)), alpha, rtol=1e-12)


def test_89_6_degrees_are_0_7_percent_along_111():
    diagonal = deformation(Lattice(alpha_deg=89.6)) @ np.ones(3)
    assert np.linalg.norm(diagonal) / np.sqrt(3) - 1 == pytest.approx(0.007, abs=1e-4)
    np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-12)
    assert np.array_equal(deformation(Lattice()), np.eye(3))


def test_a_strain_tensor_stretches_and_shears():
    strain = deformation(Lattice(strain=(0.01, -0.02, 0.03, 0.004, 0.005, 0.006)))
    np.testing.assert_allclose(np.diag(strain), [1.01, 0.98, 1.03], rtol=1e-12)
    assert (strain[1, 2], strain[0, 2], strain[0, 1]) == pytest.approx((0.004, 0.005, 0.006))
    np.testing.assert_array_equal(strain, strain.T)


def test_deformation_moves_sites_but_not_their_gauge():
    lattice = Lattice(alpha_deg=89.0, strain=(0, 0, 0.01, 0, 0, 0.002), displacement={"Pb": (0.1, 0.0, -0.2)})
    deformed = cut_sites(variant(lattice=lattice), centre="S", diameter_max=25.0)
    plain = cut_sites(variant(), centre="S", diameter_max=25.0)
    np.testing.assert_array_equal(deformed.gauge, plain.gauge)
    shift = np.where((plain.kind == 0)[:, None], [0.1, 0.0, -0.2], 0.0)
    np.testing.assert_allclose(deformed.position, plain.position @ deformation(lattice).T + shift, atol=1e-12)


def test_a_skin_moves_with_its_core():
    surface = Surface(site="S", neighbours=6, occupancy=0.5)
    lattice = Lattice(displacement={"S": (0.0, 0.3, 0.0)})
    sites = cut_sites(variant(surface=surface, lattice=lattice), centre="Pb", diameter_max=20.0)
    plain = cut_sites(variant(surface=surface), centre="Pb", diameter_max=20.0)
    np.testing.assert_allclose(
        sites.position - plain.position, np.where((plain.kind > 0)[:, None], [0, 0.3, 0], 0), atol=1e-12
    )


def test_faulted_crystals_come_with_the_probability_of_every_site():
    sites = cut_sites(variant(shape="cube", faults=Faults(deformation=0.05)), centre="Pb", diameter_max=25.0)
    assert len(sites.weight) == len(sites.weight.T) > sites.group.max()
    existing = np.bincount(sites.kind, np.diag(sites.weight)[sites.group])
    plain = cut_sites(variant(shape="cube"), centre="Pb", diameter_max=25.0)
    np.testing.assert_allclose(existing, np.bincount(plain.kind), rtol=0.05)
    # Almost without faults one stacking is left of all candidates.
    few = cut_sites(variant(shape="cube", faults=Faults(growth=1e-12)), centre="Pb", diameter_max=25.0)
    sure = np.diag(few.weight)[few.group] > 0.5
    assert rounded(few.position[sure], 4) == rounded(plain.position, 4)


@pytest.mark.parametrize("of", [PBS, FLUORITE])
@pytest.mark.parametrize("occupancy", [0.0, 0.5])
def test_the_surface_of_one_stacking(of, occupancy):
    """The perfect stacking gives the plain crystal; in any other, kept sites have their neighbours."""
    label = of.labels[1]
    dot = variant(of, surface=Surface(site=label, neighbours=4, occupancy=occupancy))
    perfect = Stacking(step=np.ones(60, np.int8))
    stacked = cut_sites(dot, centre=of.labels[0], diameter_max=24.0, stacking=perfect)
    plain = cut_sites(dot, centre=of.labels[0], diameter_max=24.0)
    for kind in range(len(plain.kinds)):
        assert rounded(stacked.position[stacked.kind == kind]) == rounded(plain.position[plain.kind == kind])
    faulted = Stacking(step=np.where(np.arange(60) % 3 == 2, -1, 1).astype(np.int8))
    sites = cut_sites(dot, centre=of.labels[0], diameter_max=24.0, stacking=faulted)
    cations, core = (sites.position[sites.kind == kind] for kind in range(2))
    bond = 1.2 * np.linalg.norm(nearest_neighbours(of, label)[0], axis=1).min()
    count = (np.linalg.norm(core[:, None] - cations[None], axis=-1) <= bond).sum(axis=1)
    assert count.min() == 4
    assert rounded(core) != rounded(plain.position[plain.kind == 1])


def test_the_surface_of_the_mean_over_stackings_is_refused():
    dot = variant(surface=CATIONS_OUTSIDE, faults=Faults(growth=0.1))
    with pytest.raises(ValueError, match="surface.site and faults: .* no mean over all of them"):
        cut_sites(dot, centre="Pb", diameter_max=20.0)


def test_shells_are_gauge_values_up_to_rounding():
    diameter, shell = shells(np.array([3.0, 1.0, 3.0 + 1e-12, 2.0, 1.0 - 1e-13]))
    np.testing.assert_allclose(diameter, [1, 2, 3], atol=1e-9)
    assert shell.tolist() == [2, 0, 2, 1, 0]


def test_rounded_sizes_stay_on_their_side_of_exact_diameters():
    size = np.sort(np.random.default_rng(1).uniform(0, 40, 5000))
    exact = (12.34, 12.38, 30.0)
    rounded = merge_sizes(size, 0.1, exact=exact)
    for diameter in exact:
        np.testing.assert_array_equal(size <= diameter, rounded <= diameter)
    assert np.all(np.diff(rounded) >= 0)
    off = np.abs(rounded - size)
    assert off.max() <= 0.1
    assert np.mean(off > 0.05) < 0.01
    np.testing.assert_allclose(merge_sizes(size, 0.1), 0.1 * np.rint(size / 0.1))
