"""The forward model of one measured pattern: ideal I(Q) -> counts on the instrument's own 2θ grid, and what it writes.

    1  dots with their fluorescence, solvents    shares of the visible area over Q
    2  lines, zero error, displacement    `lines.seen`, on the grid of the ideal pattern
    3  resolution                     `resolution.broaden`
    4  the grid of the instrument     `lines.interpolate`
    5  polarisation, solid angle, absorption, slits    `geometry`, `capillary`
    6  flat background                a share of the recorded area: air, dark counts
    7  photons at a stated dose, Poisson, what is written and its σ    `counts`

One pattern, NumPy, float64: this is the reference for batches on a device, and what `qd-pattern --instrument` writes.

Symbols: q, Q [Å⁻¹], 2θ in degrees outside and radians inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hpc.instrument.angles import (
    capillary_shift,
    check_reach,
    displacement_shift,
    q_of,
    two_theta_of,
    zero_shift,
)
from hpc.instrument.capillary import capillary_absorption
from hpc.instrument.counts import counting_sigma, peak_scale
from hpc.instrument.geometry import constant_length, polarisation, ring_pixels, solid_angle_flat, thin_film
from hpc.instrument.lines import interpolate, seen
from hpc.instrument.resolution import broaden, widths
from hpc.instrument.setup import Instrument
from hpc.instrument.windows import angle_grid, visible

__all__ = ["Recorded", "Sample", "factors", "ideal_window", "measure", "recorded_intensity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How a sample sits in an instrument and what is around the dots."""

    zero_deg: float
    """2θ_shown - 2θ_true."""
    displacement_mm: float
    """Across the surface (bragg_brentano, away from tube and detector), along the beam (the others)."""
    solvents: Mapping[str, float]
    """Liquid -> share of the visible area over Q; the dots have the rest."""
    background: float
    """Share of the recorded area that is flat, 0 <= share < 1."""
    isotropic: float = 0.0
    """What the dots emit alike in all directions and unpolarised, fluorescence; unit of their intensity, >= 0."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.zero_deg) and abs(self.zero_deg) <= 5):
            raise ValueError(f"the zero error must lie in -5 to 5°, got {self.zero_deg}")
        if not math.isfinite(self.displacement_mm):
            raise ValueError(f"the displacement must be a number of mm, got {self.displacement_mm}")
        if not all(0 < share < 1 for share in self.solvents.values()) or sum(self.solvents.values()) >= 1:
            raise ValueError(
                f"shares of solvents must be > 0 and sum to less than 1, got {dict(self.solvents)}"
            )
        if not (math.isfinite(self.isotropic) and self.isotropic >= 0):
            raise ValueError(f"fluorescence must be >= 0, got {self.isotropic}")
        if not 0 <= self.background < 1:
            raise ValueError(f"the share of the background must lie in 0 <= share < 1, got {self.background}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What an instrument writes, at its visible points."""

    two_theta: np.ndarray
    """(n,) float64 [degrees], shown."""
    intensity: np.ndarray
    """(n,) float64, counts over `unit`."""
    sigma: np.ndarray
    """(n,) float64, √counts over `unit`, 1/`unit` where there are none."""
    expected: np.ndarray
    """(n,) float64, the mean of `intensity` over many such measurements."""
    unit: np.ndarray
    """(n,) float64, photons over what is written."""


def ideal_window(instrument: Instrument) -> tuple[float, float]:
    """Q [Å⁻¹] that an ideal pattern has to cover: what is seen through all lines, misalignment and resolution."""
    first, last = instrument.q_window()
    ratios = [instrument.wavelength / wavelength for wavelength in instrument.radiation.wavelengths]
    _, gamma = _widths(instrument, np.array([first, last]))
    room = 0.15 + 20 * float(np.max(gamma))
    return max(0.0, first * min(ratios) - room), last * max(ratios) + room


