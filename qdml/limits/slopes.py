"""Derivatives that go through a world in stages.

A stage is differentiated forward in each of its inputs, along the unknowns that have entered it so far and none of the
others:

    ∂f = Σ_i (∂f/∂x_i) ∂x_i

Most unknowns enter late, or into something small.

Symbols: B pattern, K column, n numbers of one unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import vmap
from torch.utils._pytree import tree_map

from qdml.augmentation.stages import Stages
from qdml.limits.duals import derivative

__all__ = ["Slopes", "Traced"]

# Patterns times columns that go through a linear stage together on a CPU: more do not fit into the cache of a core.
_ROWS = 96


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
        return self._run(function, inputs, known)

    def linear(self, function: Callable[..., Any], x: Any, *inputs: Any, **known: Any) -> Any:
        """The same; derivatives of x are given to the function, too."""
        if not isinstance(x, Traced):
            return self._run(function, (x, *inputs), known)
        others = [_value(one) for one in inputs]
        rows = x.slopes.shape[1]
        together = max(1, _ROWS // rows) if x.slopes.device.type == "cpu" else len(x.slopes)
        slopes = torch.cat([function(some, *others, **known) for some in x.slopes.split(together)])
        rest = self._run(function, (x.value, *inputs), known)
        value = _value(rest)
        return _sum([Traced(value, slopes, x.columns), *([rest] if isinstance(rest, Traced) else [])])

    def _run(self, function: Callable[..., Any], inputs: tuple[Any, ...], known: Mapping[str, Any]) -> Any:
        values = [_value(one) for one in inputs]
        terms, value = [], None
        for index, one in enumerate(inputs):
            if not isinstance(one, Traced):
                continue

            def of_input(x: Any, index: int = index) -> Any:
                return function(*values[:index], x, *values[index + 1 :], **known)

            if len(one.columns) == 1:
                value, slope = derivative(of_input, one.value, tree_map(lambda slope: slope[0], one.slopes))
                slopes = tree_map(lambda slope: slope[None], slope)
            else:

                def along(slope: Any, one: Traced = one, of_input: Callable[..., Any] = of_input) -> Any:
                    return derivative(of_input, one.value, slope)

                # None: the value is that of all columns.
                value, slopes = vmap(along, out_dims=(None, 0))(one.slopes)  # type: ignore[arg-type]
            terms.append(Traced(value, slopes, one.columns))
        return _sum(terms) if terms else function(*values, **known)


def _value(one: Any) -> Any:
    return one.value if isinstance(one, Traced) else one


def _sum(terms: list[Traced]) -> Traced:
    """Columns of several inputs together; those of the same unknown are added."""
    if len(terms) == 1:
        return terms[0]
    place: dict[int, int] = {}
    for one in terms:
        for column in one.columns:
            place.setdefault(column, len(place))

    def add(value: torch.Tensor, *slopes: torch.Tensor) -> torch.Tensor:
        total = value.new_zeros((len(place), *value.shape))
        for one, slope in zip(terms, slopes, strict=True):
            for run, start in _runs([place[column] for column in one.columns]):
                total[start : start + len(run)] += slope[run.start : run.stop]
        return total

    return Traced(terms[0].value, tree_map(add, terms[0].value, *(one.slopes for one in terms)), tuple(place))


def _runs(places: list[int]) -> list[tuple[range, int]]:
    """Consecutive places as slices: which of the list, and the first place."""
    found, first = [], 0
    for index in range(1, len(places) + 1):
        if index == len(places) or places[index] != places[index - 1] + 1:
            found.append((range(first, index), places[first]))
            first = index
    return found
