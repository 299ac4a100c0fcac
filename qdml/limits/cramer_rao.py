"""The Cramér-Rao bound: how well any estimator can know size, dispersion and strain from a pattern.

Photons are Poisson numbers of variance I/r per unit of intensity I, r photons per intensity. With the derivatives J of
I with respect to all unknowns, the Bayesian information and the bound on the covariance of any estimate are

    F = Jᵀ diag(m r/I) J + prior,        cov >= F⁻¹

(H. L. Van Trees, Detection, Estimation, and Modulation Theory I, 2.4; F at one point rather than its mean over the
prior). Every latent has variance 1, whether it is a normal number or the position between two bounds
(`LatentSpace.straight`): 1 on the diagonal. Main parameters are uniform between bounds (`qdml.limits.unknowns`). The
scale of a pattern is not known: a column I without prior. What is asked for is the block of the targets in F⁻¹: all
the rest is marginalised.

Valid where the posterior is nearly normal. Where it is not (dispersion of small dots with few photons, parameters near
the ends of their ranges) an estimator may be better than F⁻¹ at one point, never on average over the range.

Symbols: B pattern, Q point of the grid, N main parameter, T target, U unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qdml.densities import TARGETS
from qdml.limits.jacobian import recipe_jacobian
from qdml.limits.unknowns import MAIN, main_of, values_of

if TYPE_CHECKING:
    from qdml.augmentation.recipe import Main, Recipe, Setting
    from qdml.limits.unknowns import MainPrior

__all__ = ["QUANTITIES", "cramer_rao", "information", "quantity_errors", "rmse_over_bound"]

#: Order of `quantity_errors`: number mean and volume mean [nm], relative σ, ε.
QUANTITIES = ("diameter_nm", "diameter_volume_nm", "sigma", "strain")

# Added to the diagonal, relative: columns that are sums of others stay solvable. float64 leaves 1e-16.
_RIDGE = 1e-12
# Patterns at a time on a CPU: what one needs in float64 fills the cache of a core.
_ROWS = 1


def information(slopes_BQU: torch.Tensor, weight_BQ: torch.Tensor, prior_U: torch.Tensor) -> torch.Tensor:
    """(B, U, U) float64: Jᵀ W J + prior.

    Args:
        slopes_BQU: derivatives of the intensity.
        weight_BQ: 1/variance of the intensity, 0 where nothing was measured.
        prior_U: information before the measurement.
    """
    slopes_BUQ, root_BQ = slopes_BQU.mT, weight_BQ.double().clamp(min=0).sqrt()
    n_rows, n = slopes_BUQ.shape[:2]
    half = n // 2
    matrix_BUU = root_BQ.new_empty((n_rows, n, n))
    rows = _ROWS if root_BQ.device.type == "cpu" else n_rows
    for start in range(0, n_rows, rows):
        some = slice(start, start + rows)
        scaled_BUQ = slopes_BUQ[some].double().mul_(root_BQ[some, None])
        # Symmetric: half of the rows need half of the columns.
        matrix_BUU[some, :half, :half] = scaled_BUQ[:, :half] @ scaled_BUQ[:, :half].mT
        matrix_BUU[some, half:] = scaled_BUQ[:, half:] @ scaled_BUQ.mT
    matrix_BUU[:, :half, half:] = matrix_BUU[:, half:, :half].mT
    matrix_BUU.diagonal(dim1=1, dim2=2).add_(prior_U)
    return matrix_BUU


def cramer_rao(
    recipe: Recipe, main: Main, setting: Setting, z_BL: torch.Tensor, prior: MainPrior, *, rows: int = 32
) -> torch.Tensor:
    """(B, T, T) float64: the bound on the covariance of `TARGETS`.

    A target that is known (equal bounds in the prior) has variance 0.

    Args:
        recipe: the world.
        main: the true dots.
        setting: what is known of the measurements.
        z_BL: the true latents.
        prior: ranges of the main parameters.
        rows: patterns at a time; memory is theirs times points times unknowns, twice in float64.

    Raises:
        ValueError: derivatives are not finite.
    """
    parts, values_BN = [], values_of(main)
    for start in range(0, len(z_BL), rows):
        part = slice(start, start + rows)
        dots = main_of(values_BN[part], main.variant[part])
        expected, slopes_BQU = recipe_jacobian(recipe, dots, setting.take(part), z_BL[part])
        bad = ~torch.isfinite(slopes_BQU).all(dim=2).all(dim=1)
        if bool(bad.any()):
            row = start + int(torch.nonzero(bad)[0])
            values = dict(zip(MAIN, values_BN[row].tolist(), strict=True))
            raise ValueError(
                f"cramer_rao: derivatives of pattern {row} must be finite; its dots are {values}"
            )
        slopes_BQU[..., len(MAIN) :] *= recipe.space.straight(z_BL[part])[:, None, :]
        intensity_BQ = expected.intensity
        weight_BQ = expected.mask * expected.rate / intensity_BQ.clamp(min=1e-12)
        # The unknown scale.
        slopes_BQU = torch.cat([slopes_BQU, intensity_BQ[..., None]], dim=2)
        parts.append(bound(slopes_BQU, weight_BQ, prior, n_latents=z_BL.shape[1]))
    return torch.cat(parts)


def bound(
    slopes_BQU: torch.Tensor, weight_BQ: torch.Tensor, prior: MainPrior, *, n_latents: int
) -> torch.Tensor:
    """(B, T, T) float64 bound, from derivatives for main parameters, latents, and further columns without prior."""
    n_main, device = len(MAIN), slopes_BQU.device
    free = torch.cat(
        [prior.free.to(device), torch.ones(slopes_BQU.shape[2] - n_main, dtype=torch.bool, device=device)]
    )
    known = torch.zeros(slopes_BQU.shape[2], dtype=torch.float64, device=device)
    known[:n_main] = prior.information
    known[n_main : n_main + n_latents] = 1
    matrix = information(slopes_BQU[..., free], weight_BQ, known[free])
    # Unit diagonal: unknowns differ by orders of magnitude in scale.
    scale = matrix.diagonal(dim1=1, dim2=2).clamp(min=1e-300).rsqrt()
    matrix = matrix * scale[:, :, None] * scale[:, None, :]
    matrix.diagonal(dim1=1, dim2=2).add_(_RIDGE)
    targets = torch.nonzero(free[: len(TARGETS)])[:, 0]
    pick = torch.eye(matrix.shape[1], dtype=torch.float64, device=device)[:, : len(targets)]
    solved = torch.cholesky_solve(pick.expand(len(matrix), -1, -1), torch.linalg.cholesky(matrix))
    inner = solved[:, : len(targets)] * scale[:, : len(targets), None] * scale[:, None, : len(targets)]
    covariance = torch.zeros((len(matrix), len(TARGETS), len(TARGETS)), dtype=torch.float64, device=device)
    covariance[:, targets[:, None], targets[None, :]] = (inner + inner.mT) / 2
    return covariance


def quantity_errors(covariance_BTT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """(B, 4) float64 standard deviations of `QUANTITIES`.

    Args:
        covariance_BTT: of the targets.
        targets_BT: where: ln D = ln D_v - 3 ln(1 + σ²).
    """
    covariance, targets = covariance_BTT.double(), targets_BT.double()
    sigma = torch.exp(targets[:, 1])
    volume = torch.exp(targets[:, 0])
    number = volume / (1 + sigma**2) ** 3
    slope = -6 * sigma**2 / (1 + sigma**2)
    variance_number = covariance[:, 0, 0] + 2 * slope * covariance[:, 0, 1] + slope**2 * covariance[:, 1, 1]
    return torch.stack(
        [
            number * variance_number.clamp(min=0).sqrt(),
            volume * covariance[:, 0, 0].sqrt(),
            sigma * covariance[:, 1, 1].sqrt(),
            covariance[:, 2, 2].sqrt(),
        ],
        dim=1,
    )


def rmse_over_bound(error_BK: torch.Tensor, bound_BK: torch.Tensor) -> torch.Tensor:
    """(K,) root mean square of error/bound: 1 for an estimator that reaches the bound.

    Args:
        error_BK: estimate - truth.
        bound_BK: standard deviations of the bound, of the same quantities.
    """
    return (error_BK / bound_BK).square().mean(dim=0).sqrt()
