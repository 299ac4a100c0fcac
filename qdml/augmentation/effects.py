"""Clean patterns -> what a detector would have counted: batched functions of (tensor, parameters, generator).

Each function treats every pattern of the batch with parameters of its own, on the device of its input, without a loop
over patterns. Randomness comes only from the generator that is passed in, so the same seed gives the same batch.

Symbols: B pattern, Q point of the grid, y intensity (any unit), step spacing of the grid [Å⁻¹].
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from qdml.preprocess import fft_length, gaussian_transfer, masked_mean

__all__ = [
    "KALPHA2_SCALE",
    "SmoothField",
    "blur",
    "mix",
    "normal_counts",
    "poisson_counts",
    "resample",
    "scale_reflections",
    "uniform",
    "window_mask",
    "with_kalpha2",
]

#: Cu Kα1 over Kα2 wavelength, 1.540593 / 1.544427 (J. A. Bearden, Rev. Mod. Phys. 39, 78, 1967): at the abscissa of
#: Kα1, the weaker line shows the pattern of Q times this. Its intensity is half of Kα1's.
KALPHA2_SCALE = 1.540593 / 1.544427
KALPHA2_SHARE = 1 / 3

# Wider than a reflection of a 2 nm dot, 2π·0.9/D = 0.28 Å⁻¹ [Å⁻¹].
_REFLECTION = 0.5


def uniform(low: torch.Tensor, high: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Uniform draws between two tensors of one shape."""
    return low + (high - low) * torch.rand(low.shape, generator=generator, device=low.device, dtype=low.dtype)


