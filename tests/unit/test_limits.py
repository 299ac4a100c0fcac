"""Derivatives, bounds and their units, against finite differences and closed forms."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from analytic_recipe import RANGES, AnalyticRecipe, Q, dots, prior

from qdml.augmentation.recipe import Main
from qdml.limits.cramer_rao import bound, cramer_rao, quantity_errors, rmse_over_bound
from qdml.limits.jacobian import recipe_jacobian
from qdml.limits.unknowns import MAIN, MainPrior, main_of, values_of


def scene(n=3, photons=1e4):
    generator = torch.Generator().manual_seed(0)
    recipe = AnalyticRecipe(photons)
    main, setting = dots(n, generator), recipe.setting(n)
    return recipe, main, setting, recipe.space.draw(n, generator)


def intensity64(recipe, main, setting, values_BN, z_BL):
    """The expected pattern in float64."""
    exact = AnalyticRecipe(recipe.photons)
    exact.q = Q
    for name, field in recipe.space.fields.items():
        exact.space.fields[name] = dataclasses.replace(field, basis=field.basis.double())
    size, log_sigma, strain, log_b = values_BN.unbind(dim=1)
    main = Main(
        log_volume_diameter=size,
        sigma=log_sigma.exp(),
        strain=strain,
        variant=main.variant,
        b_scale=log_b.exp(),
    )
    return exact.expected(main, dataclasses.replace(setting, mask=setting.mask.double()), z_BL).intensity


def differences(recipe, main, setting, z_BL, step=1e-5):
    """(B, Q, U) float64 central differences with respect to every unknown."""
    x = torch.cat([values_of(main), z_BL.double()], dim=1)
    columns = []
    for unknown in range(x.shape[1]):
        move = torch.zeros_like(x)
        move[:, unknown] = step
        high, low = (
            intensity64(recipe, main, setting, moved[:, : len(MAIN)], moved[:, len(MAIN) :])
            for moved in (x + move, x - move)
        )
        columns.append((high - low) / (2 * step))
    return torch.stack(columns, dim=2)


def test_derivatives_are_those_of_finite_differences() -> None:
    recipe, main, setting, z_BL = scene()
    expected, slopes_BQU = recipe_jacobian(recipe, main, setting, z_BL)
    reference = differences(recipe, main, setting, z_BL)
    assert slopes_BQU.shape == reference.shape == (3, len(Q), len(MAIN) + len(recipe.space))
    scale = reference.abs().amax(dim=1).clamp(min=1e-3)
    # float32 against float64; every column by its largest value.
    assert float(((slopes_BQU - reference).abs().amax(dim=1) / scale).max()) < 2e-5
    # The pattern keeps the mean 1 whatever changes, fields included.
    assert float(slopes_BQU.mean(dim=1).abs().max()) < 1e-4
    assert float((expected.intensity.mean(dim=1) - 1).abs().max()) < 1e-5


def test_bound_is_the_marginal_of_the_inverse_information() -> None:
    recipe, main, setting, z_BL = scene()
    found = cramer_rao(recipe, main, setting, z_BL, prior(), rows=2)
    slopes = differences(recipe, main, setting, z_BL)
    intensity = intensity64(recipe, main, setting, values_of(main), z_BL.double())
    # ln b is known: no column. The scale is not: a column without prior.
    slopes = torch.cat([slopes[..., :3], slopes[..., 4:], intensity[..., None]], dim=2)
    diagonal = torch.cat([prior().information[:3], torch.ones(len(recipe.space)), torch.zeros(1)])
    slopes[..., 3:-1] *= recipe.space.straight(z_BL)[:, None, :]
    for row in range(3):
        matrix = slopes[row].T @ (slopes[row] * (recipe.photons / intensity[row])[:, None]) + torch.diag(
            diagonal
        )
        assert torch.allclose(found[row], torch.linalg.inv(matrix)[:3, :3], rtol=1e-3, atol=1e-10)


def test_bound_of_a_straight_line_has_a_closed_form() -> None:
    # y = t_0 a(Q) + z b(Q) with a·a = n, a·b = c n, unit weights: var t_0 = 1/(n - (cn)²/(n + 1)).
    n, c = 50, 0.6
    a = torch.ones(n, dtype=torch.float64)
    b = c * a + math.sqrt(1 - c**2) * torch.tensor([(-1.0) ** i for i in range(n)], dtype=torch.float64)
    slopes = torch.zeros((1, n, len(MAIN) + 1), dtype=torch.float64)
    slopes[0, :, 0], slopes[0, :, -1] = a, b
    flat = MainPrior(low=torch.tensor([-1e9, 0.0, 0.0, 0.0]), high=torch.tensor([1e9, 0.0, 0.0, 0.0]))
    found = bound(slopes, torch.ones((1, n)), flat, n_latents=1)
    assert float(found[0, 0, 0]) == pytest.approx(1 / (n - (c * n) ** 2 / (n + 1)), rel=1e-9)
    # What is known has no error.
    assert float(found[0, 1, 1]) == 0
    # Without photons the range is all that is left: its variance as a uniform density.
    wide = MainPrior(low=torch.tensor([0.0, 0, 0, 0]), high=torch.tensor([3.0, 0, 0, 0]))
    assert float(bound(slopes, torch.zeros((1, n)), wide, n_latents=1)[0, 0, 0]) == pytest.approx(9 / 12)


def test_more_photons_lower_the_bound() -> None:
    few, many = (cramer_rao(*scene(photons=p), prior()).diagonal(dim1=1, dim2=2) for p in (1e3, 1e5))
    assert bool((many < few).all())


def test_unknown_dispersion_makes_the_number_mean_worse() -> None:
    # cov(ln D_v, ln σ) = 0: var ln D = var ln D_v + (6σ²/(1+σ²))² var ln σ.
    targets = torch.tensor([[math.log(5.0), math.log(0.1), 0.0]])
    covariance = torch.diag(torch.tensor([1e-4, 0.04, 1e-8]))[None]
    number, volume, sigma, strain = quantity_errors(covariance, targets)[0].tolist()
    slope = 6 * 0.01 / 1.01
    assert number == pytest.approx(5 / 1.01**3 * math.sqrt(1e-4 + slope**2 * 0.04), rel=1e-6)
    assert (volume, sigma, strain) == pytest.approx((0.05, 0.02, 1e-4), rel=1e-5)


def test_rmse_over_bound_is_one_for_the_bound_itself() -> None:
    generator = torch.Generator().manual_seed(1)
    sizes = torch.tensor([1.0, 10.0, 0.1])
    errors = torch.randn((20_000, 3), generator=generator) * sizes
    # 20 000 draws: good to 1/√(2·20 000) = 0.5 %; four times that.
    assert rmse_over_bound(errors, sizes.expand_as(errors)).tolist() == pytest.approx([1, 1, 1], abs=0.02)


def test_values_and_main_are_inverse() -> None:
    main = dots(4, torch.Generator().manual_seed(2))
    again = main_of(values_of(main), main.variant)
    for name in ("log_volume_diameter", "sigma", "strain", "b_scale"):
        assert torch.allclose(getattr(again, name), getattr(main, name), atol=1e-6)


def test_ranges_of_the_number_mean_become_those_of_the_volume_mean() -> None:
    found = MainPrior.of_ranges(RANGES, torch.device("cpu"))
    assert math.exp(float(found.low[0])) == pytest.approx(2 * (1 + 0.03**2) ** 3)
    assert math.exp(float(found.high[0])) == pytest.approx(8 * (1 + 0.3**2) ** 3)
    assert found.free.tolist() == [True, True, True, False]
    assert float(found.information[2]) == pytest.approx(12 / 0.01**2)


def test_bad_priors_are_refused() -> None:
    three = torch.zeros(3)
    with pytest.raises(ValueError, match="low must be 4 finite numbers"):
        MainPrior(low=three, high=three)
    with pytest.raises(ValueError, match="every high must be >= low"):
        MainPrior(low=torch.ones(4), high=torch.zeros(4))


def test_derivatives_that_are_not_finite_are_named() -> None:
    recipe, main, setting, z_BL = scene()
    z_BL[1, 0] = math.nan
    with pytest.raises(ValueError, match="derivatives of pattern 1 must be finite"):
        cramer_rao(recipe, main, setting, z_BL, prior())


def test_where_a_latent_lies_between_its_bounds_does_not_make_it_better_known() -> None:
    recipe, _, _, z_BL = scene(photons=100.0)
    errors = []
    for z in (0.0, 2.5):
        z_BL[:, 0] = z
        latent = recipe.space.straight(z_BL)[0, 0] * math.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        # dΦ/dv = 1/√12 at both ends.
        errors.append(float(latent))
    assert errors == pytest.approx([1 / math.sqrt(12)] * 2, rel=1e-5)
    assert bool((recipe.space.straight(z_BL)[:, 1:] == 1).all())
