"""Patterns of faulted crystals: exact means against stackings built one by one, and Warren's shifts of reflections."""

from itertools import product

import numpy as np
import pytest

from hpc.structure.faults import Stacking, random_stacking, stacked_sites
from hpc.structure.material import Kind, Material, load_material
from hpc.structure.variant import Faults

PBS = load_material("pbs")
FCC = Material(
    name="aluminium",
    space_group="F m -3 m",
    cell_angstrom=(4.05, 4.05, 4.05, 90, 90, 90),
    kinds=(Kind(label="Al", element="Al", occupancy=1.0, b_iso=0.0),),
    positions=((0, 0, 0),),
)
# Weights of the two kinds that no symmetry makes alike.
AMPLITUDE = np.array([1.0, 0.37])


def intensity(sites, q):
    """Σ_ij w_ij a_i a_j sinc(Q r_ij), pair by pair."""
    amplitude = AMPLITUDE[sites.kind]
    weight = sites.weight[sites.group[:, None], sites.group] * np.outer(amplitude, amplitude)
    i, j = np.nonzero(weight)
    r = np.linalg.norm(sites.position[i] - sites.position[j], axis=1)
    distance, place = np.unique(np.round(r, 9), return_inverse=True)
    return np.sinc(np.outer(q, distance) / np.pi) @ np.bincount(place, weight[i, j])


def zinc_blende():
    return Material(
        name="zinc blende",
        space_group="F -4 3 m",
        cell_angstrom=(5.8, 5.8, 5.8, 90, 90, 90),
        kinds=PBS.kinds,
        positions=((0, 0, 0), (0.25, 0.25, 0.25)),
    )


@pytest.mark.parametrize("middle", [(0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)])
@pytest.mark.parametrize("material", [PBS, zinc_blende()], ids=["rocksalt", "zinc blende"])
def test_mean_is_the_sum_over_all_stackings(material, middle):
    """A ball of 1.2 nm: every sequence of directions and wrong steps, one by one, with its probability."""
    faults = Faults(deformation=0.15, growth=0.25)
    alpha, beta = faults.deformation, faults.growth
    q, middle, reach = np.arange(0.3, 20, 0.7), np.array(middle), 6.0
    # Layers -2 to 2 hold the ball. The step from layer 2 moves the holes above it, where there are any.
    far = 4
    total, expected = 0.0, np.zeros(len(q))
    patterns = {}
    for direction in product((1, -1), repeat=5):
        for wrong in product((False, True), repeat=5):
            step = [-d if w else d for d, w in zip(direction, wrong, strict=True)]
            if step[2] != 1:
                continue
            turns = sum(x != y for x, y in zip(direction[1:], direction[:-1], strict=True))
            probability = beta**turns * (1 - beta) ** (4 - turns)
            probability *= alpha ** sum(wrong) * (1 - alpha) ** (5 - sum(wrong))
            total += probability
            if tuple(step) not in patterns:
                steps = np.array([1] * (far - 2) + step + [1] * (far - 3), dtype=np.int8)
                sites = stacked_sites(material, Faults(), middle, reach, stacking=Stacking(step=steps))
                patterns[tuple(step)] = intensity(sites, q)
            expected += probability * patterns[tuple(step)]
    assert total == pytest.approx(1, abs=1e-12)
    exact = intensity(stacked_sites(material, faults, middle, reach), q)
    np.testing.assert_allclose(exact, expected, rtol=1e-12)
    # The stackings differ, so that the mean is none of them.
    assert np.max(np.ptp(list(patterns.values()), axis=0) / expected) > 0.1


