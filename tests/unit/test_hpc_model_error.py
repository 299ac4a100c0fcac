"""The model-error floor: variances, covariance and modes that add up to it."""

import numpy as np
import pytest
import torch

from hpc.model_error import error_covariance, error_modes, floor_variance

Q = np.arange(1.0, 8.0, 0.02)
INTENSITY = 100 + 30 * np.sin(5 * Q)


def test_the_floor_adds_in_squares():
    variance = np.full(len(Q), 9.0)
    np.testing.assert_allclose(floor_variance(variance, INTENSITY, 0.0), variance)
    np.testing.assert_allclose(floor_variance(variance, INTENSITY, 0.04), 9 + (0.04 * INTENSITY) ** 2)
    batch = floor_variance(torch.ones((2, len(Q))), torch.from_numpy(INTENSITY), torch.tensor([[0.0], [0.1]]))
    np.testing.assert_allclose(batch[1], 1 + (0.1 * INTENSITY) ** 2, rtol=1e-6)


@pytest.mark.parametrize("length", [0.1, 0.5, 3.0])
def test_modes_add_up_to_the_covariance(length):
    modes = INTENSITY * error_modes(Q, floor=0.02, length=length)
    covariance = error_covariance(INTENSITY, Q, floor=0.02, length=length)
    np.testing.assert_allclose(modes.T @ modes, covariance, atol=2e-4 * covariance.max())
    # On the diagonal it is the floor alone, at the ends too.
    np.testing.assert_allclose((modes**2).sum(axis=0), (0.02 * INTENSITY) ** 2, rtol=2e-4)


def test_random_errors_have_the_floor_and_are_smooth():
    rng = np.random.default_rng(0)
    modes = error_modes(Q, floor=0.03, length=0.3)
    drawn = rng.normal(size=(4000, len(modes))) @ modes
    assert drawn.std() == pytest.approx(0.03, rel=0.03)
    neighbours = np.mean(drawn[:, :-15] * drawn[:, 15:]) / 0.03**2  # 0.3 1/Å apart
    assert neighbours == pytest.approx(np.exp(-0.5), abs=0.03)


@pytest.mark.parametrize("make", [error_modes, lambda q, **keys: error_covariance(INTENSITY, q, **keys)])
def test_what_cannot_be_is_refused(make):
    with pytest.raises(ValueError, match="floor must be >= 0"):
        make(Q, floor=-0.1, length=1.0)
    with pytest.raises(ValueError, match="length of model errors must be > 0"):
        make(Q, floor=0.1, length=0.0)
