"""A residual network on the whole pattern at once.

Sizes live in how *all* reflections change together, in directions of small variance: dense layers see them from the
first layer on, where strided convolutions have to pass them through averages. On a CPU a dense layer is one matrix
product. The mask varies slowly, so every other channel but the first enters as its mean over windows of 16 points.

Symbols: B pattern, C channel, Q point, W width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

__all__ = ["ResidualMlp"]

_WINDOW = 16


class ResidualMlp(nn.Module):
    """Dense embedding -> residual blocks -> logits of each head."""

    def __init__(self, heads: Mapping[str, int], *, channels: int, n_q: int, width: int, blocks: int) -> None:
        """Build the layers.

        Args:
            heads: name -> number of classes.
            channels: of the input; the first is the pattern.
            n_q: points of the input.
            width: of the residual stream.
            blocks: number of residual blocks.
        """
        super().__init__()
        self.embed = nn.Linear(n_q + (channels - 1) * (n_q // _WINDOW), width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in heads.items()})

    def forward(self, x_BCQ: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits (B, K) of each head."""
        n = x_BCQ.shape[2] // _WINDOW
        coarse = x_BCQ[:, 1:, : n * _WINDOW].unflatten(2, (n, _WINDOW)).mean(dim=3)
        y_BW = self.embed(torch.cat([x_BCQ[:, 0], coarse.flatten(1)], dim=1))
        for block in self.blocks:
            y_BW = y_BW + block(y_BW)
        y_BW = self.norm(y_BW)
        return {name: head(y_BW) for name, head in self.heads.items()}
