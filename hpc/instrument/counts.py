"""Photons: how many are expected at a stated dose, and what is written beside them.

Expected counts are a pattern times a scale; the scale follows from the counts at the highest visible point, the usual
way to state how long somebody measured. What is written is counts over `unit` (a monitor, a correction, or 1 for raw
counts), and its standard deviation as instruments estimate it, from the counts that came: √N, and 1 where none came.

Arrays of NumPy, CuPy or torch (array API standard), with any batch axes. The draw itself belongs to whoever holds a
generator: N ~ Poisson(expected).
"""

from __future__ import annotations

from typing import Any

import array_api_compat

__all__ = ["counting_sigma", "peak_scale"]

Array = Any  # an array of any namespace that follows the array API standard


def peak_scale(y: Array, peak_counts: Array | float) -> Array:
    """Counts per unit of y for which the highest point expects `peak_counts`.

    Args:
        y: (..., q), >= 0.
        peak_counts: number or (..., 1).

    Returns:
        (..., 1).
    """
    xp = array_api_compat.array_namespace(y)
    return peak_counts / xp.max(y, axis=-1, keepdims=True)


def counting_sigma(counts: Array, unit: Array | float) -> Array:
    """σ column of counts / unit: √max(N, 1) / unit.

    Args:
        counts: (..., q) N, >= 0.
        unit: number or (..., q).
    """
    xp = array_api_compat.array_namespace(counts)
    return xp.sqrt(xp.clip(counts, min=1.0)) / unit
