"""Reading values and axes of a composed configuration: what is wrong is said with the name of its key."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Axis", "count", "mapping", "number", "switch"]


def number(name: str, value: Any, *, above: float | None = None, least: float | None = None) -> float:
    """A finite number within its bounds, or an error that names the key."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    if above is not None and not value > above:
        raise ValueError(f"{name} must be > {above:g}, got {value:g}")
    if least is not None and not value >= least:
        raise ValueError(f"{name} must be >= {least:g}, got {value:g}")
    return float(value)


def count(name: str, value: Any) -> int:
    """A whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    return value


def switch(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return value


def mapping(name: str, value: Any, *, keys: Sequence[str] | None = None) -> Mapping[str, Any]:
    """A mapping with no other than the given keys."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping of keys to values, got {value!r}")
    unknown = sorted(set(value) - set(keys)) if keys is not None else []
    if unknown:
        raise ValueError(f"{name} has the keys {list(keys or ())}, got {unknown}")
    return value


_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
# A range is text rather than a mapping, so that a list can replace it and the other way round in any override.
_RANGE = re.compile(rf"\s*({_NUMBER})\s+to\s+({_NUMBER})(?:\s+(step|in)\s+({_NUMBER}))?\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of the grid: a list of values, or a range with a step or a number of points."""

    values: tuple[float, ...] | None
    start: float | None
    stop: float | None
    step: float | None
    num: int | None

    @classmethod
    def read(cls, name: str, value: Any) -> Axis:
        """Read `[1, 2, 3]`, `2.5`, "2 to 10 step 0.5", "0 to 0.005 in 11" or "2 to 10" (Sobol).

        Raises:
            ValueError: anything else, an empty list or range.
        """
        if isinstance(value, str):
            match = _RANGE.fullmatch(value)
            if match is None:
                raise ValueError(
                    f"{name} must be a list, a number, 'START to STOP step STEP', 'START to STOP in COUNT' or, "
                    f"for a Sobol grid, 'START to STOP'; got {value!r}"
                )
            start, stop = float(match[1]), float(match[2])
            if stop < start:
                raise ValueError(f"{name} is an empty range: stop {stop:g} lies below start {start:g}")
            step, num = None, None
            if match[3] == "step":
                step = number(f"the step of {name}", float(match[4]), above=0)
            elif match[3] == "in":
                num = count(
                    f"the number of points of {name}", int(match[4]) if match[4].isdigit() else match[4]
                )
                if num > 1 and start == stop:
                    raise ValueError(f"{name} must not repeat a value, got {value!r}")
            return cls(values=None, start=start, stop=stop, step=step, num=num)
        items = value if isinstance(value, Sequence) else [value]
        if not items:
            raise ValueError(f"{name} must hold at least one value, got an empty list")
        values = tuple(number(name, item) for item in items)
        if len(set(values)) != len(values):
            raise ValueError(f"{name} must not repeat a value, got {list(values)}")
        return cls(values=values, start=None, stop=None, step=None, num=None)

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value."""
        if self.values is not None:
            return min(self.values), max(self.values)
        assert self.start is not None and self.stop is not None
        return self.start, self.stop
