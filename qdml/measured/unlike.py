"""How far real dots may be from what a fit says of them: dots are never those of the training.

A posterior holds for the world that it was computed in. Facets and ellipsoids between the shapes that a model knows,
distributions that are not lognormal, stacking faults and distorted lattices are in no world here, and most of them look
like another size or dispersion so well that they leave hardly a residual. `benchmarks/size_misfits.py` simulates such
dots, of known sizes: what the fit is off by, beyond its own posterior, is about normal in (ln D_v, σ², ε). Whatever
makes reflections a little wider (strain that differs, faults, a distorted lattice) counts as the square of the size.
With numbers from all kinds but one, the errors of the one left out are 1.1 times what was said. Each number here is
that of the instrument where it is larger. ε: what rhombohedral and faulted dots are off by.

A pattern knows the second moment of the sizes: what is wrong adds to σ² and not to σ. The posterior is convolved with
that normal density along *nodes* of σ² (none below the least σ of the training), each with normal densities of its own.

Symbols: B pattern, M component of the posterior, K node, T target.
"""

from __future__ import annotations

import torch

from qdml.densities import TARGETS, GaussianMixture

__all__ = ["log_volume_spread", "unlike"]

#: Standard deviations of σ² and ε, and correlation of ln D_v and σ²: benchmarks/results/size_misfits.md.
VARIANCE, STRAIN, CORRELATION = 0.005, 1e-4, -0.7
# That of ln D_v: of small dots, and what (D_v / 5 nm)² adds.
_FLAT, _GROWING, _UNIT_NM = 0.005, 0.007, 5.0
# Nodes in standard deviations, the width of their densities, and the most of it in ln σ.
_NODES = (-3.0, -2.25, -1.5, -0.75, 0.0, 0.75, 1.5, 2.25, 3.0)
_WIDTH, _WIDEST = 0.375, 0.4
_VOLUME, _SIGMA, _STRAIN = (TARGETS.index(name) for name in ("log_volume_diameter", "log_sigma", "strain"))


def log_volume_spread(diameter_nm: torch.Tensor) -> torch.Tensor:
    """Standard deviation of ln D_v at some D_v [nm]."""
    return torch.hypot(torch.full_like(diameter_nm, _FLAT), _GROWING * (diameter_nm / _UNIT_NM) ** 2)


def unlike(posterior: GaussianMixture, sigma_min: float) -> GaussianMixture:
    """The posterior for dots that may be like none of the training.

    Args:
        posterior: of the fit, or of the network; units of the targets.
        sigma_min: the least dispersion of the training; no dots are more alike.

    Returns:
        one with nine times as many components.
    """
    mean_BMT = posterior.mean.double()
    tril = posterior.scale_tril.double()
    node_K = mean_BMT.new_tensor(_NODES)
    # The densities have a width, so the weights of their places are those of a narrower one.
    weight_K = -0.5 * node_K**2 / (1 - _WIDTH**2)
    variance_BMK = torch.exp(2 * mean_BMT[..., _SIGMA, None]) + VARIANCE * node_K
    possible = (variance_BMK >= sigma_min**2) | (node_K == 0)
    weight_BMK = torch.log_softmax(torch.where(possible, weight_K, -torch.inf), dim=-1)
    log_sigma_BMK = 0.5 * torch.where(possible, variance_BMK, sigma_min**2).clamp(min=sigma_min**2).log()
    mean_BMKT = mean_BMT[:, :, None].repeat(1, 1, len(node_K), 1)
    spread_BM1 = log_volume_spread(mean_BMT[..., _VOLUME, None].exp())
    mean_BMKT[..., _VOLUME] += CORRELATION * spread_BM1 * node_K
    mean_BMKT[..., _SIGMA] = log_sigma_BMK
    # d ln σ = dσ² / 2σ².
    along = torch.zeros_like(mean_BMKT)
    along[..., _VOLUME] = _WIDTH * CORRELATION * spread_BM1
    along[..., _SIGMA] = (_WIDTH * VARIANCE / 2 * torch.exp(-2 * log_sigma_BMK)).clamp(max=_WIDEST)
    own_BMT = torch.zeros_like(mean_BMT)
    own_BMT[..., _VOLUME] = (1 - CORRELATION**2) ** 0.5 * spread_BM1[..., 0]
    own_BMT[..., _STRAIN] = STRAIN
    covariance = (tril @ tril.mT + torch.diag_embed(own_BMT**2))[:, :, None]
    covariance = covariance + along[..., :, None] * along[..., None, :]
    logits_BMK = torch.log_softmax(posterior.logits.double(), dim=1)[..., None] + weight_BMK
    return GaussianMixture(
        logits=logits_BMK.clamp(min=-700.0).flatten(1, 2),
        mean=mean_BMKT.flatten(1, 2),
        scale_tril=torch.linalg.cholesky(covariance).flatten(1, 2),
    )
