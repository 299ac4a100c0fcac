"""A stress set as a model gets it.

A model of the set's own Q grid gets the patterns as they are. Any other model gets them as `qd-predict` would: brought
onto its grid by `qdml.files.patterns.regrid`, where the counts of a bin add up, with the conditions of a synchrotron
instrument of the set's resolution.

Sets have a Gaussian of one width at all Q, instruments a Voigt function whose width falls with the angle. A network
knows the latter, and is told the one that damps distances of 7 nm alike, e^{-σ²r²/2} = e^{-σ'²r²/2 - γ'r}; of equal
full widths the wings of the Voigt function would count as small dots. A fit is told the set's resolution itself, as by
a user who describes an instrument (`hpc.instrument.resolution`).

Symbols: B pattern, Q point of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hpc.instrument.resolution import widths
from qdml.asking import model_grid
from qdml.augmentation.recipe import Setting
from qdml.observation import WIDTHS_AT, Observation, conditions, voigt_fwhm

if TYPE_CHECKING:
    from qdml.stress.make import StressSet
    from qdml.stress.sets import StressConfig

__all__ = ["Seen", "as_seen"]

# Users know their resolution to about that (conf/augment/instrument.yaml): so much beyond a range is not outside it.
_RESOLUTION_ROOM = 0.05
# Distances that both resolutions damp alike [Å]: in dots of 8 to 10 nm, the first whose reflections are as narrow.
_ALIKE_AT = 70.0
_FWHM = math.sqrt(8 * math.log(2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A set as a model gets it."""

    q: np.ndarray
    """(Q,) float64 [Å⁻¹], the model's grid."""
    observation: Observation
    setting: Setting | None
    """What a fit knows; None for a model without instruments."""
    widths: tuple[float, ...] | None
    """u, v, w [rad²], x, y [rad] of the resolution, which `setting` is a factor on; None for those of the training."""
    notes: tuple[str, ...]
    """Where the set lies outside what the model was trained for."""

    def take(self, index: np.ndarray) -> Seen:
        """Some of the patterns."""
        pick = torch.as_tensor(index, device=self.observation.mask.device)
        setting = None if self.setting is None else self.setting.take(pick)
        return replace(self, observation=self.observation.take(pick), setting=setting)


def as_seen(card: Mapping[str, Any], config: StressConfig, content: StressSet, device: torch.device) -> Seen:
    """Bring a set to a model, as a file of a synchrotron instrument of the set's resolution.

    Raises:
        ValueError: the set does not cover the model's Q range.
    """
    grid = card["q"]
    q = model_grid(card)
    own = len(q) == len(content.q) and np.allclose(q, content.q, rtol=0, atol=1e-6 * grid["step"] + 1e-9)
    if own:
        intensity, noise = content.intensity, content.noise
        mask = np.broadcast_to(content.mask, intensity.shape)
        index, factor, told, notes = 0, 1.0, None, []
        widths_3 = torch.full((len(WIDTHS_AT),), config.resolution)
    else:
        found = _instrument(card, config)
        index, factor, told = found.index, found.factor, found.told
        widths_3, notes = found.widths_3, found.notes
        intensity, noise, mask = _regrid(content, q, found.window)
    intensity_BQ, noise_BQ, mask_BQ = (
        torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32, device=device)
        for values in (intensity, noise, mask)
    )
    n = len(intensity_BQ)
    counts_BQ = (intensity_BQ / noise_BQ.clamp(min=1e-30)) ** 2 * mask_BQ
    one_B1 = torch.ones((n, 1), device=device)
    energy = config.energy_kev
    known = conditions(
        wavelength_B=torch.full((n,), _wavelength(energy), device=device),
        widths_B3=widths_3.to(one_B1).expand(n, -1),
        doublet_B=torch.zeros(n, device=device),
        plate_B=torch.zeros(n, device=device),
        counts_B=counts_BQ.sum(dim=1) / mask_BQ.sum(dim=1),
    )
    setting = Setting(
        instrument=torch.full((n,), index, device=device),
        energy_kev=energy * one_B1,
        resolution_factor=factor * one_B1,
        # Fits take the noise that is declared.
        dose=counts_BQ.amax(dim=1, keepdim=True),
        mask=mask_BQ,
    )
    observation = Observation(intensity=intensity_BQ, noise=noise_BQ, mask=mask_BQ, conditions=known)
    return Seen(q=q, observation=observation, setting=setting, widths=told, notes=tuple(notes))


