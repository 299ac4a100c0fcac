"""A world in stages, and derivatives that go through them.

A recipe that is made of stages asks for its unknowns by name, where they enter, and calls each stage through `Stages`:

    strain = stage.unknown("strain")
    shown = stage(show, crystal, strain)

That calls functions. `Slopes` gives what they return together with its derivatives with respect to all unknowns that
have entered so far, and none of the others: a stage is differentiated forward in each of its inputs,

    ∂f = Σ_i (∂f/∂x_i) ∂x_i

along the columns of that input alone. Most unknowns enter late, or into something small.

Symbols: B pattern, K column, n numbers of one unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import jvp, vmap
from torch.utils._pytree import tree_map

__all__ = ["Slopes", "Stages", "Traced"]


class Stages:
    """Stages as they are."""

    def __init__(self, values: Mapping[str, torch.Tensor]) -> None:
        """Take the unknowns: name -> (B, n), or (B,)."""
        self._values = values

    def unknown(self, *names: str) -> Any:
        """Name -> value, of those that there are."""
        return {name: self._values[name] for name in names if name in self._values}

    def __call__(self, function: Callable[..., Any], *inputs: Any, **known: Any) -> Any:
        """What a function makes of results of other stages, of unknowns, and of what is known.

        Args:
            function: returns a tensor, or a tuple of them; rows do not depend on each other.
            inputs: of `unknown`, or what a stage has returned.
            known: what does not depend on unknowns.
        """
        return function(*inputs, **known)


@dataclass(frozen=True, slots=True)
class Traced:
    """A value and its derivatives."""

    value: Any
    """A tensor (B, ...), or a tuple or a dictionary of them."""
    slopes: Any
    """The same with (K, B, ...)."""
    columns: tuple[int, ...]
    """(K,) with respect to which unknowns."""

    def __iter__(self) -> Any:
        """The parts of a tuple."""
        for value, slopes in zip(self.value, self.slopes, strict=True):
            yield Traced(value, slopes, self.columns)


class Slopes(Stages):
    """Stages with derivatives."""

    def __init__(
        self,
        values: Mapping[str, torch.Tensor],
        columns: Mapping[str, range],
        slopes: Mapping[str, torch.Tensor],
    ) -> None:
        """Take the unknowns.

        Args:
            values: name -> (B, n), or (B,) where n is 1.
            columns: of those that derivatives are wanted of, name -> n numbers.
            slopes: of these, shaped like values: derivative of each number with respect to its column.
        """
        super().__init__(values)
        self._columns, self._slopes = columns, slopes

    def unknown(self, *names: str) -> Any:
        """The same, with derivatives where they are wanted."""
        values = super().unknown(*names)
        columns = tuple(column for name in values for column in self._columns.get(name, ()))
        if not columns:
            return values
        slopes, start = {}, 0
        for name, value in values.items():
            slopes[name] = value.new_zeros((len(columns), *value.shape))
            if name in self._columns:
                own = self._slopes[name]
                each = own[None] if own.ndim == 1 else torch.diag_embed(own).movedim(1, 0)
                slopes[name][start : start + len(each)] = each
                start += len(each)
        return Traced(values, slopes, columns)

    def __call__(self, function: Callable[..., Any], *inputs: Any, **known: Any) -> Any:
        """The same, with derivatives if any input has some."""
        values = [one.value if isinstance(one, Traced) else one for one in inputs]
        terms = []
        for index, one in enumerate(inputs):
            if isinstance(one, Traced):

                def of_input(x: Any, index: int = index) -> Any:
                    return function(*values[:index], x, *values[index + 1 :], **known)

                def along(slope: Any, one: Traced = one, of_input: Callable[..., Any] = of_input) -> Any:
                    return jvp(of_input, (one.value,), (slope,))[1]

                terms.append((one.columns, vmap(along)(one.slopes)))
        value = function(*values, **known)
        if not terms:
            return value
        columns = tuple(dict.fromkeys(column for own, _ in terms for column in own))
        if len(terms) == 1:
            return Traced(value, terms[0][1], columns)
        places = [[columns.index(column) for column in own] for own, _ in terms]

        def add(value: torch.Tensor, *slopes: torch.Tensor) -> torch.Tensor:
            total = value.new_zeros((len(columns), *value.shape))
            for place, one in zip(places, slopes, strict=True):
                total[place] += one
            return total

        return Traced(value, tree_map(add, value, *(slopes for _, slopes in terms)), columns)
