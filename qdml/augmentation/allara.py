"""The published augmentation: solvent x nanocrystal fraction x count scale, 32 noise cells.

The nanocrystals have the area 1000·fraction, the solvent the rest, and y' = Poisson(y·scale)/scale: L. Allara,
F. Bertolotti, A. Guagliardi, npj Comput. Mater. (2024), 10.1038/s41524-024-01241-6. Nothing else is done to a pattern,
so that results compare with theirs.

Its unknowns are two: the fraction f = <f> + z s(f), with mean and standard deviation of the published four, and the
shares of the solvents, x_s = 1/S + z_s √(S-1)/S for all but the first, which has the rest. The cells are points of
that space, and its prior has their mean and variance: so fits and limits have the derivatives that they need. The
scale is known.

Symbols: B pattern, Q point of the grid, S solvent, C cell.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from hpc.form_factors import HC_KEV_ANGSTROM
from qdml.augmentation.clean import CleanPatterns
from qdml.augmentation.config import AllaraConfig
from qdml.augmentation.latents import LatentSpace
from qdml.augmentation.recipe import Expected, Main, Recipe, Setting
from qdml.augmentation.solvents import solvent_profiles
from qdml.augmentation.tables import table
from qdml.basis import DotBasis
from qdml.basis_building import build_basis
from qdml.observation import conditions

if TYPE_CHECKING:
    from hpc.store import Store
    from qdml.dataset import Rows

__all__ = ["AREA", "AllaraRecipe"]

#: Area of a published pattern [intensity x Å⁻¹]: counts are scale times this.
AREA = 1000.0
# What compressing the dots may cost, as a fraction of a pattern's peak; and how far they must be known beyond the ends
# of the patterns, strain aside, for interpolation [Å⁻¹].
_TOLERANCE, _MARGIN = 2e-5, 0.1


class AllaraRecipe(Recipe):
    """The published augmentation."""

    needs_intensity = True

    def __init__(
        self,
        config: AllaraConfig,
        store: Store,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Tabulate the solvents."""
        q = store.q
        self._store, self._device, self._dtype = store, device, dtype
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
        self.windows = [((float(q[0]),) * 2, (float(q[-1]),) * 2)] * len(self._grid)

        def to_device(values: object) -> torch.Tensor:
            return table(values, device, dtype)

        self._mean_counts = AREA / (float(q[1] - q[0]) * len(q))
        # Of mean 1.
        self._solvent_SQ = to_device(len(q) * solvent_profiles(config.solvents, q))
        index, fraction, scale = (np.array(column) for column in zip(*self._grid, strict=True))
        self._scale_C1 = to_device(scale[:, None])
        self._fraction = float(np.mean(config.fractions)), float(np.std(config.fractions))
        n = len(config.solvents)
        self._share = 1 / n, float(np.sqrt(n - 1)) / n
        self.space = LatentSpace()
        self.space.normal("fraction")
        latents = [(fraction - self._fraction[0])[:, None] / (self._fraction[1] or 1.0)]
        if n > 1:
            self.space.normal("solvent", n - 1)
            pure = index[:, None] == np.arange(1, n)
            latents.append((pure - self._share[0]) / self._share[1])
        self._latents_CL = to_device(np.concatenate(latents, axis=1))
        # Neutrons have no energy; their conditions are those of the photons of 1 Å.
        self._energy_kev = float(store.attrs["energy_kev"] or HC_KEV_ANGSTROM)
        self._q = to_device(q)

    @cached_property
    def basis(self) -> DotBasis:  # type: ignore[override]
        """The dots, for limits and fits: training takes clean patterns, and never asks."""
        return build_basis(
            self._store, self._store.q, tolerance=_TOLERANCE, device=self._device, margin=_MARGIN
        )

    @cached_property
    def _clean(self) -> CleanPatterns:
        return CleanPatterns(self.basis, self._device, self._dtype)

    def scale(self, index: int) -> float:
        """Counts per unit of published intensity of a cell."""
        return float(self._grid[index][2])

    def latents(self, cells_B: torch.Tensor) -> torch.Tensor:
        """(B, L) where cells lie in the space of the unknowns."""
        return self._latents_CL[cells_B]

    def setting(self, cells_B: torch.Tensor) -> Setting:
        """What is known of patterns of some cells: the scale."""
        n = len(cells_B)
        one_B1 = torch.ones((n, 1), device=self._device, dtype=self._dtype)
        return Setting(
            instrument=cells_B,
            energy_kev=self._energy_kev * one_B1,
            resolution_factor=one_B1,
            dose=self._scale_C1[cells_B],
            mask=one_B1.expand(-1, len(self._q)),
        )

    def draw(
        self, rows: Rows, generator: torch.Generator, cell: int | None = None
    ) -> tuple[Setting, torch.Tensor]:
        """Each pattern in a random cell, or all in one."""
        if cell is None:
            cells_B = torch.randint(
                len(self.cells), (len(rows),), generator=generator, device=generator.device
            )
        else:
            cells_B = torch.full((len(rows),), cell, device=generator.device)
        return self.setting(cells_B), self.latents(cells_B)

    def clean(self, main: Main) -> torch.Tensor:
        """(B, Q) perfect dots [electron units per atom], from the basis."""
        return self._clean(main)

    def expected(self, main: Main, setting: Setting, z_BL: torch.Tensor) -> Expected:
        """The pattern without noise, of the clean patterns where rows have them, else of the basis."""
        clean_BQ = self.clean(main) if main.intensity is None else main.intensity.to(z_BL.dtype)
        values = self.space.values(z_BL)
        share_B1 = self._fraction[0] + self._fraction[1] * values["fraction"]
        others_BS = self._share[0] + self._share[1] * values.get("solvent", z_BL[:, :0])
        shares_BS = torch.cat([1 - others_BS.sum(dim=1, keepdim=True), others_BS], dim=1)
        dots_BQ = share_B1 * clean_BQ / clean_BQ.mean(dim=1, keepdim=True)
        solvent_BQ = (1 - share_B1) * (shares_BS @ self._solvent_SQ.to(shares_BS))
        zero_B = torch.zeros_like(share_B1[:, 0])
        return Expected(
            intensity=dots_BQ + solvent_BQ,
            rate=(setting.dose * self._mean_counts).expand(-1, len(self._q)),
            mask=setting.mask,
            known=conditions(
                wavelength_B=HC_KEV_ANGSTROM / setting.energy_kev[:, 0],
                widths_B3=torch.zeros_like(share_B1).expand(-1, 3),
                doublet_B=zero_B,
                plate_B=zero_B,
            ),
            amplitudes={},
            make_parts=lambda: {"dots": dots_BQ, "solvent": solvent_BQ},
        )

    def _photons(self, expected: Expected, generator: torch.Generator) -> torch.Tensor:
        """Poisson numbers everywhere, as published."""
        return torch.poisson(expected.intensity * expected.rate, generator=generator)
