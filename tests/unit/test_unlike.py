"""What is wrong with dots widens a posterior by its covariance in (ln D_v, σ², ε)."""

import math

import pytest
import torch

from qdml.answers import posterior_samples
from qdml.densities import GaussianMixture
from qdml.measured.unlike import CORRELATION, STRAIN, VARIANCE, log_volume_spread, unlike

# Of D_v = e^1.5 nm.
LOG_VOLUME = float(log_volume_spread(torch.tensor(1.5).exp()))


def normal(log_volume: float, sigma: float, *, spread: float = 1e-4) -> GaussianMixture:
    """Of one pattern, two alike components."""
    mean = torch.tensor([log_volume, math.log(sigma), 0.001], dtype=torch.float64)
    return GaussianMixture(
        logits=torch.zeros(1, 2),
        mean=mean.expand(1, 2, 3),
        scale_tril=spread * torch.eye(3, dtype=torch.float64).expand(1, 2, 3, 3),
    )


def moments(density: GaussianMixture) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of ln D_v, σ², ε."""
    points = posterior_samples(density, 0, 2**14)[:, 0]
    points = torch.stack([points[:, 0], torch.exp(2 * points[:, 1]), points[:, 2]])
    return points.mean(dim=1), points.cov()


def test_a_sharp_posterior_gets_the_covariance_of_what_is_wrong() -> None:
    mean, covariance = moments(unlike(normal(1.5, 0.25), 0.02))
    assert mean.tolist() == pytest.approx([1.5, 0.0625, 0.001], abs=3e-4)
    spread = covariance.diagonal().sqrt()
    assert spread[:2].tolist() == pytest.approx([LOG_VOLUME, VARIANCE], rel=0.04)
    assert float(spread[2]) == pytest.approx(math.hypot(STRAIN, 1e-4), rel=0.04)
    assert float(covariance[0, 1] / spread[0] / spread[1]) == pytest.approx(CORRELATION, abs=0.03)


def test_a_wide_posterior_stays_as_it_is() -> None:
    wide = normal(1.5, 0.25, spread=0.2)
    before, after = wide.moments()[1], unlike(wide, 0.02).moments()[1]
    torch.testing.assert_close(after[0, 0, 0], before[0, 0, 0], rtol=0.01, atol=0)
    assert float(after[0, 2, 2]) == pytest.approx(float(before[0, 2, 2]), rel=0.01)


def test_narrow_distributions_may_be_wider_but_not_narrower_than_any() -> None:
    """σ² ± 0.005 of σ = 3 %: up to three times as wide, and hardly less than 2 %."""
    points = posterior_samples(unlike(normal(1.5, 0.03), 0.02), 0, 4096)[:, 0]
    sigma = torch.exp(points[:, 1])
    assert float(torch.quantile(sigma, 0.02)) > 0.005
    assert 0.05 < float(torch.quantile(sigma, 0.5)) < 0.09
    assert float(torch.quantile(sigma, 0.98)) < 0.18
    assert float(points[:, 0].std()) == pytest.approx(LOG_VOLUME, rel=0.2)


def test_what_widens_reflections_counts_as_the_square_of_the_size() -> None:
    small, large = (float(moments(unlike(normal(ln, 0.2), 0.02))[1][0, 0].sqrt()) for ln in (0.5, 2.3))
    expected = log_volume_spread(torch.tensor([0.5, 2.3]).exp())
    assert [small, large] == pytest.approx(expected.tolist(), rel=0.04)
    assert large > 2 * small
