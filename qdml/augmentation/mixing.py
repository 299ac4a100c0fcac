"""Shares of what is visible.

Symbols: B pattern, Q point of the grid.
"""

from __future__ import annotations

import torch

from qdml.preprocess import masked_mean

__all__ = ["mix"]


def mix(parts: list[tuple[torch.Tensor, torch.Tensor]], mask_BQ: torch.Tensor) -> torch.Tensor:
    """Sum of patterns with given shares of the visible area.

    Args:
        parts: (share (B, 1), pattern (B, Q) or (1, Q)) each; shares of one pattern add up to 1.
        mask_BQ: (B, Q) float, 1 where visible.

    Returns:
        (B, Q), of mean 1 over the visible points.
    """
    total_BQ = torch.zeros_like(mask_BQ)
    for share_B1, y_BQ in parts:
        total_BQ = total_BQ + share_B1 / masked_mean(y_BQ, mask_BQ) * y_BQ
    return total_BQ
