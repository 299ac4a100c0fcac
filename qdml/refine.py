"""Least squares through the world: from a measured pattern, and a start, to the posterior of its dots.

The world (`qdml.augmentation.recipe.Recipe`) says what is expected of dots x = (ln D_v, ln σ, ε, ln b), of latents
z ~ N(0, I) and a scale s. What explains a pattern y best minimises

    χ²(x, z, s) = Σ_Q m (y - s I(x, z))² / (u V)  +  |z|²,        V = s I / r + (φ s I)²

r: photons per intensity, as the declared noise says; φ: error of the model that is in no latent, 0 for simulated
patterns. With V of the current model in every step this is Fisher scoring: where φ = 0 it ends where the Poisson
likelihood does. Levenberg-Marquardt, all patterns of a batch at once, each with its own damping, until a further step
promises less than 0.2 of χ²; main parameters stay within their bounds, and every value in between is as likely.

u is 1 where noise explains the residual. On the way there it is χ² per point: a residual is taken seriously as far as
it may be, and latents stay within their priors. Where it remains (measured patterns: errors of the world) it is s²τ as
in `qdml.fitting.profile`, s² being χ² per point and τ over how many points the residual is correlated: intervals become
wider, and expectations count for more.

The posterior is Laplace's, (JᵀV⁻¹J/u + 1)⁻¹ at the minimum with all latents marginalised, but for ln σ, along which χ²
is followed (`qdml.laplace`).

Symbols: B pattern, Q point, N main parameter, L latent, U unknown (N, L, ln s), S start, T target.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from qdml.densities import TARGETS, GaussianMixture
from qdml.laplace import at_minimum
from qdml.limits.unknowns import MAIN, MainPrior
from qdml.search import STEPS, Search, World

if TYPE_CHECKING:
    from qdml.augmentation.recipe import Recipe, Setting
    from qdml.observation import Observation

__all__ = ["Refined", "refine"]

_N = len(MAIN)
# Standard deviations of χ² beyond which another start is tried: one pattern in forty for nothing.
_DOUBTED = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """What explains each pattern best, and how well it is known."""

    posterior: GaussianMixture
    """In units of the targets, float64; its components lie along ln σ (`qdml.laplace`)."""
    values: torch.Tensor
    """(B, N) float64, `MAIN` at the minimum."""
    variant: torch.Tensor
    """(B,) int64, of the hypothesis with the largest evidence."""
    z: torch.Tensor
    """(B, L) float32 latents."""
    intensity: torch.Tensor
    """(B, Q) float32, the fitted pattern in the unit of the observation."""
    cost: torch.Tensor
    """(B,) float64, χ² (over u) with |z|² at the minimum."""
    chi2: torch.Tensor
    """(B,) float64, s²: χ² of the points per point that is not used up by an unknown."""
    unit: torch.Tensor
    """(B,) float64, u: s²τ, 1 where the noise explains the residual."""
    log_evidence: torch.Tensor
    """(B,) float64, ln of the evidence of `variant` in Laplace's approximation, up to a constant of the pattern."""
    converged: torch.Tensor
    """(B,) bool."""
    steps: torch.Tensor
    """(B,) int64, evaluations of derivatives."""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: torch.Tensor | slice) -> Refined:
        """Those of some of the patterns."""
        chosen = {
            field.name: getattr(self, field.name)[index]
            for field in fields(self)
            if field.name != "posterior"
        }
        return Refined(posterior=self.posterior.take(index), **chosen)

    @staticmethod
    def cat(parts: list[Refined]) -> Refined:
        """Several batches as one."""
        joined = {
            field.name: torch.cat([getattr(part, field.name) for part in parts])
            for field in fields(Refined)
            if field.name != "posterior"
        }
        return Refined(posterior=GaussianMixture.cat([part.posterior for part in parts]), **joined)


@torch.no_grad()
def refine(
    recipe: Recipe,
    observation: Observation,
    setting: Setting,
    start: GaussianMixture | torch.Tensor,
    *,
    prior: MainPrior | None = None,
    variants: tuple[int, ...] = (0,),
    model_error: float = 0.0,
    steps: int = STEPS,
    rows: int = 64,
) -> Refined:
    """Fit every pattern of a batch.

    Args:
        recipe: the world.
        observation: measured, or drawn.
        setting: what is known of the measurements.
        start: a posterior (a network's), whose mean is taken, or (B, T) targets, or (S, B, T) several starts
            (`qdml.scan`): later ones are tried where those before have not explained the pattern.
        prior: ranges of the main parameters; None for those of the recipe's dots.
        variants: hypotheses about the structure; the one with the largest evidence is kept.
        model_error: φ.
        steps: most steps of a search.
        rows: patterns at a time: derivatives of many cost a tenth of those of one.

    Raises:
        ValueError: starts, settings and patterns are not of one number; a pattern has no visible point.
    """
    prior = _prior_of(recipe, observation.mask.device) if prior is None else prior
    start_SBT = start.moments()[0] if isinstance(start, GaussianMixture) else start
    start_SBT = start_SBT[None] if start_SBT.ndim == 2 else start_SBT
    n = len(observation)
    if start_SBT.shape[1:] != (n, len(TARGETS)) or len(setting) != n:
        raise ValueError(
            f"refine: {n} patterns need {n} settings and starts of the shape ({n}, {len(TARGETS)}); got {len(setting)} "
            f"settings and starts {tuple(start_SBT.shape)}"
        )
    empty = observation.mask.sum(dim=1) == 0
    if bool(empty.any()):
        raise ValueError(f"refine: pattern {int(torch.nonzero(empty)[0])} has no visible point")
    parts = []
    for first in range(0, n, rows):
        part = slice(first, first + rows)
        seen, known, starts = observation.take(part), setting.take(part), start_SBT[:, part]
        found = [
            _from_starts(recipe, seen, known, starts, prior, variant, model_error, steps)
            for variant in variants
        ]
        parts.append(found[0] if len(found) == 1 else _best(found))
    return Refined.cat(parts)


