"""What a pattern is not asked for (B, the latents of the world, the shape), as a network guesses it.

A posterior network answers with a density of its targets, and beside it with this: nothing to be reported, but the
place where a fit of everything (`qdml.refine`) begins, close to where it ends.

Symbols: B pattern, L latent, V structural variant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qdml.batch import Batch

__all__ = ["Nuisance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nuisance(Batch):
    """Posterior means, and probabilities of variants under the weights of the training."""

    log_b_scale: torch.Tensor
    """(B,) ln of the factor on every Debye-Waller B."""
    z: torch.Tensor
    """(B, L) latents in the order of `Recipe.space`."""
    log_variant: torch.Tensor
    """(B, V) ln of the probability of each variant; exp sums to 1."""