def _wavelength(energy_kev: float) -> float:
    from hpc.form_factors import HC_KEV_ANGSTROM

    return HC_KEV_ANGSTROM / energy_kev


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instrument:
    """What stands for the instrument of a set."""

    index: int
    factor: float
    """On the widths that a fit takes."""
    told: tuple[float, ...] | None
    """These widths, where they are not those of its file."""
    widths_3: torch.Tensor
    """Full widths at `WIDTHS_AT` [Å⁻¹] that a network is told."""
    window: tuple[float, float]
    notes: list[str]


def _instrument(card: Mapping[str, Any], config: StressConfig) -> _Instrument:
    """The synchrotron instrument of a model, as sharp as the set, or as sharp as it was in the training."""
    from qdml.measured.measurement import measurement_of

    found = measurement_of(
        card, energy_kev=config.energy_kev, instrument=_synchrotron(card, config.energy_kev)
    )
    setup = found.instrument
    own = setup.resolution.radians(1.0)
    sigma, gamma = (torch.as_tensor(one) for one in widths(np.array(WIDTHS_AT), setup.wavelength, *own))
    low, high = setup.random.resolution_factor
    alike = _same_damping(config.resolution / _FWHM, float(sigma[0]), float(gamma[0]))
    factor, notes = max(alike, low), []
    if factor > (1 + _RESOLUTION_ROOM) * high:
        width = float(voigt_fwhm(sigma, gamma)[0])
        notes.append(
            f"beyond the training, where {setup.name} had a resolution of {low * width:.2g} to {high * width:.2g} Å⁻¹"
        )
    # The same in Q everywhere: Γ² ~ 1/cos²θ = 1 + tan²θ in 2θ, dQ = (2π/λ) cos θ d2θ.
    square = (config.resolution * setup.wavelength / (2 * math.pi)) ** 2
    sharper = alike < low
    return _Instrument(
        index=found.index,
        factor=low if sharper else 1.0,
        told=None if sharper else (square, 0.0, square, 0.0, 0.0),
        widths_3=factor * voigt_fwhm(sigma, gamma),
        window=found.window(card),
        notes=notes,
    )


def _same_damping(sigma: float, own_sigma: float, own_gamma: float) -> float:
    """The factor on the widths of a Voigt function with which it damps `_ALIKE_AT` as a Gaussian does.

    Args:
        sigma: standard deviation of the Gaussian [Å⁻¹].
        own_sigma: of the Voigt function's Gaussian [Å⁻¹].
        own_gamma: half width of its Lorentzian [Å⁻¹].
    """
    root = math.sqrt(own_gamma**2 + (own_sigma * sigma * _ALIKE_AT) ** 2)
    return (root - own_gamma) / (own_sigma**2 * _ALIKE_AT)


def _synchrotron(card: Mapping[str, Any], energy_kev: float) -> str:
    """The first instrument of a model whose energy can be chosen, and was this one in the training.

    Raises:
        ValueError: there is none; a set of monochromatic patterns then has no instrument.
    """
    from qdml.augmentation.config import InstrumentRecipeConfig
    from qdml.checkpoint import training_config

    recipe = training_config(card).augment
    known = recipe.instruments if isinstance(recipe, InstrumentRecipeConfig) else ()
    for one in known:
        if one.energy_kev is not None and one.energy_kev[0] <= energy_kev <= one.energy_kev[1]:
            return one.name
    raise ValueError(
        f"stress sets are monochromatic patterns of {energy_kev:.4g} keV, and the model has learned from no synchrotron"
        f" instrument at that energy (it knows {[one.name for one in known] or 'none'}); leave stress.sets empty, or "
        "train with augment=instrument and such an instrument"
    )


def _regrid(
    content: StressSet, q: np.ndarray, window: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intensity, noise and mask on another grid, each (B, Q)."""
    from qdml.files.patterns import Pattern, regrid

    visible = content.mask
    noise = content.noise
    parts = []
    for row in range(len(content.intensity)):
        pattern = Pattern(
            source=f"pattern {row}",
            q=content.q[visible],
            intensity=content.intensity[row, visible].astype(np.float64),
            sigma=noise[row, visible].astype(np.float64),
            energy_kev=None,
        )
        on_grid = regrid(pattern, q, window=window)
        parts.append((on_grid.intensity, np.where(on_grid.mask, on_grid.noise, 1.0), on_grid.mask))
    intensity, noise_BQ, mask = (np.stack(column) for column in zip(*parts, strict=True))
    return intensity, noise_BQ, mask
