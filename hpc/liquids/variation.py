"""Families around a liquid: its ring moved, widened, heightened.

What a liquid scatters is its molecules' own scattering M(Q) times an ordering factor R(Q) > 0. The family keeps M and
changes R around the ring at Q_r of half width w:

    R'(Q) = R(u(Q)) [1 + (height - 1) g(Q/stretch)],   g(x) = exp(-(x - Q_r)²/2w²)
    u(Q)  = x + (1/width - 1)(x - Q_r) exp(-(x - Q_r)²/8w²),   x = Q / stretch

so that the ring comes to Q_r·stretch, is `width` times as wide and `height` times as high, nothing becomes negative,
and the three parameters equal to 1 give the liquid itself. u is monotonic for width > 0.31.

Symbols: q [Å⁻¹].
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from hpc.gather import gather
from hpc.liquids.terms import LiquidTerms

__all__ = ["varied"]

# Largest exponent of the bump around the ring.
_FAR = 20.0


def varied(terms: LiquidTerms, *, stretch: Any, width: Any, height: Any) -> Any:
    """A liquid with its ring moved, widened and heightened.

    Args:
        terms: the liquid on a uniform grid of Q, its arrays in the namespace and on the device of the parameters
            (`LiquidTerms.convert`). All but q may be (..., q) with rings (..., 1): a liquid for each row.
        stretch: (..., 1) factor on the position of the ring, > 0.
        width: (..., 1) factor on its width, > 0.31.
        height: (..., 1) factor on its height, > 0.

    Returns:
        (..., q) [as the terms].

    Raises:
        ValueError: the terms' grid is not uniform.
    """
    if not terms.uniform:
        raise ValueError(
            "a family of a liquid needs terms on a uniform grid of q; compute them on one, then regrid"
        )
    xp = array_namespace(terms.q, stretch, width, height)
    q, n = terms.q, terms.q.shape[-1]
    ratio = terms.total / terms.molecule
    x = q / stretch
    off = x - terms.ring
    # Beyond four widths the ring has no say; numbers below float32's range would cost a hundred times others.
    near = xp.exp(-xp.clip(off**2 / (8 * terms.ring_width**2), max=_FAR))
    u = x + (1 / width - 1) * off * near
    position = xp.clip((u - q[0]) * ((n - 1) / (q[n - 1] - q[0])), 0, n - 1)
    index = xp.clip(xp.astype(xp.floor(position), xp.int64), 0, n - 2)
    part = position - xp.astype(index, position.dtype)
    # A cubic through four points (E. Catmull & R. Rom, 1974): a straight line between two has a kink at every point,
    # where a fit of a million photons stays.
    ends = 2 * ratio[..., :1] - ratio[..., 1:2], 2 * ratio[..., -1:] - ratio[..., -2:-1]
    points = xp.concat([ends[0], ratio, ends[1]], axis=-1)
    # A liquid of its own for each row, or one for all.
    a, b, c, d = (gather(points[..., k:], index) for k in range(4))
    mapped = b + 0.5 * part * (c - a + part * (2 * a - 5 * b + 4 * c - d + part * (3 * (b - c) + d - a)))
    bump = 1 + (height - 1) * near**4
    return terms.molecule * mapped * bump
