"""The network's view of a pattern: what it must not see, it does not see."""

import numpy as np
import pytest
import torch

from qdml.preprocess import CHANNELS, SMOOTH_WIDTH, fft_length, network_input

Q = np.arange(1.0, 9.0, 0.01)


def pattern() -> torch.Tensor:
    y = 2 + np.sin(8 * Q) * np.exp(-0.2 * Q)
    return torch.tensor(np.stack([y, 3 * y]))


def half_visible() -> torch.Tensor:
    return torch.tensor((Q > 2) & (Q < 6) & ~((Q > 3) & (Q < 3.1))).expand(2, -1)


@pytest.mark.parametrize("kind", CHANNELS)
def test_scale_and_hidden_values_do_not_matter(kind: str) -> None:
    y, mask, q = pattern(), half_visible(), torch.tensor(Q)
    x = network_input(y, mask, q, kind)
    assert x.shape == (2, CHANNELS[kind], len(Q))
    assert torch.allclose(x[0], x[1], atol=1e-12)
    hidden = torch.where(mask, y, 1e6)
    assert torch.allclose(network_input(hidden, mask, q, kind), x, atol=1e-12)
    assert (x[:, 0][~mask] == 0).all()


def test_area_has_mean_one_over_the_visible_points() -> None:
    mask = half_visible()
    x = network_input(pattern(), mask, torch.tensor(Q), "area")[:, 0]
    assert float(x[0][mask[0]].mean()) == pytest.approx(1)


def test_log_smooth_is_its_formula() -> None:
    y, mask = pattern()[0].numpy(), half_visible()[0].numpy()
    log = np.log(y[mask] / y[mask].mean())
    kernel = np.exp(-0.5 * ((Q[mask][:, None] - Q[mask]) / SMOOTH_WIDTH) ** 2)
    expected = log - kernel @ log / kernel.sum(axis=1)
    x = network_input(pattern(), half_visible(), torch.tensor(Q), "log_smooth")[0].numpy()
    # The FFT's Gaussian is cut at four standard deviations.
    assert x[0][mask] == pytest.approx(expected, abs=1e-4)
    assert np.array_equal(x[1], mask.astype(float))


def test_float32_and_bool_masks_are_enough() -> None:
    exact = network_input(pattern(), half_visible(), torch.tensor(Q), "log_smooth")
    single = network_input(pattern().float(), half_visible(), torch.tensor(Q).float(), "log_smooth")
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), exact, atol=2e-5)


def test_a_slow_factor_is_removed_but_for_the_ends() -> None:
    y = pattern()
    slow = torch.tensor(np.exp(-0.3 * Q))
    ones, q = torch.ones_like(y), torch.tensor(Q)
    change = network_input(y * slow, ones, q, "log_smooth") - network_input(y, ones, q, "log_smooth")
    assert change[0, 0, 150:-150].abs().max() < 1e-3


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="input must be one of"):
        network_input(pattern(), half_visible(), torch.tensor(Q), "sqrt")


def test_fft_lengths_have_small_factors() -> None:
    assert [fft_length(n) for n in (1, 7, 11, 121, 1001)] == [2, 8, 12, 128, 1024]
    assert all(fft_length(n) >= n for n in range(1, 300))
