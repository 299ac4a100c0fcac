"""What `qd-simulate` is asked for: values live in `conf/`, types and every check on user input live here.

The classes hold no defaults. `SimulateConfig.from_mapping` reads the composed YAML and refuses what the simulation
could not do, before anything is computed or written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc.crystal import SHAPES
from hpc.material import Material

__all__ = ["Axis", "GridConfig", "QConfig", "ShapeConfig", "SimulateConfig", "StoreConfig"]


def _number(name: str, value: Any, *, above: float | None = None, least: float | None = None) -> float:
    """A finite number within its bounds, or an error that names the key."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    if above is not None and not value > above:
        raise ValueError(f"{name} must be > {above:g}, got {value:g}")
    if least is not None and not value >= least:
        raise ValueError(f"{name} must be >= {least:g}, got {value:g}")
    return float(value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    return value


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return value


def _mapping(name: str, value: Any, *, keys: Sequence[str] | None = None) -> Mapping[str, Any]:
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
                step = _number(f"the step of {name}", float(match[4]), above=0)
            elif match[3] == "in":
                num = _count(
                    f"the number of points of {name}", int(match[4]) if match[4].isdigit() else match[4]
                )
                if num > 1 and start == stop:
                    raise ValueError(f"{name} must not repeat a value, got {value!r}")
            return cls(values=None, start=start, stop=stop, step=step, num=num)
        items = value if isinstance(value, Sequence) else [value]
        if not items:
            raise ValueError(f"{name} must hold at least one value, got an empty list")
        values = tuple(_number(name, item) for item in items)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class GridConfig:
    """Which ensembles are simulated."""

    sampling: str
    """cartesian or sobol."""
    samples: int | None
    """Number of Sobol points, a power of two; null for a cartesian grid."""
    diameter_nm: Axis
    """Number-mean diameters [nm]."""
    sigma: Axis
    """Relative standard deviations."""
    strain: Axis
    b_scale: Axis
    """Factor on every Debye-Waller B."""
    tail: float
    """Fraction of the atoms of an ensemble that may lie beyond the largest particle."""

    def __post_init__(self) -> None:
        _number("grid.diameter_nm", self.diameter_nm.bounds[0], above=0)
        _number("grid.sigma", self.sigma.bounds[0], least=0)
        if self.sigma.bounds[1] > 1:
            raise ValueError(
                f"grid.sigma is relative (0.1 is 10 %) and must be <= 1, got {self.sigma.bounds[1]:g}"
            )
        if max(abs(bound) for bound in self.strain.bounds) > 0.1:
            raise ValueError(
                f"grid.strain is relative and must lie in -0.1 to 0.1, got {list(self.strain.bounds)}"
            )
        _number("grid.b_scale", self.b_scale.bounds[0], least=0)
        if not 0 < self.tail < 0.1:
            raise ValueError(f"grid.tail must lie in 0 to 0.1, got {self.tail}")
        axes = {
            "diameter_nm": self.diameter_nm,
            "sigma": self.sigma,
            "strain": self.strain,
            "b_scale": self.b_scale,
        }
        if self.sampling == "cartesian":
            if self.samples is not None:
                raise ValueError(
                    "grid.samples belongs to grid.sampling=sobol; leave it null for a cartesian grid"
                )
            for name, axis in axes.items():
                if axis.values is None and axis.step is None and axis.num is None:
                    raise ValueError(
                        f"grid.{name} is a range of a cartesian grid and needs 'step STEP' or 'in COUNT'"
                    )
        elif self.sampling == "sobol":
            if self.samples is None or _count("grid.samples", self.samples) & (self.samples - 1):
                raise ValueError(f"grid.samples must be a power of two for a Sobol grid, got {self.samples}")
            for name, axis in axes.items():
                if (
                    (axis.values is not None and len(axis.values) > 1)
                    or axis.step is not None
                    or axis.num is not None
                ):
                    raise ValueError(
                        f"grid.{name} of a Sobol grid is one value or 'START to STOP' without a step or a count"
                    )
        else:
            raise ValueError(f"grid.sampling must be 'cartesian' or 'sobol', got {self.sampling!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QConfig:
    """The scattering vectors of the stored patterns."""

    min: float
    """First q [Å⁻¹]."""
    max: float
    """Last q [Å⁻¹]; included when a whole number of steps reaches it."""
    step: float
    """Spacing [Å⁻¹]."""

    def __post_init__(self) -> None:
        _number("q.min", self.min, least=0)
        _number("q.step", self.step, above=0)
        if not self.max >= self.min + self.step:
            raise ValueError(
                f"the Q range is empty: q.max must be at least q.min + q.step, "
                f"got {self.min:g} to {self.max:g} in steps of {self.step:g} Å⁻¹"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeConfig:
    """The nested family of particles."""

    name: str
    centres: tuple[Any, ...] | None
    """Site labels or fractional coordinates; null for every site label."""

    def __post_init__(self) -> None:
        if self.name not in SHAPES:
            raise ValueError(f"shape.name must be one of {sorted(SHAPES)}, got {self.name!r}")
        if self.centres is not None and not self.centres:
            raise ValueError(
                "shape.centres must name at least one cut centre, or be null for all site labels"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where and in which pieces the patterns are kept."""

    path: str
    rows_per_shard: int
    """Samples that one rank computes, writes and commits at a time."""
    rows_per_chunk: int
    """Samples that a reader gets at a time; divides rows_per_shard."""

    def __post_init__(self) -> None:
        _count("store.rows_per_shard", self.rows_per_shard)
        _count("store.rows_per_chunk", self.rows_per_chunk)
        if self.rows_per_shard % self.rows_per_chunk:
            raise ValueError(
                f"store.rows_per_shard must be a multiple of store.rows_per_chunk, "
                f"got {self.rows_per_shard} and {self.rows_per_chunk}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateConfig:
    """One run of `qd-simulate`."""

    grid: GridConfig
    q: QConfig
    material: Material
    shape: ShapeConfig
    energy_kev: float | None
    """Photon energy [keV]; null only without anomalous scattering."""
    anomalous: bool
    """Add f' and f''."""
    compton: bool
    """Add incoherent scattering."""
    store: StoreConfig
    device: str
    seed: int

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> SimulateConfig:
        """Read and check the composed configuration.

        Raises:
            ValueError: a key is missing or unknown, or a value cannot be simulated.
        """
        try:
            grid = _mapping("grid", config["grid"], keys=GridConfig.__slots__)
            q = _mapping("q", config["q"], keys=QConfig.__slots__)
            shape = _mapping("shape", config["shape"], keys=ShapeConfig.__slots__)
            store = _mapping("store", config["store"], keys=StoreConfig.__slots__)
            material = Material.from_config(config["material"])
            if config["b_iso"]:
                by_label = _mapping("b_iso", config["b_iso"])
                material = material.with_b_iso(
                    {label: _number(f"b_iso.{label}", b, least=0) for label, b in by_label.items()}
                )
            q_range = QConfig(**{key: _number(f"q.{key}", q[key]) for key in ("min", "max", "step")})
            energy = (
                None if config["energy_kev"] is None else _number("energy_kev", config["energy_kev"], above=0)
            )
            anomalous = _switch("anomalous", config["anomalous"])
            _check_tables(material, q_range, energy, anomalous)
            if not isinstance(shape["centres"], Sequence | None) or isinstance(shape["centres"], str):
                raise ValueError(
                    f"shape.centres must be a list of cut centres or null, got {shape['centres']!r}"
                )
            if not isinstance(store["path"], str) or not store["path"]:
                raise ValueError(f"store.path must name the folder of the store, got {store['path']!r}")
            if isinstance(config["seed"], bool) or not isinstance(config["seed"], int) or config["seed"] < 0:
                raise ValueError(f"seed must be a whole number >= 0, got {config['seed']!r}")
            return cls(
                grid=GridConfig(
                    sampling=grid["sampling"],
                    samples=grid["samples"],
                    diameter_nm=Axis.read("grid.diameter_nm", grid["diameter_nm"]),
                    sigma=Axis.read("grid.sigma", grid["sigma"]),
                    strain=Axis.read("grid.strain", grid["strain"]),
                    b_scale=Axis.read("grid.b_scale", grid["b_scale"]),
                    tail=_number("grid.tail", grid["tail"]),
                ),
                q=q_range,
                material=material,
                shape=ShapeConfig(
                    name=shape["name"], centres=None if shape["centres"] is None else tuple(shape["centres"])
                ),
                energy_kev=energy,
                anomalous=anomalous,
                compton=_switch("compton", config["compton"]),
                store=StoreConfig(
                    path=store["path"],
                    rows_per_shard=store["rows_per_shard"],
                    rows_per_chunk=store["rows_per_chunk"],
                ),
                device=str(config["device"]["name"]),
                seed=config["seed"],
            )
        except KeyError as missing:
            raise ValueError(f"the configuration lacks the key {missing}; see conf/simulate.yaml") from None


def _check_tables(material: Material, q: QConfig, energy_kev: float | None, anomalous: bool) -> None:
    """Refuse elements, energies and scattering vectors that the tables of scattering factors do not hold."""
    from hpc.form_factors import scattering_factor

    for kind in material.kinds:
        scattering_factor(kind.element, np.array([q.min, q.max]), energy_kev=energy_kev, anomalous=anomalous)
