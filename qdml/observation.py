"""What a user has of a sample: a pattern, its noise, what of it is visible, and what is known of the measurement.

Networks, fits and limits start from the same `Observation`, whether it was measured or drawn. *Conditions* are known to
whoever measures (instrument, energy, resolution, counts); everything else about a sample is not.

Symbols: B pattern, Q point of the grid, K condition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qdml.batch import Batch

if TYPE_CHECKING:
    import torch

__all__ = ["CONDITIONS", "LEAST_WIDTH", "WIDTHS_AT", "Observation", "conditions", "voigt_fwhm"]

#: What is known of a measurement, in this order.
CONDITIONS = (
    "log_wavelength",  # ln(λ/Å) of the first line
    "log_width_2",  # ln of the FWHM [Å⁻¹] of the resolution, a Voigt function, at Q = 2 Å⁻¹
    "log_width_5",
    "log_width_10",
    "doublet",  # (λ2 - λ1)/λ1 in percent; 0 for one line
    "plate",  # 1 for a flat sample in reflection (a dried film), 0 otherwise
    "log_counts",  # ln of the mean photons per grid point over the visible window
)

#: Where the resolution is stated [Å⁻¹].
WIDTHS_AT = (2.0, 5.0, 10.0)

#: Narrower resolutions [Å⁻¹] are stated as this one: a sixtieth of the reflections of a dot of 10 nm.
LEAST_WIDTH = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation(Batch):
    """Measured, or drawn as if measured: one row per pattern."""

    intensity: torch.Tensor
    """(B, Q) float32, any scale; finite where the mask is 0."""
    noise: torch.Tensor
    """(B, Q) float32, declared standard deviation of the counting noise, same scale."""
    mask: torch.Tensor
    """(B, Q) float32, 1 where measured."""
    conditions: torch.Tensor
    """(B, K) float32, `CONDITIONS`."""


def voigt_fwhm(sigma: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """Full width at half maximum of Voigt functions, to 2e-4 of it.

    J. J. Olivero & R. L. Longbothum, J. Quant. Spectrosc. Radiat. Transfer 17, 233 (1977).

    Args:
        sigma: standard deviation of the Gaussian.
        gamma: half width at half maximum of the Lorentzian.
    """
    gaussian2 = 8 * math.log(2) * sigma**2
    return 1.0692 * gamma + (0.86639 * gamma**2 + gaussian2).sqrt()


def conditions(
    *,
    wavelength_B: torch.Tensor,
    widths_B3: torch.Tensor,
    doublet_B: torch.Tensor,
    plate_B: torch.Tensor,
    counts_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B, K) `CONDITIONS` of a batch; without the last, the counts, where these are not known yet.

    Args:
        wavelength_B: of the first line [Å].
        widths_B3: full widths of the resolution at `WIDTHS_AT` [Å⁻¹].
        doublet_B: (λ2 - λ1)/λ1 in percent.
        plate_B: 1 for flat samples in reflection.
        counts_B: mean photons per visible grid point; less than one counts as one.
    """
    import torch

    columns = [wavelength_B.log()[:, None], widths_B3.clamp(min=LEAST_WIDTH).log()]
    columns += [doublet_B[:, None], plate_B[:, None]]
    if counts_B is not None:
        columns.append(counts_B.clamp(min=1).log()[:, None])
    return torch.cat(columns, dim=1)
