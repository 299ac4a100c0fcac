"""What a fit assumes and what it leaves free: the values of `conf/fit/`, and what a user changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from hpc.named_files import read_named
from hpc.structure.variant import Variant

if TYPE_CHECKING:
    from hpc.instrument.setup import Instrument
    from qdml.files.patterns import Pattern

__all__ = ["FitSettings", "fit_settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """Everything about a fit but the pattern. The meaning of each value stands in `conf/fit/default.yaml`."""

    variants: tuple[Variant, ...]
    """Sorts of dots; more than one are a mixture with free fractions, one size distribution and one set of B."""
    solvents: tuple[str | Pattern, ...]
    """Liquids of `conf/liquid/` by name, or measured patterns."""
    containers: tuple[str, ...]
    """Walls and windows of `conf/container/` by name."""
    fixed: Mapping[str, float]
    """Parameters that are held, by name; `diameter_nm` only together with `sigma`."""
    instrument: Instrument | None
    """An `hpc.instrument` set-up, or None for perfect resolution and one line."""
    q_step: float
    q_range: tuple[float, float]
    model_error: float
    correlation_shells: int
    correlation_tail: float
    halo_shells: int
    halo_b: float
    texture: Literal["direction", "reflection"] | None
    texture_groups: int
    background_knots: tuple[float, float]
    background_near: float
    liquid_stretch: float
    scale_degree: int
    diameter_volume_nm: tuple[float, float]
    sigma: tuple[float, float]
    strain: tuple[float, float]
    b_factor: tuple[float, float]
    correlation: tuple[float, float]
    zero_deg: float
    b_prior: tuple[float, float]
    correlation_prior: tuple[float, float]
    start_diameters_nm: tuple[float, ...]
    start_sigma: float
    start_b_factor: float
    start_correlation: tuple[float, ...]
    starts: int
    largest_nm: tuple[float, float]

    def __post_init__(self) -> None:
        if not self.variants:
            raise ValueError("a fit needs at least one sort of dots, got none")
        for name, low in (("q_step", 0.0), ("halo_b", 0.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > low):
                raise ValueError(f"{name} must be > {low:g}, got {value}")
        for name in ("model_error", "zero_deg", "liquid_stretch"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value < 1):
                raise ValueError(f"{name} must lie in 0 to 1, got {value}")
        for name in (
            "q_range",
            "diameter_volume_nm",
            "sigma",
            "strain",
            "b_factor",
            "correlation",
            "largest_nm",
        ):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"{name} must be two rising numbers, got {low:g} and {high:g}")
        for name, least in (
            ("correlation_shells", 0),
            ("halo_shells", 0),
            ("scale_degree", 0),
            ("starts", 1),
            ("texture_groups", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not all(math.isfinite(size) and size > 0 for size in self.start_diameters_nm):
            raise ValueError(f"start_diameters_nm must be > 0 nm, got {list(self.start_diameters_nm)}")
        if self.correlation_tail and self.correlation_shells != 1:
            raise ValueError(
                "correlation_tail is the law beyond the first shell: set correlation_shells to 1, got "
                f"{self.correlation_shells}"
            )
        if not 0 <= self.correlation_tail <= 100:
            raise ValueError(f"correlation_tail must lie in 0 to 100 Å, got {self.correlation_tail}")
        if self.texture not in (None, "direction", "reflection"):
            raise ValueError(f"texture must be direction, reflection or null, got {self.texture!r}")
        if self.texture is not None and len(self.variants) > 1:
            raise ValueError(
                "free gains of reflections would choose the sort of dots reflection by reflection; fit an oriented "
                "sample with one sort of dots (leave out --also, or --texture)"
            )
        known = ["diameter_nm", *self.parameters()]
        if unknown := sorted(set(self.fixed) - set(known)):
            raise ValueError(f"parameters are {known}, got {unknown}")
        if "diameter_nm" in self.fixed and "sigma" not in self.fixed:
            raise ValueError("to hold diameter_nm, hold sigma too")

    def parameters(self) -> list[str]:
        """Names of the parameters that may be held."""
        from hpc.pairs.families import variant_kinds

        elements = sorted({kind.element for variant in self.variants for kind in variant_kinds(variant)})
        shells = range(1, self.correlation_shells + 1)
        return [
            "sigma",
            "strain",
            *(f"b_{x}" for x in elements),
            *(f"correlation_{n}" for n in shells),
            *(["correlation_tail"] if self.correlation_tail else []),
            "zero_deg",
        ]

    def as_record(self) -> dict[str, Any]:
        """The settings as JSON data."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {
            "variants": [variant.to_mapping() for variant in self.variants],
            "solvents": [one if isinstance(one, str) else one.source for one in self.solvents],
            "instrument": getattr(self.instrument, "name", None),
            "fixed": dict(self.fixed),
        }


def fit_settings(variants: Variant | tuple[Variant, ...], **changes: Any) -> FitSettings:
    """The settings of `conf/fit/default.yaml` with some of them changed.

    Args:
        variants: one sort of dots or several.
        changes: fields of `FitSettings`. An instrument brings the largest `zero_deg` that it is known for.

    Raises:
        ValueError: an unknown field, or a value that nobody can mean.
    """
    values = {
        **read_named("fit", "default"),
        "solvents": (),
        "containers": (),
        "fixed": {},
        "instrument": None,
        **changes,
    }
    known = {item.name for item in fields(FitSettings)} - {"variants"}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"settings of a fit are {sorted(known)}, got {unknown}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if values["instrument"] is not None and "zero_deg" not in changes:
        values["zero_deg"] = max(map(abs, values["instrument"].random.zero_deg))
    chosen = (variants,) if isinstance(variants, Variant) else tuple(variants)
    return FitSettings(variants=chosen, **values)
