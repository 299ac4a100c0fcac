"""What follows from a posterior, against closed forms."""

import numpy as np
import pytest
import torch

from qdml.answers import (
    QUANTITIES,
    Estimate,
    class_probabilities,
    estimates,
    grid_probabilities,
    posterior_samples,
    quantities_of,
    size_distribution,
    targets_of,
)
from qdml.config import ClassConfig
from qdml.densities import GaussianMixture

CLASSES = ClassConfig(diameter_nm=(2.0, 3.0, 4.0, 5.0), sigma=(0.05, 0.1, 0.15, 0.2))


def normal(mean: list[float], sd: list[float], correlation: float = 0.0, n: int = 1) -> GaussianMixture:
    """N equal rows of one component; ln D_v and ln σ correlated."""
    covariance = torch.diag(torch.tensor(sd, dtype=torch.float64) ** 2)
    covariance[0, 1] = covariance[1, 0] = correlation * sd[0] * sd[1]
    tril = torch.linalg.cholesky(covariance)
    return GaussianMixture(
        logits=torch.zeros(n, 1, dtype=torch.float64),
        mean=torch.tensor(mean, dtype=torch.float64).expand(n, 1, 3),
        scale_tril=tril.expand(n, 1, 3, 3),
    )


def two(weight: float = 0.25) -> GaussianMixture:
    """Two well separated components, wide and narrow."""
    one, other = (
        normal([1.0, -2.0, 0.0], [0.05, 0.3, 1e-3], -0.5),
        normal([1.5, -1.8, 0.0], [0.02, 0.1, 1e-3]),
    )
    return GaussianMixture(
        logits=torch.log(torch.tensor([[weight, 1 - weight]], dtype=torch.float64)),
        mean=torch.cat([one.mean, other.mean], dim=1),
        scale_tril=torch.cat([one.scale_tril, other.scale_tril], dim=1),
    )


def test_targets_and_quantities_are_inverses() -> None:
    d, s, e = (torch.tensor(x, dtype=torch.float64) for x in ([2.0, 5.0], [0.1, 0.3], [0.0, -0.002]))
    values = quantities_of(targets_of(d, s, e))
    assert tuple(values) == QUANTITIES
    torch.testing.assert_close(values["diameter_nm"], d)
    torch.testing.assert_close(values["diameter_volume_nm"], d * (1 + s**2) ** 3)
    torch.testing.assert_close(values["sigma"], s)
    torch.testing.assert_close(values["strain"], e)


def test_estimates_of_a_normal_posterior() -> None:
    """Ln D_v ~ N(m, s): mean exp(m + s²/2), quantiles exp(m + s z)."""
    m, s = np.log(5.0), 0.04
    (row,) = estimates(normal([m, np.log(0.1), 0.001], [s, 0.2, 5e-4]))
    assert list(row) == list(QUANTITIES)
    size = row["diameter_volume_nm"]
    assert isinstance(size, Estimate)
    assert size.mean == pytest.approx(np.exp(m + s**2 / 2), rel=1e-4)
    for value, z in (
        (size.lo68, -0.99446),
        (size.hi68, 0.99446),
        (size.lo95, -1.95996),
        (size.hi95, 1.95996),
    ):
        # 1024 points of a Sobol sequence place a quantile within about 0.01 standard deviations.
        assert np.log(value) == pytest.approx(m + s * z, abs=0.03 * s)
    assert row["strain"].mean == pytest.approx(0.001, abs=1e-5)
    assert (row["strain"].hi95 - row["strain"].lo95) == pytest.approx(2 * 1.96 * 5e-4, rel=0.02)
    # D = D_v/(1 + σ²)³, to first order in ln σ: its ln has the variance s² + (6σ²/(1+σ²) · 0.2)².
    width = np.log(row["diameter_nm"].hi68 / row["diameter_nm"].lo68) / 2 / 0.99446
    assert width == pytest.approx(np.hypot(s, 6 * 0.01 / 1.01 * 0.2), rel=0.03)


def test_a_negative_correlation_of_size_and_dispersion_widens_the_number_mean() -> None:
    mean, sd = [np.log(5.0), np.log(0.15), 0.0], [0.02, 0.3, 1e-3]
    width = {}
    for correlation in (-0.8, 0.8):
        (row,) = estimates(normal(mean, sd, correlation))
        width[correlation] = row["diameter_nm"].hi68 - row["diameter_nm"].lo68
    assert width[-0.8] > 1.5 * width[0.8]


def test_the_answer_of_a_pattern_depends_on_nothing_else_in_the_batch() -> None:
    batch = GaussianMixture.cat([two(0.9), two(0.25), two(0.1)])
    assert estimates(batch)[1] == estimates(two(0.25))[0]
    assert estimates(batch, seed=1)[1] != estimates(two(0.25))[0]
    torch.testing.assert_close(class_probabilities(batch, CLASSES)[1], class_probabilities(two(), CLASSES)[0])


