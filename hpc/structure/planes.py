"""Fault planes of single dots: twin and deformation planes at drawn heights, {111} facets in the wrong position.

A plane changes the sequence of layers of the whole dot (`hpc.structure.faults.Stacking`):

    deformation   the step from layer k to k+1 is reversed: all beyond shifts by a/6 <112>
    twin          all steps beyond layer k are reversed: layer k is a mirror plane of the frame

A facet shifts the outermost `bilayers` of frame layers by a/6 <112>, as a rigid piece cut off by a deformation plane,
with all sites that ride on them; holes of the gap at the plane go to where the two layers leave them, the opposite way.
The piece then moves towards the centre. The dot keeps its atoms. Pieces must not meet: two bilayers on all eight facets
of a ball of 4 nm do, and leave Pb and S 0.9 Å apart at their common edges.

Draws are stratified over the realisations of a dot (Latin hypercube), so that few of them cover all heights evenly.

Symbols: k layer, counted from the one at or below the cut centre.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpc.structure.faults import AXES, FORWARDS, LOWER, THIRD, UPPER, Stacking, check_turn, places
from hpc.structure.material import Material
from hpc.structure.variant import Faults

__all__ = ["add_plane", "facet_shifts", "single_planes"]


def add_plane(stacking: Stacking, plane: str, layer: int) -> Stacking:
    """A stacking with one more plane; the step from layer 0, which spans the cut centre, stays forwards.

    Args:
        stacking: the sequence so far.
        plane: "deformation" (the step from the layer to the next) or "twin" (at the layer).
        layer: index, from `stacking.first` on.
    """
    step = stacking.step.copy()
    index = layer - stacking.first
    if plane == "twin":
        beyond = slice(index, None) if layer > 0 else slice(None, index)
    elif layer == 0:
        # The crystal with this one step reversed, turned by 180°: all the others are.
        step *= -1
        beyond = slice(index, index + 1)
    else:
        beyond = slice(index, index + 1)
    step[beyond] *= -1
    return Stacking(step=step, axis=stacking.axis)


def single_planes(
    stacking: Stacking, faults: Faults, layers: tuple[int, int], uniform: Callable[[], float]
) -> Stacking:
    """Add `faults.planes` planes, each at a different height, all heights within the dot equally likely.

    A dot too thin for so many gets as many as there are places: a deformation plane needs a layer on either side, a
    twin plane lies in an inner layer.

    Args:
        stacking: the sequence so far.
        faults: how many planes, of which sort.
        layers: lowest and highest layer of the dot.
        uniform: draws a number in 0..1.
    """
    lowest, highest = layers
    free = list(range(lowest + (faults.plane == "twin"), highest))
    for _ in range(min(faults.planes, len(free))):
        stacking = add_plane(stacking, faults.plane, free.pop(int(uniform() * len(free))))
    return stacking


def facet_shifts(
    material: Material,
    faults: Faults,
    middle: np.ndarray,
    position: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """How far each site of a perfect dot moves with `faults.facets` of its eight {111} facets, drawn at random.

    A facet may shift along any of three <112>, drawn too. A site in two of the facets moves with the one drawn first.

    Args:
        material: a cubic crystal made of F lattices, the first site of the first kind on one of them.
        faults: number and depth of the facets, and their shift towards the centre.
        middle: (3,) float64, fractional coordinates of the cut centre.
        position: (site, 3) float64 [Å], relative to the centre, of the perfect crystal.
        rng: consumed in a fixed order.

    Returns:
        (site, 3) float64 [Å].
    """
    a = material.cell_angstrom[0]
    fraction = position / a + (np.asarray(middle, dtype=float) - material.positions[0])
    shift, free = np.zeros_like(position), np.ones(len(position), dtype=bool)
    for facet in rng.permutation(8)[: faults.facets]:
        axis, outwards = facet // 2, 1 - 2 * (facet % 2)
        check_turn(material, axis)
        direction = np.roll(FORWARDS, rng.integers(3))
        layer, height, place = places(fraction * AXES[axis])
        frame = layer[(place == LOWER) & (np.abs(height - layer) < 1e-3)]
        if not len(frame):
            continue
        # The frame layer that a site rides on. Holes belong to the outer one of their two layers.
        carrier = layer + ((place == UPPER) | ((place == THIRD) & (outwards > 0)))
        last = frame.max() if outwards > 0 else frame.min()
        depth = outwards * (last - carrier)
        moves = free & (depth < faults.bilayers)
        at_plane = (place == THIRD) & (depth == faults.bilayers - 1)
        sign = np.where(at_plane, -outwards, outwards)[moves, None]
        inwards = -outwards * faults.inward / np.sqrt(3)
        shift[moves] = (sign * a * direction + inwards) * AXES[axis]
        free &= ~moves
    return shift
