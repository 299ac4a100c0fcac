"""A pattern as a network sees it: the one function that training, evaluation and prediction share.

Two presentations, chosen by the model's `input`:

- `area`: y over its mean in the visible window (the area normalisation of the published network). One channel.
- `log_smooth`: u minus its Gaussian smooth of standard deviation 0.35 Å⁻¹, both over the visible window alone, with

      u = ln n + asinh(y / 2n),    y relative to its mean, n its declared noise

  which is ln y where y is well above its noise, and linear, so free of the logarithm's outliers, where it is not. The
  second channel is the mask. What varies slowly with Q (background, absorption, form factors) is removed, what sizes
  do to reflections stays, and weak reflections count as much as strong ones.
- `area_mask`: `area`, with the mask as a second channel.

Symbols: B pattern, C channel, Q point of the grid, K condition, q [Å⁻¹].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from hpc.instrument.ends import fft_length
from qdml.batch import Batch

if TYPE_CHECKING:
    from qdml.observation import Observation

__all__ = [
    "CHANNELS",
    "SMOOTH_WIDTH",
    "NetworkInput",
    "masked_mean",
    "network_input",
]

#: Channels of each kind of input.
CHANNELS = {"area": 1, "area_mask": 2, "log_smooth": 2}

#: Standard deviation of the smooth that `log_smooth` subtracts [Å⁻¹].
SMOOTH_WIDTH = 0.35

# Noise of less than a thousandth of the mean is not resolved by the floor of the logarithm: background is everywhere.
_FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True)
class NetworkInput(Batch):
    """What a network is given of a batch of patterns."""

    pattern: torch.Tensor
    """(B, C, Q); the first channel is the pattern, 0 where it was not measured."""
    noise: torch.Tensor
    """(B, Q) declared standard deviation of the first channel's counting noise; 0 where not measured."""
    conditions: torch.Tensor
    """(B, K) what is known of the measurement, as `qdml.observation.CONDITIONS` lists it."""


def network_input(observation: Observation, q: torch.Tensor, kind: str) -> NetworkInput:
    """Turn measured-looking patterns into the input of a network.

    Args:
        observation: patterns of any scale with declared noise. Values where the mask is 0 are ignored (they must be
            finite).
        q: (Q,) float [Å⁻¹], uniform; on the CPU, so that reading its step does not wait for a GPU.
        kind: a key of `CHANNELS`.

    Returns:
        The input, of the intensity's type.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in CHANNELS:
        raise ValueError(f"input must be one of {sorted(CHANNELS)}, got {kind!r}")
    intensity_BQ = observation.intensity
    mask_BQ = observation.mask.to(intensity_BQ.dtype)
    mean_B1 = masked_mean(intensity_BQ, mask_BQ)
    relative_BQ = intensity_BQ * mask_BQ / mean_B1
    noise_BQ = observation.noise.to(intensity_BQ.dtype) * mask_BQ / mean_B1
    conditions = observation.conditions.to(intensity_BQ.dtype)
    if kind != "log_smooth":
        channels = [relative_BQ] if kind == "area" else [relative_BQ, mask_BQ]
        return NetworkInput(pattern=torch.stack(channels, dim=1), noise=noise_BQ, conditions=conditions)
    soft_BQ = noise_BQ.clamp(min=_FLOOR)
    log_BQ = (torch.asinh(relative_BQ / (2 * soft_BQ)) + soft_BQ.log()) * mask_BQ
    step = float(q[1] - q[0])
    weight_BQ, sum_BQ = _smooth(torch.stack([mask_BQ, log_BQ]), SMOOTH_WIDTH / step)
    # The weight of the window's neighbourhood is at least about one point's wherever the mask is 1.
    rough_BQ = (log_BQ - sum_BQ / weight_BQ.clamp(min=1e-6)) * mask_BQ
    return NetworkInput(
        pattern=torch.stack([rough_BQ, mask_BQ], dim=1),
        # The slope of u times the noise. The smooth adds a few percent of it, which nobody needs.
        noise=noise_BQ / (relative_BQ**2 + 4 * soft_BQ**2).sqrt(),
        conditions=conditions,
    )


def masked_mean(values_BQ: torch.Tensor, mask_BQ: torch.Tensor) -> torch.Tensor:
    """(B, 1) mean over the visible points."""
    return (values_BQ * mask_BQ).sum(dim=1, keepdim=True) / mask_BQ.sum(dim=1, keepdim=True).clamp(min=1)


@lru_cache(maxsize=8)
def _smooth_length(n: int, width: float) -> int:
    # Zeros behind the pattern keep the FFT's two ends apart: four standard deviations are 6e-5 of the weight.
    return fft_length(n + int(4 * width) + 1)


def _smooth(values: torch.Tensor, width: float) -> torch.Tensor:
    """Gaussian smooth of the last axis with zeros beyond both ends."""
    n = values.shape[-1]
    length = _smooth_length(n, width)
    frequency = torch.fft.rfftfreq(length, device=values.device, dtype=values.dtype)
    spectrum = torch.fft.rfft(values, n=length) * torch.exp(-2 * (torch.pi * frequency * width) ** 2)
    return torch.fft.irfft(spectrum, n=length)[..., :n]
