"""The model-error floor: how far a forward model is from a measured pattern, beside counting noise.

Real patterns are never fitted to their statistics (0.1 %): models are off by one or a few percent of the intensity, in
features as wide as reflections. Weights from counts alone trust what the model cannot say. Here the model is right up
to a factor 1 + δ(Q) with a smooth Gaussian random δ,

    y = I (1 + δ) + counting noise,   <δ δ'> = φ² e^{-(Q - Q')²/2ℓ²}

that is the covariance Σ = diag(σ²) + φ² I I' e^{-(Q - Q')²/2ℓ²}. Without a length ℓ the errors of different points are
independent: σ² + (φ I)² for each point, simple weights, which trust an average over many points too much.

`error_modes` writes δ = Σ_m u_m e_m(Q) with independent standard normal u: for augmentation draw u; in a fit add the
columns I e_m as linear terms with the penalty |u|², which is the full covariance without a matrix of all points.

Functions of arrays take NumPy, CuPy or torch and answer in kind (array API standard); torch differentiates them.

Symbols: Q, q [Å⁻¹], y, I intensity, σ its standard deviation by counting, φ floor (relative), ℓ length [Å⁻¹], m mode.
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat
import numpy as np

__all__ = ["error_covariance", "error_modes", "floor_variance"]

Array = Any  # an array of any namespace that follows the array API standard

# Of bumps from the ends of q, in lengths: what is left out there is 1e-5 of the variance.
_BEYOND = 3.0


def floor_variance(variance: Array, intensity: Array, floor: Array) -> Array:
    """σ² + (φ I)²: the variance of points whose model errors are independent.

    Args:
        variance: (..., q) float64, of counting.
        intensity: (..., q) float64, the model (or the measured values) in the same unit.
        floor: φ, number or (..., 1): 0.01 is 1 % of the intensity.

    Returns:
        (..., q) float64.
    """
    return variance + (floor * intensity) ** 2


def error_covariance(intensity: Array, q: Array, *, floor: float, length: float) -> Array:
    """Covariance of smooth model errors, without counting noise.

    Args:
        intensity: (q,) float64.
        q: (q,) float64 [Å⁻¹].
        floor: φ.
        length: ℓ [Å⁻¹].

    Returns:
        (q, q) float64.

    Raises:
        ValueError: a floor below 0 or a length that is not positive.
    """
    _check(floor, length)
    xp = array_api_compat.array_namespace(intensity)
    scaled = floor * intensity
    return scaled[:, None] * scaled[None, :] * xp.exp(-0.5 * ((q[:, None] - q[None, :]) / length) ** 2)


def error_modes(q: np.ndarray, *, floor: float, length: float) -> np.ndarray:
    """Modes of δ: the sum of their products is the covariance φ² e^{-(Q - Q')²/2ℓ²}.

    Gaussian bumps of standard deviation ℓ/√2 at a spacing of ℓ/√2: the sum of their products is the kernel to 1e-4
    (Poisson's sum: 2e^{-π²}).

    Args:
        q: (q,) float64 [Å⁻¹], increasing.
        floor: φ.
        length: ℓ [Å⁻¹].

    Returns:
        (mode, q) float64.

    Raises:
        ValueError: a floor below 0 or a length that is not positive.
    """
    _check(floor, length)
    # Bumps beyond the ends, so that the ends are like the middle.
    centre = np.arange(q[0] - _BEYOND * length, q[-1] + _BEYOND * length, length / math.sqrt(2))
    return floor * math.pi**-0.25 * np.exp(-(((q[None, :] - centre[:, None]) / length) ** 2))


def _check(floor: float, length: float) -> None:
    if not (math.isfinite(floor) and floor >= 0):
        raise ValueError(f"the model-error floor must be >= 0 (0.01 is 1 % of the intensity), got {floor}")
    if not (math.isfinite(length) and length > 0):
        raise ValueError(f"the length of model errors must be > 0 1/Å, got {length}")