def test_mean_of_random_stackings_approaches_the_exact_mean():
    """2000 stackings of a ball of 2 nm: within 4 standard errors at each of 30 Q (0.2 % of seeds fail; it is fixed)."""
    faults, q = Faults(deformation=0.1, growth=0.15), np.linspace(1.5, 15, 30)
    rng = np.random.default_rng(11)
    n = 2000
    patterns = {}
    drawn = []
    for _ in range(n):
        stacking = random_stacking(faults, 6, rng)
        # Layers beyond 3 lie outside: few different particles, many draws.
        key = tuple(stacking.step[2:10])
        if key not in patterns:
            step = np.concatenate((np.ones(2), key, np.ones(2))).astype(np.int8)
            sites = stacked_sites(PBS, Faults(), np.zeros(3), 10.0, stacking=Stacking(step=step))
            patterns[key] = intensity(sites, q)
        drawn.append(patterns[key])
    drawn = np.array(drawn)
    error = drawn.std(axis=0, ddof=1) / np.sqrt(n)
    exact = intensity(stacked_sites(PBS, faults, np.zeros(3), 10.0), q)
    assert np.abs((drawn.mean(axis=0) - exact) / error).max() < 4
    # The test can tell: without faults the pattern lies far away.
    perfect = intensity(stacked_sites(PBS, Faults(), np.zeros(3), 10.0), q)
    assert np.abs((drawn.mean(axis=0) - perfect) / error).max() > 40


def reflections(faults):
    """Q, height and width of 111 and 200 of an aluminium ball of 4.4 nm."""
    q = np.arange(2.45, 3.4, 0.001)
    sites = stacked_sites(FCC, faults, np.zeros(3), 22.0)
    # Exact distances of all pairs would take long: bins of 0.004 Å turn phases by less than 0.007.
    counts = np.zeros(12000)
    square = np.einsum("ij,ij->i", sites.position, sites.position)
    for start in range(0, len(square), 200):
        part = slice(start, start + 200)
        r2 = square[part, None] + square - 2 * sites.position[part] @ sites.position.T
        index = np.rint(np.sqrt(np.maximum(r2, 0)).ravel() / 0.004).astype(int)
        counts += np.bincount(
            index, sites.weight[sites.group[part, None], sites.group].ravel(), minlength=len(counts)
        )
    used = np.flatnonzero(counts)
    pattern = np.sinc(np.outer(q, 0.004 * used) / np.pi) @ counts[used]
    found = []
    for low, high in ((2.5, 2.9), (2.95, 3.35)):
        window = np.flatnonzero((q > low) & (q < high))
        peak = window[np.argmax(pattern[window])]
        near = slice(peak - 25, peak + 26)
        a, b, _ = np.polyfit(q[near] - q[peak], pattern[near], 2)
        half = window[pattern[window] > pattern[peak] / 2]
        found.append((q[peak] - b / (2 * a), pattern[peak], q[half[-1]] - q[half[0]]))
    return np.array(found)


def test_reflections_move_and_broaden_as_warren_says():
    """Deformation moves 111 up and 200 down, ΔQ/Q = (√3/4π) α G with G = 1/4 and -1/2; growth broadens in place.

    B. E. Warren, X-ray Diffraction (1969), chapter 13, converted from 2θ by Δ2θ = 2 tan θ ΔQ/Q. His formula is for
    infinite crystals and small α; neighbouring broad reflections of a small ball pull on each other, hence 25 %.
    """
    perfect = reflections(Faults())
    alpha = 0.04
    deformed, grown = reflections(Faults(deformation=alpha)), reflections(Faults(growth=alpha))
    shift = deformed[:, 0] / perfect[:, 0] - 1
    expected = np.sqrt(3) / (4 * np.pi) * alpha * np.array([1 / 4, -1 / 2])
    np.testing.assert_allclose(shift, expected, rtol=0.25)
    # Growth: no shift but for that pull, and both lower and broaden the peaks.
    assert np.all(np.abs(grown[:, 0] / perfect[:, 0] - 1) < np.abs(shift) / 3)
    for faulted in (deformed, grown):
        assert np.all(faulted[:, 1] < 0.97 * perfect[:, 1])
        assert np.all(faulted[:, 2] > 1.02 * perfect[:, 2])
        # Warren's widths, (1.5 α + β) V / a, has V = 0.43 for 111 and 1 for 200.
        assert faulted[1, 2] / perfect[1, 2] > faulted[0, 2] / perfect[0, 2]
