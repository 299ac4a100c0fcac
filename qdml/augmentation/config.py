"""What augmentation recipes are asked for; values live in `conf/augment/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qdml.config_reader import require, require_range

__all__ = [
    "AllaraConfig",
    "InstrumentConfig",
    "InstrumentRecipeConfig",
    "NearNeighbourConfig",
    "SolventConfig",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SolventConfig:
    """One solvent: a built-in liquid by name, or a measured file."""

    name: str
    """`hexane`, `toluene`, or any name for a file."""
    file: str | None
    """Two- or three-column text; null for the built-in liquid of that name."""
    wavelength: float | None
    """Wavelength [Å] if the file's first column is 2θ in degrees; null if it is Q in Å⁻¹."""

    def __post_init__(self) -> None:
        from qdml.augmentation.solvents import LIQUIDS

        require(
            self.file is not None or self.name in LIQUIDS,
            f"solvent {self.name!r} is not one of the built-in liquids {sorted(LIQUIDS)}; give its `file`",
        )


def _check_solvents(solvents: Sequence[SolventConfig]) -> None:
    names = [solvent.name for solvent in solvents]
    require(len(names) >= 1, "augment.solvents must name at least one solvent, got none")
    require(len(set(names)) == len(names), f"augment.solvents must have different names, got {names}")


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
        _check_solvents(self.solvents)
        require(
            len(self.fractions) > 0 and all(0 < f <= 1 for f in self.fractions),
            f"augment.fractions must lie in 0 < fraction <= 1, got {list(self.fractions)}",
        )
        require(
            len(self.scales) > 0 and all(s > 0 for s in self.scales),
            f"augment.scales must be > 0, got {list(self.scales)}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentConfig:
    """What one kind of instrument and sample does to a pattern; pairs are the ends of a uniform draw."""

    name: str
    weight: float
    """Relative frequency in training."""
    q_first: tuple[float, float]
    """Start of the visible window [Å⁻¹]."""
    q_last: tuple[float, float]
    """End of the visible window [Å⁻¹]."""
    resolution: tuple[float, float]
    """Standard deviation of the instrument's Gaussian [Å⁻¹]."""
    kalpha2: bool
    """Cu Kα1/Kα2 doublet instead of one wavelength."""
    zero_shift: float
    """Standard deviation of the error of Q [Å⁻¹]."""
    peak_counts: tuple[float, float]
    """Counts at the highest point of the visible pattern, drawn uniformly in the logarithm."""
    fraction: tuple[float, float]
    """Nanocrystals' share of the area; the rest is solvent and background."""
    texture: tuple[float, float]
    """Standard deviation of ln(gain) of the reflections of one direction (dried films are oriented)."""

    def __post_init__(self) -> None:
        where = f"augment.instruments[{self.name}]"
        require(self.weight > 0, f"{where}.weight must be > 0, got {self.weight}")
        require_range(f"{where}.q_first", self.q_first, least=0)
        require_range(f"{where}.q_last", self.q_last, least=self.q_first[1])
        require_range(f"{where}.resolution", self.resolution, least=0)
        require(self.zero_shift >= 0, f"{where}.zero_shift must be >= 0, got {self.zero_shift}")
        require_range(f"{where}.peak_counts", self.peak_counts, least=1)
        require_range(f"{where}.fraction", self.fraction, least=1e-3, most=1)
        require_range(f"{where}.texture", self.texture, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NearNeighbourConfig:
    """How the first shells of a real dot differ from a lattice of independent atoms."""

    shells: int
    """Shells of neighbours that are changed; 0 for none."""
    correlation: tuple[float, float]
    """Share c of the mean-square displacement that neighbours have in common: B_ij -> (B_i+B_j)(1-c)."""
    halo: float
    """Standard deviation of the relative amplitude of a disordered shell's near-neighbour terms."""
    halo_b: float
    """Debye-Waller factor of those terms [Å²]."""

    def __post_init__(self) -> None:
        require(self.shells >= 0, f"augment.near_neighbours.shells must be >= 0, got {self.shells}")
        require_range("augment.near_neighbours.correlation", self.correlation, least=0, most=1)
        require(self.halo >= 0, f"augment.near_neighbours.halo must be >= 0, got {self.halo}")
        require(self.halo_b >= 0, f"augment.near_neighbours.halo_b must be >= 0 Å², got {self.halo_b}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentRecipeConfig:
    """Real samples on real instruments: what a model for measured patterns has to be indifferent to."""

    name: Literal["instrument"]
    solvents: tuple[SolventConfig, ...]
    instruments: tuple[InstrumentConfig, ...]
    near_neighbours: NearNeighbourConfig
    background_share: tuple[float, float]
    """Share of what is not nanocrystal that is smooth background rather than solvent."""
    background_decay: tuple[float, float]
    """Range of k in its exponential exp(-k Q) [Å]; negative where it rises, as incoherent scattering does."""
    background_length: float
    """Shortest feature of the smooth background [Å⁻¹]."""
    background_spread: float
    """Standard deviation of ln(background) about its exponential."""
    solvent_spread: float
    """Standard deviation of ln(gain) that turns the known solvents into their unknown relatives."""
    solvent_length: float
    """Shortest feature of that gain [Å⁻¹]."""
    texture_blend: float
    """Width of the step between the gains of neighbouring reflections [Å⁻¹]."""

    def __post_init__(self) -> None:
        _check_solvents(self.solvents)
        names = [instrument.name for instrument in self.instruments]
        require(len(names) >= 1, "augment.instruments must hold at least one instrument, got none")
        require(len(set(names)) == len(names), f"augment.instruments must have different names, got {names}")
        require_range("augment.background_share", self.background_share, least=0, most=1)
        require_range("augment.background_decay", self.background_decay, least=-10)
        for name in ("background_length", "solvent_length", "texture_blend"):
            require(getattr(self, name) > 0, f"augment.{name} must be > 0 Å⁻¹, got {getattr(self, name)}")
        for name in ("background_spread", "solvent_spread"):
            require(getattr(self, name) >= 0, f"augment.{name} must be >= 0, got {getattr(self, name)}")
