"""Augmentation recipes: which of the effects of `augment` a pattern gets, and how strongly.

A recipe draws its parameters for every pattern from one generator (training), or takes those of one named *noise cell*
(evaluation), so both see the same code. `build_recipe` makes the one that a configuration names:

- `allara2024`: the published grid, solvent x nanocrystal fraction x count scale, 32 cells. The nanocrystals have the
  area 1000·fraction, the solvent the rest; y' = Poisson(y·scale)/scale. L. Allara, F. Bertolotti, A. Guagliardi,
  npj Comput. Mater. (2024), 10.1038/s41524-024-01241-6.
- `instrument`: real samples on real instruments. The clean pattern gets correlated motion and a disordered shell
  (`neighbours`), oriented reflections (`reflections`), the instrument's resolution, zero shift and Kα2, then solvents,
  a smooth background, a visible window and counting noise. One cell per instrument.

Symbols: B pattern, Q point of the grid, S solvent, q [Å⁻¹].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hpc.structure.material import Material
from qdml.augmentation.effects import (
    SmoothField,
    blur,
    mix,
    normal_counts,
    poisson_counts,
    scale_reflections,
    uniform,
    window_mask,
    with_kalpha2,
)
from qdml.augmentation.neighbours import CORRELATION_NODES, neighbour_terms
from qdml.augmentation.reflections import direction_weights
from qdml.augmentation.solvents import solvent_profile
from qdml.config import AllaraConfig, InstrumentRecipeConfig, SolventConfig

__all__ = ["AREA", "AllaraRecipe", "InstrumentRecipe", "Recipe", "build_recipe"]

#: Area of a published pattern [intensity x Å⁻¹]: counts are scale times this.
AREA = 1000.0


class Recipe(ABC):
    """Clean patterns in, measured-looking patterns and their masks out."""

    cells: Sequence[str]
    """Names of the noise cells."""

    @abstractmethod
    def random(self, clean_BQ: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment every pattern with parameters of its own.

        Args:
            clean_BQ: (B, Q) float32 [electron units per atom].
            generator: of the same device.

        Returns:
            (B, Q) intensity [arbitrary units] and (B, Q) mask, 1 where visible.
        """

    @abstractmethod
    def cell(
        self, index: int, clean_BQ: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same with the parameters of one of `cells`."""


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
        self._solvent_SQ = _solvents(config.solvents, q, device)
        index, fraction, scale = zip(*self._grid, strict=True)
        self._index_C = torch.tensor(index, device=device)
        self._fraction_C = torch.tensor(fraction, device=device)
        self._scale_C = torch.tensor(scale, device=device)

    def random(self, clean_BQ: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Each pattern in a random cell."""
        cells = torch.randint(len(self.cells), (len(clean_BQ),), generator=generator, device=clean_BQ.device)
        return self._measure(cells, clean_BQ, generator)

    def cell(
        self, index: int, clean_BQ: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All patterns in one cell."""
        cells = torch.full((len(clean_BQ),), index, device=clean_BQ.device)
        return self._measure(cells, clean_BQ, generator)

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


class InstrumentRecipe(Recipe):
    """Real samples on real instruments."""

    def __init__(
        self, config: InstrumentRecipeConfig, q: np.ndarray, attrs: Mapping[str, Any], device: torch.device
    ) -> None:
        """Tabulate solvents, near-neighbour terms and random functions."""
        self._config = config
        self.cells = [instrument.name for instrument in config.instruments]
        self._q = torch.as_tensor(q, dtype=torch.float32, device=device)
        self._step = float(q[1] - q[0])
        last = max(instrument.q_first[1] for instrument in config.instruments)
        if last >= q[-1] - 1.0:
            raise ValueError(
                f"augment: windows start at up to {last:g} Å⁻¹, but the store's patterns end at {q[-1]:.4g} Å⁻¹; "
                "lower q_first or simulate a larger Q range"
            )
        self._solvent_SQ = _solvents(config.solvents, q, device)
        self._background = SmoothField(self._q, config.background_length)
        self._solvent_gain = SmoothField(self._q, config.solvent_length)
        material = Material.from_config(attrs["config"]["material"]).with_b_iso(attrs["config"]["b_iso"])
        weights = direction_weights(material, q, blend=config.texture_blend)
        self._direction_DQ = torch.as_tensor(weights, dtype=torch.float32, device=device)
        self._correlated_SNQ, self._halo_SQ = _neighbour_tables(config, material, q, attrs, device)

        def column(name: str) -> torch.Tensor:
            values = [getattr(instrument, name) for instrument in config.instruments]
            return torch.tensor(values, dtype=torch.float32, device=device)

        self._weight = column("weight")
        ranges = ("q_first", "q_last", "resolution", "peak_counts", "fraction", "texture")
        self._ranges = {name: column(name) for name in ranges}
        self._kalpha2, self._zero_shift = column("kalpha2"), column("zero_shift")
        self._any_kalpha2 = any(instrument.kalpha2 for instrument in config.instruments)
        # Four standard deviations of the widest Gaussian, and five of the shift.
        self._reach = 4 * float(self._ranges["resolution"].max()) + 5 * float(self._zero_shift.max())

    def random(self, clean_BQ: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Each pattern on a random instrument."""
        instruments = torch.multinomial(self._weight, len(clean_BQ), replacement=True, generator=generator)
        return self._measure(instruments, clean_BQ, generator)

    def cell(
        self, index: int, clean_BQ: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All patterns on one instrument."""
        instruments = torch.full((len(clean_BQ),), index, device=clean_BQ.device)
        return self._measure(instruments, clean_BQ, generator)

    def _measure(
        self, instrument_B: torch.Tensor, clean_BQ: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        def draw(name: str) -> torch.Tensor:
            low_B1, high_B1 = self._ranges[name][instrument_B].unsqueeze(2).unbind(dim=1)
            return uniform(low_B1, high_B1, generator)

        def normal(shape: tuple[int, ...]) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=clean_BQ.device)

        n, config = len(clean_BQ), self._config
        mask_BQ = window_mask(draw("q_first"), draw("q_last"), self._q)
        # Sample: near neighbours, oriented reflections.
        dots_BQ = self._with_neighbours(clean_BQ, generator)
        gain_BQ = torch.exp(draw("texture") * (normal((n, len(self._direction_DQ))) @ self._direction_DQ))
        dots_BQ = scale_reflections(dots_BQ, gain_BQ, step=self._step)
        # Instrument.
        shift_B1 = self._zero_shift[instrument_B, None] * normal((n, 1))
        dots_BQ = blur(dots_BQ, draw("resolution"), shift_B1, step=self._step, reach=self._reach)
        if self._any_kalpha2:
            dots_BQ = with_kalpha2(dots_BQ, self._kalpha2[instrument_B, None], self._q)
        # What else scatters: a mixture of solvents, and a background that falls or rises smoothly.
        # Exponential draws over their sum are uniform over all mixtures.
        share_BS = -torch.log(
            1 - torch.rand((n, len(self._solvent_SQ)), generator=generator, device=clean_BQ.device)
        )
        solvent_BQ = (share_BS / share_BS.sum(dim=1, keepdim=True)) @ self._solvent_SQ
        solvent_BQ = solvent_BQ * torch.exp(config.solvent_spread * self._solvent_gain.draw(n, generator))
        low, high = (torch.full((n, 1), x, device=clean_BQ.device) for x in config.background_decay)
        slope_B1 = uniform(low, high, generator)
        background_BQ = torch.exp(
            config.background_spread * self._background.draw(n, generator) - slope_B1 * self._q
        )
        low, high = (torch.full((n, 1), x, device=clean_BQ.device) for x in config.background_share)
        fraction_B1, share_B1 = draw("fraction"), uniform(low, high, generator)
        rest_B1 = 1 - fraction_B1
        y_BQ = mix(
            [
                (fraction_B1, dots_BQ.clamp(min=0)),
                (rest_B1 * (1 - share_B1), solvent_BQ),
                (rest_B1 * share_B1, background_BQ),
            ],
            mask_BQ,
        )
        # Counts.
        low_B1, high_B1 = torch.log(self._ranges["peak_counts"][instrument_B]).unsqueeze(2).unbind(dim=1)
        peak_B1 = (y_BQ * mask_BQ).amax(dim=1, keepdim=True)
        scale_B1 = torch.exp(uniform(low_B1, high_B1, generator)) / peak_B1
        return normal_counts(y_BQ, scale_B1, generator) * mask_BQ, mask_BQ

    def _with_neighbours(self, clean_BQ: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Add correlated motion (weaker from shell to shell) and a disordered shell."""
        shells, nodes, _ = self._correlated_SNQ.shape
        if shells == 0:
            return clean_BQ
        shape, near = (len(clean_BQ), shells), self._config.near_neighbours
        low_B1, high_B1 = (torch.full((shape[0], 1), x, device=clean_BQ.device) for x in near.correlation)
        first_B1 = uniform(low_B1, high_B1, generator)
        fall_BS = torch.rand(shape, generator=generator, device=clean_BQ.device)
        fall_BS[:, 0] = 1
        correlation_BS = first_B1 * torch.cumprod(fall_BS, dim=1)
        # Hat functions over the tabulated values of c.
        node_N = torch.linspace(0, 1, nodes, device=clean_BQ.device)
        weight_BSN = (1 - (correlation_BS[:, :, None] - node_N).abs() * (nodes - 1)).clamp(min=0)
        halo_BS = near.halo * torch.randn(shape, generator=generator, device=clean_BQ.device)
        return clean_BQ + weight_BSN.flatten(1) @ self._correlated_SNQ.flatten(0, 1) + halo_BS @ self._halo_SQ


def build_recipe(
    config: AllaraConfig | InstrumentRecipeConfig,
    q: np.ndarray,
    attrs: Mapping[str, Any],
    device: torch.device,
) -> Recipe:
    """The recipe that a configuration names.

    Args:
        config: from `augment=NAME`.
        q: (Q,) float64 [Å⁻¹], the store's grid.
        attrs: the store's attributes (material, energy).
        device: where batches will be.

    Raises:
        ValueError: a solvent file does not cover q, or a window lies outside it.
    """
    if isinstance(config, AllaraConfig):
        return AllaraRecipe(config, q, device)
    return InstrumentRecipe(config, q, attrs, device)


def _solvents(solvents: Sequence[SolventConfig], q: np.ndarray, device: torch.device) -> torch.Tensor:
    """(S, Q) float32 profiles of sum 1."""
    profiles = np.stack([solvent_profile(solvent, q) for solvent in solvents])
    profiles /= profiles.sum(axis=1, keepdims=True)
    return torch.as_tensor(profiles, dtype=torch.float32, device=device)


def _neighbour_tables(
    config: InstrumentRecipeConfig,
    material: Material,
    q: np.ndarray,
    attrs: Mapping[str, Any],
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(shell, node, Q) and (shell, Q) float32 near-neighbour terms of the store's material."""
    near = config.near_neighbours
    if near.shells == 0:
        return torch.zeros((0, len(CORRELATION_NODES), q.size), device=device), torch.zeros(
            (0, q.size), device=device
        )
    terms = neighbour_terms(
        material,
        q,
        energy_kev=attrs["energy_kev"],
        anomalous=attrs["config"]["anomalous"],
        shells=near.shells,
        halo_b=near.halo_b,
    )
    return tuple(  # type: ignore[return-value]
        torch.as_tensor(table, dtype=torch.float32, device=device) for table in (terms.correlated, terms.halo)
    )
