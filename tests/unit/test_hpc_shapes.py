"""Gauge functions: homogeneous, nested, and D is the diameter of the ball of equal volume."""

import numpy as np
import pytest

from hpc.structure.shapes import SHAPES, gauge, reach
from hpc.structure.variant import Shape

ROOT_3 = np.sqrt(3)
FORMS = [
    *(Shape(name=name) for name in SHAPES),
    *(Shape(name="truncated_octahedron", aspect=k) for k in (0.5, 0.6, 0.75, 0.95, 1.6, 1.8)),
    Shape(name="ellipsoid", aspect=0.4, axis=(1.0, 1.0, 1.0)),
    Shape(name="rod", aspect=0.5, axis=(1.0, 1.0, 0.0)),
    Shape(name="platelet", aspect=0.1, axis=(1.0, 2.0, 3.0)),
]
SLABS = [Shape(name="platelet", thickness_nm=1.2), Shape(name="platelet", thickness_nm=0.9, axis=(0, 1, 1))]


def named(shape):
    return f"{shape.name} {shape.aspect or shape.thickness_nm} {shape.axis}"


def directions(n=20_000):
    """Points spread evenly over the unit sphere."""
    i = np.arange(n) + 0.5
    z, phi = 1 - 2 * i / n, np.pi * (1 + np.sqrt(5)) * i
    return np.stack((np.sqrt(1 - z**2) * np.cos(phi), np.sqrt(1 - z**2) * np.sin(phi), z), axis=1)


@pytest.mark.parametrize("shape", FORMS, ids=named)
def test_a_body_of_diameter_d_has_the_volume_of_the_ball(shape):
    """The radius along u is D / g(u), so the volume is the mean of its cube over directions times 4π/3."""
    volume = 4 / 3 * np.pi * np.mean((1 / gauge(shape)(directions())) ** 3)
    assert volume == pytest.approx(np.pi / 6, rel=2e-3)


@pytest.mark.parametrize("shape", FORMS, ids=named)
def test_a_gauge_is_homogeneous_and_even(shape):
    of, points = gauge(shape), 17 * directions(500)
    np.testing.assert_allclose(of(2.5 * points), 2.5 * of(points), rtol=1e-12)
    np.testing.assert_allclose(of(-points), of(points), rtol=1e-12)
    assert of(np.zeros((1, 3))) == 0


@pytest.mark.parametrize("shape", FORMS, ids=named)
def test_a_gauge_is_convex(shape):
    """So that smaller particles lie within larger ones."""
    of, points = gauge(shape), directions(1000)
    middle = (points + points[::-1] + 0.1) / 2
    assert np.all(of(middle) <= (of(points) + of(points[::-1] + 0.1)) / 2 + 1e-12)


@pytest.mark.parametrize("shape", [*FORMS, *SLABS], ids=named)
def test_reach_is_the_distance_of_the_farthest_point(shape):
    radius = np.linspace(0.01, 1.001, 300)[:, None, None] * reach(shape, 30.0)
    points = (radius * directions(4000)).reshape(-1, 3)
    inside = gauge(shape)(points) <= 30.0
    farthest = np.linalg.norm(points[inside], axis=1).max()
    assert 0.93 * reach(shape, 30.0) < farthest <= reach(shape, 30.0) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("aspect", "same"),
    [
        (ROOT_3, "octahedron"),
        (3.0, "octahedron"),
        (1 / ROOT_3, "cube"),
        (0.1, "cube"),
        (ROOT_3 / 2, "cuboctahedron"),
    ],
)
def test_the_family_of_truncated_octahedra_goes_from_cube_to_octahedron(aspect, same):
    points = directions(500)
    np.testing.assert_allclose(
        gauge(Shape(name="truncated_octahedron", aspect=aspect))(points),
        gauge(Shape(name=same))(points),
        rtol=1e-9,
    )


def test_the_regular_truncated_octahedron_has_edges_of_equal_length():
    """Its corners are all permutations of (0, 1, 2): circumradius √5, edge √2, volume 32."""
    of = gauge(Shape(name="truncated_octahedron"))
    corners = np.array([(0, 1, 2), (-2, 0, 1), (1, 2, 0.0)])
    diameter = np.cbrt(6 * 32 / np.pi)
    np.testing.assert_allclose(of(corners), diameter, rtol=1e-12)
    assert reach(Shape(name="truncated_octahedron"), diameter) == pytest.approx(np.sqrt(5), rel=1e-12)


@pytest.mark.parametrize("name", ["ellipsoid", "rod", "platelet"])
@pytest.mark.parametrize("axis", [(0, 0, 1), (1, 1, 0), (1, -2, 3)])
def test_aspect_is_length_along_the_axis_over_width_across(name, axis):
    of = gauge(Shape(name=name, aspect=2.5, axis=axis))
    along = np.array(axis) / np.linalg.norm(axis)
    # The sides of a platelet: as documented, from the cartesian axis that lies least along it.
    side = np.eye(3)[np.argmin(np.abs(along))]
    side = side - side @ along * along
    across = side / np.linalg.norm(side)
    assert of(across[None])[0] / of(along[None])[0] == pytest.approx(2.5, rel=1e-12)


def test_an_axis_is_a_direction_of_the_crystal():
    hexagonal = np.array([[4.0, 0, 0], [-2.0, 2 * ROOT_3, 0], [0, 0, 6.5]])
    shape = Shape(name="rod", aspect=3.0, axis=(1.0, 2.0, 0.0))  # a + 2b is along y
    np.testing.assert_allclose(
        gauge(shape, hexagonal)(directions(100)),
        gauge(Shape(name="rod", aspect=3.0, axis=(0.0, 1.0, 0.0)))(directions(100)),
        rtol=1e-9,
    )


def test_a_platelet_of_fixed_thickness_grows_sideways_only():
    of = gauge(Shape(name="platelet", thickness_nm=1.0))
    assert of(np.array([[0, 0, 5.0]]))[0] == 0
    assert np.isinf(of(np.array([[0, 0, 5.01]]))[0])
    # 40 Å wide, 10 Å thick.
    diameter = np.cbrt(6 * 40**2 * 10 / np.pi)
    np.testing.assert_allclose(of(np.array([[20.0, 3, 0], [-7, 20.0, -4]])), diameter, rtol=1e-12)


def test_the_sphere_is_twice_the_distance_to_the_last_bit():
    points = 31.7 * directions(2000)
    np.testing.assert_array_equal(
        gauge(Shape(name="sphere"))(points), 2 * np.sqrt(np.einsum("ij,ij->i", points, points))
    )
