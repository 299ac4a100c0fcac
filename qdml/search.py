"""Levenberg-Marquardt through a world, for a batch of patterns at once: what `qdml.refine` runs.

Steps are damped in the metric of the priors, straight in what latents stand for (`LatentSpace.moved`), bent along the
valley of χ², and promise less the less of the residual is explained yet; see `qdml.refine` for what is minimised.
Derivatives cost thirty patterns: they serve for several steps, and those of many patterns are taken together.

Symbols: B pattern, Q point, N main parameter, L latent, U unknown (N, L, ln s), T target; b some of the patterns.
"""

from __future__ import annotations

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
STEPS = 20
# A search ends when a step without damping moves the main parameters by less (square of standard deviations) and
# promises less of χ²; where derivatives are used up, it has converged if they would move by less than the last.
_STILL, _TOLERANCE, _SETTLED = 0.01, 2.0, 0.2
# Derivatives serve until a step wins less than this of what it promises, or for so many steps, or until the main
# parameters have moved so far.
_TRUSTED, _OLD, _FAR = 0.5, 4, 0.3
# ... or until χ² per point is so much smaller.
_BEHIND = 0.8
# χ² per point from which on amplitudes follow.
_NEAR = 2.0
# Damping in a metric of where the world is straight, which is 1 for a latent, and this for the main parameters; not in
# that of χ² (D. W. Marquardt, SIAM J. Appl. Math. 11, 431 (1963)): with a million photons some directions are a million
# times stiffer than others, and all are as curved. λ by the gain ratio (H. B. Nielsen, IMM-REP-1999-05).
_STRAIGHT = (0.05, 0.3, 1e-3, 0.3)
_DAMPING, _MOST_DAMPING, _LEAST_GAIN = 0.1, 1e9, 1e-4
# How often every step is bent, and at most one that falls short of what it promises by this share, and by this much
# χ², more than rounding.
_BENDS, _MOST_BENDS, _SHORT, _SHORTEST = 2, 4, 0.2, 0.1
# Damping below which it is none.
_UNDAMPED = 0.01
# How often latents follow their amplitudes, and the change of the pattern [χ²] that is none.
_HOLD, _HELD = 3, 0.1
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
        """(b, U, Q) float32 its derivatives."""
        main = main_of(theta_BU[:, :_N], self.variant_B[index])
        expected, slopes_BQU = recipe_jacobian(
            self.recipe, main, self.setting.take(index), theta_BU[:, _N:-1].float()
        )
        scale_B11 = theta_BU[:, -1].exp().float()[:, None, None]
        return torch.cat([slopes_BQU.mT, expected.intensity[:, None]], dim=1).mul_(scale_B11)


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
        self.slopes = torch.zeros((n, n_free, rows.y.shape[1]), dtype=torch.float32, device=device)
        self.matrix = theta.new_zeros((n, n_free, n_free))
        self.damping = theta.new_full((n,), _DAMPING)
        self.growth = theta.new_full((n,), 2.0)
        #: Steps since the last derivatives.
        self.age = torch.zeros(n, dtype=torch.int64, device=device)
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
            worth_B: a search ends where not even the cost that a step promises, times u, is as low as this.
        """
        # Derivatives of many patterns at once cost little more than those of one: patterns wait for each other.
        waiting, active = active, active[:0]
        while len(waiting) or len(active):
            if not len(active):
                self.derive(waiting)
                waiting, active = active, waiting
            theta, model, age = self.theta[active], self.model[active], self.age[active]
            # Taken once: these are the largest arrays.
            weight, slopes = self.weight(model, active), self.slopes[active]
            step, promised, left, moving, solve = self.step(active, weight, slopes)
            before = self.cost(theta, model, weight, active)
            enough = before - promised + (_SHORT * promised).clamp(min=_SHORTEST)
            trial, tried, cost = self.along(theta, model, weight, slopes, step, solve, active, enough)
            gain = (before - cost) / promised.clamp(min=1e-300)
            better = (promised > 0) & (gain > _LEAST_GAIN)
            self.theta[active] = torch.where(better[:, None], trial, theta)
            self.model[active] = torch.where(better[:, None], tried, model)
            # A step that fails with old derivatives is tried again with new ones, with new ones it is made shorter.
            damping, growth, new = self.damping[active], self.growth[active], age == 0
            shrunk = (damping * (1 - (2 * gain - 1) ** 3).clamp(min=0.1)).clamp(min=1e-6)
            self.damping[active] = torch.where(better, shrunk, torch.where(new, damping * growth, damping))
            self.growth[active] = torch.where(better | ~new, 2.0, 2 * growth)
            self.age[active] = age + better
            # On the way, u follows the residual.
            behind = self.unit_of(self.model[active], active) < _BEHIND * self.unit[active]
            derive = torch.where(
                better, (gain < _TRUSTED) | (age + 1 >= _OLD) | (moving > _FAR) | behind, ~new
            )
            done = (moving < _STILL) & (left < _TOLERANCE) & ~(better & behind)
            going = ~done & (self.damping[active] < _MOST_DAMPING) & (~derive | (self.steps[active] < steps))
            if worth_B is not None:
                going &= self.unit[active] * (torch.minimum(before, cost) - left) < worth_B[active]
            # Latents creep on where main parameters do not.
            self.converged[active] = done | (moving < _SETTLED)
            waiting, active = torch.cat([waiting, active[going & derive]]), active[going & ~derive]

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
        slopes: torch.Tensor,
        step: torch.Tensor,
        solve: _Solver,
        index: torch.Tensor,
        enough: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Where a step leads, its pattern and its cost: straight on, or bent towards what the derivatives promise.

        The pattern at the end of a straight step is off by its curvature. A step against that, with the same
        derivatives, follows the valley (M. K. Transtrum & J. P. Sethna, arXiv:1201.5885): a pattern more, where
        derivatives cost thirty. Steps that cost more than enough are bent again, as long as that lowers the cost.
        """
        aim = model + (step.float()[:, None] @ slopes)[:, 0].double()
        trial = self.moved(theta, step)
        tried = self.rows.value(trial, index)
        cost = self.cost(trial, tried, weight, index)
        whole, now, last, on = step.clone(), tried.clone(), cost, cost > enough
        row = torch.arange(len(cost), device=cost.device)
        for bend in range(_MOST_BENDS):
            if bend >= _BENDS:
                row = row[on]
            if not len(row):
                break
            part = slopes if len(row) == len(slopes) else slopes[row]
            off = torch.nan_to_num(weight[row] * (now[row] - aim[row]), posinf=0.0, neginf=0.0)
            whole[row] -= solve((off.float()[:, None] @ part.mT)[:, 0].double(), row)
            at = self.moved(theta[row], whole[row])
            now[row] = self.rows.value(at, index[row])
            new = self.cost(at, now[row], weight[row], index[row])
            lower = row[new < cost[row]]
            trial[lower], tried[lower] = at[new < cost[row]], now[lower]
            on = (new > enough[row]) & (new < last[row])
            cost[row] = torch.minimum(new, cost[row])
            last = last.index_put((row,), new)
        return trial, tried, cost

    def moved(self, theta: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """(b, U) values after a (b, free) step, within their bounds."""
        whole = torch.zeros_like(theta)
        whole[:, self.columns] = step
        moved = theta + whole
        moved[:, _N:-1] = self.rows.recipe.space.moved(theta[:, _N:-1], whole[:, _N:-1])
        moved[:, self.columns] = moved[:, self.columns].clamp(self.low, self.high)
        return moved

    def derive(self, index: torch.Tensor) -> None:
        """Derivatives at the present values of some patterns; amplitudes as they are most probable there."""
        slopes = self.rows.slopes(self.theta[index], index)
        own = slopes[:, self.columns]
        self.unit[index] = self.unit_of(self.model[index], index)
        weight = self.weight(self.model[index], index)
        known = self.known[self.columns]
        matrix = information(own.mT, weight, known)
        stretch = self.rescale(index, slopes, weight, matrix)
        if stretch is not None:
            stretch = stretch[:, self.columns]
            own.mul_(stretch[:, :, None].float())
            matrix = (matrix - torch.diag(known)) * stretch[:, :, None] * stretch[:, None, :] + torch.diag(
                known
            )
        self.slopes[index], self.matrix[index] = own, matrix
        self.steps[index] += 1
        self.age[index] = 0

    def rescale(
        self, index: torch.Tensor, slopes: torch.Tensor, weight: torch.Tensor, matrix: torch.Tensor
    ) -> torch.Tensor | None:
        """Move amplitudes a of other latents z to where they are most probable with z integrated out; a z stays.

        The likelihood of a has the slope |z|² + tr Σ - K per ln a and the information 2 tr (1 - Σ)², Σ the covariance
        of the K latents.

        Returns:
            (b, U) by how much derivatives are larger afterwards; None where there are no amplitudes.
        """
        space, theta = self.rows.recipe.space, self.theta
        if not space.amplitudes:
            return None
        covariance = torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix)[0])
        stretch = torch.ones_like(theta[index])
        along_BAQ = slopes.new_zeros((len(index), len(space.amplitudes), slopes.shape[2]))
        scaled = [
            slice(_N + space.names[one].start, _N + space.names[one].stop)
            for one in space.amplitudes.values()
        ]
        for which, (name, of_z) in enumerate(zip(space.amplitudes, scaled, strict=True)):
            at = _N + space.names[name].start
            first = int((self.columns < of_z.start).sum())
            own = slice(first, first + of_z.stop - of_z.start)
            z, inner = theta[index, of_z], covariance[:, own, own]
            # d ln a per unit of the amplitude's own latent: ∂I/∂(it) = that times Σ z ∂I/∂z.
            along = (z.float()[:, None] @ slopes[:, of_z])[:, 0]
            squared = (weight * along**2).sum(dim=1)
            rate = (weight * along * slopes[:, at]).sum(dim=1) / squared.clamp(min=1e-12)
            trace = inner.diagonal(dim1=1, dim2=2).sum(dim=1)
            n = z.shape[1]
            pull = rate * (z.square().sum(dim=1) + trace - n) - theta[index, at]
            sure = 1 + 2 * rate**2 * (n - 2 * trace + inner.square().sum(dim=(1, 2)))
            # Far from the minimum the residual says nothing of amplitudes.
            near = (squared > 1e-9) & (self.unit[index] < _NEAR)
            step = torch.where(near, pull / sure, 0.0).clamp(-0.5, 0.5)
            along_BAQ[:, which] = torch.where(near[:, None], along, 0.0)
            stretch[:, of_z] = torch.exp(rate * step)[:, None]
            theta[index, at] += step
        self.hold(index, along_BAQ.double(), weight, scaled, stretch)
        return stretch

    def hold(
        self,
        index: torch.Tensor,
        along_BAQ: torch.Tensor,
        weight: torch.Tensor,
        scaled: list[slice],
        stretch: torch.Tensor,
    ) -> None:
        """Divide latents so that their patterns stay where their amplitudes have moved.

        The amplitude's own slope says by how much to first order. With a million photons a point what is left of a
        pattern is seen: latents follow until it is not.

        Args:
            index: (b,) which patterns.
            along_BAQ: slopes of the pattern per ln of a latent.
            weight: (b, Q) 1/(V u).
            scaled: where each latent is.
            stretch: (b, U) by how much its amplitude has grown; improved in place.
        """
        before, start = self.model[index], self.theta[index]
        gram = (along_BAQ * weight[:, None]) @ along_BAQ.mT
        gram.diagonal(dim1=1, dim2=2).add_(1e-9)
        for again in range(_HOLD + 1):
            self.theta[index] = start / stretch
            self.model[index] = self.rows.value(self.theta[index], index)
            off = self.model[index] - before
            if again == _HOLD or not bool(((weight * off**2).sum(dim=1) > _HELD).any()):
                return
            more = torch.linalg.solve(gram, along_BAQ @ (weight * off)[..., None])[..., 0].clamp(-0.5, 0.5)
            for which, of_z in enumerate(scaled):
                stretch[:, of_z] *= torch.exp(more[:, which, None])

    def unit_of(self, model: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """(b,) u: on the way to the minimum χ² per point, the smallest so far; at the end it stays."""
        if self.widened:
            return self.unit[index]
        residual = self.rows.weight(model, index).sqrt() * (self.rows.y[index] - model)
        s2 = misfit(residual, self.rows.mask[index])[1].clamp(min=1)
        return torch.minimum(self.unit[index], s2)

    def weight(self, model: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """(b, Q) 1/(V u)."""
        return self.rows.weight(model, index) / self.unit[index, None]

    def step(
        self, index: torch.Tensor, weight: torch.Tensor, slopes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, _Solver]:
        """The damped step.

        Returns:
            (b, free) the step, (b,) by how much it promises to lower χ², (b,) by how much one without damping would,
            (b,) by how much that would move the main parameters, and what solves for another gradient.
        """
        theta, matrix = self.theta[index][:, self.columns], self.matrix[index]
        pull = weight * (self.rows.y[index] - self.model[index])
        gradient = (pull.float()[:, None] @ slopes.mT)[:, 0].double()
        gradient = gradient - self.known[self.columns] * theta
        diagonal = matrix.diagonal(dim1=1, dim2=2) + self.damping[index][:, None] * self.metric
        # Parameters at a bound that want to leave stay; of those that would pass one, the first on the way goes there,
        # and the others are solved again.
        held = ((theta <= self.low) & (gradient < 0)) | ((theta >= self.high) & (gradient > 0))
        solve = _Solver(matrix, diagonal, held)
        left, moving = self.left(gradient, matrix, held, solve, self.damping[index] > _UNDAMPED)
        step = solve(gradient)
        row = torch.arange(len(index), device=index.device)
        for _ in range(len(MAIN)):
            share = self.allowed(theta[row], step[row]).masked_fill(held[row], 1.0)
            least, which = share.min(dim=1)
            passed = least < 1
            row, which, share = row[passed], which[passed], least[passed]
            if not len(row):
                break
            held[row, which] = True
            step[row, which] *= share
            fixed = torch.where(held[row], step[row], 0.0)
            solve.replace(row, matrix[row], diagonal[row], held[row])
            moved = solve(gradient[row] - (matrix[row] @ fixed[..., None])[..., 0], row)
            step[row] = torch.where(held[row], fixed, moved)
        longest = step[:, self.columns >= _N].abs().amax(dim=1, keepdim=True)
        step = step * (_LONGEST / longest.clamp(min=_LONGEST))
        promised = 2 * (gradient * step).sum(dim=1) - (step * (matrix @ step[..., None])[..., 0]).sum(dim=1)
        return step, promised, left, moving, solve

    def allowed(self, theta: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """(b, free) which share of a step stays within bounds."""
        bounded = (theta + step).clamp(self.low, self.high) - theta
        return torch.where(bounded == step, 1.0, bounded / torch.where(step == 0, 1.0, step))

    def left(
        self,
        gradient: torch.Tensor,
        matrix: torch.Tensor,
        held: torch.Tensor,
        solve: _Solver,
        damped: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """By how much a step without damping lowers χ², and the part of that which the main parameters move for."""
        main = int((self.columns < _N).sum())
        pulls = torch.zeros((*gradient.shape, 1 + main), dtype=gradient.dtype, device=gradient.device)
        pulls[..., 0] = gradient
        pulls[:, range(main), range(1, 1 + main)] = 1
        # What is hardly damped needs no other factors.
        row = torch.nonzero(damped)[:, 0]
        solved = solve(pulls)
        if len(row):
            some = matrix if len(row) == len(matrix) else matrix[row]
            solved[row] = _Solver(some, some.diagonal(dim1=1, dim2=2), held[row])(pulls[row])
        covariance = solved[:, :main, 1:]
        # What is held at a bound does not move.
        covariance = covariance + torch.diag_embed((covariance.diagonal(dim1=1, dim2=2) == 0).to(gradient))
        moved = solved[:, :main, 0]
        moving = (moved * torch.linalg.solve(covariance, moved[..., None])[..., 0]).sum(dim=1)
        return (gradient * solved[..., 0]).sum(dim=1), moving


class _Solver:
    """Solves matrices with another diagonal for gradients; 0 for what is held."""

    def __init__(self, matrix: torch.Tensor, diagonal: torch.Tensor, held: torch.Tensor) -> None:
        # Unit diagonal: unknowns differ by orders of magnitude in scale.
        self.scale = torch.where(held, 0.0, diagonal.clamp(min=1e-300).rsqrt())
        unit = matrix * self.scale[:, :, None]
        unit *= self.scale[:, None, :]
        unit.diagonal(dim1=1, dim2=2).fill_(1 + RIDGE)
        self.factor = torch.linalg.cholesky_ex(unit)[0]

    def replace(
        self, row: torch.Tensor, matrix: torch.Tensor, diagonal: torch.Tensor, held: torch.Tensor
    ) -> None:
        """Other matrices in some of the rows."""
        other = _Solver(matrix, diagonal, held)
        self.scale[row], self.factor[row] = other.scale, other.factor

    def __call__(self, pull: torch.Tensor, row: torch.Tensor | None = None) -> torch.Tensor:
        """(b, free) or (b, free, n) solutions; for some of the rows."""
        scale, factor = self.scale, self.factor
        if row is not None and len(row) < len(scale):
            scale, factor = scale[row], factor[row]
        scale = scale[..., None]
        pulls = pull if pull.ndim == 3 else pull[..., None]
        solved = torch.nan_to_num(torch.cholesky_solve(pulls * scale, factor) * scale)
        return solved if pull.ndim == 3 else solved[..., 0]
