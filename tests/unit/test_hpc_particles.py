"""Particles one by one: what each ingredient does to the sites of the perfect cut, and that chance repeats itself."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from hpc.structure.material import Kind, Material, load_material
from hpc.structure.particles import build_particle, is_nested, is_random, particle_kinds
from hpc.structure.sites import cut_sites, deformation
from hpc.structure.variant import Variant

A = 5.936  # cell of PbS [Å]


def variant(material="pbs", shape="sphere", **groups):
    return Variant.from_config({"material": material, "shape": shape, **groups})


def build(settings, diameter=24.0, *, centre="Pb", seed=3, **which):
    return build_particle(settings, centre=centre, diameter=diameter, seed=seed, **which)


def assert_same(first, second):
    assert first[0] == second[0]
    for one, other in zip(first[1], second[1], strict=True):
        np.testing.assert_array_equal(one, other)


def gauge_of(position):
    return 2 * np.linalg.norm(position, axis=1)


EVERYTHING = {
    "faults": {"planes": 2, "deformation": 0.05, "growth": 0.02},
    "surface": {"site": "S", "neighbours": 4, "occupancy": 0.5},
    "lattice": {"alpha_deg": 89.6, "displacement": {"Pb": [0.03, 0.02, 0.01]}},
    "disorder": {"relaxation": -0.1, "core": 0.03, "surface": 0.06, "vacancies": {"S": 0.1}},
    "coating": {"material": "pbse", "thickness_nm": 0.3},
}


@pytest.mark.parametrize("centre", ["Pb", "S", "bond", (0.1, 0.2, 0.3)])
@pytest.mark.parametrize(
    "groups",
    [
        {},
        {
            "lattice": {
                "alpha_deg": 89.6,
                "strain": [0.01, 0, 0, 0, 0, 0.002],
                "displacement": {"Pb": [0.05] * 3},
            }
        },
        {"surface": {"site": "S", "neighbours": 4}},
        {"disorder": {"vacancies": {"S": 0.1}}},
        # Off: every number that would do something is zero.
        {"disorder": {"relaxation": 0.0, "decay": 7.0, "core": 0.0, "surface": 0.0, "depth": 8.0}},
        {"faults": {"planes": 0, "facets": 0, "bilayers": 3, "inward": 0.4}},
    ],
)
def test_without_ingredients_it_is_the_cut_bit_for_bit(groups, centre):
    settings = variant(**groups)
    sites = cut_sites(settings, centre=centre, diameter_max=24.0)
    kinds, positions = build(settings, centre=centre)
    assert kinds == sites.kinds
    for index, position in enumerate(positions):
        np.testing.assert_array_equal(position, sites.position[sites.kind == index])


def test_the_same_numbers_give_the_same_particle_in_any_order():
    settings = variant(**EVERYTHING)
    first = build(settings, realisation=1, realisations=3)
    for seed, realisation, diameter in ((4, 1, 24.0), (3, 2, 24.0), (3, 1, 25.0)):
        other = build(settings, diameter, seed=seed, realisation=realisation, realisations=3)
        assert not all(np.array_equal(x, y) for x, y in zip(first[1], other[1], strict=True))
    assert_same(first, build(settings, realisation=1, realisations=3))
    # 1e-7 Å is the same diameter to the generators.
    shifted = build(variant(disorder={"core": 0.1}), 24.0 + 1e-8)
    assert_same(build(variant(disorder={"core": 0.1})), shifted)


def test_one_ingredient_leaves_the_draws_of_the_others():
    plain, relaxed = variant(disorder={"core": 0.1}), variant(disorder={"core": 0.1, "relaxation": 0.2})
    perfect = build(variant())
    radially = build(variant(disorder={"relaxation": 0.2}))
    for index in range(2):
        moved = build(plain)[1][index] - perfect[1][index]
        np.testing.assert_allclose(build(relaxed)[1][index] - radially[1][index], moved, atol=1e-12)


@pytest.mark.parametrize(
    ("groups", "nested", "random"),
    [
        ({}, True, False),
        ({"faults": {"deformation": 0.02}}, True, True),
        ({"faults": {"growth": 0.02}}, True, True),
        ({"faults": {"planes": 1}}, False, True),
        ({"faults": {"facets": 1}}, False, True),
        ({"disorder": {"relaxation": 0.1}}, False, False),
        ({"disorder": {"core": 0.1}}, False, True),
        ({"disorder": {"surface": 0.1}}, False, True),
        ({"disorder": {"vacancies": {"S": 0.1}}}, True, False),
        ({"surface": {"site": "S", "neighbours": 4}}, True, False),
        ({"surface": {"site": "S", "neighbours": 4}, "faults": {"growth": 0.02}}, False, True),
        ({"lattice": {"alpha_deg": 89.6, "size_strain": [0, 0.01]}}, True, False),
        ({"coating": {"material": "pbse", "thickness_nm": 0.3}}, False, False),
    ],
)
def test_what_is_nested_and_what_is_random(groups, nested, random):
    settings = variant(**groups)
    assert is_nested(settings) is nested
    assert is_random(settings) is random


def test_stratified_planes_cover_all_heights_and_axes():
    """16 realisations of a dot of 16 places for a deformation plane: each {111} four times, each height once."""
    settings, n = variant(faults={"planes": 1, "plane": "deformation"}), 16
    # Heights of the 17 lead layers of a ball around lead: ±8 times a/√3.
    diameter = 2 * 8.5 * A / np.sqrt(3)
    perfect = np.concatenate(build(variant(), diameter)[1])
    axes, heights = [], []
    for realisation in range(n):
        _, positions = build(settings, diameter, realisation=realisation, realisations=n)
        found = cKDTree(perfect).query(positions[0])[0] > 1e-6
        displaced = positions[0][found]
        diagonals = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
        layer = displaced @ diagonals.T / A
        # Along the right axis layers stay layers, and all of a half are displaced.
        (axis,) = np.flatnonzero(np.abs(layer - np.rint(layer)).max(axis=0) < 1e-6)
        axes.append(axis)
        whole = np.unique(np.rint(layer[:, axis]).astype(int))
        heights.append(whole.max() if whole.max() < 8 else whole.min() - 1 if whole.min() > 0 else 0)
    np.testing.assert_array_equal(np.bincount(axes), 4)
    np.testing.assert_array_equal(np.sort(heights), np.arange(-8, 8))


def test_planes_with_a_surface_count_the_real_neighbours():
    """Lead surface of a stacked crystal: every sulfur keeps its six lead atoms, whatever the stacking."""
    settings = variant(
        faults={"planes": 3, "deformation": 0.2, "growth": 0.2},
        surface={"site": "S", "neighbours": 6},
    )
    for seed in range(4):
        _, (lead, sulfur) = build(settings, seed=seed)
        distance = np.linalg.norm(sulfur[:, None] - lead, axis=2)
        np.testing.assert_array_equal((distance < A / 2 + 0.01).sum(axis=1), 6)
        # And none is missing that has them: at the octahedral holes of the lead.
        full = build(replace(settings, surface=variant().surface), seed=seed)[1]
        inside = (np.linalg.norm(full[1][:, None] - full[0], axis=2) < A / 2 + 0.01).sum(axis=1) == 6
        assert len(sulfur) == inside.sum()


def test_partly_occupied_skin_is_one_scatterer_per_site():
    settings = variant(
        surface={"site": "S", "neighbours": 5, "occupancy": 0.25}, disorder={"vacancies": {"S": 0.2}}
    )
    kinds, positions = build(settings)
    assert [kind.label for kind in kinds] == ["Pb", "S", "S skin"]
    np.testing.assert_allclose([kind.occupancy for kind in kinds], [1, 0.8, 0.2])
    full = build(variant())[1]
    everything = np.concatenate(positions[1:])
    assert len(everything) == len(full[1]) == len(np.unique(np.round(everything, 6), axis=0))
    neighbours = (np.linalg.norm(full[1][:, None] - full[0], axis=2) < A / 2 + 0.01).sum(axis=1)
    assert len(positions[2]) == (neighbours < 5).sum() > 0


def test_relaxation_is_radial_and_decays_with_depth():
    perfect = build(variant())[1]
    relaxed = build(variant(disorder={"relaxation": -0.15, "decay": 1.7}))[1]
    for before, after in zip(perfect, relaxed, strict=True):
        r = np.linalg.norm(before, axis=1)
        expected = np.where(r > 0, r - 0.15 * np.exp(-(12.0 - r) / 1.7), 0)
        np.testing.assert_allclose(after, before * (expected / np.where(r > 0, r, 1))[:, None], atol=1e-12)


def test_displacements_have_the_asked_size_in_core_and_surface():
    disorder = {"core": 0.05, "surface": 0.12, "depth": 4.0}
    perfect, moved = (
        np.concatenate(build(variant(**groups), 60.0)[1]) for groups in ({}, {"disorder": disorder})
    )
    shift = moved - perfect
    near = 30.0 - np.linalg.norm(perfect, axis=1) <= 4.0
    for part, rms in ((near, 0.12), (~near, 0.05)):
        # 3 n numbers: the root mean square is known to 1/√(6 n), here 1 %; 4 standard errors.
        n = part.sum()
        assert np.sqrt(np.mean(shift[part] ** 2)) == pytest.approx(rms, rel=4 / np.sqrt(6 * n))
        assert np.abs(shift[part].mean(axis=0)).max() < 4 * rms / np.sqrt(n)
    # A surface that is quieter than the core stays as the core is.
    quiet = np.concatenate(build(variant(disorder={"core": 0.05, "surface": 0.01}), 60.0)[1])
    assert np.sqrt(np.mean((quiet - perfect)[near] ** 2)) == pytest.approx(0.05, rel=0.05)


def test_facets_keep_the_atoms():
    perfect = build(variant(), 50.0)[1]
    faulted = build(variant(faults={"facets": 1, "bilayers": 2, "inward": 0.3}), 50.0)[1]
    moved = [np.any(x != y, axis=1) for x, y in zip(perfect, faulted, strict=True)]
    # The example of conf/faults/facet_layer.yaml: about 5 % of the atoms of a dot of 5 nm.
    assert np.concatenate(moved).mean() == pytest.approx(0.05, abs=0.003)
    assert sum(map(len, faulted)) == sum(map(len, perfect))
    for before, after, which in zip(perfect, faulted, moved, strict=True):
        np.testing.assert_allclose(
            np.linalg.norm(after[which] - before[which], axis=1), np.hypot(A / np.sqrt(6), 0.3)
        )


def test_a_coating_takes_the_outer_sites():
    settings = variant("pbse", coating={"material": "pbs", "thickness_nm": 0.5, "relaxed": False})
    kinds, positions = build(settings, 40.0)
    assert [(kind.label, kind.element) for kind in kinds] == [
        ("Pb", "Pb"),
        ("Se", "Se"),
        ("Pb (PbS)", "Pb"),
        ("S (PbS)", "S"),
    ]
    assert [kind.b_iso for kind in kinds] == [1.35, 1.05, 1.28, 1.25]
    perfect = build(variant("pbse"), 40.0)[1]
    for index in range(2):
        inner = gauge_of(perfect[index]) <= 30.0
        np.testing.assert_array_equal(positions[index], perfect[index][inner])
        np.testing.assert_array_equal(positions[index + 2], perfect[index][~inner])


def test_the_misfit_of_a_coating_relaxes():
    """Strains of the core and of thin and thick shells, as `hpc.structure.elasticity` has them."""

    def stretch(thickness_nm, diameter=40.0):
        settings = variant("pbse", coating={"material": "pbs", "thickness_nm": thickness_nm})
        _, positions = build(settings, diameter)
        perfect = build(variant("pbse"), diameter)[1]
        merged = [np.concatenate(positions[index::2]) for index in range(2)]
        return [
            np.linalg.norm(after[1:], axis=1).sum() / np.linalg.norm(before[1:], axis=1).sum() - 1
            for before, after in zip(perfect, merged, strict=True)
        ], positions

    misfit = A / 6.124 - 1
    core = stretch(0.5)[1][0]
    nearest = np.sort(np.linalg.norm(core, axis=1))[1] / (6.124 / np.sqrt(2)) - 1
    gamma = 1.29 / (3 * 0.71)
    assert nearest == pytest.approx(misfit * (1 - gamma) * (1 - (15 / 20) ** 3), rel=1e-9)
    assert misfit < stretch(0.5)[0][0] < 0
    # All shell: the dot is PbS, of as many cells.
    np.testing.assert_allclose(stretch(2.5)[0], misfit, rtol=1e-9)
    assert [len(p) for p in stretch(2.5)[1][:2]] == [0, 0]


def test_a_coating_of_the_same_material_changes_nothing_but_labels():
    coated = build(variant(coating={"material": "pbs", "thickness_nm": 0.5}))
    perfect = build(variant())
    for index in range(2):
        both = np.concatenate((coated[1][index], coated[1][index + 2]))
        np.testing.assert_array_equal(both, perfect[1][index])
    assert [kind.element for kind in coated[0]] == ["Pb", "S"] * 2


def test_kinds_of_a_coated_dot_with_a_skin_and_vacancies():
    kinds = particle_kinds(variant(**EVERYTHING))
    assert [kind.label for kind in kinds] == ["Pb", "S", "S skin", "Pb (PbSe)", "Se (PbSe)", "Se (PbSe) skin"]
    np.testing.assert_allclose([kind.occupancy for kind in kinds], [1, 0.9, 0.45] * 2)
    built, positions = build(variant(**EVERYTHING))
    assert built == kinds
    assert len(positions) == len(kinds)


def test_everything_at_once_is_deformed_last():
    """Displaced sublattices and the rhombohedral angle act on the relaxed crystal."""
    groups = {"faults": {"planes": 1}, "coating": {"material": "pbse", "thickness_nm": 0.3}}
    lattice = {"alpha_deg": 89.6, "displacement": {"Pb": [0.03, 0.02, 0.01]}}
    before, after = build(variant(**groups)), build(variant(**groups, lattice=lattice))
    f = deformation(variant(lattice=lattice).lattice)
    for index in range(4):
        shift = (0.03, 0.02, 0.01) if index % 2 == 0 else (0, 0, 0)
        np.testing.assert_array_equal(after[1][index], before[1][index] @ f.T + shift)


ZINC_BLENDE = Material(
    name="zinc blende",
    space_group="F -4 3 m",
    cell_angstrom=(5.8, 5.8, 5.8, 90, 90, 90),
    kinds=load_material("pbs").kinds,
    positions=((0, 0, 0), (0.25, 0.25, 0.25)),
)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (variant(faults={"facets": 1, "planes": 1}), "faults.facets are cut from a perfect crystal"),
        (variant(faults={"facets": 1, "growth": 0.1}), "faults.facets are cut from a perfect crystal"),
        (
            variant(ZINC_BLENDE, coating={"material": "pbs", "thickness_nm": 0.3}),
            r"coating.material must have its sites where zinc blende \(F -4 3 m\) has them, got PbS",
        ),
        (
            variant(shape={"name": "platelet", "thickness_nm": 1.0}, disorder={"relaxation": 0.1}),
            "set shape.aspect instead of shape.thickness_nm",
        ),
        (variant(disorder={"core": 1.5}), r"nearer than 0.5 Å .*; reduce disorder.core = 1.5"),
    ],
)
def test_bad_combinations_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(settings)


def test_two_kinds_at_one_position_are_refused():
    alloy = Material(
        name="alloy",
        space_group="F m -3 m",
        cell_angstrom=(5.9, 5.9, 5.9, 90, 90, 90),
        kinds=tuple(Kind(label=x, element=x, occupancy=0.5, b_iso=0.0) for x in ("Pb", "Sn")),
        positions=((0, 0, 0), (0, 0, 0)),
    )
    with pytest.raises(ValueError, match="sites of alloy share positions"):
        build(variant(alloy, disorder={"relaxation": 0.1}))


@pytest.mark.parametrize("realisation", [-1, 2])
def test_realisations_are_counted_from_zero(realisation):
    with pytest.raises(ValueError, match=f"below realisations = 2, got {realisation}"):
        build(variant(), realisation=realisation, realisations=2)


@pytest.mark.parametrize("choice", ["none", "deformation", "growth", "twin_plane", "facet_layer"])
def test_every_choice_of_faults_builds(choice):
    _, positions = build(variant(faults=choice), 30.0)
    assert sum(map(len, positions)) > 400


@pytest.mark.parametrize("choice", ["none", "relaxed_surface", "disordered", "vacancies"])
def test_every_choice_of_disorder_builds(choice):
    _, positions = build(variant(disorder=choice), 30.0)
    assert sum(map(len, positions)) > 400


@pytest.mark.parametrize("choice", ["none", "pbs_shell"])
def test_every_choice_of_coating_builds(choice):
    _, positions = build(variant("pbse", coating=choice), 30.0)
    assert sum(map(len, positions)) > 400
