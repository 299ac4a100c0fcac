"""A residual network on the whole pattern at once, behind a fixed whitening (`qdml.models.whitening`).

The mask varies slowly, so every channel but the first enters as its mean over windows of 16 points.

Symbols: B pattern, C channel, Q point, P principal component, W width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from qdml.models.whitening import InputMoments, Whitening
from qdml.preprocess import NetworkInput

__all__ = ["ResidualMlp", "hidden_weights"]

_WINDOW = 16


class ResidualMlp(nn.Module):
    """Whitening -> dense embedding -> residual blocks -> logits of each head."""

    def __init__(
        self,
        heads: Mapping[str, int],
        *,
        channels: int,
        n_q: int,
        components: int,
        width: int,
        blocks: int,
        compress_beyond: float,
    ) -> None:
        """Build the layers.

        Args:
            heads: name -> number of classes.
            channels: of the input; the first is the pattern.
            n_q: points of the input.
            components: principal components that are kept.
            width: of the residual stream.
            blocks: number of residual blocks.
            compress_beyond: of the whitening.

        Raises:
            ValueError: more components than points.
        """
        super().__init__()
        self.whitening = Whitening(n_q, components, declared_noise=False, compress_beyond=compress_beyond)
        self.embed = nn.Linear(components + (channels - 1) * (n_q // _WINDOW), width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in heads.items()})

    def fit(self, moments: InputMoments) -> None:
        """Set the whitening from augmented training patterns."""
        self.whitening.fit(moments)

    def matrices(self) -> list[torch.Tensor]:
        """The 2-D weights between hidden layers, which Muon takes; the rest is for AdamW."""
        return [self.embed.weight, *hidden_weights(self.blocks)]

    def forward(self, inputs: NetworkInput) -> dict[str, torch.Tensor]:
        """Logits (B, K) of each head."""
        x_BCQ = inputs.pattern
        mask_BQ = x_BCQ[:, 1] if x_BCQ.shape[1] > 1 else torch.ones_like(x_BCQ[:, 0])
        z_BP = self.whitening(x_BCQ[:, 0], inputs.noise, mask_BQ)
        n = x_BCQ.shape[2] // _WINDOW
        coarse = x_BCQ[:, 1:, : n * _WINDOW].unflatten(2, (n, _WINDOW)).mean(dim=3)
        y_BW = self.embed(torch.cat([z_BP, coarse.flatten(1)], dim=1))
        for block in self.blocks:
            y_BW = y_BW + block(y_BW)
        y_BW = self.norm(y_BW)
        return {name: head(y_BW) for name, head in self.heads.items()}


def hidden_weights(blocks: nn.ModuleList) -> list[torch.Tensor]:
    """The weights of all dense layers."""
    return [layer.weight for layer in blocks.modules() if isinstance(layer, nn.Linear)]
