"""Patterns of particles off the perfect lattice, against formulas and particles built by hand."""

from itertools import product

import numpy as np

from hpc.structure.faults import stacked_sites
from hpc.structure.particles import build_particle
from hpc.structure.variant import Faults, Variant

A = 5.936  # cell of PbS [Å]
AMPLITUDE = {"Pb": 1.0, "S": 0.37, "Se": 0.6}
Q = np.linspace(0.5, 18, 60)


def variant(material="pbs", **groups):
    return Variant.from_config({"material": material, "shape": "sphere", **groups})


def pattern(kinds, positions, q=Q):
    """Σ o a² + Σ_ij o o a a sinc(Q r), pair by pair."""
    position = np.concatenate(positions)
    weight = np.concatenate(
        [np.full(len(p), k.occupancy * AMPLITUDE[k.element]) for k, p in zip(kinds, positions, strict=True)]
    )
    own = sum(k.occupancy * AMPLITUDE[k.element] ** 2 * len(p) for k, p in zip(kinds, positions, strict=True))
    i, j = np.triu_indices(len(position), 1)
    r = np.linalg.norm(position[i] - position[j], axis=1)
    pairs = 2 * weight[i] * weight[j]
    distance, place = np.unique(np.round(r, 10), return_inverse=True)
    return own + np.sinc(np.outer(q, distance) / np.pi) @ np.bincount(place, pairs)


def realisations(settings, n, *, diameter=14.0, seed=0):
    return np.array(
        [
            pattern(
                *build_particle(
                    settings, centre="Pb", diameter=diameter, seed=seed, realisation=r, realisations=n
                )
            )
            for r in range(n)
        ]
    )


def assert_mean(samples, expected):
    """Within 4 standard errors at each of 60 Q: 0.4 % of seeds would fail, and the seed is fixed."""
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    assert np.abs((samples.mean(axis=0) - expected) / error).max() < 4


def test_static_disorder_is_a_debye_waller_factor_of_pairs():
    """The mean over independent displacements u multiplies every pair by exp(-Q² u²); the self terms keep theirs."""
    perfect = build_particle(variant(), centre="Pb", diameter=14.0, seed=0)
    whole = pattern(*perfect)
    own = sum(len(p) * AMPLITUDE[k.element] ** 2 for k, p in zip(*perfect, strict=True))
    u = 0.08
    samples = realisations(variant(disorder={"core": u}), 150)
    assert_mean(samples, own + (whole - own) * np.exp(-((Q * u) ** 2)))
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    assert np.abs((samples.mean(axis=0) - whole) / error).max() > 20


def test_vacancies_are_the_mean_over_all_random_ones():
    settings = variant(disorder={"vacancies": {"S": 0.3}})
    exact = pattern(*build_particle(settings, centre="Pb", diameter=14.0, seed=0))
    kinds, (lead, sulfur) = build_particle(variant(), centre="Pb", diameter=14.0, seed=0)
    rng = np.random.default_rng(2)
    samples = np.array([pattern(kinds, [lead, sulfur[rng.random(len(sulfur)) >= 0.3]]) for _ in range(400)])
    assert_mean(samples, exact)


def test_explicit_stackings_average_to_the_exact_mean():
    """400 random particles against the weighted pairs of one pass."""
    faults = {"deformation": 0.1, "growth": 0.1}
    samples = realisations(variant(faults=faults, disorder={"core": 1e-9}), 400)
    sites = stacked_sites(variant().material, Faults(**faults), np.zeros(3), 7.0)
    a = np.array([AMPLITUDE["Pb"], AMPLITUDE["S"]])[sites.kind]
    weight = sites.weight[sites.group[:, None], sites.group] * np.outer(a, a)
    r = np.linalg.norm(sites.position[:, None] - sites.position, axis=2)
    exact = np.array([np.sum(weight * np.sinc(q * r / np.pi)) for q in Q])
    assert_mean(samples, exact)
    perfect = pattern(*build_particle(variant(), centre="Pb", diameter=14.0, seed=0))
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    assert np.abs((samples.mean(axis=0) - perfect) / error).max() > 10


