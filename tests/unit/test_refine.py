"""`refine` on a world with a known answer: it reaches the bound, says how well it knows, from any start."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from analytic_recipe import AnalyticRecipe, WavyBackground, dots, prior

import qdml.refine
from qdml.augmentation.latents import LatentSpace
from qdml.densities import GaussianMixture
from qdml.limits.cramer_rao import cramer_rao, rmse_over_bound
from qdml.limits.unknowns import values_of
from qdml.nuisance import Nuisance
from qdml.refine import refine
from qdml.search import correlated_points


@pytest.fixture(scope="module")
def measured():
    """96 patterns, their truth, and starts that are off by 10 % in size and by a factor 1.5 in dispersion."""
    generator = torch.Generator().manual_seed(0)
    n, recipe = 96, AnalyticRecipe(3e3)
    main, setting = dots(n, generator), recipe.setting(n)
    z_BL = recipe.space.draw(n, generator)
    observation = recipe.observe(recipe.expected(main, setting, z_BL), generator)
    truth = values_of(main)[:, :3]
    start = truth + torch.randn(truth.shape, generator=generator) * torch.tensor([0.1, 0.4, 0.001])
    return recipe, observation, setting, main, z_BL, truth, start


@pytest.fixture(scope="module")
def found(measured):
    recipe, observation, setting, _, _, _, start = measured
    return refine(recipe, observation, setting, start, prior=prior())


def test_reaches_the_bound(measured, found) -> None:
    recipe, _, setting, main, z_BL, truth, _ = measured
    bound = cramer_rao(recipe, main, setting, z_BL, prior()).diagonal(dim1=1, dim2=2).sqrt()
    ratio = rmse_over_bound(found.posterior.moments()[0] - truth, bound)
    assert bool(found.converged.all())
    # 96 patterns: good to 1/√192 = 7 %; three times that.
    assert ratio.tolist() == pytest.approx([1, 1, 1], abs=0.22)


def test_is_as_sure_as_it_may_be(measured, found) -> None:
    truth = measured[5]
    mean, covariance = found.posterior.moments()
    inside = (mean - truth).abs() < covariance.diagonal(dim1=1, dim2=2).sqrt()
    # 68 % of 288 answers, of three correlated quantities: good to about 4 %; three times that.
    assert float(inside.float().mean()) == pytest.approx(0.68, abs=0.12)
    assert float(found.chi2.mean()) == pytest.approx(1, abs=0.03)
    assert float((found.unit == 1).float().mean()) > 0.95


def test_other_starts_end_in_the_same_minimum(measured, found) -> None:
    recipe, observation, setting, _, _, truth, _ = measured
    few = slice(0, 12)
    away = truth[few] + torch.tensor([0.15, -0.3, 0.001])
    again = refine(recipe, observation.take(few), setting.take(few), away, prior=prior())
    spread = again.posterior.moments()[1].diagonal(dim1=1, dim2=2).sqrt()
    assert float(((again.values - found.values[few])[:, :3] / spread).abs().max()) < 0.1


def test_of_several_starts_the_best_is_kept(measured, found) -> None:
    recipe, observation, setting, _, _, _, start = measured
    few = slice(0, 6)
    hopeless = torch.tensor([0.75, -1.3, 0.005]).expand(6, 3)
    starts = torch.stack([hopeless, start[few]])
    both = refine(recipe, observation.take(few), setting.take(few), starts, prior=prior())
    # Searches end where main parameters stand still; latents may have a little of χ² left to win.
    assert bool((both.cost <= found.cost[few] + 0.5).all())


def test_scale_and_batch_size_change_nothing(measured, found) -> None:
    recipe, observation, setting, _, _, _, start = measured
    few = slice(0, 5)
    one = observation.take(few)
    scaled = type(one)(
        intensity=7 * one.intensity, noise=7 * one.noise, mask=one.mask, conditions=one.conditions
    )
    again = refine(recipe, scaled, setting.take(few), start[few], prior=prior(), rows=2)
    # A search ends within a tenth of a standard error; rounding of float32 decides less.
    variance = found.posterior.moments()[1][few].diagonal(dim1=1, dim2=2)
    off = (again.values - found.values[few]).abs()
    assert bool((off[:, :3] < 0.04 * variance.sqrt()).all())
    assert torch.allclose(again.intensity, 7 * found.intensity[few], rtol=1e-4)


def test_start_may_be_a_posterior(measured, found) -> None:
    recipe, observation, setting, _, _, _, start = measured
    few = slice(0, 3)
    density = GaussianMixture(
        logits=torch.zeros(3, 1),
        mean=start[few, None].float(),
        scale_tril=0.1 * torch.eye(3).expand(3, 1, 3, 3),
    )
    again = refine(recipe, observation.take(few), setting.take(few), density, prior=prior())
    assert torch.allclose(again.values, found.values[few], atol=1e-4)


def test_a_wrong_world_widens_the_posterior(measured, found) -> None:
    recipe, observation, setting, _, _, _, start = measured
    few = slice(0, 8)
    one = observation.take(few)
    wave = 1 + 0.2 * torch.sin(9 * recipe.q)
    wrong = type(one)(
        intensity=one.intensity * wave, noise=one.noise, mask=one.mask, conditions=one.conditions
    )
    again = refine(recipe, wrong, setting.take(few), start[few], prior=prior())
    assert float(again.unit.min()) > 2
    widths = [
        result.posterior.moments()[1][:, 0, 0].sqrt()
        for result in (again, refine(recipe, one, setting.take(few), start[few], prior=prior()))
    ]
    assert bool((widths[0] > 1.4 * widths[1]).all())
    # A model error that is allowed for makes χ² smaller.
    allowed = refine(recipe, wrong, setting.take(few), start[few], prior=prior(), model_error=0.1)
    assert bool((allowed.chi2 < again.chi2).all())


def test_masked_points_are_not_looked_at(measured) -> None:
    recipe, observation, setting, _, _, _, start = measured
    few = slice(0, 2)
    one = observation.take(few)
    mask = one.mask.clone()
    mask[:, :60] = 0
    spoiled = one.intensity.clone()
    spoiled[:, :60] = 1e6
    results = [
        refine(
            recipe, type(one)(intensity=y, noise=one.noise, mask=mask, conditions=one.conditions),
            setting.take(few), start[few], prior=prior(),
        )
        for y in (one.intensity, spoiled)
    ]  # fmt: skip
    assert torch.equal(results[0].values, results[1].values)


def guess_of(z_BL: torch.Tensor, log_variant: tuple[float, ...] = (0.0,)) -> Nuisance:
    n = len(z_BL)
    return Nuisance(log_b_scale=torch.zeros(n), z=z_BL, log_variant=torch.tensor(log_variant).expand(n, -1))


def test_begins_where_a_network_guesses(measured, found) -> None:
    recipe, observation, setting, _, _, _, _ = measured
    few = slice(0, 24)
    again = refine(
        recipe, observation.take(few), setting.take(few), found.posterior.take(few), prior=prior(),
        nuisance=guess_of(found.z[few]),
    )  # fmt: skip
    assert float(again.steps.double().mean()) < 0.6 * float(found.steps[few].double().mean())
    assert bool((again.cost <= found.cost[few] + 0.5).all())


def test_a_guess_that_leads_nowhere_is_left(measured, found) -> None:
    recipe, observation, setting, _, _, _, start = measured
    few = slice(0, 12)
    wrong = torch.full((12, len(recipe.space)), 6.0)
    again = refine(
        recipe, observation.take(few), setting.take(few), start[few], prior=prior(), steps=6,
        nuisance=guess_of(wrong),
    )  # fmt: skip
    assert bool((again.chi2 < found.chi2[few] + 0.1).all())
    # Some needed a second search.
    assert int(again.steps.max()) > 6


def test_a_network_that_says_something_else_is_asked_again(
    measured, found, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, observation, setting, _, _, _, _ = measured
    few, tried, fit = slice(0, 6), [], qdml.refine._fit

    def noted(problem, theta, variant, worth=None, *, settled=False):
        tried.append((len(theta), settled))
        return fit(problem, theta, variant, worth, settled=settled)

    monkeypatch.setattr(qdml.refine, "_fit", noted)
    mean, covariance = found.posterior.take(few).moments()
    spread = covariance.diagonal(dim1=1, dim2=2).sqrt()
    guess = guess_of(torch.zeros(6, len(recipe.space)))
    for away, doubted in ((1.0, 0), (8.0, 6)):
        # A network as sure as the fit, and some standard deviations away.
        said = mean + away * spread * torch.tensor([1.0, 0, 0])
        start = GaussianMixture(
            logits=torch.zeros(6, 1),
            mean=said[:, None].float(),
            scale_tril=torch.linalg.cholesky(covariance)[:, None].float(),
        )
        tried.clear()
        again = refine(recipe, observation.take(few), setting.take(few), start, nuisance=guess, prior=prior())
        assert tried == [(6, False)] + ([(doubted, True)] if doubted else [])
        # The pattern decides, not the network.
        assert float(((again.values - found.values[few])[:, :3] / spread).abs().max()) < 0.1


def test_steps_are_straight_in_the_shares_of_mixtures() -> None:
    space = LatentSpace()
    space.normal("shift")
    space.mixture("liquid", 4, 3.0)
    generator = torch.Generator().manual_seed(6)
    z, step = (torch.randn((500, 5), generator=generator, dtype=torch.float64) for _ in range(2))
    share, change = torch.func.jvp(lambda x: torch.softmax(3 * x[:, 1:], dim=1), (z,), (step,))
    moved = space.moved(z, step)
    after = torch.softmax(3 * moved[:, 1:], dim=1)
    assert torch.equal(moved[:, 0], (z + step)[:, 0])
    # Where the tangent halves no share.
    gentle = (share + change > 0.5 * share).all(dim=1)
    assert int(gentle.sum()) > 20
    assert torch.allclose(after[gentle], (share + change)[gentle])
    assert bool((after > 0).all())


def test_amplitudes_are_neither_too_small_nor_too_large() -> None:
    generator, n = torch.Generator().manual_seed(4), 48
    recipe = WavyBackground(3e4)
    main, setting, z_BL = dots(n, generator), recipe.setting(n), recipe.space.draw(n, generator)
    observation = recipe.observe(recipe.expected(main, setting, z_BL), generator)
    found = refine(
        recipe, observation, setting, values_of(main)[:, :3], prior=prior(), nuisance=guess_of(0.3 * z_BL)
    )
    known = torch.special.ndtr(torch.stack([found.z[:, -1], z_BL[:, -1]]))
    assert float(torch.corrcoef(known)[0, 1]) > 0.8
    assert float((known[0] - known[1]).mean()) == pytest.approx(0, abs=0.08)


class TwoShapes(AnalyticRecipe):
    """Dots of the second shape look like those of the first that are 10 % smaller, and scatter like them otherwise."""

    def expected(self, main, setting, z_BL):
        seen = main.log_volume_diameter - math.log(1.1) * main.variant
        return super().expected(replace(main, log_volume_diameter=seen), setting, z_BL)


def test_shapes_that_look_alike_share_the_posterior() -> None:
    generator, n = torch.Generator().manual_seed(2), 64
    recipe = TwoShapes(3e3)
    setting, main = recipe.setting(n), dots(n, generator)
    main = replace(main, variant=torch.arange(n) % 2)
    observation = recipe.observe(recipe.expected(main, setting, recipe.space.draw(n, generator)), generator)
    truth = values_of(main)[:, :3]
    options = {"prior": prior(), "variants": (0, 1)}
    found = refine(recipe, observation, setting, truth, **options)
    assert float((found.probability - 0.5).abs().max()) < 0.1
    rank = found.posterior.cdf(truth)[:, 0]
    # Of 64 patterns 68 % are known to 6 %; were one shape chosen, half of them would be 10 % off, five standard errors.
    assert float(((rank - 0.5).abs() < 0.34).double().mean()) == pytest.approx(0.68, abs=0.17)
    few = slice(0, 4)
    weighted = refine(
        recipe, observation.take(few), setting.take(few), truth[few], weights=(3.0, 1.0), **options
    )
    assert weighted.probability[:, 0].tolist() == pytest.approx([0.75] * 4, abs=0.1)
    guess = guess_of(torch.zeros(4, len(recipe.space)), (-0.001, -7.0))
    sure = refine(recipe, observation.take(few), setting.take(few), truth[few], nuisance=guess, **options)
    assert sure.probability.tolist() == [[1.0, 0.0]] * 4
    assert bool((sure.steps < found.steps[few]).all())


def test_a_residual_of_waves_is_few_observations() -> None:
    generator = torch.Generator().manual_seed(3)
    white = torch.randn((4, 2000), generator=generator, dtype=torch.float64)
    smooth = torch.nn.functional.avg_pool1d(white[:, None], 10, stride=1)[:, 0]
    full = torch.ones_like
    assert float(correlated_points(white, full(white)).max()) < 1.5
    # Means of ten points: the autocorrelation falls linearly over ten, and 1 + 2 Σ ρ = 10.
    assert float(correlated_points(smooth, full(smooth)).mean()) == pytest.approx(10, rel=0.25)


def test_bad_input_is_refused(measured) -> None:
    recipe, observation, setting, _, _, _, start = measured
    with pytest.raises(ValueError, match=r"96 patterns need 96 settings and starts of the shape \(96, 3\)"):
        refine(recipe, observation, setting, start[:4], prior=prior())
    blind = type(observation)(
        intensity=observation.intensity[:2], noise=observation.noise[:2], mask=0 * observation.mask[:2],
        conditions=observation.conditions[:2],
    )  # fmt: skip
    with pytest.raises(ValueError, match="pattern 0 has no visible point"):
        refine(recipe, blind, setting.take(slice(0, 2)), start[:2], prior=prior())
    with pytest.raises(ValueError, match="give `prior`"):
        refine(recipe, observation, setting, start)
    with pytest.raises(ValueError, match=r"2 variants need as many weights > 0, got \(1.0, 0.0\)"):
        refine(recipe, observation, setting, start, prior=prior(), variants=(0, 1), weights=(1.0, 0.0))
    with pytest.raises(ValueError, match="use the recipe that the network was trained with"):
        refine(recipe, observation, setting, start, prior=prior(), nuisance=guess_of(torch.zeros(96, 2)))
