"""Shares of what is visible.

Symbols: B pattern, Q point of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from qdml.preprocess import masked_mean

__all__ = ["shares"]


def shares(
    parts: Mapping[str, tuple[torch.Tensor, torch.Tensor]], mask_BQ: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Patterns with given shares of the visible area.

    Args:
        parts: name -> share (B, 1) and pattern (B, Q) or (1, Q); shares of one pattern add up to 1.
        mask_BQ: (B, Q) float, 1 where visible.

    Returns:
        Name -> (B, Q); their sum has the mean 1 over the visible points.
    """
    return {name: share_B1 / masked_mean(y_BQ, mask_BQ) * y_BQ for name, (share_B1, y_BQ) in parts.items()}
