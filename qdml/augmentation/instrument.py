"""Real samples on real instruments: the recipe for models of measured patterns.

    dots          correlated motion, halo, texture, surface, model error           `dots`, `near`
    instrument    lines, shifts, resolution; polarisation, absorption; window      `optics`
    surroundings  solvents, container, fluorescence, smooth background             `surroundings`
    detector      photons                                                          `counts`

One noise cell per instrument. The patterns of a store are of one photon energy, and dots keep them whatever energy an
instrument has: f' of Pb at Cu Kα is 3 electrons below that at 22 keV, which changes reflections by 3 %
against each other, less than texture and model error do, and sizes by less than 0.015 nm. Angles, windows,
widths, fluorescence and counts are those of the instrument's energy.

Symbols: B pattern, Q point of the grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hpc.absorption import edges_below
from hpc.instrument.setup import load_instrument
from qdml.atoms import SampleAtoms
from qdml.augmentation.config import InstrumentRecipeConfig
from qdml.augmentation.counts import counts
from qdml.augmentation.dots import Dots
from qdml.augmentation.mixing import mix
from qdml.augmentation.optics import Optics, View
from qdml.augmentation.recipe import Recipe
from qdml.augmentation.surroundings import Surroundings
from qdml.dataset import Rows

if TYPE_CHECKING:
    from hpc.store import Store

__all__ = ["InstrumentRecipe"]

# Fluorescence of lower energy ends in air and windows, or below the threshold of the detector [keV].
_LINES_ABOVE = 4.0


class InstrumentRecipe(Recipe):
    """Real samples on real instruments."""

    def __init__(self, config: InstrumentRecipeConfig, store: Store, device: torch.device) -> None:
        """Tabulate atoms, instruments and surroundings.

        Raises:
            ValueError: the store is not of X-rays, or its atoms move together already; a window or a
            solvent file does not
                fit its Q.
        """
        if store.attrs.get("particle", "xray") != "xray":
            raise ValueError(
                f"augment=instrument is for X-rays, {store.path} holds patterns of {store.attrs['particle']}s"
            )
        moving = [one["title"] for one in store.attrs["variants"] if one.get("motion")]
        if moving:
            raise ValueError(
                f"augment=instrument adds correlated motion and halo itself, {store.path} holds patterns that have "
                f"them already ({moving[0]}); simulate with motion=independent"
            )
        instruments = [load_instrument(one.name) for one in config.instruments]
        self.cells = [one.name for one in config.instruments]
        self.atoms = SampleAtoms(store)
        self._dots = Dots(config.dots, self.atoms, store.q, store.attrs, device)
        self._surroundings = Surroundings(config.surroundings, store.q, device)
        self._optics = Optics(
            instruments,
            [one.energy_kev for one in config.instruments],
            store.q,
            smooth=self._surroundings.grid,
            extent=self.atoms.extent,
            device=device,
        )
        self.windows = self._optics.windows
        elements = sorted({kind.element for kind in self.atoms.kinds})
        lowest = [
            one.energy_kev[0] if one.energy_kev else own.radiation.energy_kev or 0.0
            for one, own in zip(config.instruments, instruments, strict=True)
        ]
        fluoresces = [[bool(edges_below(elements, e, above_kev=_LINES_ABOVE))] for e in lowest]
        self._fluoresces_I1 = torch.tensor(fluoresces, dtype=torch.float32, device=device)
        weight = torch.tensor([one.weight for one in config.instruments], device=device)
        self._until_I = torch.cumsum(weight / weight.sum(), dim=0)
        self._fraction_I2, self._texture_I2 = (
            torch.tensor([getattr(one, name) for one in config.instruments], device=device)
            for name in ("fraction", "texture")
        )

    def random(self, rows: Rows, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Each pattern on a random instrument."""
        drawn = torch.rand(len(rows), generator=generator, device=generator.device)
        instrument_B = torch.searchsorted(self._until_I, drawn).clamp(max=len(self.cells) - 1)
        return self._measure(rows, instrument_B, generator)

    def cell(self, index: int, rows: Rows, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """All patterns on one instrument."""
        instrument_B = torch.full((len(rows),), index, device=generator.device)
        return self._measure(rows, instrument_B, generator)

    def _measure(
        self, rows: Rows, instrument_B: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        texture_B1, fraction_B1 = (
            _between(table[instrument_B], generator) for table in (self._texture_I2, self._fraction_I2)
        )
        view = self._optics.draw(instrument_B, generator)
        dots_BQ = self._optics.show(self._dots(rows, texture_B1, generator), view).clamp(min=0)
        y_BQ = self._scene(dots_BQ, fraction_B1, view, generator)
        return self._detect(y_BQ, view, generator) * view.mask, view.mask

    def _scene(
        self, dots_BQ: torch.Tensor, fraction_B1: torch.Tensor, view: View, generator: torch.Generator
    ) -> torch.Tensor:
        """(B, Q) intensity without noise, of mean 1 over what is visible."""
        around_BQ = self._surroundings.draw(
            view.mask,
            factor_BP=view.factor_smooth,
            unpolarised_BP=view.unpolarised_smooth,
            fluoresces_B1=self._fluoresces_I1[view.instrument],
            generator=generator,
        )
        return mix([(fraction_B1, dots_BQ * view.factor), (1 - fraction_B1, around_BQ)], view.mask)

    def _detect(self, y_BQ: torch.Tensor, view: View, generator: torch.Generator) -> torch.Tensor:
        """(B, Q) the same as photons counted it."""
        peak_B1 = (y_BQ * view.per_step * view.mask).amax(dim=1, keepdim=True)
        return counts(y_BQ, view.peak_counts / peak_B1 * view.efficiency, generator)


def _between(bounds_B2: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, 1) uniform draws."""
    low_B1, high_B1 = bounds_B2.split(1, dim=1)
    return low_B1 + (high_B1 - low_B1) * torch.rand(low_B1.shape, generator=generator, device=low_B1.device)