def measure(
    q: np.ndarray,
    intensity: np.ndarray,
    instrument: Instrument,
    sample: Sample,
    *,
    peak_counts: float | None = None,
    seed: int = 0,
    noise: bool = True,
) -> Recorded:
    """What an instrument would have recorded.

    Args:
        q: (q,) float64 uniform [Å⁻¹], covering `ideal_window(instrument)`.
        intensity: (q,) float64 >= 0, ideal pattern of the dots, any unit.
        instrument: where.
        sample: how, and in what.
        peak_counts: photons at the highest point; None for what is usual there.
        seed: of the Poisson draw.
        noise: False for the expected values (with the σ that their counts would have).

    Raises:
        ValueError: a grid too short or too coarse, negative intensities, or a dose that is not positive.
    """
    dose = instrument.peak_counts if peak_counts is None else peak_counts
    if not (math.isfinite(dose) and 0 < dose <= 1e15):
        raise ValueError(f"the counts at the highest point must be > 0 (and <= 1e15), got {dose}")
    shown = angle_grid(instrument.first_deg, instrument.last_deg, instrument.step_deg)
    shown = shown[visible(shown, instrument.first_deg, instrument.last_deg, instrument.gaps_deg)]
    angle = np.radians(shown)
    signal = recorded_intensity(q, intensity, instrument, sample, angle)
    efficiency, pixels, unit = factors(instrument, angle)
    photons = efficiency * signal
    if sample.background > 0:
        flat = pixels * (photons.sum() / pixels.sum())
        photons = (1 - sample.background) * photons + sample.background * flat
    photons = photons * peak_scale(photons, dose)
    # What is written at the highest point is its photons over `counts_per_unit`.
    unit = unit * (instrument.counts_per_unit / unit[np.argmax(photons)])
    counts = np.random.default_rng(seed).poisson(photons).astype(float) if noise else photons
    return Recorded(
        two_theta=shown,
        intensity=counts / unit,
        sigma=counting_sigma(counts, unit),
        expected=photons / unit,
        unit=unit,
    )


def recorded_intensity(
    q: np.ndarray, intensity: np.ndarray, instrument: Instrument, sample: Sample, two_theta: np.ndarray
) -> np.ndarray:
    """Steps 1 to 4: what is scattered towards each shown angle, per solid angle.

    Args:
        q: (q,) float64 uniform [Å⁻¹].
        intensity: (q,) float64 >= 0.
        instrument: where.
        sample: how, and in what.
        two_theta: (n,) float64 [rad], shown.

    Returns:
        (n,) float64, >= 0, mean 1 over the visible Q.

    Raises:
        ValueError: a grid too short or too coarse, or negative intensities.
    """
    step = _check_ideal(q, intensity, instrument)
    low, high = instrument.q_window()
    inside = (q >= low) & (q <= high)
    if sample.isotropic > 0:  # `factors` polarise everything
        factor = polarisation(two_theta_of(q, instrument.wavelength), instrument.in_plane)
        intensity = intensity + sample.isotropic / np.maximum(factor, 1e-3)
    ideal = (1 - sum(sample.solvents.values())) * intensity / intensity[inside].mean()
    if sample.solvents:
        from hpc.liquids.terms import liquid_profile

        for name, share in sample.solvents.items():
            profile = liquid_profile(name, q[q > 0], energy_kev=instrument.radiation.energy_kev)
            profile = np.pad(profile, (q.size - profile.size, 0), mode="edge")  # Q = 0 is never seen
            ideal = ideal + share * profile / profile[inside].mean()
    radiation = instrument.radiation
    moved = seen(ideal, q, radiation.wavelengths, radiation.weights, _shift(q, instrument, sample))
    sigma, gamma = _widths(instrument, q)
    blurred = broaden(
        moved, sigma, gamma, step=step, sigma_max=float(sigma.max()), gamma_max=float(gamma.max())
    )
    return np.maximum(interpolate(blurred, (q_of(two_theta, instrument.wavelength) - q[0]) / step), 0.0)


