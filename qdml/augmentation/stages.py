"""A world in stages: what goes into each step from unknowns to a pattern.

A recipe that is made of stages asks for its unknowns by name, where they enter, and calls each stage through `Stages`:

    strain = stage.unknown("strain")
    shown = stage(show, crystal, strain)

That calls functions. Another kind of `Stages` may carry more along: derivatives (`qdml.limits.slopes`).

Symbols: B pattern, n numbers of one unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["Stages"]


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

    def linear(self, function: Callable[..., Any], x: Any, *inputs: Any, **known: Any) -> Any:
        """The same for a function that is linear in x, and takes many at once for the same inputs: (K, B, ...)."""
        return function(x, *inputs, **known)
