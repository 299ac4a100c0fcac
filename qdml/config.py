"""What `qd-train` and `qd-evaluate` are asked for: values live in `conf/`, types and checks of user input live here.

The classes hold no defaults, so that `conf/` is the one source of values; `read_config` fills them. Nothing here
imports torch: the checks of a wrong command line take no time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from qdml.augmentation.config import AllaraConfig, InstrumentRecipeConfig
from qdml.config_reader import as_mapping, read_config, require, require_range
from qdml.network_config import PosteriorConfig, PosteriorConvolutionsConfig, PosteriorFlowConfig

__all__ = [
    "AdamConfig",
    "AllConvConfig",
    "AllaraConfig",
    "ClassConfig",
    "DataConfig",
    "DeviceConfig",
    "EnsembleDataConfig",
    "EvaluateConfig",
    "EvaluateDataConfig",
    "InstrumentRecipeConfig",
    "MuonConfig",
    "OptimConfig",
    "PosteriorConfig",
    "PosteriorConvolutionsConfig",
    "PosteriorFlowConfig",
    "ResidualMlpConfig",
    "StoreDataConfig",
    "StressRunConfig",
    "TrainConfig",
    "TrainerConfig",
    "VariantWeight",
    "as_mapping",
    "read_config",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreDataConfig:
    """The samples of a store, again and again."""

    name: Literal["store"]
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
class VariantWeight:
    """How often some of the structural variants of a store are drawn."""

    title: str
    """Part of their titles; empty for all the others."""
    weight: float
    """Relative frequency of each; 0 leaves them out."""

    def __post_init__(self) -> None:
        require(self.weight >= 0, f"data.variants: the weight must be >= 0, got {self.weight:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleDataConfig:
    """New dots in every batch, from the basis of a store; its own samples are held out.

    Pairs are the ends of uniform draws.
    """

    name: Literal["ensemble"]
    store: str
    """Folder of the zarr store."""
    lanes: int
    """Streams of draws; the result depends on it, and not on the number of processes."""
    validation: float
    """Fraction of the samples of the store to choose the best weights with; the rest is the test split."""
    mean: Literal["number", "volume"]
    """Which mean `diameter_nm` is of."""
    diameter_nm: tuple[float, ...]
    sigma: tuple[float, ...]
    """Relative standard deviation; its upper end falls where the basis would end before the atoms do (`tail`)."""
    strain: tuple[float, ...]
    b_scale: tuple[float, ...]
    """Factor on every Debye-Waller B."""
    variants: tuple[VariantWeight, ...] | None
    """The first entry whose title fits decides about a variant; null: all alike."""
    tail: float
    """Fraction of the atoms of an ensemble that may lie beyond the largest particle of the basis."""

    def __post_init__(self) -> None:
        require(self.lanes >= 1, f"data.lanes must be >= 1, got {self.lanes}")
        require(
            0 < self.validation < 1,
            f"data.validation must be > 0 and leave a rest for the test split, got {self.validation:g}",
        )
        require_range("data.diameter_nm", self.diameter_nm, least=0.1)
        require_range("data.sigma", self.sigma, least=1e-3, most=1)
        require_range("data.strain", self.strain, least=-0.1, most=0.1)
        require_range("data.b_scale", self.b_scale, least=0)
        require(0 < self.tail < 0.1, f"data.tail must lie in 0 to 0.1, got {self.tail:g}")

    @property
    def train(self) -> float:
        """Fraction of the samples of the store to learn from: none."""
        return 0.0


#: Where training patterns come from.
DataConfig = StoreDataConfig | EnsembleDataConfig


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
    compress_beyond: float
    """Standard deviations of a component beyond which its logarithm enters."""
    width: int
    """Of the residual stream."""
    blocks: int

    def __post_init__(self) -> None:
        require(self.components >= 1, f"network.components must be >= 1, got {self.components}")
        require(
            self.compress_beyond > 0, f"network.compress_beyond must be > 0, got {self.compress_beyond:g}"
        )
        require(self.width >= 1, f"network.width must be >= 1, got {self.width}")
        require(self.blocks >= 1, f"network.blocks must be >= 1, got {self.blocks}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamConfig:
    """One rule for all weights."""

    name: Literal["adam", "adamw"]
    learning_rate: float
    weight_decay: float
    schedule: Literal["constant", "cosine"]
    """constant, or cosine: a warm-up of `warmup` steps, then half a cosine down to zero."""
    warmup: int
    clip: float | None
    """Largest norm of the gradient; null: as it is."""
    label_width: float
    """Standard deviation of the labels in class steps; 0 is the one nearest class."""

    def __post_init__(self) -> None:
        _check_optim(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MuonConfig:
    """Orthogonalised momentum for the matrices that a network names, AdamW for its other weights."""

    name: Literal["muon"]
    matrix_learning_rate: float
    """Of matrices, times √max(1, rows/columns)."""
    matrix_weight_decay: float
    momentum: float
    """Of matrices."""
    iterations: int
    """Newton-Schulz steps towards the orthogonal matrix."""
    learning_rate: float
    """Of the other weights."""
    weight_decay: float
    """Of the other weights."""
    schedule: Literal["constant", "cosine"]
    """Of both rates."""
    warmup: int
    clip: float | None
    label_width: float

    def __post_init__(self) -> None:
        _check_optim(self)
        require(
            self.matrix_learning_rate > 0,
            f"optim.matrix_learning_rate must be > 0, got {self.matrix_learning_rate}",
        )
        require(
            self.matrix_weight_decay >= 0,
            f"optim.matrix_weight_decay must be >= 0, got {self.matrix_weight_decay}",
        )
        require(0 <= self.momentum < 1, f"optim.momentum must lie in 0 to 1, got {self.momentum}")
        require(self.iterations >= 1, f"optim.iterations must be >= 1, got {self.iterations}")


def _check_optim(config: AdamConfig | MuonConfig) -> None:
    require(config.learning_rate > 0, f"optim.learning_rate must be > 0, got {config.learning_rate}")
    require(config.weight_decay >= 0, f"optim.weight_decay must be >= 0, got {config.weight_decay}")
    require(config.warmup >= 0, f"optim.warmup must be >= 0 steps, got {config.warmup}")
    require(config.clip is None or config.clip > 0, f"optim.clip must be > 0 or null, got {config.clip}")
    require(config.label_width >= 0, f"optim.label_width must be >= 0, got {config.label_width}")


#: How weights follow gradients.
OptimConfig = AdamConfig | MuonConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """How long, how often, how precisely."""

    steps: int
    batch: int
    """Patterns per step, over all processes."""
    observations: int
    """How often an expected pattern is observed, each time with photons of its own, hundreds of steps apart."""
    evaluate_every: int
    """Steps between two looks at the validation split."""
    checkpoint_every: int
    """Steps between two resumable states."""
    check_every: int
    """Steps between two looks at whether every loss was finite; a wrong batch is found that many steps late at most."""
    validation_draws: int
    """Augmented versions of every validation pattern."""
    precision: Literal["auto", "float32", "bfloat16", "float64"]
    """Of the network. auto: bfloat16 autocast on CUDA, float32 on a CPU."""
    compile: bool
    """Whether the network and its loss go through torch.compile; not on a CPU."""
    threads: int | None
    """CPU threads of each process; null: cores of the node over its processes."""
    initial: str | None
    """Folder of a model whose weights the training begins with; null: random ones."""
    stop_after_minutes: float | None
    """Save the state and end with exit code 75 after that time; null: run to the last step."""

    def __post_init__(self) -> None:
        counts = (
            "steps",
            "batch",
            "observations",
            "evaluate_every",
            "checkpoint_every",
            "check_every",
            "validation_draws",
        )
        for name in counts:
            require(getattr(self, name) >= 1, f"trainer.{name} must be >= 1, got {getattr(self, name)}")
        require(
            self.threads is None or self.threads >= 1,
            f"trainer.threads must be >= 1 or null, got {self.threads}",
        )
        require(
            self.stop_after_minutes is None or self.stop_after_minutes > 0,
            f"trainer.stop_after_minutes must be > 0 or null, got {self.stop_after_minutes}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig:
    """Where networks run."""

    name: Literal["auto", "cpu", "cuda"]
    """auto: CUDA if there is a device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run of `qd-train`."""

    data: StoreDataConfig | EnsembleDataConfig
    classes: ClassConfig | None
    """None for a posterior that is not to be compared with classifiers."""
    augment: AllaraConfig | InstrumentRecipeConfig
    network: (
        AllConvConfig
        | ResidualMlpConfig
        | PosteriorConfig
        | PosteriorConvolutionsConfig
        | PosteriorFlowConfig
    )
    optim: AdamConfig | MuonConfig
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
        require(
            self.task == "posterior" or self.classes is not None,
            f"network={self.network.name} tells classes apart and needs them; choose classes=NAME",
        )

    @property
    def task(self) -> Literal["classes", "posterior"]:
        """What the network answers with."""
        return "classes" if isinstance(self.network, AllConvConfig | ResidualMlpConfig) else "posterior"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateDataConfig:
    """Which dots a model is tried on."""

    store: str
    """Folder of the zarr store."""
    split: Literal["train", "validation", "test", "all", "prior"]
    """Of the store the model was trained on; all for a store it has never seen; prior: new dots of a model of endless
    draws, from the ranges of its training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StressRunConfig:
    """Which stress sets a model is tried on."""

    sets: tuple[str, ...]
    """Names of `conf/stress/`, or all; none where the list is empty."""
    folder: str
    """Where sets are kept: made there once."""
    refine_patterns: int
    """How many patterns of every set are fitted too, with `refine`."""
    processes: int
    """How many processes beside this one share the sets; 0: this one."""

    def __post_init__(self) -> None:
        for name in ("refine_patterns", "processes"):
            require(getattr(self, name) >= 0, f"stress.{name} must be >= 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """One run of `qd-evaluate`."""

    model: str
    """Folder of the model."""
    data: EvaluateDataConfig
    classes: ClassConfig | None
    """What posteriors are asked to tell apart, None for nothing; a model with classes of its own has those."""
    draws: int
    """Classifiers: augmented versions of every pattern in every noise cell."""
    patterns: int
    """Posteriors: patterns of every noise cell."""
    refine: bool
    """Posteriors: whether patterns are fitted from the network's answer too."""
    refine_patterns: int
    """How many of every noise cell."""
    classical_patterns: int
    """How many of every noise cell are fitted by qd-fit too; 0 for none."""
    stress: StressRunConfig
    batch: int
    """Patterns at a time."""
    output: str
    """Folder of metrics.json and the figures."""
    device: DeviceConfig
    seed: int

    def __post_init__(self) -> None:
        for name in ("draws", "patterns", "refine_patterns", "batch"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")
        require(
            0 <= self.classical_patterns <= self.patterns,
            f"classical_patterns must lie in 0 to patterns={self.patterns}, got {self.classical_patterns}",
        )
        require(
            not self.refine or self.refine_patterns <= self.patterns,
            f"refine_patterns must be at most patterns={self.patterns}, got {self.refine_patterns}",
        )
