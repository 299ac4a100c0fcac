"""What augmentation recipes are asked for; values live in `conf/augment/`, instruments and liquids in `conf/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from qdml.config_reader import require, require_range

if TYPE_CHECKING:
    from hpc.instrument.setup import Instrument

__all__ = [
    "AllaraConfig",
    "DotsConfig",
    "InstrumentChoice",
    "InstrumentRecipeConfig",
    "SolventConfig",
    "SurroundingsConfig",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SolventConfig:
    """One solvent: a liquid of `conf/liquid/` by name, or a measured file."""

    name: str
    """A liquid, or any name for a file."""
    file: str | None
    """Two- or three-column text; null for the liquid of that name."""
    wavelength: float | None
    """Wavelength [Å] if the file's first column is 2θ in degrees; null if it is Q in Å⁻¹."""

    def __post_init__(self) -> None:
        from hpc.liquids import liquid_names

        require(
            self.file is not None or self.name in liquid_names(),
            f"solvent {self.name!r} is not one of the liquids {liquid_names()} of conf/liquid; give its `file`",
        )


def _check_solvents(where: str, solvents: Sequence[SolventConfig]) -> None:
    names = [solvent.name for solvent in solvents]
    require(len(names) >= 1, f"{where} must name at least one solvent, got none")
    require(len(set(names)) == len(names), f"{where} must have different names, got {names}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllaraConfig:
    """The published augmentation: every solvent x fraction x count scale is one noise cell."""

    name: Literal["allara2024"]
    solvents: tuple[SolventConfig, ...]
    fractions: tuple[float, ...]
    """Nanocrystals' share of the pattern's area, 0 < fraction <= 1."""
    scales: tuple[float, ...]
    """y' = Poisson(y·scale)/scale for a pattern of the area 1000."""

    def __post_init__(self) -> None:
        _check_solvents("augment.solvents", self.solvents)
        require(
            len(self.fractions) > 0 and all(0 < f <= 1 for f in self.fractions),
            f"augment.fractions must lie in 0 < fraction <= 1, got {list(self.fractions)}",
        )
        require(
            len(self.scales) > 0 and all(s > 0 for s in self.scales),
            f"augment.scales must be > 0, got {list(self.scales)}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentChoice:
    """One instrument, and the samples that are brought to it; pairs are the ends of a uniform draw."""

    name: str
    """A file of `conf/instrument/`."""
    weight: float
    """Relative frequency in training."""
    fraction: tuple[float, float]
    """Nanocrystals' share of the visible area; the rest is solvent, container and background."""
    texture: tuple[float, float]
    """Standard deviation of ln(gain) of the reflections of one direction (dried films are oriented)."""
    energy_kev: tuple[float, float] | None
    """Photon energy [keV], for a radiation without lines of its own; null for that of the instrument."""
    ranges: dict[str, tuple[float, ...]]
    """Name of a range of the instrument's file (`random`) -> [low, high] instead of it."""

    def __post_init__(self) -> None:
        from hpc.instrument.setup import instrument_names, load_instrument

        where = f"augment.instruments[{self.name}]"
        require(
            self.name in instrument_names(),
            f"instrument {self.name!r} is not one of {instrument_names()}; add conf/instrument/{self.name}.yaml",
        )
        require(self.weight > 0, f"{where}.weight must be > 0, got {self.weight}")
        require_range(f"{where}.fraction", self.fraction, least=1e-3, most=1)
        require_range(f"{where}.texture", self.texture, least=0)
        instrument = load_instrument(self.name)
        names = [field.name for field in fields(instrument.random)]
        for name, bounds in self.ranges.items():
            require(name in names, f"{where}.ranges may hold {names}, got {name!r}")
            require_range(f"{where}.ranges.{name}", bounds, least=-180)
        self.load()
        if self.energy_kev is not None:
            require_range(f"{where}.energy_kev", self.energy_kev, least=1)
            radiation = instrument.radiation
            require(
                radiation.name == "synchrotron",
                f"{where}.energy_kev: {radiation.name} has its own energy; set it to null",
            )

    def load(self, energy_kev: float | None = None) -> Instrument:
        """The instrument with these ranges, at an energy [keV] if one is given.

        Raises:
            ValueError: a range that cannot be, or an energy for a radiation that has its own.
        """
        from hpc.instrument.setup import load_instrument

        instrument = load_instrument(self.name, energy_kev=energy_kev)
        ranges: dict[str, Any] = {name: (low, high) for name, (low, high) in self.ranges.items()}
        return replace(instrument, random=replace(instrument.random, **ranges))


@dataclass(frozen=True, slots=True, kw_only=True)
class DotsConfig:
    """How real dots differ from perfect lattices of independent atoms."""

    shells: int
    """Shells of neighbours with a correlation and a halo of their own."""
    correlation: tuple[float, float]
    """c of the first shell: the share of the mean-square displacement that neighbours have in common."""
    halo: float
    """Standard deviation of the halo's amplitude, per share of the atoms in the outermost layer."""
    halo_b: tuple[float, float]
    """Debye-Waller factor of the halo's distances [Å²]."""
    surface_depth: float
    """Thickness of the outermost layer [Å]."""
    surface_b: tuple[float, float]
    """B of its atoms beyond that of the others [Å²]."""
    b_ratio: tuple[float, float]
    """Factor on B of every element but the heaviest, beside the factor on all B; uniform in the logarithm."""
    texture_blend: float
    """Width of the step between the gains of neighbouring reflections [Å⁻¹]."""
    texture_to: float
    """Directions have a gain if one of their reflections lies below this Q [Å⁻¹]."""
    model_error: tuple[float, float]
    """Standard deviation of the smooth relative error of everything else; uniform in the logarithm."""
    model_error_length: float
    """Shortest feature of that error [Å⁻¹]."""

    def __post_init__(self) -> None:
        where = "augment.dots"
        require(self.shells >= 1, f"{where}.shells must be >= 1, got {self.shells}")
        require_range(f"{where}.correlation", self.correlation, least=0, most=1)
        require_range(f"{where}.halo_b", self.halo_b, least=0)
        require_range(f"{where}.surface_b", self.surface_b, least=0)
        for name in ("b_ratio", "model_error"):
            require_range(f"{where}.{name}", getattr(self, name), least=1e-9)
        for name in ("halo", "surface_depth"):
            require(getattr(self, name) >= 0, f"{where}.{name} must be >= 0, got {getattr(self, name)}")
        for name in ("texture_blend", "texture_to", "model_error_length"):
            require(getattr(self, name) > 0, f"{where}.{name} must be > 0 Å⁻¹, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SurroundingsConfig:
    """What else scatters: solvents, their container, fluorescence, everything smooth."""

    solvents: tuple[SolventConfig, ...]
    mixing: float
    """Mixtures are softmax(mixing z): 0 for equal parts, 3 for one or two that dominate."""
    ring_position: float
    """Standard deviation of ln(position) of a solvent's ring."""
    ring_width: float
    """Standard deviation of ln(width)."""
    ring_height: float
    """Standard deviation of ln(height)."""
    spread: float
    """Standard deviation of a smooth ln(gain) of the solvent, beside the ring."""
    length: float
    """Shortest feature of that gain [Å⁻¹]."""
    containers: tuple[str, ...]
    """Files of `conf/container/`, mixed as solvents are. None where the list is empty."""
    container_share: tuple[float, float]
    """Share of what is not nanocrystal that the container scatters."""
    background_share: tuple[float, float]
    """Share of the rest that is smooth background rather than solvent."""
    background_decay: tuple[float, float]
    """Range of k in its exponential exp(-k Q) [Å]; negative where it rises, as incoherent scattering does."""
    background_spread: float
    """Standard deviation of ln(background) about its exponential."""
    background_length: float
    """Shortest feature of the smooth background [Å⁻¹]."""
    fluorescence_share: tuple[float, float]
    """Share of the background that is fluorescence, flat in counts, where an edge of the dots lies below the energy."""

    def __post_init__(self) -> None:
        where = "augment.surroundings"
        _check_solvents(f"{where}.solvents", self.solvents)
        for name in ("mixing", "ring_position", "ring_width", "ring_height", "spread", "background_spread"):
            require(getattr(self, name) >= 0, f"{where}.{name} must be >= 0, got {getattr(self, name)}")
        for name in ("length", "background_length"):
            require(getattr(self, name) > 0, f"{where}.{name} must be > 0 Å⁻¹, got {getattr(self, name)}")
        if self.containers:
            from hpc.liquids import container_names

            for name in self.containers:
                require(
                    name in container_names(),
                    f"{where}.containers: {name!r} is not one of {container_names()} of conf/container",
                )
        for name in ("container_share", "background_share", "fluorescence_share"):
            require_range(f"{where}.{name}", getattr(self, name), least=0, most=1)
        require_range(f"{where}.background_decay", self.background_decay, least=-10)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentRecipeConfig:
    """Real samples on real instruments: what a model for measured patterns has to be indifferent to."""

    name: Literal["instrument"]
    basis_tolerance: float
    """What compressing the dots of a store may cost, as a fraction of a pattern's peak."""
    instruments: tuple[InstrumentChoice, ...]
    resolution_error: float
    """Standard deviation of ln of the true widths over those that a user states."""
    dots: DotsConfig
    surroundings: SurroundingsConfig

    def __post_init__(self) -> None:
        names = [instrument.name for instrument in self.instruments]
        require(
            0 < self.basis_tolerance < 0.1,
            f"augment.basis_tolerance must lie in 0 to 0.1, got {self.basis_tolerance}",
        )
        require(
            self.resolution_error >= 0,
            f"augment.resolution_error must be >= 0, got {self.resolution_error}",
        )
        require(len(names) >= 1, "augment.instruments must hold at least one instrument, got none")
        require(len(set(names)) == len(names), f"augment.instruments must have different names, got {names}")
