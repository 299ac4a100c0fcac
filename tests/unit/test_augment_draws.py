"""Latents, ranges, counting noise, shares and tables of the augmentation."""

import math

import numpy as np
import pytest
import torch

from qdml.augmentation.counts import EXACT_BELOW, photons
from qdml.augmentation.latents import LatentSpace, between, log_between, smooth_modes
from qdml.augmentation.ranges import Ranges
from qdml.augmentation.surroundings import shares
from qdml.augmentation.tables import chebyshev_matrix, chebyshev_nodes, spline_matrix, table

CPU = torch.device("cpu")
STEP = 0.01
Q = torch.arange(1.0, 9.0, STEP)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_latents_are_normal_or_uniform_by_name() -> None:
    space = LatentSpace()
    space.normal("halo", 3)
    space.uniform("share")
    space.field("gain", "solvent", torch.ones(2, 5))
    space.uniform("pair", 2)
    assert len(space) == 8
    assert space.names["gain"] == slice(4, 6)
    assert space.fields["gain"].part == "solvent"
    z = space.draw(20_000, generator())
    assert z.shape == (20_000, 8)
    values = space.values(z)
    assert list(values) == ["halo", "share", "gain", "pair"]
    assert torch.equal(values["halo"], z[:, :3])
    assert torch.equal(values["gain"], z[:, 4:6])
    for name in ("share", "pair"):
        u = values[name]
        assert 0 <= u.min() < 1e-3
        assert 0.999 < u.max() <= 1
        # 20 000 draws: the mean is known to 0.002, the variance to 1 %.
        assert float(u.mean()) == pytest.approx(0.5, abs=0.01)
        assert float(u.var()) == pytest.approx(1 / 12, rel=0.04)
    assert torch.equal(values["pair"], torch.special.ndtr(z[:, 6:]))


def test_a_latent_has_one_meaning() -> None:
    space = LatentSpace()
    space.normal("halo", 3)
    with pytest.raises(ValueError, match="the latent halo is there already"):
        space.uniform("halo")


def test_between_bounds() -> None:
    u = torch.linspace(0, 1, 3)[:, None]
    assert between(u, -1.0, 3.0)[:, 0].tolist() == [-1, 1, 3]
    assert log_between(u, (1e2, 1e6))[:, 0].numpy() == pytest.approx([1e2, 1e4, 1e6], rel=1e-5)


def test_ranges_are_those_of_the_case() -> None:
    ranges = Ranges(
        [{"zero": (0.0, 0.0), "counts": (1e2, 1e4)}, {"zero": (1.0, 2.0), "counts": (5.0, 5.0)}],
        CPU,
        logarithmic=("counts",),
    )
    case = torch.arange(4) % 2
    values = ranges.at(case, torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]))
    assert set(values) == {"zero", "counts"}
    assert values["zero"].shape == (4, 1)
    assert values["zero"][:, 0].tolist() == [0, 1, 0, 2]
    assert values["counts"][:, 0].numpy() == pytest.approx([100, 5, 1000, 5], rel=1e-5)


@pytest.mark.parametrize("mean", [0.3, 5.0, 40.0, 100.0, 1e5])
def test_counting_noise_has_the_mean_and_variance_of_counts(mean: float) -> None:
    # 400 000 draws: the mean is known to 0.0016 standard deviations, the variance to 0.3 %, the skewness to 0.004.
    expected = torch.full((2, 200_000), mean)
    drawn = photons(expected, generator())
    assert float(drawn.double().mean()) == pytest.approx(mean, abs=0.01 * math.sqrt(mean))
    assert float(drawn.double().var()) == pytest.approx(mean, rel=0.02)
    assert torch.equal(drawn, photons(expected, generator()))
    whole = (drawn - drawn.round()).abs().max() < 1e-4
    assert bool(whole) == (mean < EXACT_BELOW), "Poisson numbers below, normal ones above"
    third = float((((drawn - mean) / math.sqrt(mean)).double() ** 3).mean())
    assert third == pytest.approx(1 / math.sqrt(mean) if mean < EXACT_BELOW else 0, abs=0.06)


def test_parts_have_the_asked_shares_of_the_visible_area() -> None:
    mask = ((torch.tensor([[2.0], [3.0]]) <= Q) & (torch.tensor([[5.0], [8.0]]) >= Q)).float()
    peak = torch.exp(-0.5 * ((Q - 3.5) / 0.5) ** 2).expand(2, -1)
    share = torch.tensor([[0.3], [0.8]])
    parts = shares({"peak": (share, peak), "flat": (1 - share, torch.ones(1, len(Q)))}, mask)
    means = {name: (y * mask).sum(dim=1) / mask.sum(dim=1) for name, y in parts.items()}
    assert torch.allclose(means["peak"], share[:, 0])
    assert torch.allclose(means["peak"] + means["flat"], torch.ones(2))


def test_smooth_modes_have_unit_variance_and_their_length() -> None:
    length = 0.4
    modes = smooth_modes(Q.double().numpy(), length)
    assert (modes**2).sum(axis=0) == pytest.approx(1)
    middle, apart = len(Q) // 2, round(2 * length / STEP)
    assert modes[:, middle] @ modes[:, middle + apart] == pytest.approx(math.exp(-1), abs=0.06)
    assert modes[:, middle] @ modes[:, middle + 3 * apart] < 0.01


def test_splines_of_few_points_are_exact_for_smooth_functions() -> None:
    q = np.arange(0.9, 14.0, 0.013)
    grid, matrix = spline_matrix(q, 0.25)
    assert np.diff(grid).max() <= 0.25
    assert matrix.shape == (len(grid), len(q))
    assert np.cos(grid) @ matrix == pytest.approx(np.cos(q), abs=2e-4)
    assert matrix.sum(axis=0) == pytest.approx(1)


def test_polynomials_through_few_nodes_are_exact_for_analytic_functions() -> None:
    q = np.arange(0.9, 14.0, 0.013)
    nodes = chebyshev_nodes(q[0], q[-1], 26)
    assert (np.diff(nodes) > 0).all()
    assert q[0] < nodes[0] < nodes[-1] < q[-1]

    def f(x: np.ndarray) -> np.ndarray:
        return 80 * np.exp(-0.05 * x**2) + 40 * np.exp(-0.2 * x**2)

    assert f(nodes) @ chebyshev_matrix(nodes, q) == pytest.approx(f(q), abs=1e-6)
    # At a node itself.
    assert chebyshev_matrix(nodes, nodes[3:5]) == pytest.approx(np.eye(26)[:, 3:5])


def test_tables_have_no_numbers_at_the_end_of_the_range() -> None:
    small = table([[1e-38, 1.0, -1e-25]], CPU)
    assert small.dtype == torch.float32
    assert small.tolist() == [[0.0, 1.0, 0.0]]
    assert table([1.0], CPU, torch.float64).dtype == torch.float64
