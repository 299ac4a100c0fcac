"""What every augmentation recipe can do; `qdml.augmentation.recipes.build_recipe` makes the one that is asked for.

A recipe is a *world*: a deterministic, differentiable function from the main parameters of dots, the latents
z ~ N(0, I) and what is known of the measurement (`Setting`) to the expected pattern. Training draws main parameters,
setting and z; limits and fits differentiate it.

    draw -> setting, z    expected(main, setting, z) -> pattern without noise, photons    observe -> counts

Symbols: B pattern, Q point of the grid, L latent, T target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qdml.augmentation.counts import photons
from qdml.augmentation.latents import LatentSpace
from qdml.augmentation.stages import Stages
from qdml.batch import Batch
from qdml.observation import Observation

if TYPE_CHECKING:
    from qdml.basis import DotBasis
    from qdml.dataset import Rows

__all__ = ["Expected", "Main", "Recipe", "Setting", "StagedRecipe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Main(Batch):
    """What is asked about: the dots of a batch."""

    log_volume_diameter: torch.Tensor
    """(B,) float, ln(D_v/nm), D_v = D(1+σ²)³."""
    sigma: torch.Tensor
    """(B,) float, relative standard deviation of the number distribution."""
    strain: torch.Tensor
    """(B,) float, ε."""
    variant: torch.Tensor
    """(B,) int64."""
    b_scale: torch.Tensor
    """(B,) float, factor on every Debye-Waller B."""
    intensity: torch.Tensor | None = None
    """(B, Q) float, the clean pattern where it is known already; only recipes that need it look at it."""

    def numbers(self) -> dict[str, torch.Tensor]:
        """What is continuous: name -> (B,)."""
        names = ("log_volume_diameter", "sigma", "strain", "b_scale")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Batch):
    """What is known of a measurement."""

    instrument: torch.Tensor
    """(B,) int64, index into `Recipe.cells`."""
    energy_kev: torch.Tensor
    """(B, 1) float."""
    resolution_factor: torch.Tensor
    """(B, 1) float: times all widths of the instrument."""
    dose: torch.Tensor
    """(B, 1) float: photons at the highest point, of one step of the instrument (allara2024: photons per intensity)."""
    mask: torch.Tensor
    """(B, Q) float, 1 where visible: window and gaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What would be measured with endless time."""

    intensity: torch.Tensor
    """(B, Q) float, mean 1 over the window."""
    rate: torch.Tensor
    """(B, Q) float, photons per intensity: the variance of counting is intensity / rate."""
    mask: torch.Tensor
    """(B, Q) float, 1 where visible."""
    known: torch.Tensor
    """(B, K - 1) float: all conditions but the last, the counts."""
    amplitudes: Mapping[str, torch.Tensor]
    """Name of a field of `Recipe.space` -> (B, 1) its amplitude."""
    make_parts: Callable[[], Mapping[str, torch.Tensor]]
    """What `parts` gives; training never asks."""

    @property
    def parts(self) -> Mapping[str, torch.Tensor]:
        """Name -> (B, Q): parts of the intensity; their sum is the intensity."""
        return self.make_parts()


class Recipe(ABC):
    """From dots to patterns that look measured."""

    cells: Sequence[str]
    """Names of the noise cells."""
    windows: Sequence[tuple[tuple[float, float], tuple[float, float]]]
    """For each cell the ranges of the first and of the last visible Q [Å⁻¹]."""
    needs_intensity: bool
    """Whether training gives clean patterns with its rows."""
    basis: DotBasis | None
    """The dots; None for a recipe without them (clean patterns are then needed)."""
    space: LatentSpace
    """The unknowns."""

    @abstractmethod
    def draw(
        self, rows: Rows, generator: torch.Generator, cell: int | None = None
    ) -> tuple[Setting, torch.Tensor]:
        """Everything random but main parameters and counts.

        Args:
            rows: of the batch.
            generator: of the device.
            cell: for all patterns; None for random ones.

        Returns:
            What is known, and (B, L) latents.
        """

    @abstractmethod
    def expected(self, main: Main, setting: Setting, z_BL: torch.Tensor) -> Expected:
        """The pattern without noise: deterministic, differentiable (also forward) in main parameters and z."""

    def observe(self, expected: Expected, generator: torch.Generator) -> Observation:
        """Photons, and what a user's file says of them: intensities of the same scale, and √max(N, 1) of what came."""
        drawn_BQ = self._photons(expected, generator).mul_(expected.mask)
        mask_BQ, rate_BQ = expected.mask, expected.rate
        mean_B = drawn_BQ.sum(dim=1) / mask_BQ.sum(dim=1).clamp(min=1)
        return Observation(
            intensity=drawn_BQ / rate_BQ,
            noise=drawn_BQ.clamp(min=1).sqrt_().div_(rate_BQ),
            mask=mask_BQ,
            conditions=torch.cat([expected.known, mean_B.clamp(min=1).log()[:, None]], dim=1),
        )

    def _photons(self, expected: Expected, generator: torch.Generator) -> torch.Tensor:
        """(B, Q) counts."""
        return photons(expected.intensity * expected.rate, generator)

    def random(self, rows: Rows, generator: torch.Generator) -> Observation:
        """Every pattern with setting and latents of its own."""
        return self.sample(rows, generator)[0]

    def cell(self, index: int, rows: Rows, generator: torch.Generator) -> Observation:
        """The same in one of `cells`."""
        return self.sample(rows, generator, index)[0]

    def sample(
        self, rows: Rows, generator: torch.Generator, cell: int | None = None
    ) -> tuple[Observation, torch.Tensor]:
        """Observations, and the (B, L) latents behind them."""
        setting, z_BL = self.draw(rows, generator, cell)
        return self.observe(self.expected(rows.main(), setting, z_BL), generator), z_BL


class StagedRecipe(Recipe):
    """A recipe whose patterns are made in stages, through which derivatives find their way."""

    @abstractmethod
    def scene(self, stage: Stages, variant_B: torch.Tensor, setting: Setting) -> tuple[Any, ...]:
        """The expected intensity up to a factor, and whatever else `expected` is made of.

        Args:
            stage: runs the stages; its unknowns are `Main.numbers` and `LatentSpace.values`.
            variant_B: of the dots.
            setting: what is known.

        Returns:
            First (B, Q): what `expected` divides by its mean over the window.
        """

    @abstractmethod
    def completed(
        self, scene: tuple[Any, ...], values: Mapping[str, torch.Tensor], setting: Setting
    ) -> Expected:
        """What `scene` has returned, with all that is expected of it.

        Args:
            scene: tensors.
            values: of `LatentSpace.values`.
            setting: what is known.
        """

    def expected(self, main: Main, setting: Setting, z_BL: torch.Tensor) -> Expected:
        """The pattern without noise."""
        values = self.space.values(z_BL)
        scene = self.scene(Stages(main.numbers() | values), main.variant, setting)
        return self.completed(scene, values, setting)
