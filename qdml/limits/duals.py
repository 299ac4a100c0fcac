"""Numbers with a derivative: forward differentiation of functions of torch along one direction.

A `Dual` is a tensor that carries a tangent through every function of torch that it is given to, by the table below, and
through functions that are not in it by `torch.func.jvp`. torch's own forward mode would do for all of them, but takes
0.3 ms for a product of a dual tensor with one that is none, however small: it asks a Python reference for the shape of
a tangent that is zero. Here that is 5 µs. Tangents may be batched by `torch.vmap` where values are not.

Functions that change a tensor in place have no rule here: they must not be used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.func import jvp
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

__all__ = ["derivative"]


def derivative(function: Callable[[Any], Any], x: Any, tangent: Any) -> tuple[Any, Any]:
    """Values of a function and its derivative along a direction.

    Args:
        function: of a tensor, or a tuple or a dictionary of them, and returns such.
        x: where.
        tangent: the direction, of the form of x; may be batched by `torch.vmap`.
    """
    result = function(tree_map(_pair, x, tangent))
    return tree_map(_plain, result), tree_map(_tangent_of, result)


class Dual(torch.Tensor):
    """A tensor with a tangent of the same shape."""

    tangent: torch.Tensor

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What a function returns, with its tangent."""
        kwargs = kwargs or {}
        name = function.__name__.strip("_")
        with torch._C.DisableTorchFunctionSubclass():
            value = function(*args, **kwargs)
            one = value[0] if isinstance(value, tuple | list) and len(value) else value
            if not isinstance(one, torch.Tensor) or (not one.is_floating_point() and not one.is_complex()):
                return value
            if name in _CONSTANT:
                return value
            if name in _LINEAR and isinstance(args[0], Dual):
                tangent = function(args[0].tangent, *args[1:], **kwargs)
            elif name in _RULES:
                tangent = _RULES[name](value, *args, **kwargs)
            else:
                tangent = _by_torch(function, args, kwargs)
            return tree_map(_pair, value, tangent)


def _pair(value: torch.Tensor, tangent: torch.Tensor) -> Dual:
    dual = value.as_subclass(Dual)
    dual.tangent = tangent
    return dual


def _plain(x: Any) -> Any:
    return x.as_subclass(torch.Tensor) if isinstance(x, Dual) else x


def _tangent_of(x: Any) -> torch.Tensor:
    return x.tangent if isinstance(x, Dual) else torch.zeros_like(x)


def _by_torch(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    leaves, form = tree_flatten((args, kwargs))
    places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Dual)]

    def of_duals(*duals: torch.Tensor) -> Any:
        replaced = list(leaves)
        for place, dual in zip(places, duals, strict=True):
            replaced[place] = dual
        args, kwargs = tree_unflatten(replaced, form)
        return function(*args, **kwargs)

    duals = [leaves[place] for place in places]
    return jvp(of_duals, tuple(_plain(dual) for dual in duals), tuple(dual.tangent for dual in duals))[1]


# Rules: of the value, and of the arguments as they came.


def _sum_of(sign: float) -> Callable[..., torch.Tensor]:
    def rule(value: torch.Tensor, x: Any, y: Any, *, alpha: float = 1) -> torch.Tensor:
        scale = sign * alpha
        if not isinstance(y, Dual):
            total = x.tangent
        elif not isinstance(x, Dual):
            total = y.tangent if scale == 1 else y.tangent * scale
        else:
            total = torch.add(x.tangent, y.tangent, alpha=scale)
        return total.expand(value.shape)

    return rule


def _product(multiply: Callable[[Any, Any], torch.Tensor]) -> Callable[..., torch.Tensor]:
    def rule(value: torch.Tensor, x: Any, y: Any) -> torch.Tensor:
        if not isinstance(y, Dual):
            return multiply(x.tangent, y)
        if not isinstance(x, Dual):
            return multiply(x, y.tangent)
        return multiply(x.tangent, y) + multiply(x, y.tangent)

    return rule


