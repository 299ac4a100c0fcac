"""Values of rows at positions of their own, for arrays of any namespace (array API standard)."""

from __future__ import annotations

from typing import Any

import array_api_compat

__all__ = ["gather"]

Array = Any  # an array of any namespace that follows the array API standard


def gather(y: Array, index: Array) -> Array:
    """Values at whole positions.

    Args:
        y: (..., n).
        index: int64, 0 to n - 1: (m,) for the same positions in all rows; (..., m) with the batch axes of y, or any
            where y is one row.

    Returns:
        (..., m).
    """
    if index.ndim == 1:
        return array_api_compat.array_namespace(y).take(y, index, axis=-1)
    if y.ndim == 1:
        return y[index]
    # The standard's function wraps negative indices, which in torch costs ten times the gathering itself.
    if array_api_compat.is_torch_array(y):
        return y.gather(-1, index)
    return array_api_compat.array_namespace(y).take_along_axis(y, index, axis=-1)
