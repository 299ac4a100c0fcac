"""What scatters beside the dots: solvents, their container, fluorescence, and a smooth rest.

Each pattern gets a mixture of all liquids, most of it one or two of them, with its ring moved, widened and heightened
(that of a mixture lies where those of its parts do on average), times a smooth random factor; a mixture of containers;
and a background that falls or rises smoothly. Fluorescence is flat in counts: it knows nothing of
polarisation or absorption.

None of this has features as narrow as reflections: it is made on a coarse grid, and read between its points by a cubic
spline, which is a matrix product.

Symbols: B pattern, Q point of the grid, P point of the coarse grid, S solvent, H container.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hpc.liquids import varied
from qdml.augmentation.config import SurroundingsConfig
from qdml.augmentation.latents import LatentSpace, between, smooth_modes
from qdml.augmentation.solvents import solvent_terms
from qdml.augmentation.tables import spline_matrix, table
from qdml.preprocess import masked_mean

__all__ = ["Surroundings", "shares"]

# Distance of the points of the coarse grid [Å⁻¹]. Distances in a molecule, up to 25 Å in oleate, make features of 0.13;
# the spline is then good to 1e-3 of the solvent's mean.
_COARSE = 0.06
# A ring half as wide: what lies below is no liquid any more.
_LEAST_WIDTH = 0.5


class Surroundings:
    """The surroundings of a batch."""

    def __init__(
        self,
        config: SurroundingsConfig,
        q: np.ndarray,
        space: LatentSpace,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Tabulate liquids and containers, and add the latents of surroundings to the space.

        Raises:
            ValueError: a solvent file does not cover q.
        """
        self._config = config

        def to_device(values: object) -> torch.Tensor:
            return table(values, device, dtype)

        #: (P,) float64 [Å⁻¹]: where `parts` needs the factors of the instrument.
        self.grid, spline = spline_matrix(q, _COARSE)
        self._spline_PQ = to_device(spline)
        nearest = np.rint((self.grid - q[0]) / (q[1] - q[0])).astype(np.int64)
        self._nearest_P = torch.as_tensor(nearest, device=device)
        self._q = to_device(self.grid)
        terms = [solvent_terms(solvent, q, self.grid) for solvent in config.solvents]
        self._template = replace(terms[0].convert(to_device), intra=to_device(0.0), amplitude2=to_device(1.0))
        n = len(self.grid)
        # Of each solvent: what its molecules scatter, what their order adds, position and width of the ring.
        self._solvent_SX = to_device(
            [[*one.molecule, *(one.total - one.molecule), one.ring, one.ring_width] for one in terms]
        )
        self._columns = [n, n, 1, 1]
        containers = [np.ones_like(self.grid)]
        if config.containers:
            from hpc.liquids import container_profile

            containers = [container_profile(name, self.grid) for name in config.containers]
        self._container_HP = to_device([one / one.mean() for one in containers])
        self._container_share = config.container_share if config.containers else (0.0, 0.0)
        self._spreads = to_device([config.ring_position, config.ring_width, config.ring_height])

        already = set(space.names)
        for name, number in (("solvent", len(terms)), ("container", len(containers))):
            if number > 1:
                space.mixture(name, number, config.mixing)
        space.normal("ring", 3)
        for name in ("container_share", "background_share", "background_decay", "fluorescence_share"):
            space.uniform(name)
        self._modes: dict[str, torch.Tensor] = {}
        for name, length in (("solvent", config.length), ("background", config.background_length)):
            space.field(f"{name}_gain", name, to_device(smooth_modes(q, length)))
            self._modes[name] = to_device(smooth_modes(self.grid, length))
        #: Names of the latents of `parts`.
        self.latents = [name for name in space.names if name not in already]

    def parts(
        self,
        values: Mapping[str, torch.Tensor],
        mask_BQ: torch.Tensor,
        *,
        factor_BP: torch.Tensor,
        unpolarised_BP: torch.Tensor,
        fluoresces_B1: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Name -> (B, P) what is around the dots of a batch, as an instrument shows it.

        Of mean 1 over what is visible, but for the smooth random factors.

        Args:
            values: of `LatentSpace.values`.
            mask_BQ: 1 where visible.
            factor_BP: polarisation, absorption and geometry on the coarse grid; on what is scattered by the sample.
            unpolarised_BP: the same for fluorescence.
            fluoresces_B1: 1 where the radiation can excite the dots' atoms.
        """
        config = self._config
        background_BP = torch.exp(-between(values["background_decay"], *config.background_decay) * self._q)
        container_B1 = between(values["container_share"], *self._container_share)
        background_B1 = (1 - container_B1) * between(values["background_share"], *config.background_share)
        flat_B1 = fluoresces_B1 * between(values["fluorescence_share"], *config.fluorescence_share)
        container_BP = self._mixture("container", values, self._container_HP)
        found = shares(
            {
                "solvent": (1 - container_B1 - background_B1, self.solvent(values) * factor_BP),
                "container": (container_B1, container_BP * factor_BP),
                "background": (background_B1 * (1 - flat_B1), background_BP),
                "fluorescence": (background_B1 * flat_B1, unpolarised_BP),
            },
            mask_BQ.index_select(1, self._nearest_P),
        )
        for name, amplitude in self.amplitudes.items():
            part = name.removesuffix("_gain")
            found[part] = found[part] * torch.exp(amplitude * (values[name] @ self._modes[part]))
        return found

    @property
    def amplitudes(self) -> dict[str, float]:
        """Name of each field -> its standard deviation."""
        return {"solvent_gain": self._config.spread, "background_gain": self._config.background_spread}

    def on_grid(self, values_BP: torch.Tensor) -> torch.Tensor:
        """(B, Q) from the coarse grid."""
        return values_BP @ self._spline_PQ

    def solvent(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B, P) mixtures, as members of the families around their liquids, without the smooth factor."""
        mixed_BX = self._mixture("solvent", values, self._solvent_SX).expand(len(values["ring"]), -1)
        molecule_BP, liquid_BP, ring_B1, ring_width_B1 = mixed_BX.split(self._columns, dim=1)
        rings: Any = {"ring": ring_B1, "ring_width": ring_width_B1}
        terms = replace(self._template, self=molecule_BP, structure=liquid_BP, **rings)
        stretch_B1, width_B1, height_B1 = torch.exp(values["ring"] * self._spreads).split(1, dim=1)
        result: torch.Tensor = varied(
            terms, stretch=stretch_B1, width=width_B1.clamp(min=_LEAST_WIDTH), height=height_B1
        )
        return result

    def _mixture(self, name: str, values: Mapping[str, torch.Tensor], parts_SX: torch.Tensor) -> torch.Tensor:
        """(B, X) means of the rows of a table."""
        if name not in values:
            return parts_SX
        return torch.softmax(self._config.mixing * values[name], dim=1) @ parts_SX


def shares(
    parts: Mapping[str, tuple[torch.Tensor, torch.Tensor]], mask_BQ: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Patterns with given shares of the visible area.

    Args:
        parts: name -> share (B, 1) and pattern (B, Q) or (1, Q); shares of one pattern add up to 1.
        mask_BQ: (B, Q) float, 1 where visible.

    Returns:
        Name -> (B, Q); their sum has the mean 1 over the visible points.
    """
    return {name: share_B1 / masked_mean(y_BQ, mask_BQ) * y_BQ for name, (share_B1, y_BQ) in parts.items()}
