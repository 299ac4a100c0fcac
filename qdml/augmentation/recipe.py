"""What every augmentation recipe can do; `qdml.augmentation.recipes.build_recipe` makes the one that is asked for.

A recipe draws its parameters for every pattern from one generator (training), or takes those of one named *noise cell*
(evaluation), so both see the same code.

Symbols: B pattern, Q point of the grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from qdml.atoms import SampleAtoms
    from qdml.dataset import Rows

__all__ = ["Recipe"]


class Recipe(ABC):
    """Clean patterns in, measured-looking patterns and their masks out."""

    cells: Sequence[str]
    """Names of the noise cells."""
    atoms: SampleAtoms | None = None
    """What rows must know of their atoms; None for a recipe that needs nothing but the pattern."""
    windows: Sequence[tuple[tuple[float, float], tuple[float, float]]]
    """For each cell the ranges of the first and of the last visible Q [Å⁻¹]."""

    @abstractmethod
    def random(self, rows: Rows, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment every pattern with parameters of its own.

        Args:
            rows: clean patterns, with `Rows.atoms` if the recipe has `atoms`.
            generator: of the same device.

        Returns:
            (B, Q) float32 intensity [arbitrary units], and (B, Q) float32 mask, 1 where visible.
        """

    @abstractmethod
    def cell(self, index: int, rows: Rows, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The same with the parameters of one of `cells`."""
