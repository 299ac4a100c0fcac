"""What scatters beside the dots: solvents, their container, fluorescence, and a smooth rest.

Each pattern gets a solvent that is a random mixture of a few liquids, each from the family around its model, times a
smooth random factor; one container; and a background that falls or rises smoothly. Fluorescence is flat in
counts: it knows nothing of polarisation or absorption.

None of this has features as narrow as reflections: it is made on a coarse grid, and read between its points by a cubic
spline, which is a matrix product.

Symbols: B pattern, Q point of the grid, P point of the coarse grid, S solvent, M part of a mixture, H container.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hpc.liquids import varied
from qdml.augmentation.config import SurroundingsConfig
from qdml.augmentation.draws import SmoothField, uniform
from qdml.augmentation.mixing import mix
from qdml.augmentation.solvents import solvent_terms
from qdml.augmentation.tables import float32_table, spline_matrix

__all__ = ["Surroundings"]

# Distance of the points of the coarse grid [Å⁻¹]. Distances in a molecule, up to 25 Å in oleate, make features of 0.13;
# the spline is then good to 1e-3 of the solvent's mean.
_COARSE = 0.06


class Surroundings:
    """Random surroundings for batches."""

    def __init__(self, config: SurroundingsConfig, q: np.ndarray, device: torch.device) -> None:
        """Tabulate liquids and containers.

        Raises:
            ValueError: a solvent file does not cover q.
        """
        self._config = config

        def to_device(values: object) -> torch.Tensor:
            return float32_table(values, device)

        #: (P,) float64 [Å⁻¹]: where `draw` needs the factors of the instrument.
        self.grid, spline = spline_matrix(q, _COARSE)
        self._spline_PQ = to_device(spline)
        nearest = np.rint((self.grid - q[0]) / (q[1] - q[0])).astype(np.int64)
        self._nearest_P = torch.as_tensor(nearest, device=device)
        self._q = to_device(self.grid)
        terms = [solvent_terms(solvent, q, self.grid) for solvent in config.solvents]
        self._template = replace(terms[0].convert(to_device), intra=to_device(0.0), amplitude2=to_device(1.0))
        self._molecule_SP = to_device([one.molecule for one in terms])
        self._liquid_SP = to_device([one.total - one.molecule for one in terms])
        self._ring_S1, self._ring_width_S1 = (
            to_device([[getattr(one, name)] for one in terms]) for name in ("ring", "ring_width")
        )
        containers = [np.ones_like(self.grid)]
        if config.containers:
            from hpc.liquids import container_profile

            containers = [container_profile(name, self.grid) for name in config.containers]
        self._container_HP = to_device(containers)
        self._container_share = config.container_share if config.containers else (0.0, 0.0)
        self._spreads_P = to_device([config.ring_position, config.ring_width, config.ring_height])
        self._gain = SmoothField(self._q, config.length)
        self._background = SmoothField(self._q, config.background_length)

    def draw(
        self,
        mask_BQ: torch.Tensor,
        *,
        factor_BP: torch.Tensor,
        unpolarised_BP: torch.Tensor,
        fluoresces_B1: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """(B, Q) what is around the dots of a batch, as an instrument shows it, of mean 1 over what is visible.

        Args:
            mask_BQ: 1 where visible.
            factor_BP: polarisation, absorption and geometry on the coarse grid; on what is scattered by the sample.
            unpolarised_BP: the same for fluorescence.
            fluoresces_B1: 1 where the radiation can excite the dots' atoms.
            generator: of the device.
        """
        config, n = self._config, len(mask_BQ)
        container_B = torch.randint(
            len(self._container_HP), (n,), generator=generator, device=generator.device
        )
        slope_B1 = uniform(n, config.background_decay, generator)
        background_BP = torch.exp(
            config.background_spread * self._background.draw(n, generator) - slope_B1 * self._q
        )
        container_B1 = uniform(n, self._container_share, generator)
        background_B1 = (1 - container_B1) * uniform(n, config.background_share, generator)
        flat_B1 = fluoresces_B1 * uniform(n, config.fluorescence_share, generator)
        around_BP = mix(
            [
                (1 - container_B1 - background_B1, self.solvent(n, generator) * factor_BP),
                (container_B1, self._container_HP[container_B] * factor_BP),
                (background_B1 * (1 - flat_B1), background_BP),
                (background_B1 * flat_B1, unpolarised_BP),
            ],
            mask_BQ[:, self._nearest_P],
        )
        return (around_BP @ self._spline_PQ).clamp(min=1e-3)

    def solvent(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """(n, P) mixtures of members of the families."""
        config, device = self._config, generator.device
        mixed = min(config.mixed, len(self._molecule_SP))
        # Different ones for each pattern; exponential draws over their sum are uniform over all mixtures.
        which_BM = (
            torch.rand((n, len(self._molecule_SP)), generator=generator, device=device)
            .topk(mixed, dim=1)
            .indices
        )
        share_BM = -torch.log(1 - torch.rand((n, mixed), generator=generator, device=device))
        share_BM = share_BM / share_BM.sum(dim=1, keepdim=True)
        factor_BMP = torch.exp(
            torch.randn((n, mixed, 3), generator=generator, device=device) * self._spreads_P
        )
        total_BP = torch.zeros((n, len(self._q)), device=device)
        for part in range(mixed):
            index_B = which_BM[:, part]
            rings: Any = {"ring": self._ring_S1[index_B], "ring_width": self._ring_width_S1[index_B]}
            terms = replace(
                self._template, self=self._molecule_SP[index_B], structure=self._liquid_SP[index_B], **rings
            )
            stretch_B1, width_B1, height_B1 = factor_BMP[:, part].split(1, dim=1)
            family_BP = varied(terms, stretch=stretch_B1, width=width_B1.clamp(min=0.5), height=height_B1)
            total_BP = total_BP + share_BM[:, part, None] * family_BP
        return total_BP * torch.exp(config.spread * self._gain.draw(n, generator))
