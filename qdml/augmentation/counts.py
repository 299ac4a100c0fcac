"""Counting noise: whole counts where there are few of them, normal numbers where there are many.

Symbols: B pattern, Q point of the grid, y intensity (any unit).
"""

from __future__ import annotations

import torch

__all__ = ["EXACT_BELOW", "counts", "poisson_counts"]

#: Counts below which the Poisson distribution itself is drawn. Above, its skewness 1/sqrt(counts) is below 0.13 and the
#: distribution function of the normal one is off by at most 0.01 (Berry-Esseen with the constant of a Poisson sum).
EXACT_BELOW = 64.0


def poisson_counts(y_BQ: torch.Tensor, scale_B1: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Counting noise: y' = Poisson(y·scale)/scale, exactly.

    Args:
        y_BQ: (B, Q), >= 0.
        scale_B1: (B, 1) or (B, Q) counts per unit of y.
        generator: of the device of y.
    """
    return torch.poisson(y_BQ * scale_B1, generator=generator) / scale_B1


def counts(y_BQ: torch.Tensor, scale_BQ: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The same, with normal numbers of the same mean and variance above `EXACT_BELOW` counts, nowhere below 0.

    A hundred times faster than `poisson_counts` on a CPU where counts are many. Both are drawn everywhere and one of
    them is taken, so that no device waits for a host; of means set to 0, Poisson numbers cost nothing.
    """
    mean_BQ = y_BQ * scale_BQ
    few_BQ = mean_BQ < EXACT_BELOW
    noise_BQ = torch.randn(mean_BQ.shape, generator=generator, device=y_BQ.device, dtype=y_BQ.dtype)
    many_BQ = (mean_BQ + noise_BQ * torch.sqrt(mean_BQ)).clamp(min=0)
    exact_BQ = torch.poisson(torch.where(few_BQ, mean_BQ, 0.0), generator=generator)
    return torch.where(few_BQ, exact_BQ, many_BQ) / scale_BQ
