"""Lognormal weights and band-limited interpolation."""

import numpy as np
import pytest
from scipy.stats import lognorm

from hpc.ensemble import (
    OVERHANG,
    Resampler,
    fine_step,
    largest_diameter,
    largest_sigma,
    number_weights,
    volume_mean_diameter,
)
from hpc.form_factors import scattering_factor

#: So many shells that sums over them are integrals.
FINE = np.linspace(0, 200, 40001)


@pytest.mark.parametrize("diameter", [15.0, 40.0])
@pytest.mark.parametrize("sigma", [0.03, 0.1, 0.25])
def test_moments_of_the_size_distribution(diameter, sigma):
    weights = number_weights(FINE, np.array([diameter]), np.array([sigma]))[0]
    middle = FINE + 0.0025
    mean = weights @ middle
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert np.all(weights >= 0)
    assert mean == pytest.approx(diameter, rel=1e-6)
    assert np.sqrt(weights @ (middle - mean) ** 2) == pytest.approx(sigma * diameter, rel=1e-4)
    volume_mean = (weights @ middle**4) / (weights @ middle**3)
    assert volume_mean == pytest.approx(diameter * (1 + sigma**2) ** 3, rel=1e-5)
    assert volume_mean_diameter(np.array(diameter), np.array(sigma)) == pytest.approx(volume_mean, rel=1e-5)


def test_weights_are_differences_of_the_distribution_function():
    shells = np.array([0.0, 5.9, 8.4, 10.3, 20.0])
    weights = number_weights(shells, np.array([9.0]), np.array([0.2]))[0]
    s = np.sqrt(np.log(1.04))
    cdf = lognorm(s, scale=9.0 / np.sqrt(1.04)).cdf(shells)
    np.testing.assert_allclose(weights, np.diff(np.append(cdf, 1.0)), rtol=1e-10)


def test_zero_sigma_is_the_one_particle():
    shells = np.array([0.0, 5.9, 8.4, 10.3, 20.0])
    weights = number_weights(shells, np.array([8.39, 8.4, 8.41, 300.0]), np.zeros(4))
    assert weights.argmax(axis=1).tolist() == [1, 2, 2, 4]
    assert np.all(weights.sum(axis=1) == 1)
    tight = number_weights(shells, np.array([9.0]), np.array([1e-6]))[0]
    np.testing.assert_allclose(tight, [0, 0, 1, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("diameter", "sigma", "message"),
    [
        (0.0, 0.1, "diameters must be > 0"),
        (-1.0, 0.1, "diameters must be > 0"),
        (float("nan"), 0.1, "diameters must be > 0"),
        (10.0, -0.1, "sigma must be >= 0"),
        (10.0, float("nan"), "sigma must be >= 0"),
        (3.0, 0.0, "no site lies within a diameter of 3"),
    ],
)
def test_impossible_sizes_are_refused(diameter, sigma, message):
    with pytest.raises(ValueError, match=message):
        number_weights(np.array([5.0, 6.0]), np.array([diameter]), np.array([sigma]))


@pytest.mark.parametrize("tail", [1e-3, 1e-6])
def test_so_many_atoms_lie_beyond_the_largest_particle(tail):
    cut = largest_diameter(np.array([40.0]), np.array([0.15]), tail=tail)
    weights = number_weights(FINE, np.array([40.0]), np.array([0.15]))[0]
    atoms = weights * FINE**3
    assert atoms[cut < FINE].sum() / atoms.sum() == pytest.approx(tail, rel=0.05)


def test_the_widest_distribution_under_a_largest_particle() -> None:
    diameter = np.array([15.0, 60.0, 119.0])
    sigma = largest_sigma(diameter, 120.0, tail=1e-3)
    for d, s in zip(diameter, sigma, strict=True):
        assert largest_diameter(d, s, tail=1e-3) == pytest.approx(120.0)
    assert largest_sigma(120.0, 120.0, tail=1e-3) == 0


def test_the_largest_particle_serves_every_ensemble():
    several = largest_diameter(np.array([20.0, 30.0, 45.0]), np.array([0.3, 0.1, 0.0]), tail=1e-6)
    each = [
        largest_diameter(np.array([d]), np.array([s]), tail=1e-6) for d, s in ((20, 0.3), (30, 0.1), (45, 0))
    ]
    assert several == max(each)
    assert each[2] == 45


def waves(distance, q):
    return np.sinc(distance * np.asarray(q)[:, None] / np.pi).sum(axis=1)


@pytest.mark.parametrize("strain", [-0.05, -0.002, 0.0, 1e-9, 0.0037, 0.05])
@pytest.mark.parametrize("q_min", [0.0, 1e-3, 0.99])
def test_interpolation_of_sums_of_waves(strain, q_min):
    """Error below 1e-8 of the largest value, also at the ends, for distances up to the diameter."""
    diameter = 60.0
    rng = np.random.default_rng(1)
    distances = [np.append(rng.uniform(2.5, diameter, 500), diameter) for _ in range(3)]
    q = q_min + 0.0173 * np.arange(900)
    step = fine_step(diameter)
    n_fine = int(np.ceil(q[-1] * (1 + strain) / step)) + OVERHANG
    fine = step * np.arange(n_fine)
    values = np.array([waves(r, fine) for r in distances])
    found = Resampler(q * (1 + strain), step=step, n_fine=n_fine)(values)
    for row, r in zip(found, distances, strict=True):
        assert np.abs(row - waves(r, q * (1 + strain))).max() < 1e-8 * 500


@pytest.mark.parametrize("diameter", [8.0, 20.0, 60.0])
def test_form_factors_may_be_interpolated_along(diameter):
    """Products of sums of waves with form factors and Debye-Waller factors, at the error of the sums alone."""
    strain, q = 0.004, 0.5 + 0.0107 * np.arange(1800)
    distance = np.append(np.random.default_rng(1).uniform(2.5, diameter, 500), diameter)
    step = fine_step(diameter)
    fine = step * np.arange(int(np.ceil(q[-1] * (1 + strain) / step)) + OVERHANG)

    def factor(points):
        return scattering_factor("Pb", points, anomalous=False).real * np.exp(-0.02 * points**2)

    exact = factor(q) * waves(distance, q * (1 + strain))
    found = Resampler(q * (1 + strain), step=step, n_fine=len(fine))(
        (factor(fine / (1 + strain)) * waves(distance, fine))[None]
    )
    assert np.abs(found[0] - exact).max() < 1e-8 * 500 * factor(np.zeros(1))[0]


def test_points_of_the_fine_grid_stay_what_they_are():
    step, n_fine = 0.02, 400
    values = np.random.default_rng(2).random((2, n_fine))
    found = Resampler(step * np.arange(13, 300), step=step, n_fine=n_fine)(values)
    np.testing.assert_allclose(found, values[:, 13:300], atol=1e-11)


def test_more_than_the_partial_sums_cover_is_refused():
    for q in (np.array([-0.1, 0.3]), np.array([0.1, 2.0])):
        with pytest.raises(ValueError, match="q must lie in 0 to"):
            Resampler(q, step=0.02, n_fine=100)
