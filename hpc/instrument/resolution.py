"""Resolution: Voigt functions whose width grows with the angle.

    Gaussian     Γ_G² = U tan²θ + V tan θ + W      full width at half maximum in 2θ
    Lorentzian   Γ_L  = X tan θ + Y / cos θ

(G. Caglioti, A. Paoletti & F. P. Ricci, Nucl. Instrum. 3, 223 (1958); P. Thompson, D. E. Cox & J. B. Hastings, J. Appl.
Cryst. 20, 79 (1987), eqs. 7 to 9). All angles are in radians here, so U, V, W are in rad².

The function of an instrument is the convolution of the two, a Voigt function. Thompson, Cox & Hastings replaced it by a
pseudo-Voigt function of the same width, because that is quick to evaluate point by point; here the convolution is done
with Fourier transforms, where the Voigt function itself is the simpler one,

    exp(-σ²r²/2 - γ|r|),   σ = Γ_G / √(8 ln 2),   γ = Γ_L / 2   (in Å⁻¹: times dQ/d2θ = (2π/λ) cos θ),

and nothing is approximated. `pseudo_voigt` tells width and share of both, to compare with published ones.

A width that varies along Q is no convolution. But the factor above is a smooth function of (σ, γ, r) of low rank: its
values at a few distances r_m give it at all others,

    exp(-σ²r²/2 - γr) ≈ Σ_m ℓ_m(r) exp(-σ²r_m²/2 - γr_m)   for all 0 <= σ <= σ_max, 0 <= γ <= γ_max, 0 <= r <= π/step,

so the pattern is split once into the parts ℓ_m(r), by FFT, and every point of every pattern adds the parts with factors
of its own widths. Distances and ℓ_m come from cross approximation with complete pivoting (M. Bebendorf, Numer. Math.
86, 565 (2000)), which starts from r = 0 and from σ = γ = 0: so areas are conserved and the width 0 is the identity.
Between three parts (Gaussian of a synchrotron) and ten (Voigt functions of all instruments at once) suffice.

Widths enter at the point where they are seen, at each point of the result: a constant stays a constant. Against an
integral over 2θ this differs by terms of the order of (Γ in rad)², below 1e-5 of the peak for real instruments.

Symbols: Q, q [Å⁻¹], r [Å] variable of the Fourier transform over Q, two_theta, 2θ [rad], λ wavelength [Å].
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import array_api_compat
import numpy as np

from hpc.gather import constant, plus_product
from hpc.instrument.angles import cos_theta, sin_theta
from hpc.instrument.ends import continued, fft_length

__all__ = ["broaden", "fwhm", "pseudo_voigt", "widths"]

Array = Any  # an array of any namespace that follows the array API standard

_FWHM = math.sqrt(8 * math.log(2))
# Largest error of the factor exp(-σ²r²/2 - γr), for any σ, γ, r in range. On patterns the error is ten times smaller.
_TOLERANCE = 2e-4
# How far the ends are continued before the pattern is made periodic, in σ and in γ. The wings of a Lorentzian fall
# slowly, but over a continued end they only average.
_REACH_SIGMA, _REACH_GAMMA = 6.0, 12.0


def fwhm(
    two_theta: Array,
    u: Array | float,
    v: Array | float,
    w: Array | float,
    x: Array | float = 0.0,
    y: Array | float = 0.0,
) -> tuple[Array, Array]:
    """Full widths at half maximum in 2θ.

    Args:
        two_theta: (..., q) [rad], below π.
        u: number or (..., 1) [rad²]; as v and w.
        v: the same.
        w: the same.
        x: number or (..., 1) [rad], as y.
        y: the same.

    Returns:
        Gaussian and Lorentzian [rad], (..., q). A negative Γ² counts as 0.
    """
    xp = array_api_compat.array_namespace(two_theta)
    tangent = xp.tan(two_theta / 2)
    square = (u * tangent + v) * tangent + w
    return _root(xp, square), x * tangent + y / xp.cos(two_theta / 2)


def widths(
    q: Array,
    wavelength: Array | float,
    u: Array | float,
    v: Array | float,
    w: Array | float,
    x: Array | float = 0.0,
    y: Array | float = 0.0,
) -> tuple[Array, Array]:
    """Standard deviation of the Gaussian and half width of the Lorentzian, in Q.

    Finite everywhere, also at 2θ = π: the factors cos θ of dQ/d2θ and of tan θ cancel.

    Args:
        q: (..., q) [Å⁻¹].
        wavelength: number or (..., 1) [Å].
        u: number or (..., 1) [rad²]; as v and w.
        v: the same.
        w: the same.
        x: number or (..., 1) [rad]; as y.
        y: the same.

    Returns:
        σ and γ [Å⁻¹], (..., q). A negative Γ² counts as 0.
    """
    xp = array_api_compat.array_namespace(q)
    sine, cosine = sin_theta(q, wavelength), cos_theta(q, wavelength)
    per_rad = 2 * math.pi / wavelength
    square = (u * sine + v * cosine) * sine + w * cosine**2
    return per_rad / _FWHM * _root(xp, square), per_rad / 2 * (x * sine + y)


def pseudo_voigt(gaussian: Array, lorentzian: Array) -> tuple[Array, Array]:
    """Full width Γ and Lorentzian share η of the pseudo-Voigt function that resembles a Voigt function.

    Thompson, Cox & Hastings (1987), eqs. 4 and 5. The two functions differ by up to 1 % of the maximum.

    Args:
        gaussian: Γ_G, full width.
        lorentzian: Γ_L, full width, not both 0.
    """
    g, l = gaussian, lorentzian
    full = (
        g**5 + 2.69269 * g**4 * l + 2.42843 * g**3 * l**2 + 4.47163 * g**2 * l**3 + 0.07842 * g * l**4 + l**5
    ) ** 0.2
    ratio = l / full
    return full, ((0.11116 * ratio - 0.47719) * ratio + 1.36603) * ratio


def broaden(
    y: Array,
    sigma: Array | float,
    gamma: Array | float | None,
    *,
    step: float,
    sigma_max: float,
    gamma_max: float = 0.0,
) -> Array:
    """See patterns through a resolution that varies along Q and from pattern to pattern.

    Args:
        y: (..., q) on a uniform grid, any unit. The ends are continued by reflection in the end point.
        sigma: number, (..., 1) or (..., q), standard deviation of the Gaussian [Å⁻¹].
        gamma: the same for the half width of the Lorentzian [Å⁻¹]; None leaves it out.
        step: of the grid [Å⁻¹].
        sigma_max: the largest `sigma`; wider ones lose accuracy.
        gamma_max: the largest `gamma`.

    Returns:
        (..., q), differentiable with respect to y, sigma and gamma.

    Raises:
        ValueError: widths that are negative, not finite, or wider than the range of y.
    """
    xp = array_api_compat.array_namespace(y)
    n = y.shape[-1]
    if gamma is None:
        gamma_max = 0.0
    _check_widths(n, step, sigma_max, gamma_max)
    if sigma_max == 0 and gamma_max == 0:
        return y
    pad = min(n - 1, math.ceil((_REACH_SIGMA * sigma_max + _REACH_GAMMA * gamma_max) / step) + 1)
    length = fft_length(n + 2 * pad)
    case = length, float(step), float(sigma_max), float(gamma_max)
    parts, distances = constant(_factors, *case, like=y), _parts(*case)[1]
    spectrum = xp.fft.rfft(continued(xp, y, pad, length), axis=-1)
    # Once for all parts; the first has the distance 0, where all factors are 1.
    square = -0.5 * sigma**2
    total = None
    for index, r in enumerate(distances):
        seen = xp.fft.irfft(spectrum * parts[index], n=length, axis=-1)[..., :n]
        if total is None:
            total = seen
            continue
        exponent = (square * r) * r if gamma is None else (square * r - gamma) * r
        total = plus_product(
            total, seen, math.exp(exponent) if isinstance(exponent, float) else xp.exp(exponent)
        )
    return total


def _check_widths(n: int, step: float, sigma_max: float, gamma_max: float) -> None:
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"step must be > 0 Å⁻¹, got {step}")
    for name, value in (("sigma_max", sigma_max), ("gamma_max", gamma_max)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be >= 0 Å⁻¹, got {value}")
    span = (n - 1) * step
    if _FWHM * sigma_max + 2 * gamma_max >= span:
        raise ValueError(
            f"the resolution must be narrower than the range of Q, {span:.4g} Å⁻¹, got a full width of "
            f"{_FWHM * sigma_max + 2 * gamma_max:.4g} Å⁻¹; check the units of the widths"
        )


def _root(xp: Any, square: Array) -> Array:
    """Square root of what is positive, else 0; its derivative is finite everywhere."""
    positive = square > 0
    one = xp.ones_like(square)
    return xp.where(positive, xp.sqrt(xp.where(positive, square, one)), xp.zeros_like(square))


def _factors(*case: Any) -> np.ndarray:
    return _parts(*case)[0]


@lru_cache(maxsize=64)
def _parts(
    length: int, step: float, sigma_max: float, gamma_max: float
) -> tuple[np.ndarray, tuple[float, ...]]:
    """(m, length/2 + 1) float64 factors ℓ_m at the frequencies of the FFT, and their distances r_m [Å]."""
    longest = math.pi / step
    # Dense where the factors change fast, near 0.
    r = longest * (1 - np.cos(np.linspace(0, np.pi / 2, 400)))
    sigma = np.linspace(0, sigma_max, 49 if sigma_max > 0 else 1)[:, None]
    gamma = np.linspace(0, gamma_max, 25 if gamma_max > 0 else 1)[None, :]
    sigma, gamma = (a.ravel() for a in np.broadcast_arrays(sigma, gamma))

    def factor(rows: Any, distances: np.ndarray) -> np.ndarray:
        """exp(-σ²r²/2 - γr) of some of the widths, at any distances."""
        return np.exp(
            -0.5 * np.multiply.outer(sigma[rows] ** 2, distances**2)
            - np.multiply.outer(gamma[rows], distances)
        )

    table = factor(slice(None), r)
    rest, rows, columns = table.copy(), [0], [0]
    while True:
        rest -= np.outer(rest[:, columns[-1]], rest[rows[-1]] / rest[rows[-1], columns[-1]])
        row, column = np.unravel_index(np.argmax(np.abs(rest)), rest.shape)
        if abs(rest[row, column]) < _TOLERANCE:
            break
        rows.append(int(row))
        columns.append(int(column))
    at = np.minimum(2 * np.pi * np.fft.rfftfreq(length, step), longest)
    parts = np.linalg.solve(table[np.ix_(rows, columns)], factor(rows, at))
    return parts, tuple(float(x) for x in r[columns])
