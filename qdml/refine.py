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

The search begins where a network guesses z and ln b (`Nuisance`), and again at 0 where that does not explain a pattern.
Amplitudes of other latents (`LatentSpace.amplitudes`) are no unknowns of the search: where both are most probable
together, both are too small. They go where they are most probable with the others integrated out.

Structures (variants of the dots) are hypotheses. The most probable is fitted first; the others that a network does not
rule out go on from its minimum, and are left as soon as they cannot come near it. The answer is the mixture of all,
each with its evidence and with how common it is.

The posterior of one is Laplace's, (JᵀV⁻¹J/u + 1)⁻¹ at the minimum with all latents marginalised, but for ln σ, along
which χ² is followed (`qdml.laplace`).

Symbols: B pattern, Q point, N main parameter, L latent, U unknown (N, L, ln s), S start, T target, V variant, F fit of
one pattern with one variant, M component.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from qdml.batch import Batch
from qdml.densities import TARGETS, GaussianMixture
from qdml.laplace import at_minimum
from qdml.limits.unknowns import MAIN, MainPrior
from qdml.search import STEPS, Search, World

if TYPE_CHECKING:
    from qdml.augmentation.recipe import Recipe, Setting
    from qdml.nuisance import Nuisance
    from qdml.observation import Observation

__all__ = ["Refined", "refine"]

