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
            sine = np.clip(q * wavelengths[0] / (4 * np.pi), 0, 1)
            # Q = 4π/λ sin(2θ/2)
            self._slope = 2 * np.pi / wavelengths[0] * np.sqrt(1 - sine**2)

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
            rows: (row, q) float64, the pattern first.
            zero: zero error of 2θ [rad].
            slopes: whether to add the derivative of the first row by the zero error, as a last row.

        Returns:
            (row (+ 1), q) float64.
        """
        from scipy.interpolate import CubicSpline

        if self._broaden is not None:
            rows = self._broaden(rows)
        if not self._lines:
            return np.concatenate((rows, np.zeros((1, rows.shape[1])))) if slopes else rows
        if zero == 0 and len(self._lines) == 1:
            if not slopes:
                return rows
            bent = CubicSpline(self._q, rows[0])(self._q, 1)
            return np.concatenate((rows, -(self._slope * bent)[None]))
        spline = CubicSpline(self._q, rows, axis=1)
        reference = self._lines[0][0]
        seen = np.zeros((len(rows) + slopes, len(self._q)))
        # First order in the zero error: 0.3° of 2θ bend Q by 1e-5 Å⁻¹.
        true = self._q - zero * self._slope
        for wavelength, weight in self._lines:
            position = true * reference / wavelength
            seen[: len(rows)] += weight * spline(position)
            if slopes:
                bent = CubicSpline(self._q, rows[0])(position, 1)
                seen[-1] -= weight * reference / wavelength * self._slope * bent
        return seen
