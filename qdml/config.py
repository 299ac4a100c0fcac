"""What `qd-train` and `qd-evaluate` are asked for: values live in `conf/`, types and checks of user input live here.

The classes hold no defaults, so that `conf/` is the one source of values. `read_config` turns the composed YAML into
them and names every key that is missing, unknown or of the wrong type; each class refuses values that cannot work.
Nothing here imports torch: `--help` and the checks of a wrong command line take no time.
"""

from __future__ import annotations

import itertools
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

__all__ = [
    "AUGMENTS",
    "NETWORKS",
    "AllConvConfig",
    "AllaraConfig",
    "ClassConfig",
    "DataConfig",
    "DeviceConfig",
    "EvaluateConfig",
    "EvaluateDataConfig",
    "InstrumentConfig",
    "InstrumentRecipeConfig",
    "NearNeighbourConfig",
    "OptimConfig",
    "ResidualMlpConfig",
    "SolventConfig",
    "TrainConfig",
    "TrainerConfig",
    "as_mapping",
    "read_config",
]

INPUTS = ("area", "log_smooth")
SPLITS = ("train", "validation", "test")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_range(name: str, bounds: Sequence[float], *, least: float, most: float = math.inf) -> None:
    """A [low, high] pair inside [least, most]."""
    _require(
        len(bounds) == 2 and least <= bounds[0] <= bounds[1] <= most,
        f"{name} must be [low, high] with {least:g} <= low <= high"
        + (f" <= {most:g}" if math.isfinite(most) else "")
        + f", got {list(bounds)}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which patterns are learned from."""

    store: str
    """Folder of the zarr store."""
    lanes: int
    """Streams that the shards are dealt to; the result depends on it, and not on the number of processes."""
    train: float
    """Fraction of the base patterns to learn from."""
    validation: float
    """Fraction to choose the best weights with; the rest is the test split."""

    def __post_init__(self) -> None:
        _require(self.lanes >= 1, f"data.lanes must be >= 1, got {self.lanes}")
        _require(
            self.train > 0 and self.validation > 0 and self.train + self.validation < 1,
            "data.train and data.validation must be > 0 and leave a rest for the test split, "
            f"got {self.train:g} and {self.validation:g}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassConfig:
    """What is told apart: a pattern belongs to the nearest centre of either list."""

    diameter_nm: tuple[float, ...]
    """Number-mean diameters [nm]."""
    sigma: tuple[float, ...]
    """Relative standard deviations."""

    def __post_init__(self) -> None:
        for name, centres in (("diameter_nm", self.diameter_nm), ("sigma", self.sigma)):
            increasing = all(a < b for a, b in itertools.pairwise(centres))
            _require(
                len(centres) >= 2 and increasing and min(centres) >= 0,
                f"classes.{name} must be at least two increasing numbers >= 0, got {list(centres)}",
            )


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
        from qdml.solvents import LIQUIDS

        _require(
            self.file is not None or self.name in LIQUIDS,
            f"solvent {self.name!r} is not one of the built-in liquids {sorted(LIQUIDS)}; give its `file`",
        )


def _check_solvents(solvents: Sequence[SolventConfig]) -> None:
    names = [solvent.name for solvent in solvents]
    _require(len(names) >= 1, "augment.solvents must name at least one solvent, got none")
    _require(len(set(names)) == len(names), f"augment.solvents must have different names, got {names}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllaraConfig:
    """The published augmentation: every solvent x fraction x count scale is one noise cell."""

    name: str
    solvents: tuple[SolventConfig, ...]
    fractions: tuple[float, ...]
    """Nanocrystals' share of the pattern's area, 0 < fraction <= 1."""
    scales: tuple[float, ...]
    """y' = Poisson(y·scale)/scale for a pattern of the area 1000."""

    def __post_init__(self) -> None:
        _check_solvents(self.solvents)
        _require(
            len(self.fractions) > 0 and all(0 < f <= 1 for f in self.fractions),
            f"augment.fractions must lie in 0 < fraction <= 1, got {list(self.fractions)}",
        )
        _require(
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
    """Standard deviation of ln(gain) of the reflections (dried films are oriented)."""

    def __post_init__(self) -> None:
        where = f"augment.instruments[{self.name}]"
        _require(self.weight > 0, f"{where}.weight must be > 0, got {self.weight}")
        _require_range(f"{where}.q_first", self.q_first, least=0)
        _require_range(f"{where}.q_last", self.q_last, least=self.q_first[1])
        _require_range(f"{where}.resolution", self.resolution, least=0)
        _require(self.zero_shift >= 0, f"{where}.zero_shift must be >= 0, got {self.zero_shift}")
        _require_range(f"{where}.peak_counts", self.peak_counts, least=1)
        _require_range(f"{where}.fraction", self.fraction, least=1e-3, most=1)
        _require_range(f"{where}.texture", self.texture, least=0)


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
        _require(self.shells >= 0, f"augment.near_neighbours.shells must be >= 0, got {self.shells}")
        _require_range("augment.near_neighbours.correlation", self.correlation, least=0, most=1)
        _require(self.halo >= 0, f"augment.near_neighbours.halo must be >= 0, got {self.halo}")
        _require(self.halo_b >= 0, f"augment.near_neighbours.halo_b must be >= 0 Å², got {self.halo_b}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentRecipeConfig:
    """Real samples on real instruments: what a model for measured patterns has to be indifferent to."""

    name: str
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
    texture_length: float
    """Shortest feature of the gain of the reflections [Å⁻¹]."""

    def __post_init__(self) -> None:
        _check_solvents(self.solvents)
        names = [instrument.name for instrument in self.instruments]
        _require(len(names) >= 1, "augment.instruments must hold at least one instrument, got none")
        _require(len(set(names)) == len(names), f"augment.instruments must have different names, got {names}")
        _require_range("augment.background_share", self.background_share, least=0, most=1)
        _require_range("augment.background_decay", self.background_decay, least=-10)
        for name in ("background_length", "solvent_length", "texture_length"):
            _require(getattr(self, name) > 0, f"augment.{name} must be > 0 Å⁻¹, got {getattr(self, name)}")
        for name in ("background_spread", "solvent_spread"):
            _require(getattr(self, name) >= 0, f"augment.{name} must be >= 0, got {getattr(self, name)}")


def _check_network(input_kind: str, heads: str) -> None:
    _require(input_kind in INPUTS, f"network.input must be one of {list(INPUTS)}, got {input_kind!r}")
    _require(heads in ("separate", "joint"), f"network.heads must be 'separate' or 'joint', got {heads!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllConvConfig:
    """The published all-convolutional network."""

    name: str
    input: str
    """How a pattern is presented: area or log_smooth."""
    heads: str
    """separate: one softmax for the size, one for σ; joint: one over all pairs."""
    filters: int
    kernels: tuple[int, ...]
    """Kernel of each layer; its stride is the same."""

    def __post_init__(self) -> None:
        _check_network(self.input, self.heads)
        _require(self.filters >= 1, f"network.filters must be >= 1, got {self.filters}")
        _require(
            len(self.kernels) > 0 and min(self.kernels) >= 1,
            f"network.kernels must be at least one number >= 1, got {list(self.kernels)}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualMlpConfig:
    """A residual network on the whole pattern at once."""

    name: str
    input: str
    heads: str
    width: int
    blocks: int

    def __post_init__(self) -> None:
        _check_network(self.input, self.heads)
        _require(self.width >= 1, f"network.width must be >= 1, got {self.width}")
        _require(self.blocks >= 1, f"network.blocks must be >= 1, got {self.blocks}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """How weights follow gradients."""

    name: str
    learning_rate: float
    weight_decay: float
    schedule: str
    """constant, or cosine: a warm-up of `warmup` steps, then half a cosine down to zero."""
    warmup: int
    label_width: float
    """Standard deviation of the labels in class steps; 0 is the one nearest class."""

    def __post_init__(self) -> None:
        _require(self.name in ("adam", "adamw"), f"optim.name must be 'adam' or 'adamw', got {self.name!r}")
        _require(self.learning_rate > 0, f"optim.learning_rate must be > 0, got {self.learning_rate}")
        _require(self.weight_decay >= 0, f"optim.weight_decay must be >= 0, got {self.weight_decay}")
        _require(
            self.schedule in ("constant", "cosine"),
            f"optim.schedule must be 'constant' or 'cosine', got {self.schedule!r}",
        )
        _require(self.warmup >= 0, f"optim.warmup must be >= 0 steps, got {self.warmup}")
        _require(self.label_width >= 0, f"optim.label_width must be >= 0, got {self.label_width}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """How long, how often, how precisely."""

    steps: int
    batch: int
    """Patterns per step, over all processes."""
    evaluate_every: int
    """Steps between two looks at the validation split."""
    checkpoint_every: int
    """Steps between two resumable states."""
    validation_draws: int
    """Augmented versions of every validation pattern."""
    precision: str
    """auto (bfloat16 autocast on CUDA, float32 on the CPU), float32, bfloat16 (CUDA only), float64."""
    threads: int | None
    """CPU threads of each process; null: cores of the node over its processes."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every", "checkpoint_every", "validation_draws"):
            _require(getattr(self, name) >= 1, f"trainer.{name} must be >= 1, got {getattr(self, name)}")
        choices = ("auto", "float32", "bfloat16", "float64")
        _require(self.precision in choices, f"trainer.precision must be one of {list(choices)}, got {self.precision!r}")
        _require(self.threads is None or self.threads >= 1, f"trainer.threads must be >= 1 or null, got {self.threads}")


#: Augmentation recipes and networks by name: `augment=NAME`, `network=NAME`.
AUGMENTS: dict[str, type] = {"allara2024": AllaraConfig, "instrument": InstrumentRecipeConfig}
NETWORKS: dict[str, type] = {"allconv": AllConvConfig, "residual_mlp": ResidualMlpConfig}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig:
    """Where networks run."""

    name: str
    """auto (CUDA if there is a device), cpu or cuda."""

    def __post_init__(self) -> None:
        _require(self.name in ("auto", "cpu", "cuda"), f"device must be auto, cpu or cuda, got {self.name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run of `qd-train`."""

    data: DataConfig
    classes: ClassConfig
    augment: AllaraConfig | InstrumentRecipeConfig
    network: AllConvConfig | ResidualMlpConfig
    optim: OptimConfig
    trainer: TrainerConfig
    output: str
    """Folder of the model."""
    device: DeviceConfig
    seed: int
    """Of the split, the first weights, the order of patterns and every random draw."""

    def __post_init__(self) -> None:
        _require(self.seed >= 0, f"seed must be >= 0, got {self.seed}")
        _require(
            self.trainer.batch % self.data.lanes == 0,
            f"trainer.batch must be a multiple of data.lanes={self.data.lanes}, got {self.trainer.batch}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateDataConfig:
    """Which patterns a model is tried on."""

    store: str
    """Folder of the zarr store."""
    split: str
    """train, validation or test of the store the model was trained on; all for a store it has never seen."""

    def __post_init__(self) -> None:
        choices = (*SPLITS, "all")
        _require(self.split in choices, f"data.split must be one of {list(choices)}, got {self.split!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """One run of `qd-evaluate`."""

    model: str
    """Folder of the model."""
    data: EvaluateDataConfig
    draws: int
    """Augmented versions of every pattern in every noise cell."""
    batch: int
    """Patterns at a time."""
    output: str
    """Folder of metrics.json and the figures."""
    device: DeviceConfig
    seed: int

    def __post_init__(self) -> None:
        _require(self.draws >= 1, f"draws must be >= 1, got {self.draws}")
        _require(self.batch >= 1, f"batch must be >= 1, got {self.batch}")


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
        raise ValueError(f"unknown key {prefix}{unknown[0]}; {where or 'the configuration'} has the keys {names}")
    if missing:
        raise ValueError(f"the key {prefix}{missing[0]} is missing")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _read_value(hints[name], mapping[name], f"{prefix}{name}") for name in names})


def _read_value(kind: Any, value: Any, where: str) -> Any:
    """A plain value as the annotated type `kind`."""
    if where in ("augment", "network") and isinstance(value, Mapping):
        table = AUGMENTS if where == "augment" else NETWORKS
        name = value.get("name")
        _require(name in table, f"{where}.name must be one of {sorted(table)}, got {name!r}")
        return read_config(table[str(name)], value, where)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if value is None else _read_value(options[0], value, where)
    if is_dataclass(kind):
        _require(isinstance(value, Mapping), f"{where} must be a group of keys, got {value!r}")
        return read_config(typing.cast(type, kind), value, where)
    if origin is tuple:
        item = typing.get_args(kind)[0]
        if item is float and isinstance(value, str):
            return _read_range(value, where)
        _require(
            isinstance(value, Sequence) and not isinstance(value, str), f"{where} must be a list, got {value!r}"
        )
        return tuple(_read_value(item, entry, f"{where}[{index}]") for index, entry in enumerate(value))
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise ValueError(f"{where} must be of type {getattr(kind, '__name__', kind)}, got {value!r}")


_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s+to\s+({_NUMBER})\s+step\s+({_NUMBER})\s*")


def _read_range(value: str, where: str) -> tuple[float, ...]:
    """`2 to 10 step 0.5` with its end, as the grid of `qd-simulate` has it."""
    match = _RANGE.fullmatch(value)
    if match is None:
        raise ValueError(f"{where} must be a list or 'START to STOP step STEP', got {value!r}")
    start, stop, step = (float(number) for number in match.groups())
    _require(step > 0 and stop >= start, f"{where} is an empty range: {value!r}")
    # 1e-9: ten steps of 0.1 reach 1.0, whatever the last bit says. Rounded, so that 0.15 is 0.15.
    return tuple(round(start + i * step, 12) for i in range(math.floor((stop - start) / step + 1e-9) + 1))


def as_mapping(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON data: what `read_config` reads back."""
    import json

    return json.loads(json.dumps(asdict(config)))
