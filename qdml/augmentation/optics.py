"""What instruments make of a batch: lines, shifts, resolution, smooth factors, windows.

The physics is `hpc.instrument`; here every pattern has an instrument, and what differs from sample to sample and from
day to day lies within the ranges of its file in `conf/instrument/`. Energy, window, dose and resolution are known, the
last to a few percent; zero error, displacement and absorption are not. Widths, shifts and factors are smooth functions
of Q: they are evaluated at some fifty points and read between them by a cubic spline, which is a matrix product.

Dots come in the frame of their crystal, q' = Q(1+ε): to read them at strained positions is one more shift.

Symbols: B pattern, Q point of the grid, G point of the crystal's grid, which goes beyond both ends, C point of the
coarse grid, P of another, I instrument.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hpc.form_factors import HC_KEV_ANGSTROM
from hpc.instrument.angles import (
    capillary_shift,
    cos_theta,
    displacement_shift,
    q_of,
    two_theta_of,
    zero_shift,
)
from hpc.instrument.capillary import capillary_absorption
from hpc.instrument.geometry import constant_length, polarisation, ring_pixels, solid_angle_flat, thin_film
from hpc.instrument.lines import seen
from hpc.instrument.resolution import widths
from hpc.instrument.setup import Instrument
from hpc.instrument.windows import visible
from qdml.augmentation.latents import LatentSpace
from qdml.augmentation.ranges import Ranges
from qdml.augmentation.recipe import Setting
from qdml.augmentation.resolution import Resolution
from qdml.augmentation.tables import spline_matrix, table
from qdml.observation import WIDTHS_AT, conditions, voigt_fwhm

__all__ = ["Geometry", "Optics", "View", "windows"]

# Distance of the points at which smooth functions are evaluated [Å⁻¹]; between them a cubic spline is good to 1e-4.
_COARSE = 0.25
_RAD = math.pi / 180


# Largest deviation of the true widths from the stated ones that is not cut off, in standard deviations.
_FAR = 4.0
_KNOWN = ("energy_kev", "resolution_factor", "peak_counts", "first_deg", "last_deg")
_UNKNOWN = ("zero_deg", "displacement_mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How the patterns of a batch are seen: (B, Q) unless it says otherwise."""

    instrument: torch.Tensor
    """(B,) int64."""
    shift: torch.Tensor
    """(B, C) ΔQ [Å⁻¹]: what is shown at Q is the pattern at Q + ΔQ."""
    sigma: torch.Tensor
    """(B, K) standard deviation of the resolution's Gaussian [Å⁻¹] at the points of `Resolution`."""
    gamma: torch.Tensor | None
    """(B, K) half width of its Lorentzian [Å⁻¹]; None where no instrument has one."""
    factor: torch.Tensor
    """Polarisation, absorption, geometry: what intensities are multiplied by and not corrected for."""
    factor_smooth: torch.Tensor
    """(B, P) the same on the grid of what is smooth."""
    unpolarised_smooth: torch.Tensor
    """(B, P) what the corrections of a file make of radiation that is the same in every pixel."""
    efficiency: torch.Tensor
    """Photons of one point of the grid per intensity shown, up to a constant."""
    per_step: torch.Tensor
    """Photons of one step of the instrument per intensity shown, up to the same constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What depends on the geometry of each pattern alone."""

    own: Mapping[str, torch.Tensor]
    """Name -> (B, 1) settings of its instrument."""
    angle: torch.Tensor
    """(B, C) 2θ [rad]."""
    factor: torch.Tensor
    """(B, C) what intensities are multiplied by, absorption aside."""
    corrected: torch.Tensor
    """(B, C) what files are corrected for."""


