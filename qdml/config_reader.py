"""Composed YAML -> frozen dataclasses: every missing, unknown or mistyped key is named.

The dataclasses hold no defaults: values live in `conf/`. A field may be a number, text, a truth value, `T | None`,
`tuple[T, ...]`, `dict[str, T]`, a `Literal` (one of a few words), another dataclass, or a choice between dataclasses
whose `name` is a `Literal` and decides. Ranges of numbers may be written `2 to 10 step 0.5`, as the grids of
`qd-simulate` are.
"""

from __future__ import annotations

import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

__all__ = ["as_mapping", "read_config", "require", "require_range"]


def require(condition: bool, message: str) -> None:
    """Raise a ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_range(name: str, bounds: Sequence[float], *, least: float, most: float = math.inf) -> None:
    """Raise a ValueError unless `bounds` is [low, high] inside [least, most]."""
    limit = f" <= {most:g}" if math.isfinite(most) else ""
    require(
        len(bounds) == 2 and least <= bounds[0] <= bounds[1] <= most,
        f"{name} must be [low, high] with {least:g} <= low <= high{limit}, got {list(bounds)}",
    )


def read_config(cls: type, mapping: Mapping[str, Any], where: str = "") -> Any:
    """Build a configuration class from nested plain mappings.

    Args:
        cls: one of the dataclasses above.
        mapping: the composed YAML.
        where: dotted key of `mapping`, for messages.

    Raises:
        ValueError: a key is missing or unknown, a value has the wrong type or cannot work.
    """
    prefix = f"{where}." if where else ""
    names = [field.name for field in fields(cls)]
    unknown = sorted(set(mapping) - set(names))
    missing = [name for name in names if name not in mapping]
    if unknown:
        raise ValueError(
            f"unknown key {prefix}{unknown[0]}; {where or 'the configuration'} has the keys {names}"
        )
    if missing:
        raise ValueError(f"the key {prefix}{missing[0]} is missing")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _read_value(hints[name], mapping[name], f"{prefix}{name}") for name in names})


def _read_value(kind: Any, value: Any, where: str) -> Any:
    """A plain value as the annotated type `kind`."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if type(None) not in options:
            return _read_choice(options, value, where)
        (kind,) = (option for option in options if option is not type(None))
        return None if value is None else _read_value(kind, value, where)
    if origin is typing.Literal:
        require(value in options, f"{where} must be one of {list(options)}, got {value!r}")
        return value
    if origin is tuple:
        if options[0] is float and isinstance(value, str):
            return _read_range(value, where)
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        require(is_list, f"{where} must be a list, got {value!r}")
        return tuple(_read_value(options[0], entry, f"{where}[{index}]") for index, entry in enumerate(value))
    if origin is dict:
        require(isinstance(value, Mapping), f"{where} must be a group of keys, got {value!r}")
        return {str(name): _read_value(options[1], one, f"{where}.{name}") for name, one in value.items()}
    if is_dataclass(kind):
        require(isinstance(value, Mapping), f"{where} must be a group of keys, got {value!r}")
        return read_config(typing.cast(type, kind), value, where)
    if (
        kind is float
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    ):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise ValueError(f"{where} must be of type {getattr(kind, '__name__', kind)}, got {value!r}")


def _read_choice(options: Sequence[type], value: Any, where: str) -> Any:
    """The dataclass whose `name` is the mapping's."""
    require(isinstance(value, Mapping), f"{where} must be a group of keys, got {value!r}")
    by_name = {
        name: option for option in options for name in typing.get_args(typing.get_type_hints(option)["name"])
    }
    name = value.get("name")
    require(name in by_name, f"{where}.name must be one of {sorted(by_name)}, got {name!r}")
    return read_config(by_name[name], value, where)


_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s+to\s+({_NUMBER})\s+step\s+({_NUMBER})\s*")


def _read_range(value: str, where: str) -> tuple[float, ...]:
    """`2 to 10 step 0.5` with its end, as the grid of `qd-simulate` has it."""
    match = _RANGE.fullmatch(value)
    if match is None:
        raise ValueError(f"{where} must be a list or 'START to STOP step STEP', got {value!r}")
    start, stop, step = (float(number) for number in match.groups())
    require(step > 0 and stop >= start, f"{where} is an empty range: {value!r}")
    # 1e-9: ten steps of 0.1 reach 1.0, whatever the last bit says. Rounded, so that 0.15 is 0.15.
    return tuple(round(start + i * step, 12) for i in range(math.floor((stop - start) / step + 1e-9) + 1))


def as_mapping(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON data: what `read_config` reads back."""
    return json.loads(json.dumps(asdict(config)))
