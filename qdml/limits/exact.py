"""What is possible on the published benchmark: the exact-likelihood classifier.

With the noise cell known, the counts k of a pattern are Poisson with the mean λ_h of each hypothesis h of the grid:

    ln p(k | h) = Σ_Q [k ln λ_h - λ_h] + const,   p(class | k) ∝ Σ_{h in class} p(k | h)

every (D, σ, ε) of the grid equally likely. A matrix product of counts and ln λ. No classifier that knows less does
better on average; networks are not told the cell. Valid where patterns are drawn from the grid itself.

Symbols: B pattern, H hypothesis, Q point of the grid, K class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qdml.augmentation.recipe import Main

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qdml.augmentation.allara import AllaraRecipe
    from qdml.observation import Observation

__all__ = ["exact_posterior"]


def exact_posterior(
    recipe: AllaraRecipe,
    cell: int,
    observation: Observation,
    clean_HQ: torch.Tensor,
    labels: Mapping[str, torch.Tensor],
    n_classes: Mapping[str, int],
) -> dict[str, torch.Tensor]:
    """Class probabilities of the exact classifier.

    Args:
        recipe: knows the cells.
        cell: number of the cell that the patterns are from.
        observation: the patterns.
        clean_HQ: (H, Q) clean patterns of every hypothesis.
        labels: quantity -> (H,) int64 class of each hypothesis.
        n_classes: quantity -> K.

    Returns:
        quantity -> (B, K) float64.
    """
    n, device = len(clean_HQ), clean_HQ.device
    cells = torch.full((n,), cell, device=device)
    unused = torch.zeros(n, device=device)
    # The recipe takes clean patterns as they are; what they are of is not looked at.
    main = Main(
        log_volume_diameter=unused,
        sigma=unused,
        strain=unused,
        variant=unused.long(),
        b_scale=unused,
        intensity=clean_HQ,
    )
    # float64: 5000 terms of size 10^4 are summed, and differences of order 1 decide.
    expected = recipe.expected(main, recipe.setting(cells), recipe.latents(cells).double())
    rate_HQ = expected.intensity * expected.rate.double()
    counts_BQ = torch.round(observation.intensity.double() * expected.rate[:1].double())
    posterior_BH = torch.softmax(counts_BQ @ torch.log(rate_HQ).T - rate_HQ.sum(dim=1), dim=1)
    return {
        name: posterior_BH @ torch.nn.functional.one_hot(label, n_classes[name]).double()
        for name, label in labels.items()
    }
