"""A residual network on the whole pattern at once, behind a fixed whitening.

Sizes and dispersions live in directions of the input that carry 10⁻² to 10⁻³ of its variance; a network on the plain
input learns strain and size and leaves σ at its prior. So the pattern is first projected on its leading principal
components, each scaled to unit variance, and compressed:

    z = asinh[(x - mean) V Λ^(-1/2)]

with the covariance V Λ Vᵀ of augmented training patterns, taken once before training (`fit`). On `experiment=quick`
that is worth 0.6 nats after 1000 steps. asinh keeps a measured pattern that is unlike any in training from driving the
network far out. The mask varies slowly, so every other channel enters as its mean over windows of 16 points.

Symbols: B pattern, C channel, Q point, P principal component, W width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

__all__ = ["ResidualMlp"]

_WINDOW = 16


class ResidualMlp(nn.Module):
    """Whitening -> dense embedding -> residual blocks -> logits of each head."""

    def __init__(
        self, heads: Mapping[str, int], *, channels: int, n_q: int, components: int, width: int, blocks: int
    ) -> None:
        """Build the layers.

        Args:
            heads: name -> number of classes.
            channels: of the input; the first is the pattern.
            n_q: points of the input.
            components: principal components that are kept.
            width: of the residual stream.
            blocks: number of residual blocks.

        Raises:
            ValueError: more components than points.
        """
        super().__init__()
        if components > n_q:
            raise ValueError(
                f"network.components must be <= {n_q}, the points of a pattern, got {components}"
            )
        # Fixed, but no buffers: DistributedDataParallel sends buffers round before every step.
        self.mean = nn.Parameter(torch.zeros(n_q), requires_grad=False)
        self.whitening = nn.Parameter(torch.zeros(n_q, components), requires_grad=False)
        self.embed = nn.Linear(components + (channels - 1) * (n_q // _WINDOW), width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in heads.items()})

    @torch.no_grad()
    def fit(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        """Set the whitening.

        Args:
            mean: (Q,) float64 of the input's first channel.
            covariance: (Q, Q) float64.
        """
        variance, direction = torch.linalg.eigh(covariance)
        k = self.whitening.shape[1]
        variance, direction = variance.flip(0)[:k], direction.flip(1)[:, :k]
        # The sign of an eigenvector is arbitrary: its largest entry is positive here, whatever the library returns.
        largest = direction.gather(0, direction.abs().argmax(dim=0, keepdim=True))
        # Fewer patterns than components leave variances of rounding size; they must not be blown up.
        floor = variance[0] * 1e-9
        self.mean.copy_(mean)
        self.whitening.copy_(direction * largest.sign() / variance.clamp(min=floor).sqrt())

    def forward(self, x_BCQ: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits (B, K) of each head."""
        # Directions of 10⁻⁴ of the variance drown in the rounding of bfloat16.
        with torch.autocast(x_BCQ.device.type, enabled=False):
            z_BP = torch.asinh((x_BCQ[:, 0] - self.mean) @ self.whitening)
        n = x_BCQ.shape[2] // _WINDOW
        coarse = x_BCQ[:, 1:, : n * _WINDOW].unflatten(2, (n, _WINDOW)).mean(dim=3)
        y_BW = self.embed(torch.cat([z_BP, coarse.flatten(1)], dim=1))
        for block in self.blocks:
            y_BW = y_BW + block(y_BW)
        y_BW = self.norm(y_BW)
        return {name: head(y_BW) for name, head in self.heads.items()}