def poisson_counts(y_BQ: torch.Tensor, scale_B1: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Counting noise: y' = Poisson(y·scale)/scale, exactly.

    Args:
        y_BQ: (B, Q), >= 0.
        scale_B1: (B, 1) counts per unit of y.
        generator: of the device of y.
    """
    return torch.poisson(y_BQ * scale_B1, generator=generator) / scale_B1


def normal_counts(y_BQ: torch.Tensor, scale_B1: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Counting noise for many counts: y' = y + N(0, 1)·sqrt(y/scale), nowhere below 0.

    Seven times faster than `poisson_counts` on a CPU; above ~100 counts the distributions differ by less than 0.4 %
    (Berry-Esseen: skewness 1/sqrt(counts)).
    """
    noise = torch.randn(y_BQ.shape, generator=generator, device=y_BQ.device, dtype=y_BQ.dtype)
    return (y_BQ + noise * torch.sqrt(y_BQ / scale_B1)).clamp(min=0)


def mix(parts: list[tuple[torch.Tensor, torch.Tensor]], mask_BQ: torch.Tensor) -> torch.Tensor:
    """Sum of patterns with given shares of the visible area.

    Args:
        parts: (share (B, 1), pattern (B, Q) or (1, Q)) each; shares of one pattern add up to 1.
        mask_BQ: (B, Q) float, 1 where visible.

    Returns:
        (B, Q), of mean 1 over the visible points.
    """
    return torch.stack([share / masked_mean(y, mask_BQ) * y for share, y in parts]).sum(dim=0)


def blur(
    y_BQ: torch.Tensor, width_B1: torch.Tensor, shift_B1: torch.Tensor, *, step: float, reach: float
) -> torch.Tensor:
    """Convolve with the instrument's Gaussian and shift along Q, in one FFT.

    Args:
        y_BQ: (B, Q).
        width_B1: (B, 1) standard deviation [Å⁻¹].
        shift_B1: (B, 1) [Å⁻¹]; the result at Q is y at Q + shift.
        step: [Å⁻¹].
        reach: largest |shift| plus four times the largest width [Å⁻¹]: how far the ends are continued (linearly).
    """
    n = y_BQ.shape[1]
    pad = math.ceil(reach / step) + 1
    length = fft_length(n + 2 * pad)
    # The FFT is periodic: a ramp between the two ends keeps the jump between them away from the pattern.
    left, right = y_BQ[:, :1], y_BQ[:, -1:]
    ramp = torch.linspace(0, 1, length - n - 2 * pad + 2, device=y_BQ.device, dtype=y_BQ.dtype)[1:-1]
    padded = torch.cat(
        [left.expand(-1, pad), y_BQ, right.expand(-1, pad), right + (left - right) * ramp], dim=1
    )
    frequency = torch.fft.rfftfreq(length, device=y_BQ.device, dtype=y_BQ.dtype)
    phase = 2 * torch.pi * frequency * (shift_B1 / step)
    transfer = gaussian_transfer(length, width_B1 / step, y_BQ) * torch.complex(
        torch.cos(phase), torch.sin(phase)
    )
    return torch.fft.irfft(torch.fft.rfft(padded) * transfer, n=length)[:, pad : pad + n]


def resample(y_BQ: torch.Tensor, position_Q: torch.Tensor) -> torch.Tensor:
    """Catmull-Rom interpolation of every pattern at the same fractional grid positions (clamped to the grid).

    Args:
        y_BQ: (B, Q).
        position_Q: (Q,) positions in points, 0..Q-1.
    """
    n = y_BQ.shape[1]
    position_Q = position_Q.clamp(0, n - 1)
    left = position_Q.floor().clamp(max=n - 2)
    t = position_Q - left
    index = left.long()
    weights = (
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )
    taps = (index - 1).clamp(min=0), index, index + 1, (index + 2).clamp(max=n - 1)
    return torch.stack([y_BQ[:, tap] * weight for tap, weight in zip(taps, weights, strict=True)]).sum(dim=0)


def with_kalpha2(y_BQ: torch.Tensor, has_B1: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Add the Kα2 line where `has` is 1; the total intensity stays.

    Args:
        y_BQ: (B, Q) pattern of Kα1.
        has_B1: (B, 1) 0 or 1.
        q: (Q,) [Å⁻¹], uniform.
    """
    step = q[1] - q[0]
    second = resample(y_BQ, (q * KALPHA2_SCALE - q[0]) / step)
    return y_BQ + has_B1 * KALPHA2_SHARE * (second - y_BQ)


def scale_reflections(y_BQ: torch.Tensor, gain_BQ: torch.Tensor, *, step: float) -> torch.Tensor:
    """Multiply the reflections, not the diffuse scattering under them.

    What lies under the reflections is the morphological opening of the pattern with a window wider than a reflection
    of the smallest dots, smoothed.

    Args:
        y_BQ: (B, Q).
        gain_BQ: (B, Q) factor, > 0.
        step: [Å⁻¹].
    """
    half = max(1, round(_REFLECTION / (2 * step)))
    pad = functional.pad(y_BQ[:, None], (2 * half, 2 * half), mode="replicate")
    lowest = -functional.max_pool1d(-pad, 2 * half + 1, stride=1)
    under = functional.max_pool1d(lowest, 2 * half + 1, stride=1)
    under_BQ = functional.avg_pool1d(under, 2 * half + 1, stride=1, padding=half, count_include_pad=False)[
        :, 0
    ]
    return under_BQ + (y_BQ - under_BQ) * gain_BQ


def window_mask(first_B1: torch.Tensor, last_B1: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(B, Q) float, 1 where first <= Q <= last."""
    return ((q >= first_B1) & (q <= last_B1)).to(first_B1.dtype)


class SmoothField:
    """Random functions of Q with mean 0, standard deviation 1 and features no shorter than `length`.

    z(Q) = Σ_k w_k b_k(Q), w_k normal, b_k Gaussians of standard deviation `length` at knots `length` apart, scaled to
    unit variance at every Q. The correlation of z falls to 1/e over 2·`length`.
    """

    def __init__(self, q: torch.Tensor, length: float) -> None:
        """Tabulate the bumps.

        Args:
            q: (Q,) [Å⁻¹].
            length: [Å⁻¹].
        """
        knots = np.arange(float(q[0]) - 2 * length, float(q[-1]) + 2.5 * length, length)
        basis = np.exp(-0.5 * ((q.cpu().double().numpy() - knots[:, None]) / length) ** 2)
        basis /= np.sqrt((basis**2).sum(axis=0))
        self._basis_KQ = torch.as_tensor(basis, dtype=q.dtype, device=q.device)

    def draw(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """(n, Q) random functions."""
        basis = self._basis_KQ
        weights = torch.randn(
            (n, basis.shape[0]), generator=generator, device=basis.device, dtype=basis.dtype
        )
        return weights @ basis
