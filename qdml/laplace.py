"""From the minimum of a search to a posterior: Laplace's approximation along everything but the dispersion.

Along σ χ² is no parabola: a pattern knows the second moment of the sizes, so that narrow distributions are hardly told
apart. σ is set to some *nodes*; where it is not known well, everything else follows (the line that the matrix predicts,
and steps with the derivatives of the minimum), and

    p(ln σ_k) ∝ D_k σ_k e^{-Δχ²_k / 2},   every D and σ between the bounds as likely

weighs normal densities around the nodes, each as wide as half of its distance from the next. At fixed σ the covariance
is that of the minimum, with all latents marginalised. Nodes go on until χ² has risen: at σ = 5 % a change of ln σ by
its whole range may be no more than noise, and 15 % explain the pattern as well.

Symbols: B pattern, T target, U free unknown, K node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from qdml.densities import TARGETS, GaussianMixture
from qdml.limits.unknowns import MAIN
from qdml.search import RIDGE

if TYPE_CHECKING:
    from qdml.search import Search

__all__ = ["Minimum", "at_minimum"]

_N, _SIGMA = len(MAIN), TARGETS.index("log_sigma")
# Nodes, over so many standard deviations of σ² to both sides; width of their densities over their distance: with these
# the sum has ripples of 1 %, and its variance is that of the nodes and of one density.
_NODES, _REACH, _WIDTH = 11, 4.0, 0.5
# Rise of χ² at the last node (three standard deviations) below which nodes reach twice as far, at most so many times.
_ENOUGH, _WIDER = 9.0, 4
# Below this standard deviation of ln σ χ² is a parabola.
_PARABOLA = 0.06
# Steps with the derivatives of the minimum.
_CORRECTIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimum:
    """What the curvature says."""

    posterior: GaussianMixture
    log_det: torch.Tensor
    """(B,) float64, of the matrix."""
    used: torch.Tensor
    """(B,) float64: how many points the unknowns use up, by as much as data rather than priors fix them."""


def at_minimum(search: Search) -> Minimum:
    """The posterior of each pattern of a search."""
    theta, columns = search.theta, search.columns
    # The ranges of main parameters count as normal priors of their variance: no posterior is wider.
    known = search.known.clone()
    known[:_N] = search.prior.information.to(known)
    known = known[columns]
    data = search.matrix - torch.diag(search.known[columns])
    # Latents between bounds are straight in what they stand for.
    straight = torch.ones_like(theta)
    straight[:, _N:-1] = search.rows.recipe.space.straight(theta[:, _N:-1])
    straight = straight[:, columns]
    inverse, log_det = _invert(data * straight[:, :, None] * straight[:, None, :] + torch.diag(known))
    used = len(columns) - (inverse.diagonal(dim1=1, dim2=2) * known).sum(dim=1)

    targets = torch.nonzero(search.free[: len(TARGETS)])[:, 0]
    covariance = torch.diag_embed(theta.new_full((len(theta), len(TARGETS)), 1e-12))
    covariance[:, targets[:, None], targets[None, :]] = inverse[:, : len(targets), : len(targets)]
    if not bool(search.free[_SIGMA]):
        posterior = GaussianMixture(
            logits=theta.new_zeros((len(theta), 1)),
            mean=theta[:, None, : len(TARGETS)].clone(),
            scale_tril=torch.linalg.cholesky(covariance)[:, None],
        )
    else:
        posterior = _along_sigma(search, _invert(data + torch.diag(known))[0], covariance)
    return Minimum(posterior=posterior, log_det=log_det, used=used)


def _invert(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inverses and ln of determinants of positive matrices whose unknowns differ by orders of magnitude in scale."""
    scale = matrix.diagonal(dim1=1, dim2=2).clamp(min=1e-300).rsqrt()
    unit = matrix * scale[:, :, None] * scale[:, None, :]
    unit.diagonal(dim1=1, dim2=2).add_(RIDGE)
    factor = torch.linalg.cholesky_ex(unit)[0]
    log_det = 2 * (factor.diagonal(dim1=1, dim2=2).log() - scale.log()).sum(dim=1)
    return torch.cholesky_inverse(factor) * scale[:, :, None] * scale[:, None, :], log_det


