"""Fault planes of single dots."""

from itertools import count

import numpy as np
import pytest
from scipy.spatial import cKDTree

from hpc.structure.faults import AXES, Stacking, frame_layer, stacked_sites
from hpc.structure.material import Material, load_material
from hpc.structure.planes import add_plane, facet_shifts, single_planes
from hpc.structure.variant import Faults

PBS = load_material("pbs")
PERFECT = Stacking(step=np.ones(12, dtype=np.int8))


def crystal(space_group, anion):
    return Material(
        name="test",
        space_group=space_group,
        cell_angstrom=(5.8, 5.8, 5.8, 90, 90, 90),
        kinds=PBS.kinds,
        positions=((0, 0, 0), anion),
    )


CRYSTALS = {
    "rocksalt": PBS,
    "zinc blende": crystal("F -4 3 m", (0.25, 0.25, 0.25)),
    "fluorite": crystal("F m -3 m", (0.25, 0.25, 0.25)),
}


def letters(stacking):
    return "".join("ABC"[c] for c in stacking.lateral)


@pytest.mark.parametrize(
    ("plane", "layer", "expected"),
    [
        ("deformation", 2, "ABCABCABCBCAB"),
        ("deformation", -2, "CABCACABCABCA"),
        # All but the central step reversed: A to B, turned by 180°.
        ("deformation", 0, "ACBACBABACBAC"),
        ("twin", 2, "ABCABCABCBACB"),
        ("twin", 1, "ABCABCABACBAC"),
        ("twin", 0, "ACBACBABCABCA"),
        ("twin", -2, "CBACBCABCABCA"),
    ],
)
def test_a_plane_changes_the_sequence(plane, layer, expected):
    faulted = add_plane(PERFECT, plane, layer)
    # Letters count from the layer at the centre, the seventh.
    shift = "ABC".index(expected[6])
    assert letters(faulted) == "".join("ABC"[("ABC".index(x) - shift) % 3] for x in expected)
    assert faulted.step[6] == 1
    assert np.all(PERFECT.step == 1)


@pytest.mark.parametrize("layer", [-3, 0, 1, 2])
def test_a_twin_plane_of_rocksalt_is_a_mirror(layer):
    stacking = add_plane(Stacking(step=np.ones(20, dtype=np.int8)), "twin", layer)
    sites = stacked_sites(PBS, Faults(), np.zeros(3), 22.0, stacking=stacking)
    height = sites.position.sum(axis=1) / 5.936 - layer
    mirrored = sites.position - 2 * np.outer(height, np.ones(3)) * 5.936 / 3
    inner = np.linalg.norm(mirrored, axis=1) < 21
    apart, index = cKDTree(sites.position).query(mirrored[inner])
    assert inner.sum() > 500
    assert apart.max() < 1e-9
    np.testing.assert_array_equal(sites.kind[index], sites.kind[inner])


@pytest.mark.parametrize(("plane", "places"), [("deformation", range(-3, 3)), ("twin", range(-2, 3))])
def test_each_place_is_equally_likely(plane, places):
    """One draw from the middle of each of as many equal parts as there are places."""
    faults = Faults(planes=1, plane=plane)
    n = len(places)
    drawn = [single_planes(PERFECT, faults, (-3, 3), lambda i=i: (i + 0.5) / n).step for i in range(n)]
    expected = [add_plane(PERFECT, plane, layer).step for layer in places]
    np.testing.assert_array_equal(drawn, expected)


def test_planes_of_one_dot_differ():
    numbers = iter([0.0, 0.0, 0.0])
    faulted = single_planes(PERFECT, Faults(planes=3, plane="deformation"), (-3, 3), lambda: next(numbers))
    expected = PERFECT
    for layer in (-3, -2, -1):
        expected = add_plane(expected, "deformation", layer)
    np.testing.assert_array_equal(faulted.step, expected.step)


