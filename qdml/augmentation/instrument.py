"""Real samples on real instruments: the recipe for models of measured patterns.

    dots          correlated motion, halo, texture, surface, B by element         `dots`, `near`
    instrument    strain, lines, shifts, resolution; polarisation, absorption     `optics`
    model error   what this list has forgotten: a smooth factor on the dots
    surroundings  solvents, container, fluorescence, smooth background            `surroundings`
    detector      window, gaps, photons

One noise cell per instrument. Dots have the form factors of the photon energy of their pattern.

Symbols: B pattern, Q point of the grid, G point of the crystal's grid, C point of the coarse grid of
instruments, P of that of surroundings.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hpc.absorption import edges_below
from qdml.augmentation.config import InstrumentRecipeConfig
from qdml.augmentation.dots import Dots
from qdml.augmentation.latents import LatentSpace, log_between, smooth_modes
from qdml.augmentation.optics import Geometry, Optics, windows
from qdml.augmentation.ranges import Ranges
from qdml.augmentation.recipe import Expected, Setting, StagedRecipe
from qdml.augmentation.stages import Stages
from qdml.augmentation.surroundings import Surroundings, shares
from qdml.augmentation.tables import table
from qdml.basis import DotBasis
from qdml.basis_building import build_basis
from qdml.preprocess import masked_mean

if TYPE_CHECKING:
    from hpc.store import Store
    from qdml.dataset import Rows

__all__ = ["InstrumentRecipe"]

# Fluorescence of lower energy ends in air and windows, or below the threshold of the detector [keV].
_LINES_ABOVE = 4.0
# How far the dots are known beyond both ends of the patterns, strain aside [Å⁻¹]: six standard deviations of the widest
# resolution, doublet, zero error. Stores go 0.2 beyond.
_MARGIN = 0.15
# A pattern has something everywhere, relative to its mean.
_LEAST = 1e-3


class InstrumentRecipe(StagedRecipe):
    """Real samples on real instruments."""

    needs_intensity = False
    basis: DotBasis

    def __init__(
        self,
        config: InstrumentRecipeConfig,
        dots: Store | DotBasis,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Tabulate dots, instruments and surroundings.

        Args:
            config: from `augment=instrument`.
            dots: a store, or the basis that has been made of one.
            device: of the batches.
            dtype: of the tables.

        Raises:
            ValueError: the store is not of X-rays, or its atoms move together already; a window or a solvent file does
                not fit its Q; its basis does not reach far enough.
        """
        q, path = (dots.q[dots.inside], "the basis") if isinstance(dots, DotBasis) else (dots.q, dots.path)
        if dots.attrs.get("particle", "xray") != "xray":
            raise ValueError(
                f"augment=instrument is for X-rays, {path} holds patterns of {dots.attrs['particle']}s"
            )
        moving = [one["title"] for one in dots.attrs["variants"] if one.get("motion")]
        if moving:
            raise ValueError(
                f"augment=instrument adds correlated motion and halo itself, {path} holds patterns that have "
                f"them already ({moving[0]}); simulate with motion=independent"
            )
        instruments = [one.load() for one in config.instruments]
        own = [one.radiation.energy_kev or 0.0 for one in instruments]
        energies = [one.energy_kev or (e, e) for one, e in zip(config.instruments, own, strict=True)]
        self.cells = [one.name for one in config.instruments]
        self.space = space = LatentSpace()
        self._config, self._dtype = config, dtype
        space.uniform("fraction")
        # The dots take longest: what does not fit is said before.
        self._surroundings = Surroundings(config.surroundings, q, space, device, dtype)
        self.windows = windows(instruments, energies, q)
        self.basis = (
            dots
            if isinstance(dots, DotBasis)
            else build_basis(dots, q, tolerance=config.basis_tolerance, device=device, margin=_MARGIN)
        )
        self._optics = Optics(
            instruments,
            energies,
            q,
            crystal=(self.basis.q, self.basis.inside),
            smooth=self._surroundings.grid,
            resolution_error=config.resolution_error,
            space=space,
            device=device,
            dtype=dtype,
        )
        reach = min(low for low, _ in energies), max(high for _, high in energies)
        self._dots = Dots(config.dots, self.basis, reach, space, device, dtype)
        modes_KQ = table(smooth_modes(q, config.dots.model_error_length), device, dtype)
        space.uniform("model_error_size", amplitude_of="model_error")
        space.field("model_error", "dots", modes_KQ)
        self._share, self._spread = (
            Ranges([{name: getattr(one, name)} for one in config.instruments], device, dtype)
            for name in ("fraction", "texture")
        )
        elements = sorted({kind.element for kind in self.basis.kinds})
        fluoresces = [[bool(edges_below(elements, low, above_kev=_LINES_ABOVE))] for low, _ in energies]
        self._fluoresces_I1 = table(fluoresces, device, dtype)
        weight = table([one.weight for one in config.instruments], device, dtype)
        self._until_I = torch.cumsum(weight / weight.sum(), dim=0)

    def with_widths(self, index: int, widths: Sequence[float]) -> InstrumentRecipe:
        """The same world, one instrument with another resolution function (see `Optics.with_widths`)."""
        other = copy.copy(self)
        other._optics = self._optics.with_widths(index, widths)
        return other

    def draw(
        self, rows: Rows, generator: torch.Generator, cell: int | None = None
    ) -> tuple[Setting, torch.Tensor]:
        """Each pattern on a random instrument, or all on one."""
        n, device = len(rows), generator.device
        if cell is None:
            drawn = torch.rand(n, generator=generator, device=device, dtype=self._dtype)
            instrument_B = torch.searchsorted(self._until_I, drawn).clamp(max=len(self.cells) - 1)
        else:
            instrument_B = torch.full((n,), cell, device=device)
        return self._optics.draw(instrument_B, generator), self.space.draw(n, generator, self._dtype)

    def completed(
        self, scene: tuple[Any, ...], values: Mapping[str, torch.Tensor], setting: Setting
    ) -> Expected:
        """The pattern without noise."""
        total_BQ, dots_BQ, around = scene
        mean_B1 = masked_mean(total_BQ, setting.mask)
        intensity_BQ = total_BQ / mean_B1
        counting = self._optics.counting(setting, self._optics.geometry(setting))
        peak_B1 = (intensity_BQ * counting["per_step"] * setting.mask).amax(dim=1, keepdim=True)

        def parts() -> Mapping[str, torch.Tensor]:
            smooth = {name: self._surroundings.on_grid(one) for name, one in around.items()}
            return {name: one / mean_B1 for name, one in ({"dots": dots_BQ} | smooth).items()}

        fixed = {name: torch.full_like(mean_B1, size) for name, size in self._surroundings.amplitudes.items()}
        return Expected(
            intensity=intensity_BQ,
            rate=setting.dose / peak_B1 * counting["efficiency"],
            mask=setting.mask,
            known=self._optics.known(setting),
            amplitudes=fixed | {"model_error": self._error(values)},
            make_parts=parts,
        )

    def scene(self, stage: Stages, variant_B: torch.Tensor, setting: Setting) -> tuple[Any, ...]:
        """The intensity and its parts, up to a factor: which unknown enters where.

        Args:
            stage: runs the stages; its unknowns are main parameters and latents.
            variant_B: of the dots.
            setting: what is known.

        Returns:
            (B, Q) the whole, (B, Q) dots, name -> (B, P) surroundings, of any mean.
        """
        unknown, optics = stage.unknown, self._optics
        geometry = optics.geometry(setting)
        spread_B1 = stage(self._texture, unknown("texture_spread"), setting=setting)
        dots_BG = self._dots.staged(stage, variant_B, setting.energy_kev, spread_B1)
        shift_BC = stage(
            optics.shift, unknown("zero_deg", "displacement_mm"), setting=setting, geometry=geometry
        )
        shift_BC = stage(optics.strained, shift_BC, unknown("strain"))
        lines_BG = stage.linear(optics.lines, dots_BG, shift_BC, instrument_B=setting.instrument)
        widths = stage(optics.widths, unknown("resolution"), setting=setting)
        shown_BQ = stage.linear(optics.broad, lines_BG, widths)
        factors = stage(optics.factors, unknown("absorption"), setting=setting, geometry=geometry)
        fraction_B1 = stage(self._fraction, unknown("fraction"), setting=setting)
        error = unknown("model_error_size", "model_error")
        dots_BQ = stage(self._of_dots, shown_BQ, factors, fraction_B1, error, setting=setting)
        around = stage(
            self._around,
            unknown(*self._surroundings.latents),
            factors,
            fraction_B1,
            setting=setting,
            geometry=geometry,
        )
        return stage(self._whole, dots_BQ, around, fraction_B1), dots_BQ, around

    def _texture(self, values: Mapping[str, torch.Tensor], *, setting: Setting) -> torch.Tensor:
        """(B, 1) standard deviation of ln of the gains."""
        return self._spread.at(setting.instrument, values["texture_spread"])["texture"]

    def _fraction(self, values: Mapping[str, torch.Tensor], *, setting: Setting) -> torch.Tensor:
        """(B, 1) share of the dots."""
        return self._share.at(setting.instrument, values["fraction"])["fraction"]

    def _error(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B, 1) size of the error of the model."""
        return log_between(values["model_error_size"], self._config.dots.model_error)

    def _of_dots(
        self,
        shown_BQ: torch.Tensor,
        factors: tuple[torch.Tensor, torch.Tensor],
        fraction_B1: torch.Tensor,
        error: Mapping[str, torch.Tensor],
        *,
        setting: Setting,
    ) -> torch.Tensor:
        """(B, Q) the dots with their share, and the error of the model."""
        dots_BQ = shown_BQ.clamp(min=0) * factors[0]
        wrong_BQ = torch.exp(
            (self._error(error) * error["model_error"]) @ self.space.fields["model_error"].basis
        )
        return shares({"dots": (fraction_B1, dots_BQ)}, setting.mask)["dots"] * wrong_BQ

    def _around(
        self,
        values: Mapping[str, torch.Tensor],
        factors: tuple[torch.Tensor, torch.Tensor],
        fraction_B1: torch.Tensor,
        *,
        setting: Setting,
        geometry: Geometry,
    ) -> dict[str, torch.Tensor]:
        """Name -> (B, P) the surroundings with their shares."""
        parts = self._surroundings.parts(
            values,
            setting.mask,
            factor_BP=factors[1],
            unpolarised_BP=self._optics.unpolarised(geometry),
            fluoresces_B1=self._fluoresces_I1[setting.instrument],
        )
        return {name: (1 - fraction_B1) * one for name, one in parts.items()}

    def _whole(
        self, dots_BQ: torch.Tensor, around: Mapping[str, torch.Tensor], fraction_B1: torch.Tensor
    ) -> torch.Tensor:
        return dots_BQ + torch.maximum(self._surroundings.on_grid(_sum(around)), _LEAST * (1 - fraction_B1))


def _sum(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    first, *others = parts.values()
    for one in others:
        first = first + one
    return first
