"""Levenberg-Marquardt through a world, for a batch of patterns at once: what `qdml.refine` runs.

Steps are damped in the metric of the priors, bent along the valley of χ², and promise less the less of the residual is
explained yet; see `qdml.refine` for what is minimised.

Symbols: B pattern, Q point, N main parameter, L latent, U unknown (N, L, ln s), T target; b some of the patterns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from qdml.limits.cramer_rao import information
from qdml.limits.jacobian import recipe_jacobian
from qdml.limits.unknowns import MAIN, MainPrior, main_of

if TYPE_CHECKING:
    from qdml.augmentation.recipe import Recipe, Setting
    from qdml.observation import Observation

__all__ = ["RIDGE", "STEPS", "Search", "World", "correlated_points", "misfit"]

#: Most derivatives of a search.
STEPS = 12
# A step that promises less of χ² ends the search: 1 is a standard deviation.
_TOLERANCE = 0.2
# One that promises less than this, at a damping that is not all that holds it back, has converged when the
# derivatives are used up.
_SETTLED, _STUCK = 1.0, 1e3
# Damping in a metric of where the world is straight, which is 1 for a latent, and this for the main parameters; not in
# that of χ² (D. W. Marquardt, SIAM J. Appl. Math. 11, 431 (1963)): with a million photons some directions are a million
# times stiffer than others, and all are as curved. λ by the gain ratio (H. B. Nielsen, IMM-REP-1999-05).
_STRAIGHT = (0.05, 0.3, 1e-3, 0.3)
_DAMPING, _FREE, _MOST_DAMPING, _LEAST_GAIN = 0.1, 30.0, 1e9, 1e-4
# How often a step is bent.
_BENDS = 2
# Steps of latents are cut here: none is changed by more than a large part of its prior at once.
_LONGEST = 3.0
# On a unit diagonal, for unknowns that cannot be told apart.
RIDGE = 1e-13
# Standard deviations of χ² beyond which a residual is not counting noise.
_BEYOND_NOISE = 4.0
_SMALLEST_CORRELATION = 0.05
_N = len(MAIN)


def misfit(residual_BQ: torch.Tensor, mask_BQ: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B,) s²τ, 1 where noise explains the residual; and (B,) s².

    Args:
        residual_BQ: weighted by the noise.
        mask_BQ: 1 where visible.
    """
    points = mask_BQ.sum(dim=1)
    s2 = (residual_BQ**2 * mask_BQ).sum(dim=1) / points
    beyond = ~(s2 <= 1 + _BEYOND_NOISE * (2 / points).sqrt())
    return torch.where(beyond, s2 * correlated_points(residual_BQ, mask_BQ), 1.0), s2


