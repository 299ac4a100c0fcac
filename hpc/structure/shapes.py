"""Shapes: nested families of bodies, each one formula that says how large the body must be to hold a point.

A *gauge* maps a point to the smallest diameter D of the particle that contains it, where D is the diameter of the ball
of equal volume. A homogeneous body {x : s(x) <= 1} has the gauge D(x) = D₁ s(x), with D₁ the diameter of the ball that
has the body's volume; particles around one centre are then nested, and D³ counts their atoms, whatever the shape. A
platelet of fixed thickness t is the exception: it grows sideways only, D(x) = (6 t w(x)²/π)^⅓ with the width w, and
holds nothing beyond ±t/2.

Faces lie in cartesian axes (x along a, z along c*): {100} and {111} are crystal faces in cubic cells only. An `axis`
[uvw] is a direction of the crystal: u a + v b + w c, the cell's vectors in cartesian axes, also in a cell that is
not cubic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from hpc.structure.variant import Shape

__all__ = ["SHAPES", "Form", "Gauge", "gauge", "reach"]

#: (site, 3) float64 [Å] relative to the centre -> (site,) float64 [Å], smallest D that contains the point.
Gauge = Callable[[np.ndarray], np.ndarray]

_ROOT_3 = float(np.sqrt(3))


class _Body(NamedTuple):
    """The body {x : size(x) <= 1} of a homogeneous family, lengths in any one unit."""

    size: Gauge
    ball: float
    """Diameter of the ball of equal volume."""
    reach: float
    """Largest distance of its points from the centre."""


def _ball_of(volume: float) -> float:
    return float(np.cbrt(6 * volume / np.pi))


def _square(position: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", position, position)


def _sphere(aspect: float, frame: np.ndarray) -> _Body:
    return _Body(lambda x: np.sqrt(_square(x)), 2.0, 1.0)


def _cube(aspect: float, frame: np.ndarray) -> _Body:
    return _Body(lambda x: np.abs(x).max(axis=1), _ball_of(8.0), _ROOT_3)


def _octahedron(aspect: float, frame: np.ndarray) -> _Body:
    return _Body(lambda x: np.abs(x).sum(axis=1), _ball_of(4 / 3), 1.0)


def _truncated_octahedron(aspect: float, frame: np.ndarray) -> _Body:
    """{111} faces at distance 1 (|x|+|y|+|z| <= √3) and {100} faces at distance `aspect`."""
    k, tip = aspect, _ROOT_3
    if k >= tip:
        return _Body(lambda x: np.abs(x).sum(axis=1) / tip, _ball_of(4 / 3 * tip**3), tip)
    if k <= tip / 3:
        return _Body(lambda x: np.abs(x).max(axis=1) / k, _ball_of(8 * k**3), _ROOT_3 * k)
    if k >= tip / 2:
        # The octahedron less six square pyramids of height √3 - k; corners (k, √3 - k, 0).
        volume, corner = 4 / 3 * tip**3 - 4 * (tip - k) ** 3, np.hypot(k, tip - k)
    else:
        # The cube less eight tetrahedra with three right-angled edges 3k - √3; corners (k, k, √3 - 2k).
        volume, corner = 8 * k**3 - 4 / 3 * (3 * k - tip) ** 3, np.sqrt(2 * k**2 + (tip - 2 * k) ** 2)

    def size(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        return np.maximum(x.max(axis=1) / k, x.sum(axis=1) / tip)

    return _Body(size, _ball_of(volume), float(corner))


def _ellipsoid(aspect: float, frame: np.ndarray) -> _Body:
    """Semi-axes 1, 1 and, along the axis, `aspect`."""
    flattening = 1 - aspect**-2
    return _Body(
        # Along a long axis rounding can leave a difference of -1e-16.
        lambda x: np.sqrt(np.maximum(_square(x) - flattening * (x @ frame[2]) ** 2, 0.0)),
        2 * float(np.cbrt(aspect)),
        max(1.0, aspect),
    )


def _rod(aspect: float, frame: np.ndarray) -> _Body:
    """A cylinder of radius 1 and half-length `aspect`."""

    def size(x: np.ndarray) -> np.ndarray:
        x = x @ frame.T
        return np.maximum(np.hypot(x[:, 0], x[:, 1]), np.abs(x[:, 2]) / aspect)

    return _Body(size, _ball_of(2 * np.pi * aspect), float(np.hypot(1, aspect)))


def _platelet(aspect: float, frame: np.ndarray) -> _Body:
    """A square prism of half-edges 1, 1 and, along the axis, `aspect`."""
    return _Body(
        lambda x: (np.abs(x @ frame.T) / [1, 1, aspect]).max(axis=1),
        _ball_of(8 * aspect),
        float(np.sqrt(2 + aspect**2)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One family of bodies and the parameters it knows."""

    body: Callable[[float, np.ndarray], _Body]
    """(aspect, frame) -> the body; rows of the frame are its axes, the named one last."""
    aspect: float | None = None
    """Aspect when none is given; None for a shape without this parameter."""
    axis: bool = False
    """Whether it has a named axis."""
    thickness: bool = False
    """Whether its thickness may be fixed."""