def _from_starts(
    recipe: Recipe,
    observation: Observation,
    setting: Setting,
    start_SBT: torch.Tensor,
    prior: MainPrior,
    variant: int,
    model_error: float,
    steps: int,
) -> Refined:
    """The first start, and the others where those before have not explained the pattern."""
    best = _fit(recipe, observation, setting, start_SBT[0], prior, variant, model_error, steps)
    for start_BT in start_SBT[1:]:
        points = observation.mask.sum(dim=1)
        bad = torch.nonzero(~best.converged | (best.chi2 > 1 + _DOUBTED * (2 / points).sqrt()))[:, 0]
        if not len(bad):
            break
        again = _fit(
            recipe,
            observation.take(bad),
            setting.take(bad),
            start_BT[bad],
            prior,
            variant,
            model_error,
            steps,
        )
        better = _best([best.take(bad), again])
        place = torch.arange(len(best), device=bad.device)
        place[bad] = len(best) + torch.arange(len(bad), device=bad.device)
        best = Refined.cat([best, better]).take(place)
    return best


def _prior_of(recipe: Recipe, device: torch.device) -> MainPrior:
    if recipe.basis is None:
        raise ValueError("refine: the recipe has no dots to take ranges from; give `prior`")
    return MainPrior.of_ranges(recipe.basis.ranges, device)


def _best(tried: list[Refined]) -> Refined:
    """For each pattern the search of the largest evidence, all at the smallest u that one of them has reached."""
    unit_B = torch.stack([one.unit for one in tried]).amin(dim=0)
    evidence = []
    for one in tried:
        prior_B = one.z.double().square().sum(dim=1)
        points_B = (one.cost - prior_B) * one.unit
        log_det_B = -2 * one.log_evidence - one.cost
        evidence.append(-0.5 * (points_B / unit_B + prior_B + log_det_B))
    winner_B = torch.stack(evidence).argmax(dim=0)
    n = len(winner_B)
    return Refined.cat(tried).take(winner_B * n + torch.arange(n, device=winner_B.device))


def _fit(
    recipe: Recipe,
    observation: Observation,
    setting: Setting,
    start_BT: torch.Tensor,
    prior: MainPrior,
    variant: int,
    model_error: float,
    steps: int,
) -> Refined:
    """One search for each pattern."""
    rows = World(recipe, observation, setting, variant, model_error)
    n, n_latents, device = len(observation), len(recipe.space), observation.mask.device
    theta = torch.zeros((n, _N + n_latents + 1), dtype=torch.float64, device=device)
    theta[:, :_N] = (prior.low + prior.high) / 2
    theta[:, : len(TARGETS)] = start_BT.double()
    theta[:, :_N] = theta[:, :_N].clamp(prior.low, prior.high)
    known = torch.zeros(theta.shape[1], dtype=torch.float64, device=device)
    known[_N:-1] = 1
    free = torch.ones(theta.shape[1], dtype=torch.bool, device=device)
    free[:_N] = prior.free.to(device)
    search = Search(rows, theta, known=known, free=free, prior=prior)
    search.run(search.all, steps)
    search.widen()
    return _result(search)


def _result(search: Search) -> Refined:
    """What the search has found."""
    rows, theta, index = search.rows, search.theta, search.all
    weight = search.weight(search.model, index)
    residual = weight.sqrt() * (rows.y - search.model)
    cost = search.cost(theta, search.model, weight, index)
    minimum = at_minimum(search)
    degrees = (rows.mask.sum(dim=1) - minimum.used).clamp(min=1)
    chi2 = search.unit * (residual**2).sum(dim=1) / degrees
    return Refined(
        posterior=minimum.posterior,
        values=theta[:, :_N].clone(),
        variant=rows.variant_B,
        z=theta[:, _N:-1].float(),
        intensity=(search.model * rows.mean).float(),
        cost=cost,
        chi2=chi2,
        unit=search.unit,
        log_evidence=-0.5 * (cost + minimum.log_det),
        converged=search.converged,
        steps=search.steps,
    )
