"""Structural variants of a grid: the composed groups, and the product of the choices under `variants`.

    variants: null                              one variant: the composed groups shape, surface, lattice, ...
    variants:                                   every combination, the last group fastest
      shape: [sphere, cube]
      lattice: [ideal, {alpha_deg: 89.6}]
    variants:                                   or a list, one entry for each variant
      - {shape: sphere}
      - {shape: cube, faults: {growth: 0.02}}

A choice is the name of a file of its group, or keys that replace those of the composed group.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hpc.config_axis import mapping
from hpc.structure.material import Material
from hpc.structure.variant import GROUPS, Variant

__all__ = ["read_variants", "title"]

# More are a mistake: every variant has a basis of its own.
_MOST = 10_000


def read_variants(composed: Mapping[str, Any], choices: Any, material: Material) -> tuple[Variant, ...]:
    """The variants of a run.

    Args:
        composed: name of a group -> its composed keys.
        choices: the key `variants` of the configuration.
        material: of all variants.

    Raises:
        ValueError: a choice that does not exist or cannot be, or the same variant twice.
    """
    variants = []
    for chosen in _combinations(choices):
        groups = {name: _choose(f"variants.{name}", composed[name], chosen.get(name)) for name in GROUPS}
        try:
            variants.append(Variant.from_config({"material": material, **groups}))
        except ValueError as error:
            if not chosen:
                raise
            raise ValueError(f"variants: {dict(chosen)} cannot be: {error}") from None
    seen: dict[str, int] = {}
    for index, variant in enumerate(variants):
        first = seen.setdefault(str(variant.to_mapping()), index)
        if first != index:
            raise ValueError(
                f"variants must differ, numbers {first} and {index} are the same: {title(variant)}; remove one"
            )
    return tuple(variants)


def _combinations(choices: Any) -> list[Mapping[str, Any]]:
    """For each variant: group -> what was chosen."""
    if choices is None:
        return [{}]
    if isinstance(choices, Mapping):
        mapping("variants", choices, keys=list(GROUPS))
        for group, options in choices.items():
            if isinstance(options, str | Mapping) or not isinstance(options, Sequence) or not options:
                raise ValueError(f"variants.{group} must be a list of at least one choice, got {options!r}")
        listed: list[Mapping[str, Any]] = [
            dict(zip(choices, combination, strict=True))
            for combination in itertools.islice(itertools.product(*choices.values()), _MOST + 1)
        ]
    elif isinstance(choices, Sequence) and not isinstance(choices, str) and choices:
        listed = [dict(mapping("variants", choice, keys=list(GROUPS))) for choice in choices]
    else:
        raise ValueError(f"variants must map groups to lists of choices, or be null; got {choices!r}")
    if len(listed) > _MOST:
        raise ValueError(f"variants: there are more than {_MOST} combinations; choose fewer")
    return listed


def _choose(name: str, composed: Any, choice: Any) -> Any:
    """The keys of a group, or the name of its file."""
    if choice is None:
        return composed
    if isinstance(choice, str):
        return choice
    if not isinstance(choice, Mapping):
        raise ValueError(f"{name}: a choice is a name or a mapping of keys to values, got {choice!r}")
    return {**(composed or {}), **choice}


def title(variant: Variant) -> str:
    """One line: the shape, and what differs from the perfect cut."""
    changed = variant.to_mapping()
    shape = dict(changed.pop("shape"))
    words = [shape.pop("name"), *(f"{key}={_short(value)}" for key, value in shape.items())]
    for group, keys in changed.items():
        if group != "material":
            words += [f"{group}.{key}={_short(value)}" for key, value in keys.items()]
    return " ".join(words)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace(" ", "")
