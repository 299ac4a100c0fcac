"""The published augmentation: solvent x nanocrystal fraction x count scale, 32 noise cells.

The nanocrystals have the area 1000·fraction, the solvent the rest, and y' = Poisson(y·scale)/scale: L. Allara,
F. Bertolotti, A. Guagliardi, npj Comput. Mater. (2024), 10.1038/s41524-024-01241-6. Nothing else is done to a pattern,
so that results compare with theirs.

Symbols: B pattern, Q point of the grid, S solvent, C cell.
"""

from __future__ import annotations

import numpy as np
import torch

from qdml.augmentation.config import AllaraConfig
from qdml.augmentation.counts import poisson_counts
from qdml.augmentation.recipe import Recipe
from qdml.augmentation.solvents import solvent_profiles
from qdml.dataset import Rows

__all__ = ["AREA", "AllaraRecipe"]

#: Area of a published pattern [intensity x Å⁻¹]: counts are scale times this.
AREA = 1000.0


class AllaraRecipe(Recipe):
    """The published augmentation."""

    def __init__(self, config: AllaraConfig, q: np.ndarray, device: torch.device) -> None:
        """Tabulate the solvents."""
        self._step = float(q[1] - q[0])
        self._grid = [
            (s, fraction, scale)
            for s in range(len(config.solvents))
            for fraction in config.fractions
            for scale in config.scales
        ]
        self.cells = [
            f"{config.solvents[s].name}, {100 * fraction:g} %, scale {scale:g}"
            for s, fraction, scale in self._grid
        ]
        self._solvent_SQ = torch.as_tensor(
            solvent_profiles(config.solvents, q), dtype=torch.float32, device=device
        )
        self.windows = [((float(q[0]),) * 2, (float(q[-1]),) * 2)] * len(self._grid)
        index, fraction, scale = zip(*self._grid, strict=True)
        self._index_C = torch.tensor(index, device=device)
        self._fraction_C = torch.tensor(fraction, device=device)
        self._scale_C = torch.tensor(scale, device=device)

    def random(self, rows: Rows, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Each pattern in a random cell."""
        clean_BQ = rows.intensity
        cells = torch.randint(len(self.cells), (len(clean_BQ),), generator=generator, device=clean_BQ.device)
        return self._measure(cells, clean_BQ, generator)

    def cell(self, index: int, rows: Rows, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """All patterns in one cell."""
        cells = torch.full((len(rows),), index, device=rows.intensity.device)
        return self._measure(cells, rows.intensity, generator)

    def expected(self, cells_B: torch.Tensor, clean_BQ: torch.Tensor) -> torch.Tensor:
        """(B, Q) intensity without noise, of the area 1000: what the limits are computed from."""
        area = AREA / self._step
        solvent_BQ = self._solvent_SQ[self._index_C[cells_B]].to(clean_BQ.dtype)
        share_B1 = self._fraction_C[cells_B, None].to(clean_BQ.dtype)
        # Solvents are kept at the area 1.
        dots_BQ = clean_BQ / clean_BQ.sum(dim=1, keepdim=True)
        return area * (share_B1 * dots_BQ + (1 - share_B1) * solvent_BQ)

    def scale(self, index: int) -> float:
        """Counts per unit of intensity of a cell."""
        return self._grid[index][2]

    def _measure(
        self, cells_B: torch.Tensor, clean_BQ: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y_BQ = poisson_counts(self.expected(cells_B, clean_BQ), self._scale_C[cells_B, None], generator)
        return y_BQ, torch.ones_like(y_BQ)