def test_a_thin_dot_gets_the_planes_that_fit():
    draws = count()

    def uniform():
        next(draws)
        return 0.5

    two_layers = single_planes(PERFECT, Faults(planes=5, plane="deformation"), (0, 1), uniform)
    np.testing.assert_array_equal(two_layers.step, add_plane(PERFECT, "deformation", 0).step)
    np.testing.assert_array_equal(
        single_planes(PERFECT, Faults(planes=5, plane="twin"), (0, 1), uniform).step, 1
    )
    assert next(draws) == 1


def moved_facet(sites, shift):
    """Axis and side of the one facet that moved: where its sites are."""
    along = sites.position[np.any(shift != 0, axis=1)].mean(axis=0) @ AXES.T
    axis = int(np.argmax(np.abs(along)))
    return axis, int(np.sign(along[axis]))


@pytest.mark.parametrize("bilayers", [1, 2])
@pytest.mark.parametrize("name", CRYSTALS)
def test_a_facet_is_the_end_of_a_crystal_with_a_deformation_plane(name, bilayers):
    material, middle, reach = CRYSTALS[name], np.array([0.05, 0.1, 0.15]), 15.0
    sites = stacked_sites(material, Faults(), middle, reach)
    faults = Faults(facets=1, bilayers=bilayers)
    seen = set()
    for seed in range(40):
        shift = facet_shifts(material, faults, middle, sites.position, np.random.default_rng(seed))
        facet = axis, side = moved_facet(sites, shift)
        if facet in seen:
            continue
        seen.add(facet)
        normal = AXES[axis] * side / np.sqrt(3)
        # The same length for all that moves: a/6 <112>, across the normal.
        length = np.linalg.norm(shift, axis=1)
        np.testing.assert_allclose(length[length > 0], material.cell_angstrom[0] / np.sqrt(6))
        np.testing.assert_allclose(shift @ normal, 0, atol=1e-12)
        layer = frame_layer(material, middle, sites.position[sites.kind == 0], axis=axis)
        plane = layer.max() - bilayers if side > 0 else layer.min() + bilayers - 1
        stacking = add_plane(Stacking(step=np.ones(24, dtype=np.int8), axis=axis), "deformation", int(plane))
        faulted = stacked_sites(material, Faults(), middle, reach + 3, stacking=stacking)
        apart, index = cKDTree(faulted.position).query(sites.position + shift)
        assert apart.max() < 1e-9
        np.testing.assert_array_equal(faulted.kind[index], sites.kind)
    assert len(seen) == 8


def test_a_facet_moves_inwards_as_one_piece():
    sites = stacked_sites(PBS, Faults(), np.zeros(3), 15.0)
    flat = facet_shifts(PBS, Faults(facets=1), np.zeros(3), sites.position, np.random.default_rng(3))
    faults = Faults(facets=1, inward=0.3)
    shift = facet_shifts(PBS, faults, np.zeros(3), sites.position, np.random.default_rng(3))
    axis, side = moved_facet(sites, flat)
    inwards = (shift - flat)[np.any(flat != 0, axis=1)]
    np.testing.assert_allclose(inwards, np.tile(-0.3 * side * AXES[axis] / np.sqrt(3), (len(inwards), 1)))
    assert not np.any((shift - flat)[np.all(flat == 0, axis=1)])


def test_no_facet_no_shift_and_eight_are_all():
    sites = stacked_sites(PBS, Faults(), np.zeros(3), 20.0)
    shift = facet_shifts(PBS, Faults(), np.zeros(3), sites.position, np.random.default_rng(0))
    assert not np.any(shift)
    shift = facet_shifts(PBS, Faults(facets=8), np.zeros(3), sites.position, np.random.default_rng(0))
    outermost = sites.position @ AXES.T
    for axis, side in [(axis, side) for axis in range(4) for side in (1, -1)]:
        top = np.argmax(np.where(sites.kind == 0, side * outermost[:, axis], -np.inf))
        assert np.any(shift[top] != 0)
