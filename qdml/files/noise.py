"""How noisy a measured pattern is: standard deviations of its points, and of the points of a model's grid.

In this order: the file's third column; √N where intensities are whole numbers, as counts are; the scatter of
neighbouring points otherwise, as √(k y) with one k for the pattern. Third differences hold no pattern that is smooth
over four points, and their median absolute value is 0.6745 √20 standard deviations of independent normal noise.

Whole numbers may be counts times a factor. Where they scatter more than √N, the scatter is taken; where they scatter
less, a file has been smoothed or rebinned, and √N stays.

A point of a grid is the mean of n points of the file; its noise is σ/√n, as if they were independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Noise", "noise_of"]

# Scatter over √N from which whole numbers are not taken for counts.
_MORE_THAN_COUNTS = 1.5
# Of third differences of independent noise: median absolute value over the standard deviation.
_THIRD = 0.6745 * math.sqrt(20)
# Relative noise of a file that shows none: that of the brightest patterns of instruments, 10⁶ photons a point.
_INVISIBLE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Standard deviations of the points of a file."""

    sigma: np.ndarray
    """(point,) float64, > 0."""
    source: str
    """`third column`, `whole counts`, `scatter` or `none visible`."""

    @property
    def text(self) -> str:
        """Where the noise is known from, for a reader."""
        return {
            "third column": "noise from the third column",
            "whole counts": "noise of counts (whole numbers)",
            "scatter": "noise not declared: taken from the scatter of neighbouring points",
            "none visible": f"noise neither declared nor visible: {100 * _INVISIBLE:g} % of each point assumed",
        }[self.source]


def noise_of(intensity: np.ndarray, sigma: np.ndarray | None) -> Noise:
    """Standard deviations of the points of a file.

    Args:
        intensity: (point,) float64, at least 4 points.
        sigma: (point,) float64, ≥ 0, the file's own; None where it has none. A σ of 0 is that of no known point: it
            gets the largest one of the file.
    """
    if sigma is not None and (sigma > 0).any():
        return Noise(sigma=np.where(sigma > 0, sigma, sigma.max()), source="third column")
    # A count of 0 has an error of about 1; intensities that are not positive will be masked.
    root = np.sqrt(np.maximum(intensity, 1.0 if _whole(intensity) else _smallest(intensity)))
    scatter = float(np.median(np.abs(np.diff(intensity, n=3)) / root[1:-2])) / _THIRD
    if _whole(intensity) and scatter < _MORE_THAN_COUNTS:
        return Noise(sigma=root, source="whole counts")
    # Rounding of a written number is no noise.
    if scatter * float(np.median(root)) < 1e-6 * float(np.median(np.abs(intensity))):
        return Noise(sigma=_INVISIBLE * np.maximum(np.abs(intensity), root**2), source="none visible")
    return Noise(sigma=scatter * root, source="scatter")


def _whole(intensity: np.ndarray) -> bool:
    """Whether all are whole numbers ≥ 0, and not mere zeros and ones."""
    return bool((intensity >= 0).all() and (intensity == np.round(intensity)).all() and intensity.max() > 10)


def _smallest(intensity: np.ndarray) -> float:
    """A thousandth of the mean of what is positive: below it, √y says nothing of the noise."""
    positive = intensity[intensity > 0]
    return 1e-3 * float(positive.mean()) if len(positive) else 1.0
