"""Networks that can be asked for (`network=NAME`): types and checks; values live in `conf/network/`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qdml.config_reader import require

__all__ = ["PosteriorConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PosteriorConfig:
    """A residual network on the whitened pattern that answers with a density of (ln D_v, ln σ, ε)."""

    name: Literal["posterior"]
    input: Literal["area", "area_mask", "log_smooth"]
    """How a pattern is presented."""
    components: int
    """Principal components of the input that are kept."""
    width: int
    """Of the residual stream."""
    blocks: int
    mixture: int
    """Normal densities in the mixture."""
    mask: bool
    """Whether the network is told what was not measured."""
    conditions: bool
    """Whether it is told what is known of the measurement."""
    declared_noise: bool
    """Whether the declared noise of each pattern scales its components."""

    def __post_init__(self) -> None:
        for name in ("components", "width", "blocks", "mixture"):
            require(getattr(self, name) >= 1, f"network.{name} must be >= 1, got {getattr(self, name)}")
        require(
            not self.mask or self.input != "area",
            "network.mask=true needs an input with a mask channel; choose network.input=log_smooth or area_mask",
        )