def _along_sigma(search: Search, inverse: torch.Tensor, covariance: torch.Tensor) -> GaussianMixture:
    """The mixture over nodes of ln σ."""
    theta, columns = search.theta, search.columns
    at = int(torch.nonzero(columns == _SIGMA)[0])
    log_sigma, low, high = theta[:, _SIGMA], search.low[at], search.high[at]
    variance = covariance[:, _SIGMA, _SIGMA]
    spread = variance.sqrt()
    reach_B2 = torch.full_like(theta[:, :2], _REACH)
    nodes_BK = _nodes(log_sigma, spread, reach_B2, low, high)
    # As the matrix has it: a parabola, and a straight line.
    slope_BT = covariance[:, :, _SIGMA] / variance[:, None]
    rise_BK, mean_BKT = _straight(theta, nodes_BK, spread, slope_BT)
    bent = torch.nonzero((spread > _PARABOLA) | (log_sigma <= low) | (log_sigma >= high))[:, 0]
    for _ in range(_WIDER + 1):
        if not len(bent):
            break
        nodes_BK[bent] = _nodes(log_sigma[bent], spread[bent], reach_B2[bent], low, high)
        rise_BK[bent], mean_BKT[bent] = _straight(theta[bent], nodes_BK[bent], spread[bent], slope_BT[bent])
        away_bK = nodes_BK[bent] - log_sigma[bent, None]
        line_bU = inverse[bent, :, at] / inverse[bent, at, at, None]
        cost_bK, mean_bKT = _followed(search, bent, inverse[bent], line_bU, at, away_bK)
        # What was followed is no lower than the valley's floor, which is a parabola of σ² at least.
        rise_bK = cost_bK - cost_bK.amin(dim=1, keepdim=True)
        law_bK = (torch.expm1(2 * away_bK) / (2 * spread[bent, None])) ** 2
        rise_BK[bent] = torch.minimum(rise_bK, law_bK)
        mean_BKT[bent] = torch.where((rise_bK <= law_bK)[..., None], mean_bKT, mean_BKT[bent])
        # Where it is less steep than the matrix and the range of ln σ have it, the posterior goes on.
        inside_b2 = torch.stack([nodes_BK[bent, 0] > low, nodes_BK[bent, -1] < high], dim=1)
        short_b2 = inside_b2 & (rise_BK[bent][:, [0, -1]] < _ENOUGH)
        reach_B2[bent] *= 1 + short_b2.to(reach_B2)
        bent = bent[short_b2.any(dim=1)]
    spacing_BK = _spacing(nodes_BK)
    width_BK = (_WIDTH * spacing_BK).clamp(min=1e-6)
    # Densities of a width of their own add their variance: what is left for the nodes is so much narrower.
    away_BK = (nodes_BK[:, -1:] - nodes_BK[:, :1]) / (_NODES - 1)
    sharper_BK = 1 / (1 - (_WIDTH * away_BK / spread[:, None]).clamp(max=_WIDTH) ** 2)
    # Every D and every σ as likely: dD dσ = D σ d(ln D_v) d(ln σ).
    log_prior_BK = nodes_BK + mean_BKT[..., 0] - 3 * torch.log1p(torch.exp(2 * nodes_BK))
    logits_BK = log_prior_BK - 0.5 * sharper_BK * rise_BK.clamp(max=1e4) + spacing_BK.clamp(min=1e-12).log()
    given = (
        covariance - covariance[:, None, _SIGMA, _SIGMA, None] * slope_BT[:, :, None] * slope_BT[:, None, :]
    )
    given.diagonal(dim1=1, dim2=2).add_(1e-14)
    along = slope_BT[:, None, :, None] * slope_BT[:, None, None, :] * (width_BK**2)[..., None, None]
    return GaussianMixture(
        logits=logits_BK,
        mean=mean_BKT,
        scale_tril=torch.linalg.cholesky(given[:, None] + along),
    )


def _straight(
    theta: torch.Tensor, nodes_BK: torch.Tensor, spread: torch.Tensor, slope_BT: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, K) rises of χ² and (B, K, T) targets at nodes, by the matrix of the minimum."""
    away_BK = nodes_BK - theta[:, _SIGMA, None]
    mean_BKT = theta[:, None, : len(TARGETS)] + slope_BT[:, None, :] * away_BK[..., None]
    return (away_BK / spread[:, None]) ** 2, mean_BKT


def _nodes(
    log_sigma: torch.Tensor,
    spread: torch.Tensor,
    reach_B2: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
) -> torch.Tensor:
    """(B, K) ln σ at equal distances of σ, over as many standard deviations of σ² as lie between the bounds."""
    # dσ²/σ² = 2 d ln σ.
    below, above = (2 * reach_B2 * spread[:, None]).unbind(dim=1)
    ends = torch.stack([1 - below, 1 + above], dim=1).clamp(min=1e-9)
    ends = torch.exp((log_sigma[:, None] + 0.5 * ends.log()).clamp(low, high))
    share = torch.linspace(0, 1, _NODES, dtype=ends.dtype, device=ends.device)
    return (ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * share).log().clamp(low, high)


def _followed(
    search: Search,
    index: torch.Tensor,
    inverse: torch.Tensor,
    line_bU: torch.Tensor,
    at: int,
    away_bK: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(b, K) lowest χ² at every node of ln σ, and (b, K, T) where: from the straight line on, with its derivatives."""
    theta, columns, slopes = search.theta[index], search.columns, search.slopes[index]
    weight = search.weight(search.model[index], index)
    cost_bK = torch.full_like(away_bK, torch.inf)
    mean_bKT = away_bK.new_empty((*away_bK.shape, len(TARGETS)))
    for k in range(away_bK.shape[1]):
        trial = search.moved(theta, line_bU * away_bK[:, k, None])
        for again in range(_CORRECTIONS + 1):
            model = search.rows.value(trial, index)
            cost = search.cost(trial, model, weight, index)
            lower = cost < cost_bK[:, k]
            cost_bK[:, k] = torch.where(lower, cost, cost_bK[:, k])
            mean_bKT[:, k] = torch.where(
                lower[:, None] | (again == 0), trial[:, : len(TARGETS)], mean_bKT[:, k]
            )
            if again < _CORRECTIONS:
                pull = torch.nan_to_num(weight * (search.rows.y[index] - model), posinf=0.0, neginf=0.0)
                gradient = (pull.float()[:, None] @ slopes.mT)[:, 0].double()
                gradient = gradient - search.known[columns] * trial[:, columns]
                solved = (inverse @ gradient[..., None])[..., 0]
                trial = search.moved(trial, torch.nan_to_num(solved - line_bU * solved[:, at, None]))
    return cost_bK, mean_bKT


def _spacing(nodes_BK: torch.Tensor) -> torch.Tensor:
    """(B, K) the length that each node stands for; 0 for nodes at one place with another."""
    gap = nodes_BK.diff(dim=1)
    zero = torch.zeros_like(gap[:, :1])
    return (torch.cat([zero, gap], dim=1) + torch.cat([gap, zero], dim=1)) / 2
