"""What the dots of a real sample do that perfect ones in a simulation do not.

    I = self + m² (I_clean - self) + ΔI(correlated motion) + ΔI(halo) + (Σ_g (γ_g - 1) w_g) m² Bragg,  times (1 + δ)

- correlated motion and halo: `hpc.motion`, with the near pairs of each sample (`qdml.augmentation.near`);
- texture, a gain γ for each direction of reflections: `hpc.texture`, on the Bragg part alone;
- surface atoms that move more, by ΔB: every coherent amplitude falls by m = 1 - x (1 - e^{-ΔB s²}) with x the share of
  atoms in the outermost layer, as if those were spread over the dot (a variant with `motion.surface_b` has
  them in place);
- model error δ(Q): what this list has forgotten, a smooth random factor of a few percent.

Symbols: B pattern, Q point of the grid, C column of near pairs, S shell, G group of reflections, s = Q/4π.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hpc.motion import correlation_weights, shells, smooth_correlation
from hpc.scattering import coefficients
from hpc.structure.material import Material
from hpc.texture import apply_texture, bragg_part, diffuse_terms, reflection_groups
from qdml.atoms import SampleAtoms
from qdml.augmentation.config import DotsConfig
from qdml.augmentation.draws import SmoothField, uniform
from qdml.augmentation.near import NearTables
from qdml.augmentation.tables import float32_table
from qdml.dataset import Rows

__all__ = ["Dots"]


class Dots:
    """The atoms' effects on a batch."""

    def __init__(
        self,
        config: DotsConfig,
        atoms: SampleAtoms,
        q: np.ndarray,
        attrs: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        """Tabulate.

        Args:
            config: which effects and how strong.
            atoms: of the store.
            q: (Q,) float64 [Å⁻¹].
            attrs: the store's attributes.
            device: of the batches.
        """
        self._config, settings = config, attrs["config"]
        material = Material.from_config(settings["material"]).with_b_iso(settings["b_iso"] or {})
        terms, bulk = (
            coefficients(kinds, q, energy_kev=attrs["energy_kev"], anomalous=settings["anomalous"])
            for kinds in (atoms.kinds, material.kinds)
        )
        with_compton = coefficients(
            atoms.kinds,
            q,
            energy_kev=attrs["energy_kev"],
            anomalous=settings["anomalous"],
            with_compton=settings["compton"],
        )

        def to_device(values: np.ndarray) -> torch.Tensor:
            return float32_table(values, device)

        distances, neighbours = shells(material, config.shells + 1)
        inner = distances[:-1], neighbours[:-1]
        self._near = NearTables(
            atoms,
            q,
            undamped=terms.undamped,
            exponent=terms.exponent,
            shells=inner,
            halo=bulk.undamped,
            halo_b=config.halo_b,
            device=device,
        )
        self._first = float(distances[0])
        self._distance_C = to_device(atoms.distance)
        self._hat_SC = to_device(correlation_weights(atoms.distance, distances))
        s2 = (q / (4 * np.pi)) ** 2
        self._s2_Q = to_device(s2)
        self._self_AQ, self._total_AQ = to_device(terms.self), to_device(with_compton.self)
        self._occupancy_A = to_device(np.array([kind.occupancy for kind in atoms.kinds]))
        self._exponent_AQ = to_device(np.stack([2 * kind.b_iso * s2 for kind in atoms.kinds]))
        self._groups_GQ = to_device(
            reflection_groups(material, q, by="direction", blend=config.texture_blend)
        )
        self._error = SmoothField(to_device(q), config.model_error_length)

    def __call__(self, rows: Rows, texture_B1: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(B, Q) float32 [electron units per atom]: the dots, each pattern with atoms of its own.

        Args:
            rows: clean patterns with their atoms.
            texture_B1: standard deviation of ln γ.
            generator: of the device.

        Raises:
            ValueError: the rows have no atoms.
        """
        atoms, config, n = rows.atoms, self._config, len(rows)
        if atoms is None:
            raise ValueError(
                "augment=instrument: the rows know nothing of their atoms; read them with Recipe.atoms"
            )
        surface_B1 = self.surface_share(rows)
        normal = lambda *shape: torch.randn(shape, generator=generator, device=generator.device)  # noqa: E731
        halo_BS = config.halo * surface_B1 * normal(n, len(self._hat_SC))
        near_BQ = self._near(
            atoms, self.correlation(n, generator), halo_BS, uniform(n, config.halo_b, generator)
        )
        # The mean structure: what orientation and vibration act on.
        diffuse_BAQ = diffuse_terms(
            self._self_AQ, self._occupancy_A, self._exponent_AQ, atoms.b_scale[:, None, None]
        ) + (self._total_AQ - self._self_AQ)
        bragg_BQ = bragg_part(rows.intensity, atoms.shares, diffuse_BAQ)
        self_BQ = atoms.shares @ self._total_AQ
        extra_B1 = uniform(n, config.surface_b, generator)
        m2_BQ = (1 - surface_B1 * (1 - torch.exp(-extra_B1 * self._s2_Q))) ** 2
        dots_BQ = self_BQ + m2_BQ * (rows.intensity - self_BQ) + near_BQ
        gains_BG = torch.exp(texture_B1 * normal(n, len(self._groups_GQ)))
        dots_BQ = apply_texture(dots_BQ, m2_BQ * bragg_BQ, self._groups_GQ, gains_BG)
        return (dots_BQ * (1 + config.model_error * self._error.draw(n, generator))).clamp(min=0)

    def surface_share(self, rows: Rows) -> torch.Tensor:
        """(B, 1) share x of the atoms in the outermost layer, of dots of the mean size."""
        inside_B1 = (1 - 0.2 * self._config.surface_depth / rows.diameter.float()[:, None]).clamp(min=0)
        return 1 - inside_B1**3

    def correlation(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """(n, C) correlation of every column: one of the two laws, with the same values at the first shell."""
        config, device = self._config, generator.device
        first_B1 = uniform(n, config.correlation, generator)
        fall_BS = torch.rand((n, len(self._hat_SC)), generator=generator, device=device)
        fall_BS[:, 0] = 1
        by_shell_BC = (first_B1 * torch.cumprod(fall_BS, dim=1)) @ self._hat_SC
        smooth_BC = smooth_correlation(self._distance_C, self._first * first_B1)
        smooth_B1 = torch.rand((n, 1), generator=generator, device=device) < config.smooth_share
        return torch.where(smooth_B1, smooth_BC, by_shell_BC)
