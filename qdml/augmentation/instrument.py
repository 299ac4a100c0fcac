"""Real samples on real instruments: the recipe for models of measured patterns.

    dots          correlated motion, halo, texture, surface, B by element         `dots`, `near`
    instrument    strain, lines, shifts, resolution; polarisation, absorption     `optics`
    model error   what this list has forgotten: a smooth factor on the dots
    surroundings  solvents, container, fluorescence, smooth background            `surroundings`
    detector      window, gaps, photons

One noise cell per instrument. Dots have the form factors of the photon energy of their pattern.

Symbols: B pattern, Q point of the grid, G point of the crystal's grid, P point of the grid of what is smooth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from hpc.absorption import edges_below
from qdml.augmentation.config import InstrumentRecipeConfig
from qdml.augmentation.dots import Dots
from qdml.augmentation.latents import LatentSpace, log_between, smooth_modes
from qdml.augmentation.mixing import shares
from qdml.augmentation.optics import Optics, windows
from qdml.augmentation.ranges import Ranges
from qdml.augmentation.recipe import Expected, Main, Recipe, Setting
from qdml.augmentation.surroundings import Surroundings
from qdml.augmentation.tables import table
from qdml.basis import DotBasis
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


class InstrumentRecipe(Recipe):
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
            else DotBasis(dots, q, tolerance=config.basis_tolerance, device=device, margin=_MARGIN)
        )
        self._optics = Optics(
            instruments,
            energies,
            q,
            crystal=(self.basis.q, self.basis.inside),
            smooth=self._surroundings.grid,
            extent=self.basis.extent,
            resolution_error=config.resolution_error,
            space=space,
            device=device,
            dtype=dtype,
        )
        reach = min(low for low, _ in energies), max(high for _, high in energies)
        self._dots = Dots(config.dots, self.basis, reach, space, device, dtype)
        modes_KQ = table(smooth_modes(q, config.dots.model_error_length), device, dtype)
        space.uniform("model_error_size", amplitude=True)
        space.field("model_error", "dots", modes_KQ)
        self._of_sample = Ranges(
            [{"fraction": one.fraction, "texture": one.texture} for one in config.instruments], device, dtype
        )
        elements = sorted({kind.element for kind in self.basis.kinds})
        fluoresces = [[bool(edges_below(elements, low, above_kev=_LINES_ABOVE))] for low, _ in energies]
        self._fluoresces_I1 = table(fluoresces, device, dtype)
        weight = table([one.weight for one in config.instruments], device, dtype)
        self._until_I = torch.cumsum(weight / weight.sum(), dim=0)

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

    def expected(self, main: Main, setting: Setting, z_BL: torch.Tensor) -> Expected:
        """The pattern without noise."""
        values = self.space.values(z_BL)
        mask_BQ = setting.mask
        view = self._optics.view(setting, values)
        sample = self._of_sample.at(
            setting.instrument, torch.cat([values["fraction"], values["texture_spread"]], dim=1)
        )
        dots_BG = self._dots(main, setting.energy_kev, values, sample["texture"])
        shown_BQ = self._optics.show(dots_BG, view, main.strain[:, None]).clamp(min=0) * view.factor
        error_B1 = log_between(values["model_error_size"], self._config.dots.model_error)
        wrong_BQ = torch.exp(error_B1 * (values["model_error"] @ self.space.fields["model_error"].basis))
        fraction_B1 = sample["fraction"]
        dots_BQ = shares({"dots": (fraction_B1, shown_BQ)}, mask_BQ)["dots"] * wrong_BQ
        around = self._surroundings.parts(
            values,
            mask_BQ,
            factor_BP=view.factor_smooth,
            unpolarised_BP=view.unpolarised_smooth,
            fluoresces_B1=self._fluoresces_I1[setting.instrument],
        )
        rest_B1 = 1 - fraction_B1
        total_BQ = dots_BQ + rest_B1 * self._surroundings.on_grid(_sum(around)).clamp(min=_LEAST)
        mean_B1 = masked_mean(total_BQ, mask_BQ)
        intensity_BQ = total_BQ / mean_B1
        peak_B1 = (intensity_BQ * view.per_step * mask_BQ).amax(dim=1, keepdim=True)

        def parts() -> Mapping[str, torch.Tensor]:
            smooth = {name: rest_B1 * self._surroundings.on_grid(one) for name, one in around.items()}
            return {name: one / mean_B1 for name, one in ({"dots": dots_BQ} | smooth).items()}

        fixed = {
            name: torch.full_like(fraction_B1, size) for name, size in self._surroundings.amplitudes.items()
        }
        return Expected(
            intensity=intensity_BQ,
            rate=setting.dose / peak_B1 * view.efficiency,
            mask=mask_BQ,
            known=self._optics.known(setting),
            amplitudes=fixed | {"model_error": error_B1},
            make_parts=parts,
        )


def _sum(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    first, *others = parts.values()
    for one in others:
        first = first + one
    return first
