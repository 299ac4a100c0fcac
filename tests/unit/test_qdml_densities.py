"""Mixtures of normal densities against scipy, and against their own samples."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from qdml.densities import TARGETS, GaussianMixture, number_diameter, volume_diameter


def mixture(rows: int = 4, components: int = 3, seed: int = 0) -> GaussianMixture:
    generator = torch.Generator().manual_seed(seed)
    t = len(TARGETS)
    raw = torch.randn(rows, components, t, t, generator=generator, dtype=torch.float64)
    return GaussianMixture(
        logits=torch.randn(rows, components, generator=generator, dtype=torch.float64),
        mean=torch.randn(rows, components, t, generator=generator, dtype=torch.float64),
        scale_tril=raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp()),
    )


def test_log_prob_is_that_of_scipy() -> None:
    density, points = mixture(), torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double()
    weight = torch.softmax(density.logits, dim=1)
    for row in range(4):
        expected = sum(
            float(weight[row, m])
            * multivariate_normal.pdf(
                points[row].numpy(),
                density.mean[row, m].numpy(),
                (density.scale_tril[row, m] @ density.scale_tril[row, m].T).numpy(),
            )
            for m in range(3)
        )
        assert float(density.log_prob(points)[row]) == pytest.approx(np.log(expected), rel=1e-9)


def test_log_prob_in_float32_of_a_narrow_density() -> None:
    # As narrow as the best strains: 1e-5 about 2e-3.
    tril = torch.diag(torch.tensor([1e-3, 1e-2, 1e-5], dtype=torch.float64)).expand(1, 1, 3, 3)
    mean = torch.tensor([[[1.6, -2.3, 2e-3]]], dtype=torch.float64)
    density = GaussianMixture(logits=torch.zeros(1, 1).double(), mean=mean, scale_tril=tril)
    points = mean[:, 0] + torch.tensor([1e-3, -1e-2, 1e-5], dtype=torch.float64)
    exact = float(density.log_prob(points))
    # ln D_v is rounded to 1e-7 of 1.6, which is 1e-4 of its standard deviation.
    assert float(density.to(torch.float32).log_prob(points.float())) == pytest.approx(exact, abs=1e-3)


def test_distribution_function_of_each_target() -> None:
    density, points = mixture(), torch.zeros(4, 3, dtype=torch.float64)
    weight = torch.softmax(density.logits, dim=1).numpy()
    variance = (density.scale_tril @ density.scale_tril.mT).diagonal(dim1=-2, dim2=-1).numpy()
    below = norm.cdf((0 - density.mean.numpy()) / np.sqrt(variance))
    assert density.cdf(points).numpy() == pytest.approx((weight[..., None] * below).sum(axis=1), rel=1e-9)


def test_samples_have_the_moments_of_the_density() -> None:
    density = mixture()
    drawn = density.sample(100_000, torch.Generator().manual_seed(2))
    assert drawn.shape == (100_000, 4, 3)
    mean, covariance = density.moments()
    spread = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    # 1/√100 000 of the spread is 0.3 %; four times that.
    assert ((drawn.mean(dim=0) - mean).abs() < 0.013 * spread).all()
    for row in range(4):
        got = torch.cov(drawn[:, row].T)
        scale = spread[row][:, None] * spread[row]
        assert ((got - covariance[row]).abs() < 0.04 * scale).all()
    below = (drawn < mean).double().mean(dim=0)
    assert torch.allclose(below, density.cdf(mean), atol=0.01)


def test_the_same_generator_draws_the_same() -> None:
    first, second = (mixture().sample(5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_rows_and_batches() -> None:
    density = mixture()
    points = torch.zeros(4, 3, dtype=torch.float64)
    parts = [density.take(slice(0, 1)), density.take(torch.tensor([1, 2, 3]))]
    assert len(parts[1]) == 3
    assert torch.equal(GaussianMixture.cat(parts).log_prob(points), density.log_prob(points))
    assert density.to(torch.float32).mean.dtype == torch.float32


def test_mean_diameters() -> None:
    # Lognormal: D_v = E[D⁴]/E[D³] with μ = ln D - s²/2, s² = ln(1 + σ²), which is D(1 + σ²)³.
    d, sigma = torch.tensor(5.0, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    s2 = float(torch.log(1 + sigma**2))
    moment = [np.exp(k * (np.log(5.0) - s2 / 2) + k**2 * s2 / 2) for k in (3, 4)]
    assert float(volume_diameter(d, sigma)) == pytest.approx(moment[1] / moment[0])
    assert float(number_diameter(volume_diameter(d, sigma), sigma)) == pytest.approx(5.0)