#: Name -> family. The aspect of truncated octahedra is the distance of the {100} faces over that of the {111} faces:
#: √3 and more is the octahedron, 2/√3 has equal edges, √3/2 is the cuboctahedron, 1/√3 and less the cube. Of the others
#: it is the length along the axis over the width across: an ellipsoid below 1 is oblate, a platelet's width its edge.
SHAPES: dict[str, Form] = {
    "sphere": Form(body=_sphere),
    "cube": Form(body=_cube),
    "octahedron": Form(body=_octahedron),
    "truncated_octahedron": Form(body=_truncated_octahedron, aspect=2 / _ROOT_3),
    "cuboctahedron": Form(body=_truncated_octahedron, aspect=_ROOT_3 / 2),
    "ellipsoid": Form(body=_ellipsoid, aspect=1.5, axis=True),
    "rod": Form(body=_rod, aspect=3.0, axis=True),
    "platelet": Form(body=_platelet, aspect=0.25, axis=True, thickness=True),
}


def _frame(shape: Shape, cell: np.ndarray | None) -> np.ndarray:
    """(3, 3) rows: two sides and the axis of the body, cartesian unit vectors.

    The first side is what is left, across the axis, of the cartesian axis that lies least along it: a platelet
    around [001] has edges along [100] and [010], one around [110] has them along [001] and [1-10].
    """
    direction = np.asarray(shape.axis, dtype=float)
    axis = direction if cell is None else direction @ cell
    axis = axis / np.linalg.norm(axis)
    # Rounded, so that the last bit does not choose between axes that lie equally far.
    first = np.eye(3)[np.argmin(np.round(np.abs(axis), 9))]
    side = first - (first @ axis) * axis
    side /= np.linalg.norm(side)
    return np.stack((side, np.cross(axis, side), axis))


def _body(shape: Shape, cell: np.ndarray | None) -> _Body:
    form = SHAPES[shape.name]
    aspect = form.aspect if shape.aspect is None else shape.aspect
    return form.body(1.0 if aspect is None else aspect, _frame(shape, cell))


def gauge(shape: Shape, cell: np.ndarray | None = None) -> Gauge:
    """The gauge function of a shape.

    Args:
        shape: name and parameters.
        cell: (3, 3) float64 [Å], rows a, b, c: turns `shape.axis` cartesian; None for a cubic cell.

    Returns:
        A function of (site, 3) float64 positions [Å] relative to the centre: (site,) float64 [Å], the smallest
        diameter of the particle that contains each, inf for what no particle contains.
    """
    if shape.thickness_nm is not None:
        return _slab_gauge(10 * shape.thickness_nm, _frame(shape, cell))
    body = _body(shape, cell)
    return lambda position: body.ball * body.size(position)


def _slab_gauge(thickness: float, frame: np.ndarray) -> Gauge:
    """A square prism of fixed thickness [Å]."""

    def of(position: np.ndarray) -> np.ndarray:
        x = np.abs(position @ frame.T)
        width = 2 * x[:, :2].max(axis=1)
        # A site that touches the face belongs to the platelet, whatever the last bit says.
        within = x[:, 2] <= thickness / 2 * (1 + 1e-9)
        return np.where(within, np.cbrt(6 * thickness * width**2 / np.pi), np.inf)

    return of


def reach(shape: Shape, diameter: float) -> float:
    """Largest distance [Å] from the centre of any point of the body of that diameter [Å]."""
    if shape.thickness_nm is not None:
        thickness = 10 * shape.thickness_nm
        width2 = np.pi * diameter**3 / (6 * thickness)
        return float(np.sqrt(width2 / 2 + thickness**2 / 4))
    body = _body(shape, None)
    return diameter * body.reach / body.ball
