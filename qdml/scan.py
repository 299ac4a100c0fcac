"""Where to start `refine` when no network has answered: sizes and dispersions tried one after the other.

For each of some (D_v, σ), everything else in the middle of what is expected, the parts of the expected pattern (dots,
solvent, background, ...) times slow polynomials of Q are fitted to the measured one by linear least squares. The lowest
minima along the size are starts. No more is asked of it than to land in the right valley: strain, B and latents follow.

Symbols: B pattern, Q point of the grid, T target, H hypothesis, C column, S start.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from qdml.densities import TARGETS
from qdml.limits.unknowns import MAIN, MainPrior, main_of

if TYPE_CHECKING:
    from qdml.augmentation.recipe import Recipe, Setting
    from qdml.observation import Observation

__all__ = ["scan"]

# Sizes are a factor 1.17 apart, less than what a valley is wide; two dispersions, for narrow and for wide reflections.
_SIZE_STEP = 0.16
_SIGMAS = (0.08, 0.17)
# Polynomials of each part up to this degree, with the prior that coefficients are not larger than this.
_DEGREE, _LARGEST = 2, 10.0
# Relative error of such a fit, in its weights.
_ERROR = 0.03


@torch.no_grad()
def scan(
    recipe: Recipe,
    observation: Observation,
    setting: Setting,
    *,
    prior: MainPrior | None = None,
    variant: int = 0,
    keep: int = 2,
    rows: int = 8,
) -> torch.Tensor:
    """(S, B, T) float64 starts for `qdml.refine.refine`, the best first.

    Args:
        recipe: the world.
        observation: measured, or drawn.
        setting: what is known of the measurements.
        prior: ranges of the main parameters; None for those of the recipe's dots.
        variant: of the dots.
        keep: S.
        rows: patterns at a time.

    Raises:
        ValueError: the recipe has no dots to take ranges from.
    """
    if prior is None:
        if recipe.basis is None:
            raise ValueError("scan: the recipe has no dots to take ranges from; give `prior`")
        prior = MainPrior.of_ranges(recipe.basis.ranges, observation.mask.device)
    hypotheses_HT, n_sizes = _hypotheses(prior)
    parts = [
        _scores(
            recipe,
            observation.take(slice(first, first + rows)),
            setting.take(slice(first, first + rows)),
            hypotheses_HT,
            prior,
            variant,
        )
        for first in range(0, len(observation), rows)
    ]
    score_BH = torch.cat(parts)
    # The better dispersion of each size, and minima along the size.
    score_BDs = score_BH.unflatten(1, (n_sizes, -1))
    best_BD, which_BD = score_BDs.min(dim=2)
    beyond = torch.full_like(best_BD[:, :1], torch.inf)
    padded = torch.cat([beyond, best_BD, beyond], dim=1)
    minimum_BD = (best_BD <= padded[:, :-2]) & (best_BD <= padded[:, 2:])
    order_BS = torch.where(minimum_BD, best_BD, best_BD + best_BD.amax()).argsort(dim=1)[:, :keep]
    chosen_BS = order_BS * score_BDs.shape[2] + which_BD.gather(1, order_BS)
    return hypotheses_HT[chosen_BS].transpose(0, 1)


def _hypotheses(prior: MainPrior) -> tuple[torch.Tensor, int]:
    """(H, T) sizes x dispersions, and the number of sizes."""
    low, high = prior.low[: len(TARGETS)], prior.high[: len(TARGETS)]
    n = max(2, math.ceil(float(high[0] - low[0]) / _SIZE_STEP) + 1)
    sizes = torch.linspace(float(low[0]), float(high[0]), n, dtype=torch.float64)
    sigmas = torch.tensor(_SIGMAS, dtype=torch.float64).log().clamp(float(low[1]), float(high[1])).unique()
    pairs = torch.cartesian_prod(sizes, sigmas).to(low.device)
    strain = ((low[2] + high[2]) / 2).expand(len(pairs), 1)
    return torch.cat([pairs, strain], dim=1), n


def _scores(
    recipe: Recipe,
    observation: Observation,
    setting: Setting,
    hypotheses_HT: torch.Tensor,
    prior: MainPrior,
    variant: int,
) -> torch.Tensor:
    """(b, H) what each hypothesis leaves, of the squared weighted pattern."""
    n, n_h, device = len(observation), len(hypotheses_HT), observation.mask.device
    each = torch.arange(n, device=device).repeat_interleave(n_h)
    values = ((prior.low + prior.high) / 2).repeat(n * n_h, 1)
    values[:, : len(TARGETS)] = hypotheses_HT.repeat(n, 1)
    assert values.shape[1] == len(MAIN)
    z_BL = torch.zeros((n * n_h, len(recipe.space)), device=device)
    main = main_of(values, torch.full((n * n_h,), variant, device=device))
    expected = recipe.expected(main, setting.take(each), z_BL)
    columns_BCQ = torch.stack(list(expected.parts.values()), dim=1)
    mask_bQ = observation.mask
    mean_b1 = (observation.intensity * mask_bQ).sum(dim=1, keepdim=True) / mask_bQ.sum(dim=1, keepdim=True)
    y_bQ = torch.where(mask_bQ > 0, observation.intensity / mean_b1.clamp(min=1e-30), 0.0)
    noise_bQ = torch.where(mask_bQ > 0, observation.noise / mean_b1.clamp(min=1e-30), 1.0)
    weight_bQ = mask_bQ / torch.sqrt(noise_bQ**2 + (_ERROR * y_bQ) ** 2).clamp(min=1e-12)
    x = torch.linspace(-1, 1, y_bQ.shape[1], device=device)
    slow_KQ = torch.stack([x**power for power in range(_DEGREE + 1)])
    columns_BCQ = (columns_BCQ[:, :, None] * slow_KQ).flatten(1, 2) * weight_bQ[each, None]
    target_BQ = (y_bQ * weight_bQ)[each].double()
    columns = columns_BCQ.double()
    gram = columns @ columns.mT
    pull = columns @ target_BQ[..., None]
    ridge = torch.eye(gram.shape[1], dtype=gram.dtype, device=device) / _LARGEST**2
    solved = torch.linalg.solve(gram + ridge, pull)
    # |y - Ax|² + |x|²/largest² at the minimum.
    left = (target_BQ**2).sum(dim=1) - (pull * solved).sum(dim=(1, 2))
    return left.unflatten(0, (n, n_h))
