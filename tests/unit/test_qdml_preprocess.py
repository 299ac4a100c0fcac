"""The network's view of a pattern: what it must not see, it does not see."""

import numpy as np
import pytest
import torch

from qdml.observation import CONDITIONS, Observation
from qdml.preprocess import CHANNELS, SMOOTH_WIDTH, NetworkInput, network_input

Q = np.arange(1.0, 9.0, 0.01)
# Photons per intensity of `pattern`: declared noise of 0.3 to 1 %.
RATE = 2e4


def pattern() -> torch.Tensor:
    y = 2 + np.sin(8 * Q) * np.exp(-0.2 * Q)
    return torch.tensor(np.stack([y, 3 * y]))


def half_visible() -> torch.Tensor:
    return torch.tensor((Q > 2) & (Q < 6) & ~((Q > 3) & (Q < 3.1))).expand(2, -1)


def seen(y: torch.Tensor, mask: torch.Tensor, kind: str, noise: torch.Tensor | None = None) -> NetworkInput:
    noise = torch.ones_like(y) * y.mean(dim=1, keepdim=True) / np.sqrt(RATE) if noise is None else noise
    conditions = torch.zeros(len(y), len(CONDITIONS))
    observation = Observation(intensity=y, noise=noise, mask=mask, conditions=conditions)
    return network_input(observation, torch.tensor(Q), kind)


@pytest.mark.parametrize("kind", CHANNELS)
def test_scale_and_hidden_values_do_not_matter(kind: str) -> None:
    y, mask = pattern(), half_visible()
    x = seen(y, mask, kind)
    assert x.pattern.shape == (2, CHANNELS[kind], len(Q))
    assert torch.allclose(x.pattern[0], x.pattern[1], atol=1e-12)
    assert torch.allclose(x.noise[0], x.noise[1], atol=1e-12)
    noise = torch.ones_like(y) * y.mean(dim=1, keepdim=True) / np.sqrt(RATE)
    hidden = seen(torch.where(mask, y, 1e6), mask, kind, torch.where(mask, noise, 1e6))
    assert torch.allclose(hidden.pattern, x.pattern, atol=1e-12)
    assert torch.allclose(hidden.noise, x.noise, atol=1e-12)
    assert (x.pattern[:, 0][~mask] == 0).all() and (x.noise[~mask] == 0).all()


def test_area_has_mean_one_over_the_visible_points() -> None:
    mask = half_visible()
    x = seen(pattern(), mask, "area").pattern[:, 0]
    assert float(x[0][mask[0]].mean()) == pytest.approx(1)


def test_log_smooth_is_its_formula() -> None:
    y, mask = pattern()[0].numpy(), half_visible()[0].numpy()
    relative, noise = y[mask] / y[mask].mean(), 0.05
    log = np.arcsinh(relative / (2 * noise)) + np.log(noise)
    kernel = np.exp(-0.5 * ((Q[mask][:, None] - Q[mask]) / SMOOTH_WIDTH) ** 2)
    expected = log - kernel @ log / kernel.sum(axis=1)
    declared = torch.full((2, len(Q)), noise * y[mask].mean())
    x = seen(pattern(), half_visible(), "log_smooth", declared).pattern[0].numpy()
    # The FFT's Gaussian is cut at four standard deviations.
    assert x[0][mask] == pytest.approx(expected, abs=1e-4)
    assert np.array_equal(x[1], mask.astype(float))


def test_well_above_its_noise_it_is_the_logarithm() -> None:
    y, ones = pattern(), torch.ones(2, len(Q), dtype=torch.bool)
    little = seen(y, ones, "log_smooth", torch.full_like(y, 1e-9)).pattern
    more = seen(y, ones, "log_smooth", y.mean(dim=1, keepdim=True) * torch.full_like(y, 0.01)).pattern
    # (n/y)² is 1e-4 to 2e-4.
    assert (little - more).abs().max() < 4e-4


def test_declared_noise_is_the_spread_of_the_input() -> None:
    y, ones = pattern()[:1].expand(4000, -1).float(), torch.ones(4000, len(Q))
    for noise in (0.02, 1.0):
        drawn = y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        x = seen(drawn, ones, "log_smooth", torch.full_like(y, noise))
        declared, spread = x.noise.square().mean(dim=0).sqrt(), x.pattern[:, 0].std(dim=0)
        # The smooth takes a few percent away; where y is like its noise, the slope varies within its spread.
        assert torch.allclose(spread, declared, rtol=0.1 if noise < 1 else 0.3)


def test_points_without_counts_are_no_outliers() -> None:
    y, ones = pattern()[:1].clone(), torch.ones(1, len(Q))
    y[0, 100] = 0.0
    x = seen(y, ones, "log_smooth", torch.full_like(y, 0.5)).pattern[0, 0]
    assert abs(float(x[100])) < 3


def test_float32_and_bool_masks_are_enough() -> None:
    exact = seen(pattern(), half_visible(), "log_smooth").pattern
    single = seen(pattern().float(), half_visible(), "log_smooth").pattern
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), exact, atol=2e-5)


def test_a_slow_factor_is_removed_but_for_the_ends() -> None:
    y, ones = pattern(), torch.ones(2, len(Q))
    slow = torch.tensor(np.exp(-0.3 * Q))
    little = torch.full_like(y, 1e-6)
    change = seen(y * slow, ones, "log_smooth", little).pattern - seen(y, ones, "log_smooth", little).pattern
    assert change[0, 0, 150:-150].abs().max() < 1e-3


def test_rows_of_an_input() -> None:
    x = seen(pattern(), half_visible(), "log_smooth")
    twice = NetworkInput.cat([x, x])
    assert len(twice) == 4 and torch.equal(twice.take(slice(2, 4)).noise, x.noise)
    assert x.to(torch.float32).conditions.dtype == torch.float32


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="input must be one of"):
        seen(pattern(), half_visible(), "sqrt")
