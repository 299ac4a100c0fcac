"""From the minimum of a search to a posterior: Laplace's approximation along everything but the dispersion.

Along ln σ χ² is no parabola: a pattern knows the second moment of the sizes, so that narrow distributions are hardly
told apart. There σ is set to some *nodes*, everything else follows (the line that the matrix predicts, and one more
step with the derivatives of the minimum), and

    p(ln σ_k) ∝ e^{-Δχ²_k / 2},   every ln σ between its bounds as likely

weighs normal densities around the nodes, each as wide as half of its distance from the next. At fixed σ the covariance
is that of the minimum, with all latents marginalised.

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
# Nodes in standard deviations of σ², and the width of their densities over their distance: with these the sum has
# ripples of 1 %, and its variance is that of the nodes and of one density.
_NODES = (-4.0, -3.2, -2.4, -1.6, -0.8, 0.0, 0.8, 1.6, 2.4, 3.2, 4.0)
_WIDTH = 0.5
_STEP = _NODES[1] - _NODES[0]


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
    theta, columns, index = search.theta, search.columns, search.all
    at = int(torch.nonzero(columns == _SIGMA)[0])
    log_sigma = theta[:, _SIGMA]
    spread = inverse[:, at, at].sqrt()
    # dσ²/σ² = 2 d ln σ.
    t = torch.tensor(_NODES, dtype=theta.dtype, device=theta.device)
    moved = 0.5 * torch.log((1 + 2 * spread[:, None] * t).clamp(min=1e-6))
    nodes_BK = (log_sigma[:, None] + moved).clamp(search.low[at], search.high[at])
    line_BU = inverse[:, :, at] / inverse[:, at, at, None]
    weight = search.weight(search.model, index)
    cost_BK, mean_BKT = torch.empty_like(nodes_BK), nodes_BK.new_empty((*nodes_BK.shape, len(TARGETS)))
    for k in range(len(t)):
        trial = theta.clone()
        trial[:, columns] += line_BU * (nodes_BK[:, k] - log_sigma)[:, None]
        best_cost, best = None, trial
        for again in (False, True):
            trial[:, columns] = trial[:, columns].clamp(search.low, search.high)
            model = search.rows.value(trial, index)
            cost = search.cost(trial, model, weight, index)
            lower = torch.ones_like(cost, dtype=torch.bool) if best_cost is None else cost < best_cost
            best_cost = cost if best_cost is None else torch.where(lower, cost, best_cost)
            best = torch.where(lower[:, None], trial, best)
            if again:
                break
            pull = torch.nan_to_num(weight * (search.rows.y - model), posinf=0.0, neginf=0.0)
            gradient = (pull[:, None, :].float() @ search.slopes)[:, 0].double()
            gradient = gradient - search.known[columns] * trial[:, columns]
            solved = (inverse @ gradient[..., None])[..., 0]
            solved = solved - line_BU * solved[:, at, None]
            trial = trial.clone()
            trial[:, columns] += torch.nan_to_num(solved)
        assert best_cost is not None
        cost_BK[:, k], mean_BKT[:, k] = best_cost, best[:, : len(TARGETS)]
    spacing_BK = _spacing(nodes_BK)
    width_BK = (_WIDTH * spacing_BK).clamp(min=1e-6)
    # Densities of a width of their own add their variance: what is left for the nodes is so much narrower.
    sharper = 1 / (1 - (_WIDTH * _STEP) ** 2)
    rise_BK = (cost_BK - cost_BK.amin(dim=1, keepdim=True)).clamp(max=1e4)
    logits_BK = -0.5 * sharper * rise_BK + spacing_BK.clamp(min=1e-12).log()
    variance = covariance[:, _SIGMA, _SIGMA].clamp(min=1e-24)
    slope_BT = covariance[:, :, _SIGMA] / variance[:, None]
    given = covariance - variance[:, None, None] * slope_BT[:, :, None] * slope_BT[:, None, :]
    given.diagonal(dim1=1, dim2=2).add_(1e-14)
    along = slope_BT[:, None, :, None] * slope_BT[:, None, None, :] * (width_BK**2)[..., None, None]
    return GaussianMixture(
        logits=logits_BK,
        mean=mean_BKT,
        scale_tril=torch.linalg.cholesky(given[:, None] + along),
    )


def _spacing(nodes_BK: torch.Tensor) -> torch.Tensor:
    """(B, K) the length that each node stands for; 0 for nodes at one place with another."""
    gap = nodes_BK.diff(dim=1)
    zero = torch.zeros_like(gap[:, :1])
    return (torch.cat([zero, gap], dim=1) + torch.cat([gap, zero], dim=1)) / 2