def test_points_follow_the_mixture() -> None:
    """Weights of the components and moments of either, against the mixture's own."""
    points = posterior_samples(two(0.25), seed=3, n=4096)[:, 0]
    assert float((points[:, 0] < 1.25).double().mean()) == pytest.approx(0.25, abs=1e-3)
    mean, covariance = two(0.25).moments()
    torch.testing.assert_close(points.mean(dim=0), mean[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(points.T.cov(), covariance[0], atol=1e-3, rtol=0.02)
    with pytest.raises(ValueError, match="must be a power of two, got 100"):
        posterior_samples(two(), seed=0, n=100)


def test_a_sharp_posterior_is_certain_of_its_class() -> None:
    truth = targets_of(*(torch.tensor(x, dtype=torch.float64) for x in (4.1, 0.11, 0.0)))
    p = class_probabilities(normal(truth.tolist(), [1e-3, 1e-2, 1e-4]), CLASSES)
    assert p.shape == (1, 4, 4)
    assert float(p[0, 2, 1]) == pytest.approx(1.0, abs=1e-9)


def test_classes_of_a_wide_posterior_are_counted_points() -> None:
    """The integral against a million random draws: 1e-3 is three of their standard errors."""
    mixture = two(0.4)
    exact = class_probabilities(mixture, CLASSES)[0]
    points = mixture.sample(1_000_000, torch.Generator().manual_seed(0))[:, 0]
    values = quantities_of(points)
    size = torch.bucketize(values["diameter_nm"], torch.tensor([2.5, 3.5, 4.5], dtype=torch.float64))
    sigma = torch.bucketize(values["sigma"], torch.tensor([0.075, 0.125, 0.175], dtype=torch.float64))
    counted = torch.bincount(4 * size + sigma, minlength=16).reshape(4, 4) / len(points)
    assert float((exact - counted).abs().max()) < 2e-3
    assert float(exact.sum()) == pytest.approx(1.0, abs=1e-12)


def test_dispersion_classes_are_differences_of_the_normal_distribution() -> None:
    p = class_probabilities(normal([1.3, np.log(0.1), 0.0], [0.05, 0.3, 1e-3], 0.3), CLASSES)[0].sum(dim=0)
    edge = torch.log(torch.tensor([0.075, 0.125, 0.175], dtype=torch.float64) / 0.1) / 0.3
    below = torch.cat([torch.zeros(1), torch.special.ndtr(edge), torch.ones(1)])
    torch.testing.assert_close(p, below.diff(), atol=1e-12, rtol=0)


def test_classes_far_from_the_posterior_are_empty_not_undefined() -> None:
    p = class_probabilities(normal([np.log(50.0), np.log(0.9), 0.0], [1e-3, 1e-3, 1e-4]), CLASSES)[0]
    assert torch.isfinite(p).all()
    assert float(p[3, 3]) == pytest.approx(1.0)


def test_grid_probabilities_are_bayes_theorem() -> None:
    """A normal likelihood with a prior that falls: divided out, the hypotheses stand as the likelihood says."""
    d = torch.tensor([2.0, 2.1, 2.2], dtype=torch.float64)
    grid = targets_of(d, torch.tensor([0.1, 0.1, 0.1]), torch.zeros(3))
    likelihood = normal([float(grid[1, 0]) + 0.01, float(grid[1, 1]), 0.0], [0.05, 0.1, 1e-3])
    log_l = torch.stack([likelihood.log_prob(point[None])[0] for point in grid])
    torch.testing.assert_close(grid_probabilities(likelihood, grid)[0], torch.softmax(log_l, dim=0))

    # Posterior = likelihood x exp(-3 ln D_v) is normal too, its mean moved by -3 s².
    moved = normal([float(likelihood.mean[0, 0, 0]) - 3 * 0.05**2, float(grid[1, 1]), 0.0], [0.05, 0.1, 1e-3])
    with_prior = grid_probabilities(moved, grid, lambda points: -3 * points[:, 0])
    torch.testing.assert_close(with_prior[0], torch.softmax(log_l, dim=0))


def test_size_distribution_of_a_sharp_posterior_is_the_lognormal() -> None:
    d, s = 4.0, 0.15
    truth = targets_of(*(torch.tensor(x, dtype=torch.float64) for x in (d, s, 0.0)))
    result = size_distribution(normal(truth.tolist(), [1e-6, 1e-6, 1e-6]))
    x, y = result.diameter_nm, result.density[0]
    assert np.trapezoid(y, x) == pytest.approx(1.0, abs=1e-3)
    mean = np.trapezoid(x * y, x)
    assert mean == pytest.approx(d, rel=1e-3)
    assert np.sqrt(np.trapezoid((x - mean) ** 2 * y, x)) == pytest.approx(s * d, rel=0.01)
    np.testing.assert_allclose(result.lo95[0], result.hi95[0], rtol=1e-3, atol=1e-5)


def test_size_distribution_has_the_band_of_the_posterior() -> None:
    result = size_distribution(normal([np.log(4.0), np.log(0.1), 0.0], [0.05, 0.3, 1e-3], n=2))
    assert result.density.shape == result.hi95.shape == (2, 200)
    for low, high in ((result.lo68, result.hi68), (result.lo95, result.hi95)):
        assert (low <= high).all()
    assert (result.lo95 <= result.lo68 + 1e-12).all()
    peak = result.density[0].argmax()
    assert result.hi68[0, peak] > 1.2 * result.lo68[0, peak]
