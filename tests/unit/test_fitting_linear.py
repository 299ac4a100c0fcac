"""Non-negative least squares, variable projection, Levenberg-Marquardt and profiles, on problems with known answers."""

import numpy as np
import pytest
from scipy.optimize import nnls

from qdml.fitting.levenberg import minimise
from qdml.fitting.profile import autocorrelation_points, mixture_estimate, profile_along
from qdml.fitting.projection import project

NONE = np.zeros(12, dtype=bool)


def problem(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sixty points, twelve columns of which two are nearly equal; half of the best coefficients are negative."""
    rng = np.random.default_rng(seed)
    a = rng.random((60, 12))
    a[:, 3] = a[:, 2] + 1e-3 * rng.random(60)
    return a, a @ rng.normal(0, 1, 12) + 0.1 * rng.normal(size=60)


@pytest.mark.parametrize("seed", range(20))
def test_coefficients_are_those_of_nnls_from_any_start(seed: int) -> None:
    a, y = problem(seed)
    expected, residual = nnls(a, y)
    for start in (None, np.random.default_rng(seed).random(12) < 0.5, ~NONE):
        found = project(a, y, NONE, start=start)
        assert (found.x >= 0).all()
        assert np.linalg.norm(found.residual) == pytest.approx(residual, rel=1e-10)
        np.testing.assert_allclose(found.x, expected, atol=1e-6)
        np.testing.assert_array_equal(found.used, expected > 0)


@pytest.mark.parametrize("seed", range(5))
def test_free_columns_are_a_difference_of_two_non_negative_ones(seed: int) -> None:
    a, y = problem(seed)
    free = NONE.copy()
    free[[0, 3]] = True
    _, residual = nnls(np.hstack([a, -a[:, free]]), y)
    assert np.linalg.norm(project(a, y, free).residual) == pytest.approx(residual, rel=1e-10)


def test_dropping_all_negative_columns_at_once_is_worse() -> None:
    """The trap that the active set avoids."""
    a, y = problem(0)
    plain = np.linalg.lstsq(a, y, rcond=None)[0]
    kept = a[:, plain > 0]
    dropped = y - kept @ np.maximum(np.linalg.lstsq(kept, y, rcond=None)[0], 0)
    assert np.linalg.norm(dropped) > 1.01 * np.linalg.norm(project(a, y, NONE).residual)


def decays(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(point, column) exponentials and a constant; (point, column, parameter) their derivatives."""
    t = np.linspace(0, 4, 80)
    a = np.column_stack([np.exp(-theta[0] * t), np.exp(-theta[1] * t), np.ones_like(t)])
    slopes = np.zeros((80, 3, 2))
    slopes[:, 0, 0], slopes[:, 1, 1] = -t * a[:, 0], -t * a[:, 1]
    return a, slopes


def two_decays(y: np.ndarray):
    """Residual of a sum of two decays, its amplitudes projected out."""

    def residual(theta: np.ndarray, slopes: bool = True) -> tuple[np.ndarray, np.ndarray]:
        a, bent = decays(theta)
        solved = project(a, y, NONE[:3])
        curves = np.einsum("tcp,c->tp", bent, solved.x)
        pulls = np.einsum("tcp,t->cp", bent, solved.residual)
        return solved.residual, solved.slopes(curves, pulls)

    return residual


def test_the_projected_derivative_is_exact() -> None:
    y = decays(np.array([0.4, 2.0]))[0] @ [3.0, 2.0, 0.5] + 0.05 * np.random.default_rng(1).normal(size=80)
    residual, theta = two_decays(y), np.array([0.5, 1.7])
    _, slopes = residual(theta)
    for j, step in enumerate(np.eye(2) * 1e-6):
        numeric = (residual(theta + step)[0] - residual(theta - step)[0]) / 2e-6
        np.testing.assert_allclose(slopes[:, j], numeric, atol=1e-7 * np.abs(numeric).max())


LOW, HIGH = np.array([0.01, 0.01]), np.array([5.0, 5.0])


def test_a_search_finds_the_truth_and_stays_in_its_bounds() -> None:
    y = decays(np.array([0.4, 2.0]))[0] @ [3.0, 2.0, 0.5] + 1e-5 * np.random.default_rng(2).normal(size=80)
    free = minimise(two_decays(y), np.array([0.1, 1.0]), low=LOW, high=HIGH, steps=60, tolerance=1e-12)
    assert free.converged
    np.testing.assert_allclose(free.x, [0.4, 2.0], rtol=1e-3)
    bounded = minimise(
        two_decays(y), np.array([0.1, 1.0]), low=LOW, high=np.array([5.0, 1.5]), steps=60, tolerance=1e-10
    )
    assert bounded.x[1] == 1.5
    assert bounded.cost > free.cost
    held = minimise(
        two_decays(y),
        np.array([0.3, 1.0]),
        low=np.array([0.3, 0.01]),
        high=np.array([0.3, 5]),
        steps=60,
        tolerance=1e-10,
    )
    assert held.x[0] == 0.3


def test_a_search_that_may_not_go_on_says_so() -> None:
    y = decays(np.array([0.4, 2.0]))[0] @ [3.0, 2.0, 0.5]
    assert not minimise(
        two_decays(y), np.array([0.1, 1.0]), low=LOW, high=HIGH, steps=1, tolerance=1e-12
    ).converged


def line(a: np.ndarray, y: np.ndarray):
    return lambda theta, slopes: (y - a @ theta, -a)


def test_the_profile_of_a_linear_problem_is_its_normal_distribution() -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(size=(200, 3)) + 1.5
    y = a @ [1.0, 2.0, -1.0] + rng.normal(size=200)
    low, high = np.full(3, -50.0), np.full(3, 50.0)
    best = minimise(line(a, y), np.zeros(3), low=low, high=high, steps=20, tolerance=1e-14)
    profile, lowest = profile_along(line(a, y), best, 1, low=low, high=high, unit=1.0, steps=10)
    assert lowest is best
    covariance = np.linalg.inv(a.T @ a)
    fine, weight = profile.density()
    mean = weight @ fine
    assert mean == pytest.approx(best.x[1], abs=0.01 * np.sqrt(covariance[1, 1]))
    assert np.sqrt(weight @ (fine - mean) ** 2) == pytest.approx(np.sqrt(covariance[1, 1]), rel=0.02)
    # The mixture over the profile is the marginal distribution of another parameter.
    estimate = mixture_estimate(profile.along(0, fine), weight, float(profile.spread[0]), lambda x: x)
    sigma = np.sqrt(covariance[0, 0])
    assert estimate.mean == pytest.approx(best.x[0], abs=0.01 * sigma)
    assert estimate.hi68 - estimate.lo68 == pytest.approx(2 * 0.9945 * sigma, rel=0.03)
    assert estimate.hi95 - estimate.lo95 == pytest.approx(2 * 1.96 * sigma, rel=0.03)


def test_a_profile_ends_at_the_bounds() -> None:
    a = np.eye(40)[:, :2]
    y = np.zeros(40)
    y[:2] = 0.1, 0.0
    low, high = np.array([0.0, -1.0]), np.array([1.0, 1.0])
    best = minimise(line(a, y), np.array([0.5, 0.5]), low=low, high=high, steps=20, tolerance=1e-14)
    profile, _ = profile_along(line(a, y), best, 0, low=low, high=high, unit=1.0, steps=10)
    assert (profile.values[0], profile.values[-1]) == (0.0, 1.0)
    assert len(profile.density()[0]) > 100


def test_waves_are_fewer_observations_than_noise() -> None:
    rng = np.random.default_rng(5)
    noise = rng.normal(size=20000)
    assert autocorrelation_points(noise) == pytest.approx(1.0, abs=0.05)
    # A moving mean over m points has the triangle 1 - k/m as its autocorrelation, whose sum is m.
    waves = np.convolve(noise, np.ones(12) / 12, mode="valid")
    assert autocorrelation_points(waves) == pytest.approx(12.0, rel=0.1)
    assert autocorrelation_points(np.zeros(50)) == 1.0
