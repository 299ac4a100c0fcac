"""Dots of a film that lie on a face: what orientation adds to their pattern, exactly.

Directions n of Q, in the frame of the crystals, are not equally frequent in a film: w(n) has mean 1 and peaks at the
poles u of the faces that dots lie on. A spherical Gaussian of the standard deviation κ along each axis (heat that
has spread on a sphere) around all equivalent poles has

    w(n) = Σ_l a_l S_l(n),   a_l = (2l + 1) e^{-l(l+1) κ²/2},   S_l(n) = <P_l(n·u)>_u

and since the mean of P_l(n·u) e^{iQ n·r} over all n is i^l j_l(Qr) P_l(r·u/r), the pattern is a Debye sum for each l:

    <w |F|²> = Σ_ab f_a f_b e^{-(B_a+B_b) s²} Σ_l a_l i^l Σ_r N_ab(r) S_l(r/r) j_l(Qr)

N_ab(r): how often atoms of two kinds lie r apart, the autocorrelation of the sites of a dot on its lattice. The term
l = 0 is the pattern of random orientation; `excess` is the sum of all others. It holds tails of reflections,
and how dots that lie on a face look from there, which windows around reflections (`hpc.texture`) only approximate.

Perfect cuts of rocksalt crystals, of nested sizes. Symbols: l degree, κ spread [rad], r distance [Å], n its square
in half cells.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.special import eval_legendre, spherical_jn

from hpc.ensemble import largest_diameter, number_weights
from hpc.form_factors import scattering_factor
from hpc.structure.crystal import cell_vectors
from hpc.structure.sites import cut_sites
from hpc.structure.variant import Variant

__all__ = ["excess", "weight_of"]

# Terms with less than this weight are left out; the first one that cubes have is 4.
_LEAST, _FIRST = 1e-3, 4
# Sizes of an ensemble, this far apart [Å]: a third of the distance of two layers.
_STEP = 1.0
# Atoms of an ensemble beyond the largest size; dots, and pairs in a dot, that are rarer are none.
_TAIL, _SELDOM = 1e-3, 1e-6


def excess(
    variant: Variant,
    *,
    q: np.ndarray,
    diameter_nm: float,
    sigma: float,
    strain: np.ndarray,
    energy_kev: float,
    b_scale: float,
    pole: tuple[int, int, int],
    spread_deg: float,
) -> np.ndarray:
    """What an oriented ensemble scatters more than one of random orientation, of a mean dot.

    Args:
        variant: of a rocksalt material; perfect cuts.
        q: (q,) float64 [Å⁻¹], > 0.
        diameter_nm: number-mean D of the unstrained dots.
        sigma: relative standard deviation of the diameter, > 0.
        strain: (m,) ε, of as many samples.
        energy_kev: photon energy.
        b_scale: multiplies every Debye-Waller factor.
        pole: normal of the face that dots lie on.
        spread_deg: κ [degrees].

    Returns:
        (m, q) float64 [electron units].

    Raises:
        ValueError: dots that are no cuts of a rocksalt crystal around an atom.
    """
    material = variant.material
    half = float(cell_vectors(material)[0, 0]) / 2
    degrees = _degrees(spread_deg)
    counts = _distances(variant, 10 * diameter_nm, sigma, half, pole, degrees)
    seen = np.flatnonzero(np.abs(counts).max(axis=(0, 1)) > 0)
    s2 = (q / (4 * np.pi)) ** 2
    damped = np.stack(
        [
            scattering_factor(kind.element, q, energy_kev=energy_kev) * np.exp(-b_scale * kind.b_iso * s2)
            for kind in material.kinds
        ]
    )
    pairs = ((0, 0, 1.0), (0, 1, 2.0), (1, 1, 1.0))
    factors = np.stack([times * (damped[a] * damped[b].conj()).real for a, b, times in pairs])
    found = np.zeros((len(strain), len(q)))
    for row, stretch in zip(found, 1 + strain, strict=True):
        phase = q[:, None] * (np.sqrt(seen) * half * stretch)
        for index, degree in enumerate(degrees):
            sums = spherical_jn(degree, phase) @ counts[:, index, seen].T
            row += weight_of(degree, spread_deg) * (-1) ** (degree // 2) * (factors * sums.T).sum(axis=0)
    return found


def weight_of(degree: int, spread_deg: float) -> float:
    """a_l."""
    spread = np.radians(spread_deg)
    return float((2 * degree + 1) * np.exp(-degree * (degree + 1) * spread**2 / 2))


def _degrees(spread_deg: float) -> list[int]:
    """Even degrees from 4 on, as far as they weigh anything."""
    degrees = range(_FIRST, 200, 2)
    return list(itertools.takewhile(lambda degree: weight_of(degree, spread_deg) > _LEAST, degrees))


def _distances(
    variant: Variant,
    diameter: float,
    sigma: float,
    half: float,
    pole: tuple[int, int, int],
    degrees: list[int],
) -> np.ndarray:
    """(pair, degree, n) Σ N_ab(r) S_l(r/r) over all r of one length, of the mean dot."""
    largest = largest_diameter(np.array([diameter]), np.array([sigma]), tail=_TAIL)
    steps = np.arange(_STEP, largest + _STEP, _STEP)
    weights = number_weights(steps, np.array([diameter]), np.array([sigma]))[0]
    found: np.ndarray | None = None
    for centre in variant.centres:
        sites = cut_sites(variant, centre=centre, diameter_max=float(steps[-1] + _STEP))
        # Cuts around an atom: everything lies whole half cells away.
        whole = np.rint(sites.position / half).astype(int)
        if np.abs(whole * half - sites.position).max() > 1e-6:
            raise ValueError(f"dots must be perfect cuts of rocksalt around an atom, got {variant}")
        points = 4 * (int(np.abs(whole).max()) + 1)
        # Autocorrelations add up before they are transformed back.
        power = np.zeros((3, points, points, points // 2 + 1))
        for size, weight in zip(steps[weights > _SELDOM], weights[weights > _SELDOM], strict=True):
            there = np.zeros((2, points, points, points))
            inside = sites.gauge <= size + _STEP / 2
            np.add.at(there, (sites.kind[inside], *(whole[inside] % points).T), 1.0)
            a, b = np.fft.rfftn(there, axes=(1, 2, 3))
            power += weight * np.stack([np.abs(a) ** 2, (a * b.conj()).real, np.abs(b) ** 2])
        numbers = np.fft.irfftn(power, s=(points,) * 3, axes=(1, 2, 3)).reshape(3, -1)
        axis = np.fft.fftfreq(points, 1 / points).round().astype(int)
        apart = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        there = numbers.max(axis=0) > _SELDOM
        one = _by_length(apart[there], numbers[:, there], pole, degrees)
        longest = max(one.shape[2], 0 if found is None else found.shape[2])
        one = np.pad(one, ((0, 0), (0, 0), (0, longest - one.shape[2]))) / len(variant.centres)
        if found is not None:
            one = one + np.pad(found, ((0, 0), (0, 0), (0, longest - found.shape[2])))
        found = one
    assert found is not None  # a variant has centres
    return found


def _by_length(
    apart: np.ndarray, numbers: np.ndarray, pole: tuple[int, int, int], degrees: list[int]
) -> np.ndarray:
    """(pair, degree, n) sums over (m, 3) vectors, of which there are (pair, m) `numbers`."""
    square = (apart**2).sum(axis=1)
    cosines = (apart @ _equivalent(pole).T) / np.maximum(np.sqrt(square), 1e-9)[:, None]
    return np.stack(
        [
            [
                np.bincount(square, weights=row * eval_legendre(degree, cosines).mean(axis=1))
                for degree in degrees
            ]
            for row in numbers
        ]
    )


def _equivalent(pole: tuple[int, int, int]) -> np.ndarray:
    """(m, 3) float64 unit vectors: a pole and its images under the symmetry of a cube, without opposites."""
    images = {
        tuple(sign * index for sign, index in zip(signs, order, strict=True))
        for order in itertools.permutations(pole)
        for signs in itertools.product((1, -1), repeat=3)
    }
    half = [image for image in images if image > tuple(-index for index in image)]
    unit: np.ndarray = np.array(sorted(half)) / np.linalg.norm(pole)
    return unit
