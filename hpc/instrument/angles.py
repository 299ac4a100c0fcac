"""Scattering angles: 2θ and Q, and what a misaligned instrument does to them.

    Q = 4π sin θ / λ

An instrument that is off by z shows the angle 2θ_shown = 2θ_true + z; a pattern that is plotted over the shown angle
has at Q the intensity of Q + ΔQ,

    ΔQ = Q(2θ - z) - Q(2θ) = Q (cos(z/2) - 1) - (4π/λ) cos θ sin(z/2),

which is what the functions here return and what `hpc.instrument.lines.seen` takes. Errors:

- zero of the 2θ circle: z the same everywhere;
- sample surface off the axis of a Bragg-Brentano diffractometer by s (positive away from the tube and the detector, so
  that lines move to lower angles): z = -2 s cos θ / R, with R the radius of the goniometer. International Tables for
  Crystallography C (2004), table 5.2.4.1 and 5.2.3.1;
- capillary off the axis of a Debye-Scherrer camera by x along the beam (positive downstream) and y across it (positive
  towards growing 2θ): z = (y cos 2θ - x sin 2θ) / R.

Both follow from the triangle of sample, axis and detector, to first order in the displacement over R.

All functions take arrays of NumPy, CuPy or torch (array API standard), with any batch axes, and answer in kind. Q
beyond 4π/λ, which no angle reaches, gets the values of 2θ = π: a grid may be longer than what one instrument sees, and
a mask hides the rest. `check_reach` refuses it where nobody masks.

Symbols: q, Q [Å⁻¹], two_theta, 2θ [rad], λ wavelength [Å], lengths s, x, y, R in one unit of any kind.
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat

__all__ = [
    "capillary_shift",
    "check_reach",
    "cos_theta",
    "displacement_shift",
    "q_of",
    "sin_theta",
    "two_theta_of",
    "zero_shift",
]

Array = Any  # an array of any namespace that follows the array API standard


def q_of(two_theta: Array, wavelength: Array | float) -> Array:
    """Q = 4π sin θ / λ.

    Args:
        two_theta: (..., q) [rad].
        wavelength: number or (..., 1) [Å].
    """
    xp = array_api_compat.array_namespace(two_theta)
    return (4 * math.pi / wavelength) * xp.sin(two_theta / 2)


def two_theta_of(q: Array, wavelength: Array | float) -> Array:
    """2θ [rad] of Q; π beyond 4π/λ.

    Args:
        q: (..., q) [Å⁻¹].
        wavelength: number or (..., 1) [Å].
    """
    xp = array_api_compat.array_namespace(q)
    return 2 * xp.asin(sin_theta(q, wavelength))


def sin_theta(q: Array, wavelength: Array | float) -> Array:
    """Sine of θ, Qλ/4π, at most 1."""
    xp = array_api_compat.array_namespace(q)
    return xp.clip(q * (wavelength / (4 * math.pi)), max=1.0)


def cos_theta(q: Array, wavelength: Array | float) -> Array:
    """Cosine of θ, 0 beyond Q = 4π/λ."""
    xp = array_api_compat.array_namespace(q)
    square = 1 - sin_theta(q, wavelength) ** 2
    reached = square > 0
    # The root of 1 where there is no angle: its derivative is finite.
    return xp.where(reached, xp.sqrt(xp.where(reached, square, xp.ones_like(q))), xp.zeros_like(q))


def zero_shift(q: Array, wavelength: Array | float, zero: Array | float) -> Array:
    """ΔQ [Å⁻¹] of a zero error: the shown Q belongs to the true Q + ΔQ.

    Args:
        q: (..., q) [Å⁻¹], of the shown angle.
        wavelength: number or (..., 1) [Å].
        zero: number or (..., 1) [rad], 2θ_shown - 2θ_true.

    Returns:
        (..., q), negative where `zero` is positive.
    """
    xp = array_api_compat.array_namespace(q, *_arrays(wavelength, zero))
    half = xp.asarray(zero, dtype=q.dtype) / 2 if isinstance(zero, int | float) else zero / 2
    # cos - 1 as a product: no digits are lost where the error is small.
    return -2 * q * xp.sin(half / 2) ** 2 - (4 * math.pi / wavelength) * cos_theta(q, wavelength) * xp.sin(
        half
    )


def displacement_shift(
    q: Array, wavelength: Array | float, displacement: Array | float, radius: Array | float
) -> Array:
    """ΔQ [Å⁻¹] of a sample surface that lies off the axis in Bragg-Brentano geometry.

    Args:
        q: (..., q) [Å⁻¹], of the shown angle.
        wavelength: number or (..., 1) [Å].
        displacement: number or (..., 1), away from tube and detector; unit of `radius`.
        radius: of the goniometer, number or (..., 1).
    """
    return zero_shift(q, wavelength, -2 * (displacement / radius) * cos_theta(q, wavelength))


def capillary_shift(
    q: Array,
    wavelength: Array | float,
    along: Array | float,
    across: Array | float,
    radius: Array | float,
) -> Array:
    """ΔQ [Å⁻¹] of a capillary that stands off the axis in Debye-Scherrer geometry.

    Args:
        q: (..., q) [Å⁻¹], of the shown angle.
        wavelength: number or (..., 1) [Å].
        along: number or (..., 1), downstream; unit of `radius`.
        across: number or (..., 1), towards growing 2θ; unit of `radius`.
        radius: from the axis to the detector, number or (..., 1).
    """
    sine, cosine = sin_theta(q, wavelength), cos_theta(q, wavelength)
    off = (across / radius) * (1 - 2 * sine**2) - (along / radius) * (2 * sine * cosine)
    return zero_shift(q, wavelength, off)


def check_reach(q_max: float, wavelength: float) -> None:
    """Whether a wavelength reaches Q at all.

    Raises:
        ValueError: the wavelength is no positive number, or too long.
    """
    if not (math.isfinite(wavelength) and wavelength > 0):
        raise ValueError(f"wavelength must be > 0 Å, got {wavelength}")
    reach = 4 * math.pi / wavelength
    if not q_max <= reach:
        raise ValueError(
            f"Q must be <= 4π/λ = {reach:.4g} Å⁻¹ at the wavelength {wavelength:g} Å, got {q_max:g}; "
            "take a shorter wavelength or a smaller Q"
        )


def _arrays(*values: Any) -> list[Any]:
    return [value for value in values if not isinstance(value, int | float)]
