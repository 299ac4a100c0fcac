"""What scatters beside the dots: solvents, their container, fluorescence, and a smooth rest.

Each pattern gets a solvent that is a random mixture of a few liquids, each from the family around its model, times a
smooth random factor; one container; and a background that falls or rises smoothly. Fluorescence is flat in counts: it knows
nothing of polarisation or absorption.

Symbols: B pattern, Q point of the grid, S solvent, M part of a mixture, H container.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from hpc.liquids import container_profile, varied
from qdml.augmentation.config import SurroundingsConfig
from qdml.augmentation.draws import SmoothField, uniform
from qdml.augmentation.solvents import solvent_terms

__all__ = ["Scenery", "Surroundings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenery:
    """What is around the dots of a batch: (B, Q) patterns of any scale, and (B, 1) shares of all that is not dots."""

    solvent: torch.Tensor
    container: torch.Tensor
    background: torch.Tensor
    solvent_share: torch.Tensor
    container_share: torch.Tensor
    background_share: torch.Tensor
    fluorescence_share: torch.Tensor


class Surroundings:
    """Random surroundings for batches."""

    def __init__(self, config: SurroundingsConfig, q: np.ndarray, device: torch.device) -> None:
        """Tabulate liquids and containers.

        Raises:
            ValueError: a solvent file does not cover q.
        """
        self._config = config

        def to_device(values: object) -> torch.Tensor:
            return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=device)

        self._q = to_device(q)
        terms = [solvent_terms(solvent, q) for solvent in config.solvents]
        self._template = replace(
            terms[0].convert(to_device), intra=to_device(0.0), amplitude2=to_device(1.0)
        )
        self._molecule_SQ = to_device([one.molecule for one in terms])
        self._liquid_SQ = to_device([one.total - one.molecule for one in terms])
        self._ring_S1, self._ring_width_S1 = (
            to_device([[getattr(one, name)] for one in terms]) for name in ("ring", "ring_width")
        )
        self._container_HQ = to_device([container_profile(name, q) for name in config.containers])
        self._gain = SmoothField(self._q, config.length)
        self._background = SmoothField(self._q, config.background_length)

    def draw(self, n: int, fluoresces_B1: torch.Tensor, generator: torch.Generator) -> Scenery:
        """Surroundings of n patterns.

        Args:
            n: how many.
            fluoresces_B1: 1 where the radiation can excite the dots' atoms.
            generator: of the device.
        """
        config = self._config
        container_B = torch.randint(
            len(self._container_HQ), (n,), generator=generator, device=generator.device
        )
        slope_B1 = uniform(n, config.background_decay, generator)
        container_B1 = uniform(n, config.container_share, generator)
        background_B1 = (1 - container_B1) * uniform(n, config.background_share, generator)
        flat_B1 = fluoresces_B1 * uniform(n, config.fluorescence_share, generator)
        return Scenery(
            solvent=self._solvent(n, generator),
            container=self._container_HQ[container_B],
            background=torch.exp(
                config.background_spread * self._background.draw(n, generator) - slope_B1 * self._q
            ),
            solvent_share=1 - container_B1 - background_B1,
            container_share=container_B1,
            background_share=background_B1 * (1 - flat_B1),
            fluorescence_share=background_B1 * flat_B1,
        )

    def _solvent(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """(n, Q) mixtures of members of the families."""
        config, device = self._config, generator.device
        mixed = min(config.mixed, len(self._molecule_SQ))
        # Different ones for each pattern; exponential draws over their sum are uniform over all mixtures.
        which_BM = torch.rand(
            (n, len(self._molecule_SQ)), generator=generator, device=device
        ).topk(mixed, dim=1).indices
        share_BM = -torch.log(1 - torch.rand((n, mixed), generator=generator, device=device))
        share_BM = share_BM / share_BM.sum(dim=1, keepdim=True)
        spreads = torch.tensor((config.ring_position, config.ring_width, config.ring_height))
        factor_BMP = torch.exp(
            torch.randn((n, mixed, 3), generator=generator, device=device) * spreads.to(device)
        )
        total_BQ = torch.zeros((n, len(self._q)), device=device)
        for part in range(mixed):
            index_B = which_BM[:, part]
            terms = replace(
                self._template,
                self=self._molecule_SQ[index_B],
                structure=self._liquid_SQ[index_B],
                ring=self._ring_S1[index_B],
                ring_width=self._ring_width_S1[index_B],
            )
            stretch_B1, width_B1, height_B1 = factor_BMP[:, part].split(1, dim=1)
            family_BQ = varied(terms, stretch=stretch_B1, width=width_B1.clamp(min=0.5), height=height_B1)
            total_BQ = total_BQ + share_BM[:, part, None] * family_BQ
        return total_BQ * torch.exp(config.spread * self._gain.draw(n, generator))
