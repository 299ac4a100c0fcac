"""A branch of convolutions beside the whitening: ConvNeXt blocks on windows of the pattern (Z. Liu et al., CVPR 2022).

    windows of 8 points -> F features each -> [7-wide convolution of each feature, dense layers on each window] -> few
    features of each window, all of them side by side

A reflection that moves changes few neighbouring windows, whatever else is in the pattern: convolutions find strains.

Symbols: B pattern, C channel, Q point, L window, F feature.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ConvolutionBranch"]

# Points of a window: half a reflection of a dot of 8 nm at 0.0125 Å⁻¹.
_WINDOW = 8
_KERNEL = 7
# Features of each window that leave the branch.
_LEAVING = 4


class _Block(nn.Module):
    def __init__(self, filters: int) -> None:
        super().__init__()
        self.across = nn.Conv1d(filters, filters, _KERNEL, padding=_KERNEL // 2, groups=filters)
        self.within = nn.Sequential(
            nn.LayerNorm(filters), nn.Linear(filters, 2 * filters), nn.GELU(), nn.Linear(2 * filters, filters)
        )

    def forward(self, y_BLF: torch.Tensor) -> torch.Tensor:
        return y_BLF + self.within(self.across(y_BLF.transpose(1, 2)).transpose(1, 2))


class ConvolutionBranch(nn.Module):
    """(B, C, Q) -> (B, size)."""

    def __init__(self, channels: int, n_q: int, filters: int, blocks: int) -> None:
        """Build the layers.

        Args:
            channels: of the input.
            n_q: points of the input; those after the last whole window are dropped.
            filters: F.
            blocks: number of residual blocks.
        """
        super().__init__()
        self.windows = n_q // _WINDOW
        self.size = self.windows * _LEAVING
        self.first = nn.Linear(channels * _WINDOW, filters)
        self.blocks = nn.Sequential(*(_Block(filters) for _ in range(blocks)))
        self.last = nn.Sequential(nn.LayerNorm(filters), nn.Linear(filters, _LEAVING))

    def forward(self, x_BCQ: torch.Tensor) -> torch.Tensor:
        """Features of all windows."""
        cut = x_BCQ[..., : self.windows * _WINDOW].unflatten(2, (self.windows, _WINDOW))
        y_BLF = self.first(cut.transpose(1, 2).flatten(2))
        return self.last(self.blocks(y_BLF)).flatten(1)
