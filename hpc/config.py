"""What `qd-simulate` is asked for: values live in `conf/`, types and every check on user input live here.

The classes hold no defaults. `SimulateConfig.from_mapping` reads the composed YAML and refuses what the simulation
could not do, before anything is computed or written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc.config_axis import Axis, count, mapping, number, switch
from hpc.config_variants import read_variants
from hpc.ensemble import largest_diameter
from hpc.radiation import Beam, Particle, choose_beam
from hpc.structure.material import Material, load_material
from hpc.structure.variant import GROUPS, Variant

__all__ = ["GridConfig", "ParticlesConfig", "QConfig", "SimulateConfig", "StoreConfig"]


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
    largest_nm: float | None
    """A Sobol grid has no ensembles with more than `tail` of their atoms beyond this diameter [nm]: it lowers the upper
    end of σ at each D. None where there is no such bound."""
    shares: tuple[float, ...] | None
    """Of a Sobol grid's samples, for each variant; None for even ones."""

    def __post_init__(self) -> None:
        number("grid.diameter_nm", self.diameter_nm.bounds[0], above=0)
        number("grid.sigma", self.sigma.bounds[0], least=0)
        if self.sigma.bounds[1] > 1:
            raise ValueError(
                f"grid.sigma is relative (0.1 is 10 %) and must be <= 1, got {self.sigma.bounds[1]:g}"
            )
        if max(abs(bound) for bound in self.strain.bounds) > 0.1:
            raise ValueError(
                f"grid.strain is relative and must lie in -0.1 to 0.1, got {list(self.strain.bounds)}"
            )
        number("grid.b_scale", self.b_scale.bounds[0], least=0)
        if not 0 < self.tail < 0.1:
            raise ValueError(f"grid.tail must lie in 0 to 0.1, got {self.tail}")
        if self.largest_nm is not None:
            self._check_largest(number("grid.largest_nm", self.largest_nm, above=0))
        if self.shares is not None and self.sampling != "sobol":
            raise ValueError("grid.shares belongs to grid.sampling=sobol; leave it null for a cartesian grid")
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
            if self.samples is None or count("grid.samples", self.samples) & (self.samples - 1):
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

    def _check_largest(self, largest: float) -> None:
        if self.sampling != "sobol":
            raise ValueError(
                "grid.largest_nm belongs to grid.sampling=sobol; a cartesian grid is as it is written, leave it null"
            )
        diameter, sigma = self.diameter_nm.bounds[1], self.sigma.bounds[0]
        if sigma == 0:
            raise ValueError("grid.largest_nm needs distributions: raise the lower end of grid.sigma above 0")
        needed = largest_diameter(np.array([diameter]), np.array([sigma]), tail=self.tail)
        if needed > largest:
            raise ValueError(
                f"grid.largest_nm leaves nothing at D = {diameter:g} nm: with the smallest σ, {sigma:g}, a fraction "
                f"{self.tail:g} of the atoms lies beyond {needed:.4g} nm; got {largest:g}, raise it or lower "
                "grid.diameter_nm"
            )


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
        number("q.min", self.min, least=0)
        number("q.step", self.step, above=0)
        if not self.max >= self.min + self.step:
            raise ValueError(
                f"the Q range is empty: q.max must be at least q.min + q.step, "
                f"got {self.min:g} to {self.max:g} in steps of {self.step:g} Å⁻¹"
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
        count("store.rows_per_shard", self.rows_per_shard)
        count("store.rows_per_chunk", self.rows_per_chunk)
        if self.rows_per_shard % self.rows_per_chunk:
            raise ValueError(
                f"store.rows_per_shard must be a multiple of store.rows_per_chunk, "
                f"got {self.rows_per_shard} and {self.rows_per_chunk}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticlesConfig:
    """How particles off the perfect lattice are sampled; perfect cuts need none of it."""

    size_step_nm: float
    """Widest row of D [nm] for which one particle that is not nested is built."""
    cut_step_nm: float
    """Steps of D [nm] to which sites of nested families are put when they enter at more sizes than that."""
    realisations: int
    """Particles of each size where chance has a part, averaged."""
    tolerance: float
    """Error of the pair sums, relative to I(Q), that the bins of distances keep."""

    def __post_init__(self) -> None:
        for name in ("size_step_nm", "cut_step_nm"):
            step = number(f"particles.{name}", getattr(self, name), above=0)
            if not 0.001 <= step <= 5:
                raise ValueError(f"particles.{name} must lie in 0.001 to 5 nm, got {step:g}")
        count("particles.realisations", self.realisations)
        if not 1e-11 <= number("particles.tolerance", self.tolerance) <= 1e-2:
            raise ValueError(f"particles.tolerance must lie in 1e-11 to 1e-2, got {self.tolerance:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateConfig:
    """One run of `qd-simulate`."""

    grid: GridConfig
    q: QConfig
    variants: tuple[Variant, ...]
    """The slowest axis of the grid; all of one material."""
    particles: ParticlesConfig
    radiation: str
    """Name of the radiation."""
    particle: Particle
    energy_kev: float | None
    """Photon energy [keV]; None for neutrons, and for X-rays without anomalous scattering."""
    wavelength: float | None
    """Of neutrons [Å]; None where no nucleus has a resonance."""
    anomalous: bool
    """Add f' and f'' (X-rays)."""
    compton: bool
    """Add incoherent scattering."""
    store: StoreConfig
    device: str
    seed: int
    """Scrambles a Sobol grid and draws particles where chance has a part."""

    def __post_init__(self) -> None:
        if self.grid.samples is not None and self.grid.samples < len(self.variants):
            raise ValueError(
                f"grid.samples must be at least the number of variants, {len(self.variants)}, "
                f"got {self.grid.samples}"
            )
        if self.grid.shares is not None and len(self.grid.shares) != len(self.variants):
            raise ValueError(
                f"grid.shares must be a number for each of the {len(self.variants)} variants, "
                f"got {list(self.grid.shares)}"
            )

    @property
    def material(self) -> Material:
        """What the dots (or their cores) are made of."""
        return self.variants[0].material

    @property
    def beam(self) -> Beam:
        """What the scattering of every kind depends on."""
        return {
            "particle": self.particle,
            "energy_kev": self.energy_kev,
            "wavelength": self.wavelength,
            "anomalous": self.anomalous,
        }

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> SimulateConfig:
        """Read and check the composed configuration.

        Raises:
            ValueError: a key is missing or unknown, or a value cannot be simulated.
        """
        try:
            grid = mapping("grid", config["grid"], keys=GridConfig.__slots__)
            q = mapping("q", config["q"], keys=QConfig.__slots__)
            particles = mapping("particles", config["particles"], keys=ParticlesConfig.__slots__)
            store = mapping("store", config["store"], keys=StoreConfig.__slots__)
            file = config.get("material_file")
            material = load_material(file) if file else Material.from_config(config["material"])
            if config["b_iso"]:
                by_label = mapping("b_iso", config["b_iso"])
                material = material.with_b_iso(
                    {label: number(f"b_iso.{label}", b, least=0) for label, b in by_label.items()}
                )
            variants = read_variants({group: config[group] for group in GROUPS}, config["variants"], material)
            q_range = QConfig(**{key: number(f"q.{key}", q[key]) for key in ("min", "max", "step")})
            given = {
                key: None if config[key] is None else number(key, config[key], above=0)
                for key in ("energy_kev", "wavelength")
            }
            beam = choose_beam(config["radiation"], **given)
            anomalous = switch("anomalous", config["anomalous"])
            if beam["particle"] == "neutron" and not anomalous:
                raise ValueError(
                    "anomalous: false leaves out f' and f'' of X-rays; neutrons have none, remove it"
                )
            _check_tables(variants, q_range, {**beam, "anomalous": anomalous})
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
                    tail=number("grid.tail", grid["tail"]),
                    largest_nm=grid["largest_nm"],
                    shares=None
                    if grid["shares"] is None
                    else tuple(number("grid.shares", share, above=0) for share in grid["shares"]),
                ),
                q=q_range,
                variants=variants,
                particles=ParticlesConfig(**{key: particles[key] for key in ParticlesConfig.__slots__}),
                radiation=str(config["radiation"]["name"]),
                particle=beam["particle"],
                energy_kev=beam["energy_kev"],
                wavelength=beam["wavelength"],
                anomalous=anomalous,
                compton=switch("compton", config["compton"]),
                store=StoreConfig(**{key: store[key] for key in StoreConfig.__slots__}),
                device=str(config["device"]["name"]),
                seed=config["seed"],
            )
        except KeyError as missing:
            raise ValueError(f"the configuration lacks the key {missing}; see conf/simulate.yaml") from None


def _check_tables(variants: tuple[Variant, ...], q: QConfig, beam: Beam) -> None:
    """Refuse elements, energies and scattering vectors that the tables of scattering factors do not hold."""
    from hpc.scattering import coefficients

    materials = [
        variants[0].material,
        *(load_material(v.coating.material) for v in variants if v.coating.material),
    ]
    for material in materials:
        coefficients(material.kinds, np.array([q.min, q.max]), **beam)
