"""Random parameters, counting noise, shares and tables of the augmentation."""

import math

import numpy as np
import pytest
import torch

from qdml.augmentation.counts import EXACT_BELOW, counts, poisson_counts
from qdml.augmentation.draws import Ranges, SmoothField, log_uniform, uniform
from qdml.augmentation.mixing import mix
from qdml.augmentation.tables import float32_table, spline_matrix

CPU = torch.device("cpu")
STEP = 0.01
Q = torch.arange(1.0, 9.0, STEP)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_uniform_stays_inside() -> None:
    drawn = uniform(4000, (-1.0, 3.0), generator())
    assert drawn.shape == (4000, 1)
    assert -1 <= drawn.min() < -0.98
    assert 2.98 < drawn.max() <= 3
    spread = log_uniform(4000, (1e2, 1e6), generator())
    assert float((spread < 1e4).double().mean()) == pytest.approx(0.5, abs=0.03)


def test_ranges_are_those_of_the_case() -> None:
    ranges = Ranges(
        [{"zero": (0.0, 0.0), "counts": (1e2, 1e4)}, {"zero": (1.0, 2.0), "counts": (5.0, 5.0)}],
        CPU,
        logarithmic=("counts",),
    )
    case = torch.arange(4000) % 2
    drawn = ranges.draw(case, generator())
    assert set(drawn) == {"zero", "counts"}
    assert drawn["zero"].shape == (4000, 1)
    assert (drawn["zero"][case == 0] == 0).all()
    second = drawn["zero"][case == 1]
    assert 1 <= second.min() < 1.01
    assert 1.99 < second.max() <= 2
    assert torch.allclose(drawn["counts"][case == 1], torch.tensor(5.0))
    assert float((drawn["counts"][case == 0] < 1e3).double().mean()) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("mean", [0.3, 5.0, 40.0, 100.0, 1e5])
def test_counting_noise_has_the_mean_and_variance_of_counts(mean: float) -> None:
    # 400 000 draws: the mean is known to 0.0016 standard deviations, the variance to 0.3 %, the skewness to 0.004.
    y, scale = torch.full((2, 200_000), 5.0), torch.full((2, 1), mean / 5)
    drawn = counts(y, scale, generator()) * scale
    assert float(drawn.double().mean()) == pytest.approx(mean, abs=0.01 * math.sqrt(mean))
    assert float(drawn.double().var()) == pytest.approx(mean, rel=0.02)
    assert torch.equal(drawn, counts(y, scale, generator()) * scale)
    whole = (drawn - drawn.round()).abs().max() < 1e-4
    assert bool(whole) == (mean < EXACT_BELOW), "Poisson numbers below, normal ones above"
    third = float((((drawn - mean) / math.sqrt(mean)).double() ** 3).mean())
    assert third == pytest.approx(1 / math.sqrt(mean) if mean < EXACT_BELOW else 0, abs=0.06)


def test_poisson_counts_are_whole_counts() -> None:
    drawn = poisson_counts(torch.full((1, 1000), 0.7), torch.tensor([[3.0]]), generator()) * 3
    assert torch.allclose(drawn, drawn.round(), atol=1e-5)


def test_mix_gives_the_asked_shares_of_the_visible_area() -> None:
    mask = ((torch.tensor([[2.0], [3.0]]) <= Q) & (torch.tensor([[5.0], [8.0]]) >= Q)).float()
    peak = torch.exp(-0.5 * ((Q - 3.5) / 0.5) ** 2).expand(2, -1)
    share = torch.tensor([[0.3], [0.8]])
    whole = mix([(share, peak), (1 - share, torch.ones(1, len(Q)))], mask)
    first = mix([(share, peak), (0 * share, torch.ones(1, len(Q)))], mask)
    assert torch.allclose((whole * mask).sum(dim=1) / mask.sum(dim=1), torch.ones(2))
    assert torch.allclose((first * mask).sum(dim=1) / mask.sum(dim=1), share[:, 0])


def test_smooth_field_has_unit_variance_and_its_length() -> None:
    length = 0.4
    z = SmoothField(Q, length).draw(20_000, generator())
    # 20 000 draws: the standard deviation is known to 0.5 %, a correlation to 0.7 %.
    assert z.mean(dim=0).abs().max() < 0.03
    assert z.std(dim=0).numpy() == pytest.approx(np.ones(len(Q)), abs=0.03)
    middle, apart = len(Q) // 2, round(2 * length / STEP)
    correlation = (z[:, middle] * z[:, middle + apart]).mean()
    assert float(correlation) == pytest.approx(math.exp(-1), abs=0.06)


def test_splines_of_few_points_are_exact_for_smooth_functions() -> None:
    q = np.arange(0.9, 14.0, 0.013)
    grid, matrix = spline_matrix(q, 0.25)
    assert np.diff(grid).max() <= 0.25
    assert matrix.shape == (len(grid), len(q))
    assert np.cos(grid) @ matrix == pytest.approx(np.cos(q), abs=2e-4)
    assert matrix.sum(axis=0) == pytest.approx(1)


def test_tables_have_no_numbers_at_the_end_of_the_range() -> None:
    table = float32_table([[1e-38, 1.0, -1e-25]], CPU)
    assert table.dtype == torch.float32
    assert table.tolist() == [[0.0, 1.0, 0.0]]
