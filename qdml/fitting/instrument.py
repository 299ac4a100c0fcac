"""What an instrument does to a pattern on the grid of a fit: resolution, lines of the radiation, zero error of 2θ.

Everything is linear in the pattern. Positions go through a cubic spline, whose slope gives the derivative by
the zero error.

Symbols: q [Å⁻¹] uniform; zero: what the instrument's 2θ is too large by [rad].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hpc.form_factors import HC_KEV_ANGSTROM
from hpc.instrument.angles import cos_theta, zero_shift

__all__ = ["Optics"]


class Optics:
    """Resolution, doublet and zero error of one instrument on one grid."""

    def __init__(
        self,
        q: np.ndarray,
        *,
        wavelengths: tuple[float, ...] | None,
        weights: tuple[float, ...] = (1.0,),
        broaden: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Tabulate positions.

        Args:
            q: (q,) float64 [Å⁻¹], uniform.
            wavelengths: lines [Å], the reference first; None where 2θ is unknown, then there is no zero error.
            weights: their relative intensities.
            broaden: (row, q) -> (row, q), the resolution; None for a perfect one.
        """
        self._q, self._broaden = q, broaden
        self._lines = list(zip(wavelengths, weights, strict=True)) if wavelengths else []
        if wavelengths:
            # dQ/d2θ = (2π/λ) cos θ
            self._slope = 2 * np.pi / wavelengths[0] * cos_theta(q, wavelengths[0])

    @classmethod
    def of(cls, instrument: Any, q: np.ndarray, *, energy_kev: float | None) -> Optics:
        """The optics of a set-up of `hpc.instrument`, or, without one, of a perfect instrument at this energy.

        Args:
            instrument: the set-up, or None.
            q: (q,) float64 [Å⁻¹], uniform.
            energy_kev: photon energy [keV] of the pattern; None where 2θ is unknown.
        """
        if instrument is None:
            return cls(q, wavelengths=None if energy_kev is None else (HC_KEV_ANGSTROM / energy_kev,))
        raise NotImplementedError

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

        if self._broaden is not None:
            rows = self._broaden(rows)
        last = np.zeros((rows.shape[0], int(slopes), rows.shape[2]))
        if not self._lines or (zero == 0 and len(self._lines) == 1 and not slopes):
            return np.concatenate((rows, last), axis=1)
        shown = np.zeros_like(rows)
        shift, bend = self._shift(zero)
        spline = CubicSpline(self._q, rows, axis=-1)
        for wavelength, weight in self._lines:
            ratio = self._lines[0][0] / wavelength
            position = (self._q + shift) * ratio
            shown += weight * spline(position)
            if slopes:
                last[:, 0] += weight * ratio * bend * CubicSpline(self._q, rows[:, 0], axis=-1)(position, 1)
        return np.concatenate((shown, last), axis=1)

    def _shift(self, zero: float) -> tuple[np.ndarray, np.ndarray]:
        """(q,) ΔQ of `hpc.instrument.angles.zero_shift`, and its derivative by the zero error."""
        shift = zero_shift(self._q, self._lines[0][0], zero)
        slope = -0.5 * self._q * np.sin(zero / 2) - self._slope * np.cos(zero / 2)
        return shift, slope
