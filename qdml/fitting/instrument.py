"""What an instrument does to a pattern on the grid of a fit.

Resolution, lines of the radiation, zero error of 2θ, and how much of what is scattered towards an angle it writes down:
polarisation, absorption, solid angle. Everything is linear in the pattern. Positions go through a cubic spline, whose
slope gives the derivative by the zero error.

Symbols: q [Å⁻¹] uniform; zero: what the instrument's 2θ is too large by [rad].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpc.form_factors import HC_KEV_ANGSTROM
from hpc.instrument.angles import cos_theta, two_theta_of, zero_shift
from hpc.instrument.recorded import factors
from hpc.instrument.resolution import broaden, widths

if TYPE_CHECKING:
    from hpc.instrument.setup import Instrument

__all__ = ["SAME_LINE", "Optics", "wavelength_of"]

# A wavelength this close to the first line [relative] is that of the radiation, or the mean of its lines.
SAME_LINE = 3e-3


class Optics:
    """Resolution, doublet and zero error of one instrument on one grid."""

    def __init__(
        self,
        q: np.ndarray,
        *,
        wavelength: float | None,
        lines: Sequence[tuple[float, float]] = (),
        resolution: tuple[float, float, float, float, float] | None = None,
        response: np.ndarray | None = None,
    ) -> None:
        """Tabulate widths and positions.

        Args:
            q: (q,) float64 [Å⁻¹], uniform.
            wavelength: with which 2θ has become Q [Å]; None where it is unknown, then there is no zero error.
            lines: wavelength [Å] and relative intensity of each; none for the one above.
            resolution: u, v, w [rad²], x, y [rad] of `hpc.instrument.resolution`; None for a perfect one.
            response: (q,) float64, written over scattered intensity; None for 1.
        """
        #: (q,) float64, of mean 1: what samples and solvents are multiplied with.
        self.response = np.ones(len(q)) if response is None else response / response.mean()
        self._q = q
        self._wavelength, self._lines = wavelength, list(lines)
        self._widths: tuple[np.ndarray, np.ndarray | None] | None = None
        if wavelength is None:
            return
        self._lines = self._lines or [(wavelength, 1.0)]
        self._moved = len(self._lines) > 1
        # dQ/d2θ = (2π/λ) cos θ
        self._slope = 2 * np.pi / wavelength * cos_theta(q, wavelength)
        if resolution is not None:
            sigma, gamma = widths(q, wavelength, *resolution)
            self._widths = sigma, gamma if gamma.any() else None

    @classmethod
    def of(cls, instrument: Instrument | None, q: np.ndarray, *, energy_kev: float | None) -> Optics:
        """The optics of a set-up, or, without one, of a perfect instrument at this energy.

        Args:
            instrument: the set-up, or None.
            q: (q,) float64 [Å⁻¹], uniform.
            energy_kev: photon energy [keV] with which 2θ has become Q; None where it is unknown.

        Raises:
            ValueError: the energy is unknown but the instrument needs it, or is not that of the instrument's lines.
        """
        if instrument is None:
            return cls(q, wavelength=None if energy_kev is None else HC_KEV_ANGSTROM / energy_kev)
        wavelength = wavelength_of(instrument, energy_kev)
        radiation = instrument.radiation
        # A monochromatic beam has the wavelength that is asked for.
        several = len(radiation.wavelengths) > 1
        lines = list(zip(radiation.wavelengths, radiation.weights, strict=True)) if several else []
        # Seen at 2θ: beyond 180° no instrument is, and its last angle stands for those.
        two_theta = two_theta_of(np.minimum(q, 0.999 * 4 * np.pi / wavelength), wavelength)
        photons, _, unit = factors(instrument, two_theta)
        return cls(
            q,
            wavelength=wavelength,
            lines=lines,
            resolution=instrument.resolution.radians(),
            response=photons / unit,
        )

    def apply(self, rows: np.ndarray, *, zero: float, slopes: bool) -> np.ndarray:
        """Rows as the instrument shows them.

        Args:
            rows: (part, row, q) float64, the pattern first.
            zero: zero error of 2θ [rad].
            slopes: whether to add the derivative of the first row by the zero error, as a last row.

        Returns:
            (part, row (+ 1), q) float64.
        """
        from scipy.interpolate import CubicSpline

        last = np.zeros((rows.shape[0], int(slopes), rows.shape[2]))
        if self._wavelength is None:
            return np.concatenate((rows, last), axis=1)
        if self._widths is not None:
            sigma, gamma = self._widths
            rows = broaden(
                rows,
                sigma,
                gamma,
                step=float(self._q[-1] - self._q[0]) / (len(self._q) - 1),
                sigma_max=float(sigma.max()),
                gamma_max=0.0 if gamma is None else float(gamma.max()),
            )
        if zero == 0 and not self._moved and not slopes:
            return rows * self.response
        shown = np.zeros_like(rows)
        shift, bend = self._shift(zero)
        spline = CubicSpline(self._q, rows, axis=-1)
        for wavelength, weight in self._lines:
            ratio = self._wavelength / wavelength
            position = (self._q + shift) * ratio
            shown += weight * spline(position)
            if slopes:
                last[:, 0] += weight * ratio * bend * CubicSpline(self._q, rows[:, 0], axis=-1)(position, 1)
        return np.concatenate((shown, last), axis=1) * self.response

    def _shift(self, zero: float) -> tuple[np.ndarray, np.ndarray]:
        """(q,) ΔQ of `hpc.instrument.angles.zero_shift`, and its derivative by the zero error."""
        assert self._wavelength is not None
        shift = zero_shift(self._q, self._wavelength, zero)
        slope = -0.5 * self._q * np.sin(zero / 2) - self._slope * np.cos(zero / 2)
        return shift, slope


def wavelength_of(instrument: Instrument, energy_kev: float | None) -> float:
    """The wavelength [Å] of a pattern, if the instrument can have measured it.

    Args:
        instrument: the set-up.
        energy_kev: photon energy [keV] with which 2θ has become Q; None where it is unknown.

    Raises:
        ValueError: the energy is unknown, or not that of the instrument's lines.
    """
    if energy_kev is None:
        raise ValueError(
            f"the resolution of {instrument.name} depends on the angle: the wavelength is needed beside --q-unit; add "
            "--wavelength or --energy-kev"
        )
    wavelength, lines = HC_KEV_ANGSTROM / energy_kev, instrument.radiation.wavelengths
    if len(lines) > 1 and abs(wavelength / lines[0] - 1) > SAME_LINE:
        raise ValueError(
            f"{instrument.name} has the lines {', '.join(f'{one:.5f}' for one in lines)} Å, the pattern "
            f"{wavelength:.5f} Å; give the wavelength of the instrument, or another --instrument"
        )
    return wavelength
