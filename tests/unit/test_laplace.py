"""The posterior along ln σ: of a parabola it is normal, of anything else it follows χ²."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from analytic_recipe import AnalyticRecipe, dots, prior

from qdml.densities import GaussianMixture
from qdml.laplace import at_minimum
from qdml.limits.unknowns import values_of
from qdml.refine import refine


def search_of(cost_of, spread, low=-6.0, high=1.0, at=-2.302585):
    """A search that has ended, of a world in which σ alone is unknown and χ² a given function of ln σ.

    At σ = 0.1, or where `at` says.
    """
    theta = torch.tensor([[1.0, at, 0.0, 0.0, 0.0]], dtype=torch.float64)
    columns = torch.tensor([1])
    bounds = torch.tensor([low], dtype=torch.float64), torch.tensor([high], dtype=torch.float64)
    information = torch.tensor([0.0, 12 / (high - low) ** 2, 0.0, 0.0], dtype=torch.float64)
    recipe = SimpleNamespace(space=SimpleNamespace(straight=torch.ones_like))
    rows = SimpleNamespace(
        recipe=recipe, y=torch.zeros(1, 1, dtype=torch.float64), value=lambda x, index: x[:, :1]
    )
    return SimpleNamespace(
        theta=theta, columns=columns, known=torch.zeros(5, dtype=torch.float64), rows=rows,
        prior=SimpleNamespace(information=information), low=bounds[0], high=bounds[1], all=torch.arange(1),
        matrix=torch.full((1, 1, 1), spread**-2 - float(information[1]), dtype=torch.float64),
        free=torch.tensor([False, True, False, False, True]), model=torch.zeros(1, 1, dtype=torch.float64),
        slopes=torch.zeros(1, 1, 1), weight=lambda model, index: torch.ones_like(model),
        cost=lambda x, model, weight, index: cost_of(x[:, 1]),
        moved=lambda x, step: torch.cat([x[:, :1], x[:, 1:2] + step, x[:, 2:]], dim=1),
    )  # fmt: skip


def test_a_parabola_gives_a_normal_density() -> None:
    spread = 0.03
    found = at_minimum(search_of(lambda x: ((x + 2.302585) / spread) ** 2, spread)).posterior
    mean, covariance = found.moments()
    assert float(mean[0, 1]) == pytest.approx(-2.302585, abs=0.1 * spread)
    assert float(covariance[0, 1, 1]) == pytest.approx(spread**2, rel=0.1)
    # 68 % and 95 % of it, to 2 %.
    point = torch.tensor(
        [[[1.0, -2.302585 + k * spread, 0.0]] for k in (-1.96, -1, 1, 1.96)], dtype=torch.float64
    )
    below = [float(found.cdf(one)[0, 1]) for one in point]
    assert below == pytest.approx([0.025, 0.159, 0.841, 0.975], abs=0.02)


def test_a_pattern_that_knows_the_second_moment_has_a_long_tail_to_narrow_distributions() -> None:
    # χ² = (σ² - 0.01)²/s², s = 0.005: σ may be 0, which lies at no finite ln σ.
    s = 0.005
    spread = s / (2 * 0.01)
    found = at_minimum(search_of(lambda x: ((torch.exp(2 * x) - 0.01) / s) ** 2, spread, low=-4.0)).posterior
    narrow, wide = (
        float(found.cdf(torch.tensor([[1.0, x, 0.0]], dtype=torch.float64))[0, 1]) for x in (-2.95, -1.8)
    )
    # σ and D flat between their bounds; D_v is known.
    x = torch.linspace(-4.0, 1.0, 20_001, dtype=torch.float64)
    p = torch.exp(x - 0.5 * ((torch.exp(2 * x) - 0.01) / s) ** 2) / (1 + torch.exp(2 * x)) ** 3
    exact = torch.cumsum(p, 0) / p.sum()
    assert narrow == pytest.approx(float(exact[x <= -2.95][-1]), abs=0.03)
    assert wide == pytest.approx(float(exact[x <= -1.8][-1]), abs=0.03)


def compare(cost_of, data_spread, low, high, at, points):
    """The posterior beside the exact one, every D and σ as likely: the largest difference of shares below some σ."""
    # Data and the range of ln σ together are what the matrix knows.
    spread = (data_spread**-2 + 12 / (high - low) ** 2) ** -0.5
    found = at_minimum(search_of(cost_of, spread, low, high, at)).posterior
    x = torch.linspace(low, high, 20_001, dtype=torch.float64)
    exact = torch.cumsum(torch.exp(x - 0.5 * cost_of(x)) / (1 + torch.exp(2 * x)) ** 3, 0)
    off = []
    for sigma in points:
        point = torch.tensor([[1.0, math.log(sigma), 0.0]], dtype=torch.float64)
        off.append(abs(float(found.cdf(point)[0, 1]) - float(exact[x <= math.log(sigma)][-1] / exact[-1])))
    return max(off)


def test_narrow_distributions_say_nothing_against_wider_ones() -> None:
    # At the lower bound of σ, 5 %; σ² is known to 0.01: 15 % are two standard deviations away. A density of ln σ
    # with the curvature of the minimum and the width of the range would end at 11 %, and be wrong by 0.18.
    low, high = math.log(0.05), math.log(0.3)

    def cost_of(x):
        return ((torch.exp(2 * x) - 0.0025) / 0.01) ** 2

    # 0.03: eleven nodes (0.013 as it is).
    assert compare(cost_of, 0.01 / (2 * 0.0025), low, high, low, (0.08, 0.1, 0.12, 0.15)) < 0.03


def test_nodes_go_on_where_the_valley_is_less_steep_than_at_its_minimum() -> None:
    # σ² = 0.01 ± 0.002 by the curvature, but four of these cost 1.8 of χ² instead of 16. Nodes over four alone are
    # wrong by 0.11, those that go on by 0.03.
    def cost_of(x):
        away = ((torch.exp(2 * x) - 0.01) / 0.002).abs()
        return away**2 / (1 + 2 * away)

    low, high = math.log(0.02), math.log(0.35)
    assert compare(cost_of, 0.1, low, high, math.log(0.1), (0.06, 0.1, 0.12, 0.14, 0.16, 0.18)) < 0.05


def test_where_the_bound_holds_sigma_its_slope_counts() -> None:
    # χ² rises by 400 σ² from the bound on, without any curvature there: flat to the matrix.
    low, high = math.log(0.05), math.log(0.3)

    def cost_of(x):
        return 400 * (torch.exp(2 * x) - 0.0025)

    assert compare(cost_of, 50.0, low, high, low, (0.08, 0.1, 0.12)) < 0.03


def test_a_known_dispersion_has_one_component() -> None:
    generator = torch.Generator().manual_seed(5)
    recipe, main = AnalyticRecipe(3e3), dots(2, generator)
    setting, truth = recipe.setting(2), values_of(main)[:, :3]
    z_BL = recipe.space.draw(2, generator)
    observation = recipe.observe(recipe.expected(main, setting, z_BL), generator)
    known = prior()
    low, high = known.low.clone(), known.high.clone()
    low[1] = high[1] = float(truth[0, 1])
    held = refine(
        recipe, observation.take(slice(0, 1)), setting.take(slice(0, 1)), truth[:1],
        prior=type(known)(low=low, high=high),
    )  # fmt: skip
    free = refine(recipe, observation, setting, truth, prior=known)
    assert isinstance(held.posterior, GaussianMixture)
    assert held.posterior.logits.shape == (1, 1)
    assert free.posterior.logits.shape[1] > 1
    assert float(held.posterior.moments()[1][0, 0, 0]) < float(free.posterior.moments()[1][0, 0, 0])