def windows(
    instruments: Sequence[Instrument], energies: Sequence[tuple[float, float]], q: np.ndarray
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """For each instrument the ranges of the first and of the last visible Q [Å⁻¹].

    Args:
        instruments: of a recipe.
        energies: for each the range of its photon energy [keV].
        q: (Q,) float64 [Å⁻¹].

    Raises:
        ValueError: a window lies outside q.
    """
    found = []
    for instrument, energy in zip(instruments, energies, strict=True):
        ends = []
        for angles in (instrument.random.first_deg, instrument.random.last_deg):
            low, high = (
                4 * math.pi * e / HC_KEV_ANGSTROM * math.sin(angle * _RAD / 2)
                for e, angle in zip(energy, angles, strict=True)
            )
            ends.append((low, high))
        if ends[0][1] > q[-1] - 1.0 or ends[1][0] < q[0] + 1.0:
            raise ValueError(
                f"augment: windows of instrument {instrument.name} start at up to {ends[0][1]:.4g} Å⁻¹ and end from "
                f"{ends[1][0]:.4g} Å⁻¹ on, the store's patterns reach from {q[0]:.4g} to {q[-1]:.4g} Å⁻¹; at least "
                "1 Å⁻¹ must be visible: leave the instrument out, change its ranges, or simulate a larger Q range"
            )
        found.append((ends[0], ends[1]))
    return found


class Optics:
    """Instruments on one grid."""

    def __init__(
        self,
        instruments: Sequence[Instrument],
        energies: Sequence[tuple[float, float]],
        q: np.ndarray,
        *,
        crystal: tuple[np.ndarray, slice],
        smooth: np.ndarray,
        resolution_error: float,
        space: LatentSpace,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Tabulate, and add the latents of instruments to the space.

        Args:
            instruments: of the recipe.
            energies: for each the range of its photon energy [keV].
            q: (Q,) float64 [Å⁻¹], uniform.
            crystal: (G,) float64 [Å⁻¹] of the same step, and where q lies in it.
            smooth: (P,) float64 [Å⁻¹], another grid on which factors are needed.
            resolution_error: standard deviation of ln of the true widths over the stated ones.
            space: of the recipe.
            device: of the batches.
            dtype: of the tables.
        """
        from scipy.interpolate import CubicSpline

        self._step = float((q[-1] - q[0]) / (len(q) - 1))

        def to_device(values: object) -> torch.Tensor:
            return table(values, device, dtype)

        def ranges(names: Sequence[str], **more: Any) -> Ranges:
            cases = [
                {name: energy if name == "energy_kev" else getattr(one.random, name) for name in names}
                for one, energy in zip(instruments, energies, strict=True)
            ]
            return Ranges(cases, device, dtype, **more)

        self._known = ranges(_KNOWN, logarithmic=("peak_counts", "energy_kev", "resolution_factor"))
        self._unknown = {name: ranges([name]) for name in _UNKNOWN}
        self._capillary, self._layer = ranges(["mu_r"]), ranges(["mu_t"], logarithmic=("mu_t",))
        for name in (*_UNKNOWN, "absorption"):
            space.uniform(name)
        self._resolution_error = resolution_error
        space.normal("resolution")
        lines = max(len(one.radiation.weights) for one in instruments)
        ratio, weight = np.ones((len(instruments), lines)), np.zeros((len(instruments), lines))
        for index, one in enumerate(instruments):
            n = len(one.radiation.weights)
            ratio[index, :n] = np.array(one.radiation.wavelengths) / one.wavelength
            weight[index, :n] = one.radiation.weights
        self._ratio_IL, self._weight_IL = to_device(ratio), to_device(weight)
        self._doublet_I = to_device(100 * (ratio[:, 1] - 1) if lines > 1 else np.zeros(len(instruments)))
        # One table: a row of it is read at once.
        settings = {
            "radius": [[one.radius_mm] for one in instruments],
            "step": [[one.step_deg * _RAD] for one in instruments],
            "in_plane": [[one.in_plane] for one in instruments],
            "plate": [[one.geometry == "bragg_brentano"] for one in instruments],
            "panel": [[one.geometry == "flat_panel"] for one in instruments],
            "automatic": [[one.slits == "automatic"] for one in instruments],
            "polarisation": [["polarisation" in one.corrected] for one in instruments],
            "solid_angle": [["solid_angle" in one.corrected] for one in instruments],
        }
        self._names = list(settings)
        self._settings_IN = to_device(np.concatenate(list(settings.values()), axis=1))
        self._widths_I5 = to_device([one.resolution.radians() for one in instruments])
        gaps = np.zeros((len(instruments), max(len(one.gaps_deg) for one in instruments), 2))
        for index, one in enumerate(instruments):
            gaps[index, : len(one.gaps_deg)] = np.reshape(one.gaps_deg, (-1, 2))
        self._gaps_IG2 = to_device(gaps * _RAD)
        crystal_q, self._inside = crystal
        self._q, self._crystal_q, self._widths_at = to_device(q), to_device(crystal_q), to_device(WIDTHS_AT)
        coarse, spline = spline_matrix(crystal_q, _COARSE)
        self._coarse_C, self._spline_CG = to_device(coarse), to_device(spline)
        self._spline_CQ = self._spline_CG[:, self._inside].contiguous()
        self._spline_CP = to_device(CubicSpline(coarse, np.eye(len(coarse)))(smooth).T)
        # A point of the grid is the mean over its bin (photons of several steps of the instrument): a resolution
        # of its own, of the variance of a uniform distribution.
        self._bin = self._step / math.sqrt(12)
        self._lorentzian = any(
            x > 0 or y > 0 for *_, x, y in (one.resolution.radians() for one in instruments)
        )

        def some_widths(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            index = int(random.integers(len(instruments)))
            energy = _log_between(energies[index], random.random())
            factor = _log_between(instruments[index].random.resolution_factor, random.random())
            factor *= math.exp(resolution_error * random.uniform(-_FAR, _FAR))
            of_instrument = instruments[index].resolution.radians(factor)
            sigma, gamma = widths(crystal_q, HC_KEV_ANGSTROM / energy, *of_instrument)
            return np.hypot(sigma, self._bin), gamma

        self._resolution = Resolution(crystal_q, some_widths, device=device, dtype=dtype)
        self._folded_at = to_device(self._resolution.points)

    def draw(self, instrument_B: torch.Tensor, generator: torch.Generator) -> Setting:
        """What is known of the measurements of a batch.

        Args:
            instrument_B: (B,) int64.
            generator: of the device.
        """
        u_BN = torch.rand(
            (len(instrument_B), len(_KNOWN)),
            generator=generator,
            device=generator.device,
            dtype=self._q.dtype,
        )
        drawn = self._known.at(instrument_B, u_BN)
        wavelength_B1 = HC_KEV_ANGSTROM / drawn["energy_kev"]
        return Setting(
            instrument=instrument_B,
            energy_kev=drawn["energy_kev"],
            resolution_factor=drawn["resolution_factor"],
            dose=drawn["peak_counts"],
            mask=self._visible(instrument_B, drawn["first_deg"], drawn["last_deg"], wavelength_B1),
        )

    def _widths(
        self, q: torch.Tensor, setting: Setting, factor_B1: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """σ and γ [Å⁻¹] at some q, of widths times a factor."""
        u, v, w, x, y = self._widths_I5[setting.instrument].split(1, dim=1)
        square_B1 = factor_B1**2
        sigma_BQ, gamma_BQ = widths(
            q,
            HC_KEV_ANGSTROM / setting.energy_kev,
            u * square_B1,
            v * square_B1,
            w * square_B1,
            x * factor_B1,
            y * factor_B1,
        )
        return sigma_BQ, gamma_BQ

    def with_widths(self, index: int, widths: Sequence[float]) -> Optics:
        """The same, one instrument with another resolution function, as a user describes it.

        Args:
            index: of the instrument.
            widths: u, v, w [rad²], x, y [rad] of `hpc.instrument.resolution`.
        """
        other, table_I5 = copy.copy(self), self._widths_I5.clone()
        table_I5[index] = torch.tensor(widths, dtype=table_I5.dtype, device=table_I5.device)
        other._widths_I5 = table_I5
        return other

    def known(self, setting: Setting) -> torch.Tensor:
        """(B, K - 1) conditions but for the counts, with the widths as they are stated."""
        return conditions(
            wavelength_B=HC_KEV_ANGSTROM / setting.energy_kev[:, 0],
            widths_B3=voigt_fwhm(*self._widths(self._widths_at, setting, setting.resolution_factor)),
            doublet_B=self._doublet_I[setting.instrument],
            plate_B=self._own(setting)["plate"][:, 0],
        )

    def view(self, setting: Setting, values: Mapping[str, torch.Tensor]) -> View:
        """How the patterns of a batch are seen.

        Args:
            setting: what is known.
            values: of `LatentSpace.values`.
        """
        geometry = self.geometry(setting)
        factor, factor_smooth = self.factors(values, setting=setting, geometry=geometry)
        sigma, gamma = (*self.widths(values, setting=setting), None)[:2]
        assert sigma is not None
        return View(
            instrument=setting.instrument,
            shift=self.shift(values, setting=setting, geometry=geometry),
            sigma=sigma,
            gamma=gamma,
            factor=factor,
            factor_smooth=factor_smooth,
            unpolarised_smooth=self.unpolarised(geometry),
            **self.counting(setting, geometry),
        )

    def shift(
        self, values: Mapping[str, torch.Tensor], *, setting: Setting, geometry: Geometry
    ) -> torch.Tensor:
        """(B, C) ΔQ of `View`, of zero error and displacement."""
        instrument_B, q_C, own = setting.instrument, self._coarse_C, geometry.own
        wavelength_B1 = HC_KEV_ANGSTROM / setting.energy_kev
        zero_B1, along_B1 = (
            self._unknown[name].at(instrument_B, values[name])[name]
            for name in ("zero_deg", "displacement_mm")
        )
        # On a flat panel a displacement along the beam counts less by cos 2θ than on a circle.
        axis_B1 = along_B1 * (1 - own["plate"])
        shift_BC: torch.Tensor = (
            zero_shift(q_C, wavelength_B1, zero_B1 * _RAD)
            + displacement_shift(q_C, wavelength_B1, along_B1 * own["plate"], own["radius"])
            + capillary_shift(q_C, wavelength_B1, axis_B1, 0.0, own["radius"])
            * (1 - own["panel"] * (1 - torch.cos(geometry.angle)))
        )
        return shift_BC

    def widths(self, values: Mapping[str, torch.Tensor], *, setting: Setting) -> tuple[torch.Tensor, ...]:
        """Widths of `View`, of the true resolution over the stated one."""
        error_B1 = torch.exp(self._resolution_error * values["resolution"].clamp(-_FAR, _FAR))
        sigma, gamma = self._widths(self._folded_at, setting, setting.resolution_factor * error_B1)
        sigma = torch.sqrt(sigma.square() + self._bin**2)
        return (sigma, gamma) if self._lorentzian else (sigma,)

    def factors(
        self, values: Mapping[str, torch.Tensor], *, setting: Setting, geometry: Geometry
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, Q) and (B, P) factors of `View`, of absorption."""
        mu_r_B1 = self._capillary.at(setting.instrument, values["absorption"])["mu_r"]
        mu_t_B1 = self._layer.at(setting.instrument, values["absorption"])["mu_t"]
        # Nothing is measured so near the beam that an angle of 0 would matter.
        layer_BC = thin_film(geometry.angle.clamp(min=1e-2), mu_t_B1)
        through_BC = capillary_absorption(geometry.angle, mu_r_B1) * (
            1 - geometry.own["plate"] * (1 - layer_BC)
        )
        factor_BC = geometry.factor * through_BC
        return (factor_BC @ self._spline_CQ).clamp(min=1e-6), (factor_BC @ self._spline_CP).clamp(min=1e-6)

    def counting(self, setting: Setting, geometry: Geometry) -> dict[str, torch.Tensor]:
        """(B, Q) efficiency and photons per step of `View`, which depend on no unknown."""
        wavelength_B1, own = HC_KEV_ANGSTROM / setting.energy_kev, geometry.own
        # A panel sees rings of many pixels; where it is corrected, fewer photons stand for the same intensity.
        pixels_BC = 1 - own["panel"] * (1 - ring_pixels(geometry.angle))
        per_step_BC = geometry.corrected * pixels_BC
        # Steps of the instrument in one of the grid: ΔQ / (Δ2θ dQ/d2θ). Not beyond 2θ = 157°, where nobody
        # measures and a spline would swing.
        slope_BC = (2 * math.pi / wavelength_B1) * cos_theta(self._coarse_C, wavelength_B1).clamp(min=0.2)
        steps_BC = self._step / (own["step"] * slope_BC)
        per_step, efficiency = torch.stack([per_step_BC, per_step_BC * steps_BC]) @ self._spline_CQ
        return {"efficiency": efficiency.clamp(min=1e-9), "per_step": per_step}

    def unpolarised(self, geometry: Geometry) -> torch.Tensor:
        """(B, P) corrections of `View`, which depend on no unknown either."""
        return (1 / geometry.corrected.clamp(min=1e-2)) @ self._spline_CP

    def geometry(self, setting: Setting) -> Geometry:
        """What geometry makes of intensities."""
        own = self._own(setting)
        angle_BC = two_theta_of(self._coarse_C, HC_KEV_ANGSTROM / setting.energy_kev)
        polarised_BC = polarisation(angle_BC, own["in_plane"])
        solid_BC = 1 - own["panel"] * (1 - solid_angle_flat(angle_BC))
        slits_BC = 1 - own["automatic"] * (1 - constant_length(angle_BC))
        corrected_BC = (1 - own["polarisation"] * (1 - polarised_BC)) * (
            1 - own["solid_angle"] * (1 - solid_BC)
        )
        return Geometry(
            own=own,
            angle=angle_BC,
            factor=polarised_BC * solid_BC * slits_BC / corrected_BC.clamp(min=1e-6),
            corrected=corrected_BC,
        )

    def _own(self, setting: Setting) -> dict[str, torch.Tensor]:
        """Name -> (B, 1) settings of the instrument of each pattern."""
        columns = self._settings_IN[setting.instrument].split(1, dim=1)
        return dict(zip(self._names, columns, strict=True))

    def _visible(
        self,
        instrument_B: torch.Tensor,
        first_B1: torch.Tensor,
        last_B1: torch.Tensor,
        wavelength_B1: torch.Tensor,
    ) -> torch.Tensor:
        """(B, Q) float32 mask of windows and gaps."""
        first_B1, last_B1 = (q_of(angle * _RAD, wavelength_B1) for angle in (first_B1, last_B1))
        gaps_BG2 = q_of(self._gaps_IG2[instrument_B], wavelength_B1[:, :, None])
        gaps = [tuple(gap.unsqueeze(1).unbind(dim=2)) for gap in gaps_BG2.unbind(dim=1)]
        return visible(self._q, first_B1, last_B1, gaps=gaps).to(self._q.dtype)

    def show(self, dots_BG: torch.Tensor, view: View, strain_B1: torch.Tensor) -> torch.Tensor:
        """(B, Q) dots through the lines of the radiation, at shifted angles, with the instrument's resolution.

        Args:
            dots_BG: in the frame of the crystal.
            view: how they are seen.
            strain_B1: ε of the crystal.
        """
        shift_BC = self.strained(view.shift, {"strain": strain_B1[:, 0]})
        widths = (view.sigma,) if view.gamma is None else (view.sigma, view.gamma)
        return self.broad(self.lines(dots_BG, shift_BC, instrument_B=view.instrument), widths)

    def strained(self, shift_BC: torch.Tensor, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B, C) the shift of `View` and that of strain, (Q + ΔQ)(1 + ε) - Q."""
        return shift_BC + values["strain"][:, None] * (self._coarse_C + shift_BC)

    def lines(
        self, dots_BG: torch.Tensor, shift_BC: torch.Tensor, *, instrument_B: torch.Tensor
    ) -> torch.Tensor:
        """(..., B, G) dots through the lines of the radiation, at shifted positions."""
        found: torch.Tensor = seen(
            dots_BG,
            self._crystal_q,
            self._ratio_IL[instrument_B].split(1, dim=1),
            self._weight_IL[instrument_B].split(1, dim=1),
            shift_BC @ self._spline_CG,
        )
        return found

    def broad(self, lines_BG: torch.Tensor, widths: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """(..., B, Q) with the instrument's resolution."""
        return self._resolution(lines_BG, *widths)[..., self._inside]


def _log_between(ends: Sequence[float], u: float) -> float:
    """A number between two ends, uniform in the logarithm."""
    low, high = (math.log(max(end, 1e-9)) for end in ends)
    return math.exp(low + (high - low) * u)
