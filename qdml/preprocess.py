"""A pattern as a network sees it: the one function that training, evaluation and prediction share.

Two presentations, chosen by the model's `input`:

- `area`: y over its mean in the visible window (the area normalisation of the published network). One channel.
- `log_smooth`: ln(y/mean) minus its Gaussian smooth of standard deviation 0.35 Å⁻¹, both over the visible window
  alone; the second channel is the mask. What varies slowly with Q (background, absorption, form factors) is removed,
  what sizes do to reflections stays, and weak reflections count as much as strong ones.

Symbols: B pattern, C channel, Q point of the grid, q [Å⁻¹].
"""

from __future__ import annotations

from functools import lru_cache

import torch

__all__ = ["CHANNELS", "SMOOTH_WIDTH", "fft_length", "gaussian_transfer", "masked_mean", "network_input"]

#: Channels of each kind of input.
CHANNELS = {"area": 1, "log_smooth": 2}

#: Standard deviation of the smooth that `log_smooth` subtracts [Å⁻¹].
SMOOTH_WIDTH = 0.35

# Points below a thousandth of the mean carry no counts worth a logarithm (a pattern has background everywhere).
_FLOOR = 1e-3


def network_input(
    intensity_BQ: torch.Tensor, mask_BQ: torch.Tensor, q: torch.Tensor, kind: str
) -> torch.Tensor:
    """Turn patterns into the input of a network.

    Args:
        intensity_BQ: (B, Q) float, any scale. Values where the mask is 0 are ignored (they must be finite).
        mask_BQ: (B, Q) bool or float, 1 where the pattern was measured.
        q: (Q,) float [Å⁻¹], uniform; on the CPU, so that reading its step does not wait for a GPU.
        kind: a key of `CHANNELS`.

    Returns:
        (B, C, Q) of the intensity's type.

    Raises:
        ValueError: unknown kind, or a pattern without visible points.
    """
    if kind not in CHANNELS:
        raise ValueError(f"input must be one of {sorted(CHANNELS)}, got {kind!r}")
    mask_BQ = mask_BQ.to(intensity_BQ.dtype)
    relative_BQ = intensity_BQ * mask_BQ / masked_mean(intensity_BQ, mask_BQ)
    if kind == "area":
        return relative_BQ[:, None]
    log_BQ = torch.log(relative_BQ.clamp(min=_FLOOR)) * mask_BQ
    step = float(q[1] - q[0])
    weight_BQ, sum_BQ = _smooth(torch.stack([mask_BQ, log_BQ]), SMOOTH_WIDTH / step)
    # The weight of the window's neighbourhood is at least about one point's wherever the mask is 1.
    rough_BQ = (log_BQ - sum_BQ / weight_BQ.clamp(min=1e-6)) * mask_BQ
    return torch.stack([rough_BQ, mask_BQ], dim=1)


def masked_mean(values_BQ: torch.Tensor, mask_BQ: torch.Tensor) -> torch.Tensor:
    """(B, 1) mean over the visible points."""
    return (values_BQ * mask_BQ).sum(dim=1, keepdim=True) / mask_BQ.sum(dim=1, keepdim=True).clamp(min=1)


def fft_length(minimum: int) -> int:
    """The smallest product of 2, 3 and 5 that is even and at least `minimum`: lengths that FFTs are fast for."""
    length = minimum + minimum % 2
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2


def gaussian_transfer(length: int, width: torch.Tensor | float, like: torch.Tensor) -> torch.Tensor:
    """(..., length/2 + 1) transfer function of a Gaussian of standard deviation `width` [points], (..., 1)."""
    frequency = torch.fft.rfftfreq(length, device=like.device, dtype=like.dtype)
    return torch.exp(-2 * (torch.pi * frequency * width) ** 2)


@lru_cache(maxsize=8)
def _smooth_length(n: int, width: float) -> int:
    # Zeros behind the pattern keep the FFT's two ends apart: four standard deviations are 6e-5 of the weight.
    return fft_length(n + int(4 * width) + 1)


def _smooth(values: torch.Tensor, width: float) -> torch.Tensor:
    """Gaussian smooth of the last axis with zeros beyond both ends."""
    n = values.shape[-1]
    length = _smooth_length(n, width)
    spectrum = torch.fft.rfft(values, n=length) * gaussian_transfer(length, width, values)
    return torch.fft.irfft(spectrum, n=length)[..., :n]