_N = len(MAIN)
# Logit of a component without weight.
_NOTHING = -700.0
# Standard deviations of χ² beyond which another start is tried: one pattern in forty for nothing. And where the square
# of that, with the distance from what a network says added, is more than that of four normal numbers: one in twenty.
# At ten million photons a point a wrong mixture of liquids explains a pattern almost as well as the right one.
_DOUBTED, _DOUBTED_TOGETHER = 2.0, 9.5
# Variants that are less probable in a network's eyes are not tried, and those whose χ² ends so much higher than that of
# the first (e^-10 in the mixture) are not fitted to their end.
_IMPOSSIBLE, _HOPELESS = 0.01, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined(Batch):
    """What explains each pattern best, and how well it is known."""

    posterior: GaussianMixture
    """In units of the targets, float64; its components lie along ln σ (`qdml.laplace`), variant by variant."""
    values: torch.Tensor
    """(B, N) float64, `MAIN` at the minimum."""
    variant: torch.Tensor
    """(B,) int64, the most probable one; what follows is its, but for `probability` and `steps`."""
    probability: torch.Tensor
    """(B, V) float64 of the variants in the order in which they were given; 0 of those that were not tried."""
    z: torch.Tensor
    """(B, L) float32 latents."""
    log_scale: torch.Tensor
    """(B,) float64, ln s."""
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
    """(B,) int64, evaluations of derivatives, for all variants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    """What is the same for all fits of a batch."""

    recipe: Recipe
    observation: Observation
    setting: Setting
    prior: MainPrior
    variants: tuple[int, ...]
    log_weight: torch.Tensor
    """(V,) ln of how common each variant is."""
    model_error: float
    steps: int

    def take(self, index: torch.Tensor | slice) -> _Problem:
        return replace(self, observation=self.observation.take(index), setting=self.setting.take(index))


@torch.no_grad()
def refine(
    recipe: Recipe,
    observation: Observation,
    setting: Setting,
    start: GaussianMixture | torch.Tensor,
    *,
    nuisance: Nuisance | None = None,
    prior: MainPrior | None = None,
    variants: tuple[int, ...] = (0,),
    weights: tuple[float, ...] | None = None,
    model_error: float = 0.0,
    steps: int = STEPS,
    rows: int = 128,
) -> Refined:
    """Fit every pattern of a batch.

    Args:
        recipe: the world.
        observation: measured, or drawn.
        setting: what is known of the measurements.
        start: a posterior (a network's), whose mean is taken, or (B, T) targets, or (S, B, T) several starts
            (`qdml.scan`): later ones are tried where those before have not explained the pattern.
        nuisance: what a network guesses of all else: where searches begin, and which variants are worth one.
        prior: ranges of the main parameters; None for those of the recipe's dots.
        variants: hypotheses about the structure.
        weights: how common each of them is; None for all alike.
        model_error: φ.
        steps: most steps of a search.
        rows: patterns at a time: derivatives of many cost a tenth of those of one.

    Raises:
        ValueError: starts, guesses, settings and patterns are not of one number; a pattern has no visible point; not
            one weight for each variant.
    """
    prior = _prior_of(recipe, observation.mask.device) if prior is None else prior
    start_SBT = start.moments()[0] if isinstance(start, GaussianMixture) else start
    start_SBT = start_SBT[None] if start_SBT.ndim == 2 else start_SBT
    n, device = len(observation), observation.mask.device
    if start_SBT.shape[1:] != (n, len(TARGETS)) or len(setting) != n:
        raise ValueError(
            f"refine: {n} patterns need {n} settings and starts of the shape ({n}, {len(TARGETS)}); got {len(setting)} "
            f"settings and starts {tuple(start_SBT.shape)}"
        )
    if nuisance is not None and nuisance.z.shape != (n, len(recipe.space)):
        raise ValueError(
            f"refine: a guess for {n} patterns of this world has ({n}, {len(recipe.space)}) latents, got "
            f"{tuple(nuisance.z.shape)}; use the recipe that the network was trained with"
        )
    weights = (1.0,) * len(variants) if weights is None else weights
    if len(weights) != len(variants) or not min(weights) > 0:
        raise ValueError(f"refine: {len(variants)} variants need as many weights > 0, got {weights}")
    empty = observation.mask.sum(dim=1) == 0
    if bool(empty.any()):
        raise ValueError(f"refine: pattern {int(torch.nonzero(empty)[0])} has no visible point")
    problem = _Problem(
        recipe=recipe,
        observation=observation,
        setting=setting,
        prior=prior,
        variants=variants,
        log_weight=torch.tensor(weights, dtype=torch.float64, device=device).log(),
        model_error=model_error,
        steps=steps,
    )
    parts = []
    for first in range(0, n, rows):
        part = slice(first, first + rows)
        guess = None if nuisance is None else nuisance.take(part)
        said = start.take(part) if isinstance(start, GaussianMixture) else None
        parts.append(_from_starts(problem.take(part), start_SBT[:, part], guess, said))
    return Refined.cat(parts)


def _prior_of(recipe: Recipe, device: torch.device) -> MainPrior:
    if recipe.basis is None:
        raise ValueError("refine: the recipe has no dots to take ranges from; give `prior`")
    return MainPrior.of_ranges(recipe.basis.ranges, device)


def _from_starts(
    problem: _Problem, start_SBT: torch.Tensor, nuisance: Nuisance | None, said: GaussianMixture | None
) -> Refined:
    """The first start; where its minimum is doubted, the same without the guess, then the others."""
    attempts = [(start_BT, None if nuisance is None else _blank(nuisance, problem)) for start_BT in start_SBT]
    if nuisance is not None:
        attempts = [(start_SBT[0], nuisance), *attempts]
    best = _from_start(problem, *attempts[0])
    points = problem.observation.mask.sum(dim=1)
    for start_BT, guess in attempts[1:]:
        bad = torch.nonzero(_doubted(best, points, said))[:, 0]
        if not len(bad):
            break
        guess_b = None if guess is None else guess.take(bad)
        again = _from_start(problem.take(bad), start_BT[bad], guess_b, settled=True)
        before = best.take(bad)
        unit_b = torch.minimum(again.unit, before.unit)
        better = _log_evidence(again, unit_b) > _log_evidence(before, unit_b)
        place = torch.arange(len(best), device=bad.device)
        place[bad[better]] = len(best) + torch.nonzero(better)[:, 0]
        steps = best.steps.index_add(0, bad, again.steps)
        best = replace(Refined.cat([best, again]).take(place), steps=steps)
    return best


def _doubted(found: Refined, points: torch.Tensor, said: GaussianMixture | None) -> torch.Tensor:
    """(B,) whether there may be a better minimum.

    Args:
        found: the best so far.
        points: (B,) visible ones.
        said: by a network, if there was one.
    """
    excess = ((found.chi2 - 1) / (2 / points).sqrt()).clamp(min=0)
    doubted = excess > _DOUBTED
    if said is None:
        return doubted
    (mean, covariance), (own_mean, own) = found.posterior.moments(), said.moments()
    away, both = mean - own_mean.to(mean), covariance + own.to(covariance)
    distance = (away * torch.linalg.solve(both, away)).sum(dim=1)
    return doubted | (excess**2 + distance > _DOUBTED_TOGETHER)


def _blank(nuisance: Nuisance, problem: _Problem) -> Nuisance:
    """A guess that knows which variant is the most probable, and rules out none."""
    middle = (problem.prior.low + problem.prior.high)[_N - 1] / 2
    return replace(
        nuisance,
        z=torch.zeros_like(nuisance.z),
        log_b_scale=middle.to(nuisance.log_b_scale).expand(len(nuisance)),
        log_variant=nuisance.log_variant.clamp(min=math.log(2 * _IMPOSSIBLE)),
    )


def _from_start(
    problem: _Problem, start_BT: torch.Tensor, nuisance: Nuisance | None, *, settled: bool = False
) -> Refined:
    """The most probable variant, the others from its minimum, and the mixture of all."""
    n, device = len(start_BT), start_BT.device
    variant_V = torch.tensor(problem.variants, device=device)
    theta_BU = torch.zeros((n, _N + len(problem.recipe.space) + 1), dtype=torch.float64, device=device)
    theta_BU[:, :_N] = (problem.prior.low + problem.prior.high) / 2
    theta_BU[:, : len(TARGETS)] = start_BT
    log_guess_BV = problem.log_weight.expand(n, -1)
    tried_BV = torch.ones_like(log_guess_BV, dtype=torch.bool)
    if nuisance is not None:
        theta_BU[:, _N - 1], theta_BU[:, _N:-1] = nuisance.log_b_scale, nuisance.z
        log_guess_BV = torch.log_softmax(nuisance.log_variant.double()[:, variant_V], dim=1)
        tried_BV = log_guess_BV > math.log(_IMPOSSIBLE)
    row_B, first_B = torch.arange(n, device=device), log_guess_BV.argmax(dim=1)
    fits = _fit(problem, theta_BU, variant_V[first_B], settled=settled)
    tried_BV[row_B, first_B] = False
    row_F, which_F = torch.nonzero(tried_BV, as_tuple=True)
    if len(row_F):
        from_F = fits.take(row_F)
        theta_FU = torch.cat([from_F.values, from_F.z, from_F.log_scale[:, None]], dim=1)
        others = _fit(
            problem.take(row_F), theta_FU, variant_V[which_F], worth=(from_F.cost + _HOPELESS) * from_F.unit
        )
        fits = Refined.cat([fits, others])
    return _mixture(problem, fits, torch.cat([row_B, row_F]), torch.cat([first_B, which_F]))


def _mixture(problem: _Problem, fits: Refined, row_F: torch.Tensor, which_F: torch.Tensor) -> Refined:
    """One answer for each pattern, from fits of some variants: which pattern and which variant each is of."""
    n, n_variants = len(problem.observation), len(problem.variants)
    unit_B = torch.full_like(fits.cost[:n], torch.inf).scatter_reduce(0, row_F, fits.unit, "amin")
    log_weight_BV = fits.cost.new_full((n, n_variants), -torch.inf)
    log_weight_BV[row_F, which_F] = _log_evidence(fits, unit_B[row_F]) + problem.log_weight[which_F]
    log_probability_BV = torch.log_softmax(log_weight_BV, dim=1)
    # Where a variant was not tried, another's components stand with no weight.
    fit_BV = torch.zeros((n, n_variants), dtype=torch.int64, device=row_F.device)
    fit_BV[row_F, which_F] = torch.arange(len(row_F), device=row_F.device)
    best_B = fit_BV.gather(1, log_weight_BV.argmax(dim=1, keepdim=True))[:, 0]
    each = fits.posterior.take(fit_BV.flatten())
    logits_FM = torch.log_softmax(each.logits, dim=1) + log_probability_BV.flatten()[:, None]
    return replace(
        fits.take(best_B),
        posterior=GaussianMixture(
            logits=logits_FM.clamp(min=_NOTHING).unflatten(0, (n, n_variants)).flatten(1, 2),
            mean=each.mean.unflatten(0, (n, n_variants)).flatten(1, 2),
            scale_tril=each.scale_tril.unflatten(0, (n, n_variants)).flatten(1, 2),
        ),
        probability=log_probability_BV.exp(),
        steps=torch.zeros_like(fits.steps[:n]).index_add(0, row_F, fits.steps),
    )


def _log_evidence(found: Refined, unit: torch.Tensor) -> torch.Tensor:
    """The evidence at another u, its ln."""
    prior = found.z.double().square().sum(dim=1)
    log_det = -2 * found.log_evidence - found.cost
    return -0.5 * ((found.cost - prior) * found.unit / unit + prior + log_det)


def _fit(
    problem: _Problem,
    theta_BU: torch.Tensor,
    variant_B: torch.Tensor,
    worth: torch.Tensor | None = None,
    *,
    settled: bool = False,
) -> Refined:
    """One search for each pattern.

    With `worth`, it ends where cost times u cannot become as low as that. With `settled`, dots stay as they are until
    everything else has adapted to them: a network knows dots better than liquids, and dots that are fitted to the wrong
    liquids first may end at a bound, where the right liquids are no better.
    """
    space, device = problem.recipe.space, theta_BU.device
    rows = World(problem.recipe, problem.observation, problem.setting, variant_B, problem.model_error)
    theta_BU = theta_BU.double().clone()
    theta_BU[:, :_N] = theta_BU[:, :_N].clamp(problem.prior.low, problem.prior.high)
    known = torch.zeros(theta_BU.shape[1], dtype=torch.float64, device=device)
    known[_N:-1] = 1
    free = torch.ones(theta_BU.shape[1], dtype=torch.bool, device=device)
    free[:_N] = problem.prior.free.to(device)
    for name in space.amplitudes:
        where = space.names[name]
        free[_N + where.start : _N + where.stop] = False
    if settled:
        others = free.clone()
        others[: len(TARGETS)] = False
        search = Search(rows, theta_BU, known=known, free=others, prior=problem.prior)
        search.run(search.all, problem.steps)
        theta_BU = search.theta
    search = Search(rows, theta_BU, known=known, free=free, prior=problem.prior)
    search.run(search.all, problem.steps, worth)
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
    return Refined(
        posterior=minimum.posterior,
        values=theta[:, :_N].clone(),
        variant=rows.variant_B,
        probability=torch.ones_like(cost)[:, None],
        z=theta[:, _N:-1].float(),
        log_scale=theta[:, -1].clone(),
        intensity=(search.model * rows.mean).float(),
        cost=cost,
        chi2=search.unit * (residual**2).sum(dim=1) / degrees,
        unit=search.unit,
        log_evidence=-0.5 * (cost + minimum.log_det),
        converged=search.converged,
        steps=search.steps,
    )