def factors(instrument: Instrument, two_theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What turns an intensity per solid angle into photons.

    Args:
        instrument: which.
        two_theta: (n,) float64 [rad], > 0.

    Returns:
        (n,) float64 each, but for constants: photons per intensity, pixels per step, and photons per written intensity.
    """
    one = np.ones_like(two_theta)
    flat = instrument.geometry == "flat_panel"
    pixels = ring_pixels(two_theta) if flat else one
    by_name = {
        "polarisation": polarisation(two_theta, instrument.in_plane),
        "solid_angle": solid_angle_flat(two_theta) if flat else one,
    }
    efficiency = pixels * by_name["polarisation"] * by_name["solid_angle"]
    if instrument.geometry == "debye_scherrer":
        efficiency = efficiency * capillary_absorption(two_theta, instrument.mu_r)
    if instrument.geometry == "bragg_brentano":
        efficiency = efficiency * thin_film(two_theta, instrument.mu_t)
    if instrument.slits == "automatic":
        efficiency = efficiency * constant_length(two_theta)
    unit = pixels * math.prod((by_name[name] for name in instrument.corrected), start=one)
    return efficiency, pixels, unit


def _shift(q: np.ndarray, instrument: Instrument, sample: Sample) -> np.ndarray | float:
    """ΔQ of zero error and displacement; number 0 for an aligned instrument."""
    wavelength, radius = instrument.wavelength, instrument.radius_mm
    total: np.ndarray | float = 0.0
    if sample.zero_deg:
        total = total + zero_shift(q, wavelength, math.radians(sample.zero_deg))
    if sample.displacement_mm:
        if abs(sample.displacement_mm) > radius / 10:
            raise ValueError(
                f"the displacement must be below a tenth of the radius, {radius:g} mm, "
                f"got {sample.displacement_mm:g} mm"
            )
        if instrument.geometry == "bragg_brentano":
            total = total + displacement_shift(q, wavelength, sample.displacement_mm, radius)
        else:
            if instrument.geometry == "flat_panel":  # the ray to a flat detector is longer
                radius = radius / np.cos(np.minimum(two_theta_of(q, wavelength), math.radians(85)))
            total = total + capillary_shift(q, wavelength, sample.displacement_mm, 0.0, radius)
    return total


def _widths(instrument: Instrument, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """σ and γ at each Q; beyond the instrument's angles those of its last one."""
    first, last = instrument.q_window()
    return widths(np.clip(q, first, last), instrument.wavelength, *instrument.resolution.radians())


def _check_ideal(q: np.ndarray, intensity: np.ndarray, instrument: Instrument) -> float:
    """Step of the grid.

    Raises:
        ValueError: the ideal pattern cannot be used.
    """
    low, high = instrument.q_window()
    check_reach(high, instrument.wavelength)
    if q.ndim != 1 or q.shape != intensity.shape or q.size < 16:
        raise ValueError(f"an ideal pattern needs at least 16 points, got {q.shape} and {intensity.shape}")
    step = float(q[-1] - q[0]) / (q.size - 1)
    if step <= 0 or np.abs(np.diff(q) - step).max() > 1e-6 * abs(step) + 1e-9:
        raise ValueError("the Q of an ideal pattern must be uniform and growing")
    if q[0] > low or q[-1] < high:
        raise ValueError(
            f"the ideal pattern must cover Q = {low:.4g} to {high:.4g} Å⁻¹, which {instrument.name} sees at "
            f"2θ = {instrument.first_deg:g} to {instrument.last_deg:g}°, got {q[0]:.4g} to {q[-1]:.4g} Å⁻¹"
        )
    if not np.all(np.isfinite(intensity)) or intensity.min() < 0 or intensity.max() <= 0:
        raise ValueError(
            f"intensities must be >= 0, finite and not all 0 to be counted, got {intensity.min():g} to "
            f"{intensity.max():g}"
        )
    return step
