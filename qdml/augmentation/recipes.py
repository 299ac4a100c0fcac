"""The recipe that a configuration names.

- `allara2024` (`allara`): the published grid, solvent x nanocrystal fraction x count scale, 32 cells.
- `instrument` (`instrument`): real samples on real instruments, one cell per instrument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qdml.augmentation.config import AllaraConfig, InstrumentRecipeConfig
from qdml.augmentation.recipe import Recipe

if TYPE_CHECKING:
    from hpc.store import Store
    from qdml.basis import DotBasis

__all__ = ["build_recipe"]


def build_recipe(
    config: AllaraConfig | InstrumentRecipeConfig,
    store: Store | DotBasis,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Recipe:
    """Make a recipe for the patterns of a store.

    Args:
        config: from `augment=NAME`.
        store: whose patterns will be augmented: its grid, material, radiation, basis; or the basis of a model alone.
        device: where batches will be.
        dtype: of the tables; float64 for derivatives by differences (the dots of a basis are float32).

    Raises:
        ValueError: a solvent file does not cover the store's Q, a window lies outside it, or the store lacks what the
            recipe needs.
    """
    if isinstance(config, AllaraConfig):
        from qdml.augmentation.allara import AllaraRecipe
        from qdml.basis import DotBasis

        if isinstance(store, DotBasis):
            raise ValueError(
                f"augment={config.name} starts from the patterns of a store; a basis alone has none"
            )
        return AllaraRecipe(config, store, device, dtype)
    from qdml.augmentation.instrument import InstrumentRecipe

    return InstrumentRecipe(config, store, device, dtype)
