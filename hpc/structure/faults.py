"""Stacking faults on {111}: the exact mean over all stackings of a crystal, and single stackings.

Seen along [111] a cubic F crystal is a stack of close-packed layers, each in one of three lateral positions A, B, C.
A step from one layer to the next goes forwards (A → B → C → A) or backwards; the perfect crystal repeats one of them.
Two faults (B. E. Warren, X-ray Diffraction, 1969, chapter 13), independent of each other at every layer:

    deformation (α)   one step goes the wrong way, the next the old one again     ABCABC → ABC|BCABC
    growth (β)        the direction reverses for good, a twin plane               ABCABC → ABC|BACBA

α = β = 0 is the cubic crystal, β = 1 the hexagonal stacking ABAB. The direction, the step and the lateral position form
a Markov chain, so the probability that two layers are in given positions is a product of matrices: no sampling.

**Frame and riders.** The *frame* is the F lattice through the first site of the first kind; its layers are what
is stacked. Every other site sits on a threefold axis in the gap above a frame layer and stays among its neighbours:

    lower   on the axis of the layer below (zinc blende anion: above its cation, three bonds to the next layer)
    upper   on the axis of the layer above (fluorite anions, second half)
    third   on neither axis: the octahedral hole (rocksalt anion), wherever the two layers leave it

So in rocksalt a fault keeps the anions' octahedra whole and turns the cations at the fault plane into trigonal prisms;
listing the anion first in a material makes it the frame. β = 1 gives wurtzite from zinc blende (ideal c/a and u), the
anti-NiAs structure from rocksalt. Faults lie on (111) only: every {111} is the same to a shape of cubic symmetry.

**Candidates.** Every layer is given in every position that it may take. Sites that always come together form a *group*
(frame layer, or holes of a gap, in one lateral position), and `weight[g, h]` is the probability that groups g and h
exist together. Sums over pairs of candidates with these weights are the expectation over all stackings, for every
particle that a gauge cuts out of them: bodies do not know the stacking.

The cut centre lies in a crystal that is perfect across its own gap: the step that spans the centre (or starts from its
layer) goes forwards. A crystal with that step backwards is the same one turned by 180° about [111].

Symbols: a cell edge [Å]; k layer, counted from the one at or below the cut centre; c lateral position 0, 1, 2;
s = ±1 step from layer k to k+1, σ = ±1 the direction it should take.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from hpc.structure.material import Material, equivalent_positions
from hpc.structure.variant import Faults

__all__ = [
    "AXES",
    "FORWARDS",
    "LOWER",
    "THIRD",
    "UPPER",
    "StackedSites",
    "Stacking",
    "check_turn",
    "frame_layer",
    "layer_probabilities",
    "layers_within",
    "places",
    "random_stacking",
    "stacked_sites",
]

#: The rotations (diagonals of matrices) that bring [111] to [111], [1-1-1], [-11-1], [-1-11].
AXES = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])

# In units of the cell edge: the lateral step forwards, and the lattice of one layer.
FORWARDS = np.array([1, 1, -2]) / 6
_IN_PLANE = np.array([[1, -1, 0], [0, 1, -1]]) / 2
# How much later in the sequence A, B, C a rider sits than the layer below it.
LOWER, UPPER, THIRD = 0, 1, 2

#: Rounding of fractional coordinates in files: 1/3 is often 0.3333.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacking:
    """One explicit sequence of layers."""

    step: np.ndarray
    """(2 n,) int8, ±1: step[i] leads from layer i - n to the next; step[n] spans the cut centre and is +1."""
    axis: int = 0
    """Which of `AXES` the layers are stacked along."""

    @property
    def first(self) -> int:
        """Index of the lowest layer."""
        return -(len(self.step) // 2)

    @property
    def lateral(self) -> np.ndarray:
        """(2 n + 1,) int64, lateral position 0, 1, 2 of every layer, with 0 for layer 0."""
        height = np.concatenate(([0], np.cumsum(self.step, dtype=np.int64)))
        return (height - height[-self.first]) % 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedSites:
    """Candidate sites of a faulted crystal."""

    position: np.ndarray
    """(site, 3) float64 [Å], cartesian, relative to the cut centre."""
    kind: np.ndarray
    """(site,) int32, index into the material's kinds."""
    group: np.ndarray
    """(site,) int32."""
    weight: np.ndarray
    """(group, group) float64: the probability that two groups exist together, on the diagonal that one exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rider:
    """An F lattice of one kind, by where it sits above a layer of the frame."""

    kind: int
    height: float
    """Above the layer, in layer distances, 0 <= height < 1."""
    place: int
    """LOWER, UPPER or THIRD."""


def random_stacking(faults: Faults, n_layers: int, rng: np.random.Generator, *, axis: int = 0) -> Stacking:
    """Draw one stacking from the chain whose mean `layer_probabilities` gives.

    Args:
        faults: deformation and growth probabilities; the rest is not looked at.
        n_layers: layers on either side of the centre, at least 1.
        rng: consumed in a fixed order.
        axis: index into `AXES`.
    """
    # The direction at the centre is what its forward step tells of it: wrong with the probability of a wrong step.
    centre = -1 if rng.random() < faults.deformation else 1
    reversal = np.where(rng.random((2, n_layers)) < faults.growth, -1, 1)
    wrong = np.where(rng.random((2, n_layers)) < faults.deformation, -1, 1)
    step = centre * np.cumprod(reversal, axis=1) * wrong
    below, above = step[0, ::-1], step[1, :-1]
    return Stacking(step=np.concatenate((below, [1], above)).astype(np.int8), axis=axis)


def layer_probabilities(faults: Faults, below: int, above: int) -> np.ndarray:
    """Joint probabilities of the lateral positions of all layers and gaps.

    Args:
        faults: deformation and growth probabilities.
        below: layers below the one at the centre, >= 0.
        above: layers above it, >= 0.

    Returns:
        (layer, 2, 3, layer, 2, 3) float64: that a layer (0) or the octahedral holes of the gap above it (1) are in
        lateral position 0, 1, 2, and so for the other. Layer 0 is in position 0 and the step from it goes forwards.
    """
    alpha, beta = faults.deformation, faults.growth
    state = np.array(list(itertools.product(range(3), (1, -1), (1, -1))))  # lateral position, step, direction
    c, s, direction = state.T
    follows = c[None, :] == (c + s)[:, None] % 3
    keeps = np.where(direction[None, :] == direction[:, None], 1 - beta, beta)
    obeys = np.where(s == direction, 1 - alpha, alpha)
    transition = follows * keeps * obeys[None, :]
    # Layers, then holes: the third position is -(c + c + s) = c - s modulo 3.
    event = np.concatenate([c[:, None] == np.arange(3), (c - s)[:, None] % 3 == np.arange(3)], axis=1)

    known = ((c == 0) & (s == 1)).astype(float)
    layers = range(-below, above + 1)
    here = {k: known if k == 0 else np.ones(len(state)) for k in layers}
    # What is above layer k, given its state. `obeys` is stationary, so the sum over all sequences is that over the
    # states of layer 0 that fit `known`: 1, without normalisation.
    upwards = {above: np.ones(len(state))}
    for k in range(above - 1, -below - 1, -1):
        upwards[k] = transition @ (here[k + 1] * upwards[k + 1])

    joint = np.zeros((6 * len(layers), 6 * len(layers)))
    downwards = obeys * here[-below]
    # One row per event at this layer or below: the weight of every state of this layer that is left with it.
    rows = np.zeros((0, len(state)))
    for i, k in enumerate(layers):
        if i:
            downwards = (downwards @ transition) * here[k]
            rows = (rows @ transition) * here[k]
        rows = np.concatenate((rows, event.T * downwards))
        joint[: len(rows), 6 * i : 6 * i + 6] = rows @ (event * upwards[k][:, None])
    joint = np.triu(joint) + np.triu(joint, 1).T
    return joint.reshape(len(layers), 2, 3, len(layers), 2, 3)


def stacked_sites(
    material: Material,
    faults: Faults,
    middle: np.ndarray,
    reach: float,
    *,
    stacking: Stacking | None = None,
) -> StackedSites:
    """Candidate sites of a crystal with faults on {111}, up to a distance from the cut centre.

    Args:
        material: a cubic crystal made of F lattices on threefold axes.
        faults: deformation and growth probabilities; not looked at when a stacking is given.
        middle: (3,) float64, fractional coordinates of the cut centre.
        reach: largest distance from the centre [Å].
        stacking: one sequence instead of the mean over all; every site then exists, in one group.

    Raises:
        ValueError: the material does not consist of such lattices, or the stacking does not reach far enough.
    """
    a = material.cell_angstrom[0]
    riders = _riders(material)
    axis = stacking.axis if stacking else 0
    if axis:
        check_turn(material, axis)
    turn = AXES[axis]
    # Everything below is along [111]; turning the result about a site of the frame gives the other axes.
    centre = (np.asarray(middle, dtype=float) - material.positions[0]) * turn
    bottom = int(np.floor(centre.sum() + TOLERANCE))
    extent = layers_within(material, reach)
    if stacking and -stacking.first < extent:
        raise ValueError(f"a stacking of {extent} layers on either side is needed, got {-stacking.first}")

    if stacking:
        start = -stacking.first
        lateral = stacking.lateral[start - extent : start + extent + 1]
        layer = np.arange(2 * extent + 1)
        exists = np.zeros((len(layer), 2, 3), dtype=bool)
        exists[layer, 0, lateral] = True
        exists[layer[:-1], 1, -(lateral[:-1] + lateral[1:]) % 3] = True
    else:
        joint = layer_probabilities(faults, extent, extent)
        weight = joint.reshape(6 * (2 * extent + 1), -1)
        exists = np.diag(weight).reshape(-1, 2, 3) > 0

    plane = _plane_points(centre, reach / a)
    position, kind, group = [], [], []
    for rider, k in itertools.product(riders, range(-extent, extent)):
        layer_of = k + (rider.place == UPPER) + extent
        gap = int(rider.place == THIRD)
        for c in np.flatnonzero(exists[layer_of, gap]):
            # Lateral position 0 is that of the layer at the centre, as in the perfect crystal.
            shift = (k + bottom + rider.height) / 3 + FORWARDS * ((c + bottom) % 3) - centre
            points = plane + shift
            points = points[np.einsum("ij,ij->i", points, points) <= (reach / a * (1 + 1e-9)) ** 2]
            position.append(points)
            kind.append(np.full(len(points), rider.kind))
            group.append(np.full(len(points), 6 * layer_of + 3 * gap + c))
    all_groups = np.concatenate(group)
    order = np.argsort(all_groups, kind="stable")
    used, of_site = np.unique(all_groups[order], return_inverse=True)
    return StackedSites(
        position=np.concatenate(position)[order] * turn * a,
        kind=np.concatenate(kind)[order].astype(np.int32),
        group=np.zeros(len(order), np.int32) if stacking else of_site.astype(np.int32),
        weight=np.ones((1, 1)) if stacking else weight[np.ix_(used, used)],
    )


def _plane_points(centre: np.ndarray, reach: float) -> np.ndarray:
    """(point, 3) lattice of one layer, wide enough around the centre for every lateral shift; in cell edges."""
    lateral = centre - centre.sum() / 3
    # In-plane lattice vectors have length 1/√2 and are 120° apart: rows lie √(3/8) apart; shifts stay below 0.82.
    n = int(np.ceil((reach + 0.82) / np.sqrt(3 / 8))) + 1
    i0 = np.rint(2 * lateral[0])
    j0 = np.rint(-2 * lateral[2])
    i, j = np.meshgrid(np.arange(-n, n + 1) + i0, np.arange(-n, n + 1) + j0, indexing="ij")
    return i.reshape(-1, 1) * _IN_PLANE[0] + j.reshape(-1, 1) * _IN_PLANE[1]


def _riders(material: Material) -> list[_Rider]:
    """Every F lattice of a material by its place above a frame layer.

    Raises:
        ValueError: a site that belongs to no such lattice.
    """
    if not material.is_cubic:
        raise ValueError(
            f"faults on {{111}} need a cubic cell, {material.name} has {list(material.cell_angstrom)}"
        )
    found = []
    for kind, fractions in enumerate(equivalent_positions(material)):
        layer, height, place = places(fractions - material.positions[0])
        riders = {
            _Rider(kind=kind, height=float(above), place=int(where))
            for above, where in zip(np.abs(np.round(height - layer, 6)), place, strict=True)
        }
        # An F lattice has four points in a cell. A rider within a frame layer would lose its place at a fault.
        astray = any(r.place < 0 or (r.height == 0 and r.place != LOWER) for r in riders)
        if astray or 4 * len(riders) != len(fractions):
            raise ValueError(
                f"faults on {{111}}: site {material.kinds[kind].label} of {material.name} is not made of F lattices "
                "on threefold axes of that of the first kind (in rocksalt, zinc blende, fluorite, fcc metals all are)"
            )
        found += sorted(riders, key=lambda rider: (rider.height, rider.place))
    return found


def places(fraction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where sites of the perfect crystal are, seen along [111].

    Args:
        fraction: (site, 3) float64, fractional coordinates relative to a site of the frame.

    Returns:
        (site,) int64 index of the frame layer at or below each; (site,) float64 height in layer distances;
        (site,) int64 LOWER, UPPER or THIRD, -1 for a site on none of the axes.
    """
    height = fraction.sum(axis=1)
    layer = np.floor(height + TOLERANCE).astype(np.int64)
    place = np.full(len(fraction), -1)
    for where in (LOWER, UPPER, THIRD):
        axis = ((layer + where) % 3)[:, None] * FORWARDS
        # Lattice vectors across [111] are all triples of halves that add up to 0.
        halves = 2 * (fraction - height[:, None] / 3 - axis)
        place[np.abs(halves - np.rint(halves)).max(axis=1) < TOLERANCE] = where
    return layer, height, place


