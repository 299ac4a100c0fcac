"""A neural spline flow as the last layer of a posterior (`network=posterior_flow`): any shape of density, at a price.

    t = centre + spread f(z; features),    z ~ N(0, I),    f autoregressive monotonic rational-quadratic splines

(C. Durkan et al., NeurIPS 2019; package zuko). Moments and probabilities of single targets have no closed form: they
are taken from a fixed set of samples, so they are the same every time. So is the mixture that a trained model answers
with: a normal density about each of 128 samples.

Symbols: B pattern, W width, T target, n sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from qdml.densities import TARGETS, GaussianMixture

__all__ = ["FlowDensity", "FlowHead"]

# Samples of moments, probabilities and of the mixture: the mean to 9 % of a standard deviation. Each costs nine passes
# through the layers that make the splines.
_SAMPLES = 128
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class FlowDensity:
    """One density for each pattern, in units of `TARGETS`; answers the same questions as `GaussianMixture`."""

    flow: Any
    """(B,) distribution of the standardised targets."""
    centre: torch.Tensor
    """(T,)."""
    spread: torch.Tensor
    """(T,)."""

    def __len__(self) -> int:
        return int(self.flow.batch_shape[0])

    def log_prob(self, targets_BT: torch.Tensor) -> torch.Tensor:
        """(B,) ln p of one point for each pattern, per unit of the targets."""
        unit_BT = (targets_BT.to(self.centre) - self.centre) / self.spread
        return self.flow.log_prob(unit_BT) - self.spread.log().sum()

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """(n, B, T) draws; the generator is of the device of the density."""
        shape = (n, len(self), len(TARGETS))
        z = torch.randn(shape, dtype=self.centre.dtype, device=self.centre.device, generator=generator)
        return self.centre + self.spread * self.flow.transform.inv(z)

    @cached_property
    def _drawn(self) -> torch.Tensor:
        return self.sample(_SAMPLES, torch.Generator(self.centre.device).manual_seed(_SEED))

    def cdf(self, targets_BT: torch.Tensor) -> torch.Tensor:
        """(B, T) fraction of samples in which each target is below a point."""
        return (self._drawn < targets_BT.to(self.centre)).to(self.centre.dtype).mean(dim=0)

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T) mean and (B, T, T) covariance of samples."""
        drawn = self._drawn
        mean_BT = drawn.mean(dim=0)
        difference = drawn - mean_BT
        return mean_BT, torch.einsum("nbs,nbt->bst", difference, difference) / _SAMPLES

    def mixture(self) -> GaussianMixture:
        """The same density as a mixture, of the same mean and covariance.

        Samples x_n about their mean μ with covariance Σ become N(μ + √(1 - h²)(x_n - μ), h²Σ), with the width
        h = (4/(n(T + 2)))^(1/(T + 4)) of Silverman's rule: 0.48.
        """
        t = len(TARGETS)
        h = (4 / (_SAMPLES * (t + 2))) ** (1 / (t + 4))
        drawn_BMT = self._drawn.transpose(0, 1)
        mean_B1T = drawn_BMT.mean(dim=1, keepdim=True)
        difference = (drawn_BMT - mean_B1T) / self.spread
        covariance = difference.mT @ difference / _SAMPLES
        tril_BTT = self.spread[:, None] * torch.linalg.cholesky(covariance) * h
        return GaussianMixture(
            logits=torch.zeros_like(drawn_BMT[..., 0]),
            mean=mean_B1T + math.sqrt(1 - h**2) * (drawn_BMT - mean_B1T),
            scale_tril=tril_BTT[:, None].expand(-1, _SAMPLES, -1, -1),
        )


class FlowHead(nn.Module):
    """Features -> spline flow."""

    def __init__(self, width: int, *, transforms: int, hidden: int, bins: int) -> None:
        """Build the layers.

        Args:
            width: features.
            transforms: autoregressive transformations, one after the other.
            hidden: width of the two layers that make the splines of each.
            bins: of a spline.

        Raises:
            ImportError: zuko is missing.
        """
        super().__init__()
        try:
            import zuko
        except ImportError as error:
            raise ImportError("network.head=flow needs the package zuko: pip install zuko") from error
        t = len(TARGETS)
        self.flow = zuko.flows.NSF(t, width, transforms=transforms, hidden_features=(hidden,) * 2, bins=bins)
        # Fixed, but no buffers: DistributedDataParallel sends buffers round before every step.
        for module in list(self.flow.modules()):
            for name, value in list(module.named_buffers(recurse=False)):
                del module._buffers[name]
                module.register_parameter(name, nn.Parameter(value, requires_grad=False))
        self.centre = nn.Parameter(torch.zeros(t), requires_grad=False)
        self.spread = nn.Parameter(torch.ones(t), requires_grad=False)

    def forward(self, y_BW: torch.Tensor) -> FlowDensity:
        """The density of each row."""
        with torch.autocast(y_BW.device.type, enabled=False):
            return FlowDensity(flow=self.flow(y_BW), centre=self.centre, spread=self.spread)