def correlated_points(residual_BQ: torch.Tensor, mask_BQ: torch.Tensor) -> torch.Tensor:
    """(B,) τ: over how many points a residual is one observation, at least 1.

    The integrated autocorrelation up to its first value below 0.05, as in `qdml.fitting.profile`.

    Args:
        residual_BQ: weighted.
        mask_BQ: 1 where visible.
    """
    n = residual_BQ.shape[1]
    mean_B1 = (residual_BQ * mask_BQ).sum(dim=1, keepdim=True) / mask_BQ.sum(dim=1, keepdim=True)
    spectrum = torch.fft.rfft((residual_BQ - mean_B1) * mask_BQ, 2 * n, dim=1)
    lagged = torch.fft.irfft(spectrum.abs() ** 2, dim=1)[:, : n // 2]
    rho = lagged[:, 1:] / lagged[:, :1].clamp(min=1e-300)
    inside = torch.cumprod((rho >= _SMALLEST_CORRELATION).to(rho), dim=1)
    return 1 + 2 * (rho * inside).sum(dim=1)


class World:
    """Some patterns of a search: what was measured, and the world at trial values."""

    def __init__(
        self,
        recipe: Recipe,
        observation: Observation,
        setting: Setting,
        variant_B: torch.Tensor,
        model_error: float,
    ) -> None:
        self.recipe, self.setting, self.variant_B = recipe, setting, variant_B
        self.mask = observation.mask.double()
        mean_B1 = (observation.intensity * self.mask).sum(dim=1, keepdim=True) / self.mask.sum(
            dim=1, keepdim=True
        )
        #: (B, 1) what intensities have been divided by.
        self.mean = mean_B1.clamp(min=1e-30)
        self.y = torch.where(self.mask > 0, observation.intensity.double() / self.mean, 0.0)
        noise = torch.where(self.mask > 0, observation.noise.double() / self.mean, 1.0)
        # Declared variance per intensity: of counts N declared as max(N, 1)^½ exactly 1/r.
        self.per_intensity = noise**2 / torch.maximum(self.y, noise).clamp(min=1e-30)
        self.model_error = model_error

    def weight(self, model_BQ: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """(b, Q) 1/V."""
        model = model_BQ.clamp(min=1e-9)
        return self.mask[index] / (self.per_intensity[index] * model + (self.model_error * model) ** 2).clamp(
            min=1e-30
        )

    def value(self, theta_BU: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """(b, Q) float64 s I."""
        main = main_of(theta_BU[:, :_N], self.variant_B[index])
        expected = self.recipe.expected(main, self.setting.take(index), theta_BU[:, _N:-1].float())
        return theta_BU[:, -1:].exp() * expected.intensity.double()

    def slopes(self, theta_BU: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """(b, Q, U) float32 its derivatives."""
        main = main_of(theta_BU[:, :_N], self.variant_B[index])
        expected, slopes_BQU = recipe_jacobian(
            self.recipe, main, self.setting.take(index), theta_BU[:, _N:-1].float()
        )
        scale_B11 = theta_BU[:, -1].exp().float()[:, None, None]
        return scale_B11 * torch.cat([slopes_BQU, expected.intensity[..., None]], dim=2)


class Search:
    """Levenberg-Marquardt for a batch."""

    def __init__(
        self, rows: World, theta: torch.Tensor, *, known: torch.Tensor, free: torch.Tensor, prior: MainPrior
    ) -> None:
        self.rows, self.theta, self.known, self.free, self.prior = rows, theta, known, free, prior
        n, device = len(theta), theta.device
        self.all = torch.arange(n, device=device)
        self.columns = torch.nonzero(free)[:, 0]
        # Bounds, and the metric of the damping, of the free unknowns.
        infinite = torch.full((theta.shape[1],), torch.inf, dtype=torch.float64, device=device)
        low, high, metric = -infinite, infinite.clone(), torch.ones_like(infinite)
        low[:_N], high[:_N] = prior.low.to(device), prior.high.to(device)
        metric[:_N] = torch.tensor(_STRAIGHT, dtype=torch.float64, device=device) ** -2
        self.low, self.high, self.metric = low[self.columns], high[self.columns], metric[self.columns]
        self.model = rows.value(theta, self.all)
        n_free = len(self.columns)
        self.slopes = torch.zeros((n, rows.y.shape[1], n_free), dtype=torch.float32, device=device)
        self.matrix = theta.new_zeros((n, n_free, n_free))
        self.damping = theta.new_full((n,), _DAMPING)
        self.growth = theta.new_full((n,), 2.0)
        self.converged = torch.zeros(n, dtype=torch.bool, device=device)
        self.steps = torch.zeros(n, dtype=torch.int64, device=device)
        #: u: by how much the residual is larger than noise.
        self.unit = theta.new_full((n,), torch.inf)
        self.widened = False

    def cost(
        self, theta: torch.Tensor, model: torch.Tensor, weight: torch.Tensor, index: torch.Tensor
    ) -> torch.Tensor:
        """(b,) χ²; what is not finite costs more than anything."""
        points = (weight * (self.rows.y[index] - model) ** 2).sum(dim=1)
        cost = points + (self.known * theta**2).sum(dim=1)
        return torch.where(torch.isfinite(cost), cost, torch.inf)

    def run(self, active: torch.Tensor, steps: int, worth_B: torch.Tensor | None = None) -> None:
        """Search until every one of some patterns has converged, or has used up its derivatives.

        Args:
            active: which.
            steps: most derivatives.
            worth_B: a search ends where not even the cost that a step promises is as low as this.
        """
        stale = active
        while len(active):
            if len(stale):
                self.derive(stale)
            theta, model = self.theta[active], self.model[active]
            weight = self.weight(model, active)
            step, promised, back = self.step(active, weight)
            trial, tried, cost = self.along(theta, model, weight, step, back, active)
            gained = self.cost(theta, model, weight, active) - cost
            gain = gained / promised.clamp(min=1e-300)
            better = (promised > 0) & (gain > _LEAST_GAIN)
            self.theta[active] = torch.where(better[:, None], trial, theta)
            self.model[active] = torch.where(better[:, None], tried, model)
            damping, growth = self.damping[active], self.growth[active]
            done = (promised >= 0) & (promised < _TOLERANCE) & (damping < _FREE)
            shrunk = (damping * (1 - (2 * gain - 1) ** 3).clamp(min=0.1)).clamp(min=1e-6)
            self.damping[active] = torch.where(better, shrunk, damping * growth)
            self.growth[active] = torch.where(better, 2.0, 2 * growth)
            going = ~done & (self.damping[active] < _MOST_DAMPING) & (~better | (self.steps[active] < steps))
            if worth_B is not None:
                left = torch.minimum(cost, cost + gained) - promised.clamp(min=0)
                going &= left < worth_B[active]
            # Out of derivatives, but with little left to win: latents creep on, main parameters do not.
            self.converged[active] = done | ((promised >= 0) & (promised < _SETTLED) & (damping < _STUCK))
            stale, active = active[going & better], active[going]

    def widen(self) -> None:
        """Where noise does not explain the residual, it counts by s²τ, and the priors by as much more."""
        residual = self.rows.weight(self.model, self.all).sqrt() * (self.rows.y - self.model)
        was, self.unit, self.widened = self.unit, misfit(residual, self.rows.mask)[0], True
        known = torch.diag(self.known[self.columns])
        self.matrix = (self.matrix - known) * (was / self.unit)[:, None, None] + known
        wide = self.all[self.unit > 1]
        if len(wide):
            self.damping[wide], self.growth[wide] = _DAMPING, 2.0
            most = int(self.steps.max())
            self.run(wide, most + STEPS // 4)

    def along(
        self,
        theta: torch.Tensor,
        model: torch.Tensor,
        weight: torch.Tensor,
        step: torch.Tensor,
        back: Callable[[torch.Tensor], torch.Tensor],
        index: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Where a step leads, its pattern and its cost: straight on, or bent towards what the derivatives promise.

        The pattern at the end of a straight step is off by its curvature. A step against that, with the same
        derivatives, follows the valley (M. K. Transtrum & J. P. Sethna, arXiv:1201.5885): a pattern more, where
        derivatives cost a hundred.
        """
        aim = model + (self.slopes[index] @ step.float()[..., None])[..., 0].double()
        whole = step
        best = None
        for bends in range(_BENDS + 1):
            trial = theta.clone()
            trial[:, self.columns] = (trial[:, self.columns] + whole).clamp(self.low, self.high)
            tried = self.rows.value(trial, index)
            cost = self.cost(trial, tried, weight, index)
            if best is None:
                best = trial, tried, cost
            else:
                lower = cost < best[2]
                best = (
                    torch.where(lower[:, None], trial, best[0]),
                    torch.where(lower[:, None], tried, best[1]),
                    torch.where(lower, cost, best[2]),
                )
            if bends < _BENDS:
                off = torch.nan_to_num(weight * (tried - aim), posinf=0.0, neginf=0.0)
                whole = whole - back((off[:, None, :].float() @ self.slopes[index])[:, 0].double())
        assert best is not None
        return best

    def derive(self, index: torch.Tensor) -> None:
        """Derivatives at the present values of some patterns."""
        slopes = self.rows.slopes(self.theta[index], index)[..., self.columns]
        self.slopes[index] = slopes
        residual = self.rows.weight(self.model[index], index).sqrt() * (
            self.rows.y[index] - self.model[index]
        )
        if not self.widened:
            s2 = misfit(residual, self.rows.mask[index])[1].clamp(min=1)
            self.unit[index] = torch.minimum(self.unit[index], s2)
        weight = self.weight(self.model[index], index)
        self.matrix[index] = information(slopes, weight, self.known[self.columns])
        self.steps[index] += 1

    def weight(self, model: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """(b, Q) 1/(V u)."""
        return self.rows.weight(model, index) / self.unit[index, None]

    def step(
        self, index: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """(b, free) the damped step, (b,) by how much it promises to lower χ², and what solves for another gradient."""
        theta, matrix = self.theta[index][:, self.columns], self.matrix[index]
        pull = weight * (self.rows.y[index] - self.model[index])
        gradient = (pull[:, None, :].float() @ self.slopes[index])[:, 0].double()
        gradient = gradient - self.known[self.columns] * theta
        diagonal = matrix.diagonal(dim1=1, dim2=2) + self.damping[index][:, None] * self.metric
        # Parameters at a bound that want to leave stay; those that would pass one go there, and the others are solved
        # again.
        held = ((theta <= self.low) & (gradient < 0)) | ((theta >= self.high) & (gradient > 0))
        step = torch.zeros_like(theta)
        for _ in range(len(MAIN)):
            fixed = torch.where(held, step, 0.0)
            pull = gradient - (matrix @ fixed[..., None])[..., 0]
            # Unit diagonal: unknowns differ by orders of magnitude in scale.
            scale = torch.where(held, 0.0, diagonal.clamp(min=1e-300).rsqrt())
            scaled = matrix * scale[:, :, None] * scale[:, None, :]
            scaled.diagonal(dim1=1, dim2=2).copy_(1 + RIDGE * torch.ones_like(scale))
            factor = torch.linalg.cholesky_ex(scaled)[0]
            solved = torch.cholesky_solve((pull * scale)[..., None], factor)[..., 0]
            step = torch.where(held, fixed, torch.nan_to_num(solved * scale))
            bounded = (theta + step).clamp(self.low, self.high) - theta
            passed = ~held & (bounded != step)
            step = torch.where(passed, bounded, step)
            if not bool(passed.any()):
                break
            held = held | passed
        longest = step[:, self.columns >= _N].abs().amax(dim=1, keepdim=True)
        step = step * (_LONGEST / longest.clamp(min=_LONGEST))
        promised = 2 * (gradient * step).sum(dim=1) - (step * (matrix @ step[..., None])[..., 0]).sum(dim=1)

        def back(pull: torch.Tensor) -> torch.Tensor:
            return torch.nan_to_num(torch.cholesky_solve((pull * scale)[..., None], factor)[..., 0] * scale)

        return step, promised, back