def test_a_twin_by_hand():
    """One twin plane in a ball of 2.4 nm: half of the crystal and its mirror image, at the height that was drawn."""
    settings = variant(faults={"planes": 1, "plane": "twin"})
    expected = []
    reach, half = 12.0, A / 2
    h = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    height = h.sum(axis=1) / 2  # in layers
    for plane in range(-2, 3):  # inner layers of the seven of lead
        # The side of the plane that holds the centre is kept, mirrored, and cut again.
        kept = height >= plane if plane <= 0 else height <= plane
        mirrored = half * h - 2 * np.outer(height - plane, np.ones(3)) * A / 3
        inner = kept & (height != plane)
        crystal = np.concatenate((half * h[kept], mirrored[inner]))
        lead = np.concatenate((h[kept], h[inner])).sum(axis=1) % 2 == 0
        within = np.linalg.norm(crystal, axis=1) <= reach
        kinds = build_particle(variant(), centre="Pb", diameter=2 * reach, seed=0)[0]
        expected.append(pattern(kinds, [crystal[within & lead], crystal[within & ~lead]]))
    built = realisations(settings, 5, diameter=2 * reach)
    # Stratified: five realisations, each of the five heights once; the axes are alike in a ball.
    order = [int(np.argmin(np.abs(np.array(expected) - one).max(axis=1))) for one in built]
    distinct = {tuple(np.round(one, 6)) for one in expected}
    np.testing.assert_allclose(built, np.array(expected)[order], rtol=1e-9)
    # Planes above and below the centre are mirror images of each other.
    assert len({tuple(np.round(one, 6)) for one in built}) == len(distinct) == 3


def test_a_core_in_a_shell_scatters_as_its_two_parts():
    """Relaxed PbSe/PbS from the displacement written out; both parts and their cross term."""
    settings = variant("pbse", coating={"material": "pbs", "thickness_nm": 0.4, "poisson_ratio": 0.25})
    built = pattern(*build_particle(settings, centre="Pb", diameter=24.0, seed=0))
    cell, reach, core = 6.124, 12.0, 8.0
    h = np.array(list(product(range(-6, 7), repeat=3)))
    position = cell / 2 * h
    r = np.linalg.norm(position, axis=1)
    position, r, lead = position[r <= reach], r[r <= reach], (h.sum(axis=1) % 2 == 0)[r <= reach]
    f, gamma, x = A / cell - 1, 1.25 / (3 * 0.75), (core / reach) ** 3
    inner = r <= core
    outer_stretch = f * (1 - (1 - gamma) * x) - gamma * f * (core / np.where(inner, core, r)) ** 3
    position = position * (1 + np.where(inner, f * (1 - gamma) * (1 - x), outer_stretch))[:, None]
    amplitude = np.where(lead, 1.0, np.where(inner, AMPLITUDE["Se"], AMPLITUDE["S"]))
    distance = np.linalg.norm(position[:, None] - position, axis=2)
    expected = [amplitude @ np.sinc(q * distance / np.pi) @ amplitude for q in Q]
    np.testing.assert_allclose(built, expected, rtol=1e-9)


def test_amplitudes_that_vanish_give_the_perfect_pattern():
    """Every ingredient, made small: the pattern differs in proportion."""
    perfect = pattern(*build_particle(variant(), centre="Pb", diameter=20.0, seed=0))
    for group in ({"relaxation": 1.0}, {"core": 1.0}, {"surface": 1.0}):
        change = []
        for amplitude in (2e-3, 1e-3):
            disorder = {key: amplitude * value for key, value in group.items()}
            built = build_particle(variant(disorder=disorder), centre="Pb", diameter=20.0, seed=0)
            change.append(np.abs(pattern(*built) - perfect).max() / perfect.max())
        assert 0 < change[0] < 5e-3
        assert 1.5 < change[0] / change[1] < 4.5
