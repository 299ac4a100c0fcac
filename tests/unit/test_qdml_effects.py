"""Each effect of the augmentation against its formula."""

import math

import numpy as np
import pytest
import torch

from qdml.augmentation.effects import (
    KALPHA2_SCALE,
    SmoothField,
    blur,
    mix,
    normal_counts,
    poisson_counts,
    resample,
    scale_reflections,
    uniform,
    window_mask,
    with_kalpha2,
)

STEP = 0.01
Q = torch.arange(1.0, 9.0, STEP, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def gaussian(centre: torch.Tensor | float, width: torch.Tensor | float) -> torch.Tensor:
    return torch.exp(-0.5 * ((Q - centre) / width) ** 2)


@pytest.mark.parametrize("noise", [poisson_counts, normal_counts])
def test_counting_noise_has_the_mean_and_variance_of_counts(noise) -> None:
    # 400 000 draws of y = 5 at 40 counts per unit: the mean is known to 0.0006, the variance to 0.2 %.
    y, scale = torch.full((2, 200_000), 5.0, dtype=torch.float64), column(40.0, 400.0)
    drawn = noise(y, scale, generator())
    assert drawn.mean(dim=1).tolist() == pytest.approx([5.0, 5.0], abs=0.005)
    assert drawn.var(dim=1).tolist() == pytest.approx([5 / 40, 5 / 400], rel=0.02)
    assert torch.equal(drawn, noise(y, scale, generator()))


def test_poisson_counts_are_whole_counts() -> None:
    counts = poisson_counts(torch.full((1, 1000), 0.7), torch.tensor([[3.0]]), generator()) * 3
    assert torch.allclose(counts, counts.round(), atol=1e-5)


def test_uniform_stays_inside() -> None:
    drawn = uniform(torch.zeros(1000), torch.full((1000,), 2.0), generator())
    assert 0 <= drawn.min() < 0.05
    assert 1.95 < drawn.max() <= 2


def test_mix_gives_the_asked_shares_of_the_visible_area() -> None:
    mask = window_mask(column(2.0, 3.0), column(5.0, 8.0), Q)
    parts = [gaussian(3.5, 0.5) * torch.ones(2, 1), torch.ones(1, len(Q), dtype=torch.float64)]
    share = column(0.3, 0.8)
    whole = mix([(share, parts[0]), (1 - share, parts[1])], mask)
    first = mix([(share, parts[0]), (0 * share, parts[1])], mask)
    assert torch.allclose((whole * mask).sum(dim=1) / mask.sum(dim=1), torch.ones(2, dtype=torch.float64))
    assert torch.allclose((first * mask).sum(dim=1) / mask.sum(dim=1), share[:, 0])


def test_blur_widens_and_shifts_a_line() -> None:
    width, shift = column(0.0, 0.03, 0.05), column(0.0, 0.02, -0.01)
    y = gaussian(5.0, 0.1).expand(3, -1)
    got = blur(y, width, shift, step=STEP, reach=0.3)
    for row, (w, d) in enumerate(zip(width[:, 0], shift[:, 0], strict=True)):
        total = torch.sqrt(0.1**2 + w**2)
        assert torch.allclose(got[row], 0.1 / total * gaussian(5.0 - d, total), atol=1e-9)


def test_blur_keeps_a_straight_line_away_from_its_ends() -> None:
    y = (2.0 - 0.1 * Q)[None]
    got = blur(y, column(0.02), column(0.005), step=STEP, reach=0.2)
    inner = slice(20, -20)
    assert torch.allclose(got[0, inner], 2.0 - 0.1 * (Q[inner] + 0.005), atol=2e-4)
    assert (got[0] - y[0]).abs().max() < 0.003, "no wrap-around from one end to the other"


def test_resample_is_exact_for_parabolas() -> None:
    y = (1 + 0.3 * Q - 0.05 * Q**2)[None]
    position = torch.linspace(1, len(Q) - 2, 321, dtype=torch.float64)
    at = Q[0] + position * STEP
    assert torch.allclose(resample(y, position)[0], 1 + 0.3 * at - 0.05 * at**2, atol=1e-10)


def test_kalpha2_adds_a_line_at_higher_q() -> None:
    y = gaussian(5.0, 0.05).expand(2, -1)
    got = with_kalpha2(y, column(0.0, 1.0), Q)
    assert torch.equal(got[0], y[0])
    second = gaussian(5.0 / KALPHA2_SCALE, 0.05 / KALPHA2_SCALE)
    # Catmull-Rom on five points per standard deviation.
    assert torch.allclose(got[1], (2 * y[0] + second) / 3, atol=2e-3)
    assert pytest.approx(0.00249, abs=1e-5) == 1 - KALPHA2_SCALE


def test_reflections_are_scaled_and_what_is_under_them_is_not() -> None:
    under = 2.0 - 0.1 * Q
    lines = gaussian(3.0, 0.05) + gaussian(6.0, 0.05)
    y = (under + lines)[None]
    gain = torch.where(Q < 4.5, 3.0, 0.5)[None].double()
    got = scale_reflections(y, gain, step=STEP)
    at = [round((q - 1.0) / STEP) for q in (3.0, 6.0, 4.5)]
    # The opening sees the slope within its window: 0.1 x 0.25.
    assert got[0, at].tolist() == pytest.approx([1.7 + 3.0, 1.4 + 0.5, 1.55], abs=0.06)
    assert torch.allclose(scale_reflections(y, torch.ones_like(gain), step=STEP), y)


def test_window_mask() -> None:
    mask = window_mask(column(2.0), column(3.0), Q)[0].bool()
    assert Q[mask][[0, -1]].tolist() == pytest.approx([2.0, 3.0], abs=STEP / 2)


def test_smooth_field_has_unit_variance_and_its_length() -> None:
    length = 0.4
    z = SmoothField(Q, length).draw(20_000, generator())
    # 20 000 draws: the standard deviation is known to 0.5 %, a correlation to 0.7 %.
    assert z.mean(dim=0).abs().max() < 0.03
    assert z.std(dim=0).numpy() == pytest.approx(np.ones(len(Q)), abs=0.03)
    middle, apart = len(Q) // 2, round(2 * length / STEP)
    correlation = (z[:, middle] * z[:, middle + apart]).mean()
    assert float(correlation) == pytest.approx(math.exp(-1), abs=0.06)
