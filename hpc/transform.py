"""Pairs at distances -> partial sums: P(Q) = Σ_n c_n sin(Q r_n) / (Q r_n).

A matrix product of the numbers of pairs and a table of sines. On a uniform grid Q = Q_J + jδ the table needs few sines:

    sin(Qr) = sin(Q_J r) cos(jδr) + cos(Q_J r) sin(jδr),

so about 2√n_q sines and cosines for each distance make all n_q values. For a few rows the table itself is left out: the
rows multiply the factors of J, and two small matrix products with those of j finish the sum (about the flops of one
product with the table, and no memory for it). Any other Q goes through the table, sine by sine.

Both functions take arrays of NumPy, CuPy or torch and answer in kind (array API standard), and torch differentiates
them. In float64 throughout: phases Qr reach 10⁴, which float32 and TF32 cannot resolve.

Symbols: Q, q [Å⁻¹], r [Å], c number of ordered pairs, δ step of a uniform Q grid [Å⁻¹].
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat

__all__ = ["partial_sums", "sinc", "waves"]

Array = Any  # an array of any namespace that follows the array API standard

# Below this number of points the factors of a uniform grid save nothing.
_SHORTEST_GRID = 32
# Up to this number of rows their products with the factors cost less than the table (measured, 2000 points).
_FEW_ROWS = 24
# Entries of the sine table that exist at one time: 32 MiB.
_TABLE = 2**22
# Entries of the products of `waves` that exist at one time: half a MiB (measured, 440 x 3024 pairs).
_WAVES = 2**16


def sinc(x: Array) -> Array:
    """sin(x)/x, 1 at x = 0."""
    xp = array_api_compat.array_namespace(x)
    safe = xp.where(x == 0, xp.ones_like(x), x)
    return xp.where(x == 0, xp.ones_like(x), xp.sin(safe) / safe)


def partial_sums(counts: Array, distance: Array, q: Array) -> Array:
    """P(Q) of one pair of kinds, or of many rows of pair numbers that share their distances.

    Args:
        counts: (..., n) float64, ordered pairs at each distance.
        distance: (n,) float64 [Å].
        q: (q,) float64 [Å⁻¹], any sign (P is even). 0 gives the limit, the number of pairs.

    Returns:
        (..., q) float64.
    """
    xp = array_api_compat.array_namespace(distance)
    n, n_q = distance.shape[0], q.shape[0]
    rows = math.prod(counts.shape[:-1])
    step = _uniform_step(q)
    few = step is not None and rows <= _FEW_ROWS
    strip = max(1, _TABLE // max(1, rows * math.isqrt(n_q) if few else n_q))
    total = xp.zeros(
        (*counts.shape[:-1], n_q), dtype=distance.dtype, device=array_api_compat.device(distance)
    )
    for start in range(0, n, strip):
        c, r = counts[..., start : start + strip], distance[start : start + strip]
        if step is None:
            total = total + c @ sinc(r[:, None] * q[None, :])
        else:
            total = total + (_few_rows if few else _many_rows)(xp, c, r, q, step)
    return total


def waves(
    sines: Array, cosines: Array, distance: Array, first: float, step: float, n_q: int
) -> tuple[Array, Array]:
    """Σ_n a_n sin(Q r_n) and Σ_n b_n cos(Q r_n) of a few rows on a uniform grid of Q.

    The factors of the grid are powers of three phases per distance, so that sines cost nearly nothing beside the
    matrix products (rounding grows to about √n_q · 1e-16).

    Args:
        sines: (a, n) float64.
        cosines: (b, n) float64.
        distance: (n,) float64 [Å].
        first: first Q [Å⁻¹].
        step: of Q [Å⁻¹].
        n_q: points of Q.

    Returns:
        (a, n_q) and (b, n_q) float64.
    """
    xp = array_api_compat.array_namespace(distance)
    fine = math.isqrt(n_q - 1) + 1
    coarse = -(-n_q // fine)
    rows = sines.shape[0] + cosines.shape[0]
    # Strips whose products with the factors stay in the cache.
    strip = max(64, _WAVES // max(1, rows * coarse))
    total = xp.zeros((rows * coarse, fine), dtype=distance.dtype, device=array_api_compat.device(distance))
    for start in range(0, distance.shape[0], strip):
        here = slice(start, start + strip)
        r = distance[here]
        outer = _powers(xp, r, step * fine, coarse) * _phase(xp, r, first)
        inner = _powers(xp, r, step, fine)
        cos_outer, sin_outer = xp.real(outer), xp.imag(outer)
        a, b = sines[:, None, here], cosines[:, None, here]
        # (rows · J, n) @ (n, j)
        by_cosine = xp.reshape(xp.concat((a * sin_outer, b * cos_outer)), (rows * coarse, -1))
        by_sine = xp.reshape(xp.concat((a * cos_outer, -b * sin_outer)), (rows * coarse, -1))
        total = total + by_cosine @ xp.real(inner).T + by_sine @ xp.imag(inner).T
    waves_ = xp.reshape(total, (rows, -1))[:, :n_q]
    return waves_[: sines.shape[0]], waves_[sines.shape[0] :]


def _phase(xp: Any, distance: Array, q: float) -> Array:
    """exp(iQr)."""
    return xp.cos(q * distance) + 1j * xp.sin(q * distance)


def _powers(xp: Any, distance: Array, q: float, n: int) -> Array:
    """exp(ijQr) for j = 0..n-1, by doubling: (n, distance)."""
    powers = xp.ones_like(_phase(xp, distance, 0.0))[None, :]
    while powers.shape[0] < n:
        powers = xp.concat((powers, powers * _phase(xp, distance, q * powers.shape[0])[None, :]))
    return powers[:n]


def _uniform_step(q: Array) -> float | None:
    """Step of a uniform grid of Q >= 0, equal to rounding; None for any other."""
    n_q = q.shape[0]
    if n_q < _SHORTEST_GRID:
        return None
    xp = array_api_compat.array_namespace(q)
    first, last = float(q[0]), float(q[-1])
    step = (last - first) / (n_q - 1)
    if first < 0 or step <= 0:
        return None
    grid = first + step * xp.arange(n_q, dtype=q.dtype, device=array_api_compat.device(q))
    return step if float(xp.max(xp.abs(q - grid))) <= 8 * xp.finfo(q.dtype).eps * last else None


def _factors(xp: Any, distance: Array, q: Array, step: float) -> tuple[Array, Array, Array, Array]:
    """Sines and cosines of Q_J r (n, J), divided by r; those of jδr (n, j)."""
    n_q = q.shape[0]
    fine = math.isqrt(n_q - 1) + 1
    where = {"dtype": q.dtype, "device": array_api_compat.device(q)}
    coarse = float(q[0]) + step * fine * xp.arange(-(-n_q // fine), **where)
    # Distance 0 is added by `_finish`; here it must only not divide.
    inverse = xp.where(distance == 0, xp.zeros_like(distance), 1 / _nonzero(xp, distance))
    outer = distance[:, None] * coarse[None, :]
    inner = distance[:, None] * (step * xp.arange(fine, **where))[None, :]
    return xp.sin(outer) * inverse[:, None], xp.cos(outer) * inverse[:, None], xp.sin(inner), xp.cos(inner)


def _few_rows(xp: Any, counts: Array, distance: Array, q: Array, step: float) -> Array:
    sin_outer, cos_outer, sin_inner, cos_inner = _factors(xp, distance, q, step)
    # (..., J, n) @ (n, j)
    waves = (counts[..., None, :] * sin_outer.T) @ cos_inner + (
        counts[..., None, :] * cos_outer.T
    ) @ sin_inner
    return _finish(xp, xp.reshape(waves, (*counts.shape[:-1], -1))[..., : q.shape[0]], counts, distance, q)


def _many_rows(xp: Any, counts: Array, distance: Array, q: Array, step: float) -> Array:
    sin_outer, cos_outer, sin_inner, cos_inner = _factors(xp, distance, q, step)
    table = sin_outer[:, :, None] * cos_inner[:, None, :] + cos_outer[:, :, None] * sin_inner[:, None, :]
    waves = counts @ xp.reshape(table, (distance.shape[0], -1))[:, : q.shape[0]]
    return _finish(xp, waves, counts, distance, q)


def _finish(xp: Any, waves: Array, counts: Array, distance: Array, q: Array) -> Array:
    """Σ c sin(Qr)/r -> Σ c sin(Qr)/(Qr), with the limits at Q = 0 and r = 0."""
    at_zero = counts @ xp.astype(distance == 0, distance.dtype)
    everything = xp.sum(counts, axis=-1)
    return xp.where(q == 0, everything[..., None], waves / _nonzero(xp, q) + at_zero[..., None])


def _nonzero(xp: Any, x: Array) -> Array:
    return xp.where(x == 0, xp.ones_like(x), x)
