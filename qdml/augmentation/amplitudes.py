"""Scattering amplitudes of the elements of dots at few points of Q, for a photon energy and a strain of each pattern.

    f(Q, E) = f0(s) + f'(E) + i f''(E)            `hpc.form_factors`

Dots are computed in the frame of the crystal, q' = Q(1+ε), where their atoms do not move with strain; f belongs to
Q = q'/(1+ε). f0 and the incoherent part follow ln Q by their Taylor series about q', f' and f'' are read from a table
over ln E.

Symbols: B pattern, E element, T energy of the table, J point of q'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hpc.form_factors import compton, dispersion, scattering_factor
from qdml.augmentation.tables import table

__all__ = ["Amplitudes"]

# Points of the table of f', f'' in ln E: steps of 0.1 % over a factor of ten.
_ENERGIES = 2048
# Step in ln q of the derivatives, and what it is worth at most for the series: strain of 2 % leaves 2e-6 of f.
_STEP = 0.01


class Amplitudes:
    """f of some elements."""

    def __init__(
        self,
        elements: Sequence[str],
        q: np.ndarray,
        energy_kev: tuple[float, float],
        *,
        anomalous: bool,
        with_compton: bool,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Tabulate.

        Args:
            elements: chemical symbols.
            q: (J,) float64 [Å⁻¹], q'.
            energy_kev: range of photon energies [keV].
            anomalous: whether f' and f'' are there at all.
            with_compton: whether `incoherent` is.
            device: of the batches.
            dtype: of the tables.

        Raises:
            ValueError: an energy outside the tables, or q outside those of f0.
        """

        def to_device(values: object) -> torch.Tensor:
            return table(values, device, dtype)

        self._log_low = float(np.log(energy_kev[0]))
        log_high = float(np.log(energy_kev[1]))
        n = _ENERGIES if log_high > self._log_low else 2
        self._per_step = (n - 1) / ((log_high - self._log_low) or 1.0)
        energies = np.exp(np.linspace(self._log_low, log_high, n))
        beyond_f0 = np.zeros((len(elements), 2, n))
        if anomalous:
            for index, element in enumerate(elements):
                f = dispersion(element, energies)
                beyond_f0[index] = f.real, f.imag
        # (T, 2E): one read of the table for all.
        self._dispersion_TE = to_device(beyond_f0.reshape(-1, n).T)
        stretch = np.exp(_STEP * np.arange(-1, 2))
        self._f0 = [
            to_device(term)
            for term in _taylor(
                [[scattering_factor(e, q * x, anomalous=False).real for e in elements] for x in stretch]
            )
        ]
        self._incoherent: list[torch.Tensor] | None = None
        if with_compton:
            self._incoherent = [
                to_device(term) for term in _taylor([[compton(e, q * x) for e in elements] for x in stretch])
            ]

    def __call__(
        self, energy_B1: torch.Tensor, strain_B1: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Real (B, E, J) and imaginary (B, E, 1) amplitudes [electrons], and (B, E, J) incoherent scattering.

        Args:
            energy_B1: [keV]; beyond the range it counts as its end.
            strain_B1: ε.
        """
        position_B = ((energy_B1[:, 0].log() - self._log_low) * self._per_step).clamp(
            0, len(self._dispersion_TE) - 1
        )
        below_B = position_B.floor().clamp(max=len(self._dispersion_TE) - 2)
        part_B1 = (position_B - below_B)[:, None]
        index_B = below_B.long()
        low_BE, high_BE = self._dispersion_TE[index_B], self._dispersion_TE[index_B + 1]
        f1_BE1, f2_BE1 = (low_BE + part_B1 * (high_BE - low_BE)).unflatten(1, (-1, 2, 1)).unbind(dim=2)
        x_B11 = -torch.log1p(strain_B1)[:, :, None]
        real_BEJ = _series(self._f0, x_B11) + f1_BE1
        return real_BEJ, f2_BE1, None if self._incoherent is None else _series(self._incoherent, x_B11)


def _taylor(values: list[list[np.ndarray]]) -> tuple[np.ndarray, ...]:
    """Value and first two derivatives in ln q, the second halved, from values at three points."""
    below, here, above = (np.array(one) for one in values)
    return here, (above - below) / (2 * _STEP), (above - 2 * here + below) / (2 * _STEP**2)


def _series(terms: Sequence[torch.Tensor], x_B11: torch.Tensor) -> torch.Tensor:
    value_EJ, first_EJ, second_EJ = terms
    return value_EJ + x_B11 * (first_EJ + x_B11 * second_EJ)
