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

from hpc.liquids.terms import LiquidTerms

__all__ = ["varied"]


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
    """
    xp = array_namespace(terms.q, stretch, width, height)
    q, n = terms.q, terms.q.shape[-1]
    ratio = terms.total / terms.molecule
    x = q / stretch
    off = x - terms.ring
    u = x + (1 / width - 1) * off * xp.exp(-(off**2) / (8 * terms.ring_width**2))
    step = (q[n - 1] - q[0]) / (n - 1)
    position = xp.clip((u - q[0]) / step, 0, n - 1)
    index = xp.clip(xp.astype(xp.floor(position), xp.int64), 0, n - 2)
    part = position - xp.astype(index, position.dtype)
    # A liquid of its own for each row, or one for all.
    below, above = (
        xp.take_along_axis(ratio, at, axis=-1) if ratio.ndim > 1 else ratio[at] for at in (index, index + 1)
    )
    mapped = below * (1 - part) + above * part
    bump = 1 + (height - 1) * xp.exp(-(off**2) / (2 * terms.ring_width**2))
    return terms.molecule * mapped * bump