def _quotient(value: torch.Tensor, x: Any, y: Any) -> torch.Tensor:
    if not isinstance(y, Dual):
        return x.tangent / y
    falling = value * y.tangent
    return (x.tangent - falling) / y if isinstance(x, Dual) else falling / -y


def _plus_product(z_value: torch.Tensor, z: Any, x: Any, y: Any, *, value: float = 1) -> torch.Tensor:
    total = z.tangent.expand(z_value.shape) if isinstance(z, Dual) else None
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Dual):
            other = other.as_subclass(torch.Tensor)
            if total is None:
                total = (one.tangent * other * value).expand(z_value.shape)
            else:
                total = torch.addcmul(total, one.tangent, other, value=value)
    assert total is not None
    return total


def _joined(join: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def rule(value: torch.Tensor, parts: Any, *where: Any, **more: Any) -> torch.Tensor:
        return join([_tangent_of(part) for part in parts], *where, **more)

    return rule


def _where(value: torch.Tensor, condition: torch.Tensor, x: Any, y: Any) -> torch.Tensor:
    x, y = (one.tangent if isinstance(one, Dual) else 0.0 for one in (x, y))
    return torch.where(condition, x, y).expand(value.shape)


def _clamp(value: torch.Tensor, x: Any, *_: Any, **__: Any) -> torch.Tensor:
    return x.tangent * (value == x)


def _power(value: torch.Tensor, x: Any, n: float) -> torch.Tensor:
    return x.tangent * (n * x.as_subclass(torch.Tensor) ** (n - 1))


def _softmax(value: torch.Tensor, x: Any, dim: int, *_: Any, **__: Any) -> torch.Tensor:
    product = value * x.tangent
    return product - value * product.sum(dim=dim, keepdim=True)


_CONSTANT = {
    "zeros_like",
    "ones_like",
    "new_zeros",
    "new_ones",
    "full_like",
    "new_empty",
    "floor",
    "round",
    "detach",
}
# In their first argument.
_LINEAR = {
    "contiguous", "double", "expand", "expand_as", "fft_irfft", "fft_rfft", "flatten", "flip", "float", "gather", "get",
    "getitem", "index_select", "mean", "movedim", "neg", "reshape", "split", "squeeze", "sum", "take", "tensor_split",
    "to", "transpose", "unbind", "unflatten", "unsqueeze",
}  # fmt: skip
_RULES: dict[str, Callable[..., Any]] = {
    "add": _sum_of(1), "radd": _sum_of(1), "sub": _sum_of(-1),
    "rsub": lambda value, x, y: (-x.tangent).expand(value.shape),
    "mul": _product(torch.mul), "rmul": _product(torch.mul), "matmul": _product(torch.matmul),
    "div": _quotient, "truediv": _quotient, "rdiv": lambda value, x, y: _quotient(value, y, x),
    "rtruediv": lambda value, x, y: _quotient(value, y, x),
    "addcmul": _plus_product, "cat": _joined(torch.cat), "concat": _joined(torch.cat), "stack": _joined(torch.stack),
    "where": _where, "clamp": _clamp, "pow": _power,
    "maximum": lambda value, x, y: _where(value, torch.ge(x, y), x, y),
    "softmax": _softmax,
    "square": lambda value, x: x.tangent * (2 * x.as_subclass(torch.Tensor)),
    "erfc": lambda value, x: x.tangent * (torch.exp(-(x * x)) * (-2 / math.sqrt(math.pi))),
    "exp": lambda value, x: x.tangent * value,
    "log": lambda value, x: x.tangent / x,
    "log1p": lambda value, x: x.tangent / (1 + x),
    "sqrt": lambda value, x: x.tangent / (2 * value),
    "sin": lambda value, x: x.tangent * torch.cos(x),
    "cos": lambda value, x: x.tangent * -torch.sin(x),
}  # fmt: skip
