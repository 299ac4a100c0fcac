"""Densities of what a pattern is asked for: what a network answers and what a fit answers, in one form.

    p(t) = Σ_m softmax(logits)_m N(t; mean_m, L_m L_mᵀ),        t = (ln(D_v/nm), ln σ, ε)

L is lower triangular with a positive diagonal. D_v = D(1+σ²)³ is the volume-weighted mean diameter of a lognormal
number distribution of mean D: wide-angle patterns know it better than D and σ apart. The density is not cut at the
limits of what was trained on.

Symbols: B pattern, M component, T target, n sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from qdml.batch import Batch

__all__ = ["TARGETS", "GaussianMixture", "number_diameter", "volume_diameter"]

#: What is inferred, in this order: ln of the volume-weighted mean diameter in nm, ln of the relative standard
#: deviation of the diameters, isotropic strain.
TARGETS = ("log_volume_diameter", "log_sigma", "strain")

_LOG_2_PI = math.log(2 * math.pi)


def volume_diameter(diameter: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """D_v = D(1+σ²)³ of a lognormal number distribution, in the unit of D."""
    return diameter * (1 + sigma**2) ** 3


def number_diameter(volume_diameter: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """D = D_v/(1+σ²)³, the inverse of `volume_diameter`."""
    return volume_diameter / (1 + sigma**2) ** 3


@dataclass(frozen=True, kw_only=True)
class GaussianMixture(Batch):
    """One mixture of normal densities for each pattern, in units of `TARGETS`."""

    logits: torch.Tensor
    """(B, M), any offset."""
    mean: torch.Tensor
    """(B, M, T)."""
    scale_tril: torch.Tensor
    """(B, M, T, T) lower triangular, positive diagonal."""

    def log_prob(self, targets_BT: torch.Tensor) -> torch.Tensor:
        """(B,) ln p of one point for each pattern, per unit of the targets."""
        tril = self.scale_tril
        difference_BMT = targets_BT[:, None].to(self.mean) - self.mean
        # L z = t - mean, one row after the other: T is 3, and a batched solver costs ten times as much.
        z: list[torch.Tensor] = []
        for row in range(difference_BMT.shape[-1]):
            rest = difference_BMT[..., row]
            for column in range(row):
                rest = rest - tril[..., row, column] * z[column]
            z.append(rest / tril[..., row, row])
        squared = torch.stack(z, dim=-1).square().sum(dim=-1)
        log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        normal_BM = -0.5 * (squared + len(z) * _LOG_2_PI) - log_det
        return torch.logsumexp(torch.log_softmax(self.logits, dim=1) + normal_BM, dim=1)

    def cdf(self, targets_BT: torch.Tensor) -> torch.Tensor:
        """(B, T) probability of each target being below a point, the others integrated out."""
        spread_BMT = self.scale_tril.square().sum(dim=-1).sqrt()
        below = torch.special.ndtr((targets_BT[:, None].to(self.mean) - self.mean) / spread_BMT)
        return (torch.softmax(self.logits, dim=1)[..., None] * below).sum(dim=1)

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T) mean and (B, T, T) covariance."""
        weight_BM = torch.softmax(self.logits, dim=1)
        mean_BT = (weight_BM[..., None] * self.mean).sum(dim=1)
        difference = self.mean - mean_BT[:, None]
        within = self.scale_tril @ self.scale_tril.mT
        between = difference[..., :, None] * difference[..., None, :]
        return mean_BT, (weight_BM[..., None, None] * (within + between)).sum(dim=1)

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """(n, B, T) draws; the generator is of the device of the density."""
        weight_BM = torch.softmax(self.logits, dim=1)
        component_Bn = torch.multinomial(weight_BM, n, replacement=True, generator=generator)
        row_B1 = torch.arange(len(self), device=weight_BM.device)[:, None]
        mean, tril = self.mean[row_B1, component_Bn], self.scale_tril[row_B1, component_Bn]
        z = torch.randn(mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
        return (mean + (tril @ z[..., None])[..., 0]).transpose(0, 1)
