"""What `qd-train` and `qd-evaluate` are asked for: values live in `conf/`, types and checks of user input live here.

The classes hold no defaults, so that `conf/` is the one source of values; `read_config` fills them. Nothing here
imports torch: the checks of a wrong command line take no time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from qdml.augmentation.config import AllaraConfig, InstrumentRecipeConfig
from qdml.config_reader import as_mapping, read_config, require

__all__ = [
    "AllConvConfig",
    "AllaraConfig",
    "ClassConfig",
    "DataConfig",
    "DeviceConfig",
    "EvaluateConfig",
    "EvaluateDataConfig",
    "InstrumentRecipeConfig",
    "OptimConfig",
    "ResidualMlpConfig",
    "TrainConfig",
    "TrainerConfig",
    "as_mapping",
    "read_config",
]


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
        require(self.lanes >= 1, f"data.lanes must be >= 1, got {self.lanes}")
        require(
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
            require(
                len(centres) >= 2 and increasing and min(centres) >= 0,
                f"classes.{name} must be at least two increasing numbers >= 0, got {list(centres)}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AllConvConfig:
    """The published all-convolutional network."""

    name: Literal["allconv"]
    input: Literal["area", "log_smooth"]
    """How a pattern is presented."""
    heads: Literal["separate", "joint"]
    """separate: one softmax for the size, one for σ; joint: one over all pairs."""
    filters: int
    kernels: tuple[int, ...]
    """Kernel of each layer; its stride is the same."""

    def __post_init__(self) -> None:
        require(self.filters >= 1, f"network.filters must be >= 1, got {self.filters}")
        require(
            len(self.kernels) > 0 and min(self.kernels) >= 1,
            f"network.kernels must be at least one number >= 1, got {list(self.kernels)}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualMlpConfig:
    """A residual network on the whitened pattern."""

    name: Literal["residual_mlp"]
    input: Literal["area", "log_smooth"]
    heads: Literal["separate", "joint"]
    components: int
    """Principal components of the input that are kept."""
    width: int
    """Of the residual stream."""
    blocks: int

    def __post_init__(self) -> None:
        require(self.components >= 1, f"network.components must be >= 1, got {self.components}")
        require(self.width >= 1, f"network.width must be >= 1, got {self.width}")
        require(self.blocks >= 1, f"network.blocks must be >= 1, got {self.blocks}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """How weights follow gradients."""

    name: Literal["adam", "adamw"]
    learning_rate: float
    weight_decay: float
    schedule: Literal["constant", "cosine"]
    """constant, or cosine: a warm-up of `warmup` steps, then half a cosine down to zero."""
    warmup: int
    label_width: float
    """Standard deviation of the labels in class steps; 0 is the one nearest class."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"optim.learning_rate must be > 0, got {self.learning_rate}")
        require(self.weight_decay >= 0, f"optim.weight_decay must be >= 0, got {self.weight_decay}")
        require(self.warmup >= 0, f"optim.warmup must be >= 0 steps, got {self.warmup}")
        require(self.label_width >= 0, f"optim.label_width must be >= 0, got {self.label_width}")


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
    precision: Literal["auto", "float32", "bfloat16", "float64"]
    """auto (bfloat16 autocast on CUDA, float32 on the CPU), float32, bfloat16 (CUDA only), float64."""
    threads: int | None
    """CPU threads of each process; null: cores of the node over its processes."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every", "checkpoint_every", "validation_draws"):
            require(getattr(self, name) >= 1, f"trainer.{name} must be >= 1, got {getattr(self, name)}")
        require(
            self.threads is None or self.threads >= 1,
            f"trainer.threads must be >= 1 or null, got {self.threads}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig:
    """Where networks run."""

    name: Literal["auto", "cpu", "cuda"]
    """auto: CUDA if there is a device."""


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
        require(self.seed >= 0, f"seed must be >= 0, got {self.seed}")
        require(
            self.trainer.batch % self.data.lanes == 0,
            f"trainer.batch must be a multiple of data.lanes={self.data.lanes}, got {self.trainer.batch}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateDataConfig:
    """Which patterns a model is tried on."""

    store: str
    """Folder of the zarr store."""
    split: Literal["train", "validation", "test", "all"]
    """Of the store the model was trained on; all for a store it has never seen."""


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
        require(self.draws >= 1, f"draws must be >= 1, got {self.draws}")
        require(self.batch >= 1, f"batch must be >= 1, got {self.batch}")
