"""What the array API standard lacks: values of rows at positions of their own, constants that stay on a device, and
products that are added without a pass over memory of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat

__all__ = ["constant", "gather", "plus_product", "plus_rows", "rows_of_weight"]

Array = Any  # an array of any namespace that follows the array API standard

# Constants on their devices; begun anew when there are many (other grids, other instruments).
_kept: dict[tuple[Any, ...], Array] = {}
_MOST = 256


def constant(make: Callable[..., Any], *arguments: Any, like: Array) -> Array:
    """A table that is computed on the host, as an array like another; kept, since a transfer makes a GPU wait.

    Args:
        make: function of the arguments that returns a NumPy array, always the same.
        arguments: hashable.
        like: array whose namespace, type and device it gets.
    """
    xp = array_api_compat.array_namespace(like)
    device = array_api_compat.device(like)
    key = make, arguments, xp.__name__, str(like.dtype), str(device)
    if key not in _kept:
        if len(_kept) >= _MOST:
            _kept.clear()
        _kept[key] = xp.asarray(make(*arguments), dtype=like.dtype, device=device)
    return _kept[key]


def gather(y: Array, index: Array) -> Array:
    """Values at whole positions.

    Args:
        y: (..., n).
        index: whole numbers, 0 to n - 1: (m,) for the same positions in all rows; (..., m) with the batch axes of y, or
            any where y is one row.

    Returns:
        (..., m).
    """
    # The standard's functions wrap negative indices, which in torch costs ten times the gathering itself.
    torch = array_api_compat.is_torch_array(y)
    if y.ndim == 1:
        return y.index_select(0, index.reshape(-1)).reshape(index.shape) if torch else y[index]
    if index.ndim == 1:
        return (
            y.index_select(-1, index)
            if torch
            else array_api_compat.array_namespace(y).take(y, index, axis=-1)
        )
    if torch:
        return y.gather(-1, index)
    return array_api_compat.array_namespace(y).take_along_axis(y, index, axis=-1)


def plus_product(z: Array, x: Array, y: Array | float) -> Array:
    """Sum z + x y, in one pass over memory where torch can.

    Args:
        z: (..., n).
        x: broadcasts with it.
        y: the same, or a number.
    """
    if not array_api_compat.is_torch_array(z):
        return z + x * y
    return z.add(x, alpha=y) if isinstance(y, int | float) else z.addcmul(x, y)


def rows_of_weight(weight: Array | float, like: Array) -> Array | None:
    """(r,) int64 rows whose weight is not 0; None for all of them, and on a GPU, which would have to wait.

    Args:
        weight: number, or (..., 1).
        like: (..., n, m); None for any but n weights.
    """
    if isinstance(weight, int | float) or weight.ndim != 2 or like.shape[-2:-1] != weight.shape[:1]:
        return None
    xp = array_api_compat.array_namespace(weight)
    if str(array_api_compat.device(weight)) != "cpu" or xp.all(weight != 0):
        return None
    return xp.nonzero(weight[:, 0])[0]


def plus_rows(z: Array, x: Array, rows: Array) -> Array:
    """Sum of z and, in some of its rows, of x.

    Args:
        z: (..., n, m).
        x: (..., r, m).
        rows: (r,) int64.
    """
    if array_api_compat.is_torch_array(z):
        return z.index_add(-2, rows, x)
    total = array_api_compat.array_namespace(z).asarray(z, copy=True)
    total[..., rows, :] += x
    return total