def check_turn(material: Material, axis: int) -> None:
    """Refuse crystals that a two-fold rotation about a frame site does not keep (all the usual ones have it)."""
    origin, turn = np.array(material.positions[0]), AXES[axis]
    for label, fractions in zip(material.labels, equivalent_positions(material), strict=True):
        turned = (fractions - origin) * turn + origin
        apart = turned[:, None] - fractions[None]
        if np.abs(apart - np.rint(apart)).max(axis=2).min(axis=1).max() > TOLERANCE:
            raise ValueError(
                f"faults on other planes than (111): site {label} of {material.name} is not the same along every <111>"
            )


def layers_within(material: Material, reach: float) -> int:
    """Layers on either side of the cut centre that `stacked_sites` asks of a stacking."""
    return int(np.ceil(reach / (material.cell_angstrom[0] / np.sqrt(3)))) + 2


def frame_layer(material: Material, middle: np.ndarray, position: np.ndarray, *, axis: int = 0) -> np.ndarray:
    """(site,) int64: the frame layer at or below each site, counted from the one at or below the cut centre.

    Args:
        material: a cubic crystal.
        middle: (3,) float64, fractional coordinates of the cut centre.
        position: (site, 3) float64 [Å], relative to the centre, undeformed.
        axis: index into `AXES`.
    """
    centre = ((np.asarray(middle, dtype=float) - material.positions[0]) * AXES[axis]).sum()
    height = (position * AXES[axis]).sum(axis=1) / material.cell_angstrom[0] + centre
    return (np.floor(height + TOLERANCE) - np.floor(centre + TOLERANCE)).astype(np.int64)
