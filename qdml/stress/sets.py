"""What a stress set holds: the published benchmark with one thing changed (`conf/stress/NAME.yaml`).

`published.yaml` is complete; every other file names what it changes. The *fingerprint* of a set is a checksum of
everything that decides its numbers.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from hpc.named_files import file_names, read_named
from qdml.config_reader import read_config, require, require_range

__all__ = ["BASE", "StressConfig", "StressQ", "load_stress", "stress_names"]

#: The set that all others change something of.
BASE = "published"

# Of what `qdml.stress.make` computes: another version of the code that gives other numbers has another one.
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StressQ:
    """Grid of Q [Å⁻¹]; max is included when a whole number of steps reaches it."""

    min: float
    max: float
    step: float

    def __post_init__(self) -> None:
        require(self.step > 0 and 0 < self.min < self.max, "q must be 0 < min < max with a step > 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class StressConfig:
    """One set; every field is a key of `conf/stress/published.yaml` and explained there."""

    title: str
    published: float
    goal: float | None
    goal_on_volume: bool
    material: str
    b_iso: dict[str, float]
    energy_kev: float
    q: StressQ
    shape: str
    diameter_nm: tuple[float, ...]
    sigma: tuple[float, ...]
    strain: tuple[float, ...]
    strains: int
    tail: float
    solvents: tuple[str, ...]
    fractions: tuple[float, ...]
    scales: tuple[float, ...]
    window: tuple[float, ...] | None
    resolution: float
    background: float
    zero_shift: float
    per_size: int
    seed: int

    def __post_init__(self) -> None:
        require(
            min(self.diameter_nm, default=0) > 0, f"diameter_nm must be > 0, got {list(self.diameter_nm)}"
        )
        require(min(self.sigma, default=-1) >= 0, f"sigma must be >= 0, got {list(self.sigma)}")
        require_range("strain", self.strain, least=-0.1, most=0.1)
        require(self.strains >= 1, f"strains must be >= 1, got {self.strains}")
        require(0 < self.tail < 0.1, f"tail must lie in 0 to 0.1, got {self.tail:g}")
        require(len(self.solvents) >= 1, "solvents must name at least one liquid")
        require(
            len(self.fractions) >= 1 and 0 < min(self.fractions) <= max(self.fractions) <= 1,
            f"fractions must lie in 0 < fraction <= 1, got {list(self.fractions)}",
        )
        require(min(self.scales, default=0) > 0, f"scales must be > 0, got {list(self.scales)}")
        if self.window is not None:
            require_range("window", self.window, least=self.q.min, most=self.q.max)
        for name in ("resolution", "background"):
            require(getattr(self, name) >= 0, f"{name} must be >= 0, got {getattr(self, name):g}")
        require(
            abs(self.zero_shift) < 0.5, f"zero_shift must lie in -0.5 to 0.5 Å⁻¹, got {self.zero_shift:g}"
        )
        require(self.per_size >= 1, f"per_size must be >= 1, got {self.per_size}")

    @property
    def n_patterns(self) -> int:
        """How many patterns the set holds."""
        return len(self.diameter_nm) * self.per_size

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of everything that decides the numbers: not of title, goal and published score."""
        content = {key: value for key, value in asdict(self).items() if key not in _WORDS}
        text = json.dumps({"format": _FORMAT, **content}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_WORDS = ("title", "published", "goal", "goal_on_volume")


def stress_names() -> list[str]:
    """The sets of `conf/stress/`, the published benchmark first."""
    return [BASE, *(name for name in file_names("stress") if name != BASE)]


def load_stress(name: str, **changes: Any) -> StressConfig:
    """The set of `conf/stress/<name>.yaml`.

    Args:
        name: one of `stress_names()`.
        **changes: of further keys, as their YAML would be.

    Raises:
        ValueError: no such set, or one that cannot be.
    """
    if name not in stress_names():
        raise ValueError(f"stress sets are {stress_names()}, or all; got {name!r}")
    values = read_named("stress", BASE) | read_named("stress", name)
    config = read_config(StressConfig, values | changes, f"stress/{name}")
    assert isinstance(config, StressConfig)
    return config
