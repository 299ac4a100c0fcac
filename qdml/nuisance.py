"""What a pattern is not asked for (B, the latents of the world, the shape), as a network guesses it.

A posterior network answers with a density of its targets, and beside it with this: nothing to be reported, but the
place where a fit of everything (`qdml.refine`) begins, close to where it ends.

Symbols: B pattern, L latent, V structural variant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["Nuisance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nuisance:
    """Posterior means, and probabilities of variants under the weights of the training."""

    log_b_scale: torch.Tensor
    """(B,) ln of the factor on every Debye-Waller B."""
    z: torch.Tensor
    """(B, L) latents in the order of `Recipe.space`."""
    log_variant: torch.Tensor
    """(B, V) ln of the probability of each variant; exp sums to 1."""

    def __len__(self) -> int:
        return len(self.z)

    def take(self, index: torch.Tensor | slice) -> Nuisance:
        """Those of some of the patterns."""
        return Nuisance(
            log_b_scale=self.log_b_scale[index], z=self.z[index], log_variant=self.log_variant[index]
        )

    def to(self, where: torch.dtype | torch.device) -> Nuisance:
        """The same as another type or on another device."""
        return Nuisance(
            log_b_scale=self.log_b_scale.to(where), z=self.z.to(where), log_variant=self.log_variant.to(where)
        )

    @staticmethod
    def cat(parts: Sequence[Nuisance]) -> Nuisance:
        """Several batches as one."""
        return Nuisance(
            log_b_scale=torch.cat([part.log_b_scale for part in parts]),
            z=torch.cat([part.z for part in parts]),
            log_variant=torch.cat([part.log_variant for part in parts]),
        )
