"""Networks that answer with a posterior (`network=posterior...`): types and checks; values live in `conf/network/`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from qdml.config_reader import require

__all__ = ["PosteriorConfig", "PosteriorConvolutionsConfig", "PosteriorFlowConfig", "PosteriorNetworkConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PosteriorNetworkConfig:
    """A residual network on the whitened pattern: what all of them have."""

    input: Literal["area", "area_mask", "log_smooth"]
    """How a pattern is presented."""
    components: int
    """Principal components of the input that are kept."""
    compress_beyond: float
    """Standard deviations of a component beyond which its logarithm enters."""
    width: int
    """Of the residual stream."""
    blocks: int
    mask: bool
    """Whether the network is told what was not measured."""
    conditions: bool
    """Whether it is told what is known of the measurement."""
    declared_noise: bool
    """Whether the declared noise of each pattern scales its components."""
    nuisance: float
    """Weight of the latents' squared errors in the loss."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            require(type(value) is not int or value >= 1, f"network.{field.name} must be >= 1, got {value}")
        require(
            self.compress_beyond > 0, f"network.compress_beyond must be > 0, got {self.compress_beyond:g}"
        )
        require(self.nuisance >= 0, f"network.nuisance must be >= 0, got {self.nuisance:g}")
        require(
            not self.mask or self.input != "area",
            "network.mask=true needs an input with a mask channel; choose network.input=log_smooth or area_mask",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PosteriorConfig(PosteriorNetworkConfig):
    """It answers with a mixture of normal densities."""

    name: Literal["posterior"]
    mixture: int
    """Normal densities in the mixture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PosteriorConvolutionsConfig(PosteriorNetworkConfig):
    """It answers with a mixture, and has a branch of convolutions beside the whitening."""

    name: Literal["posterior_convolutions"]
    mixture: int
    filters: int
    """Features of each window of 8 points."""
    layers: int
    """Residual blocks of convolutions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PosteriorFlowConfig(PosteriorNetworkConfig):
    """It answers with a spline flow."""

    name: Literal["posterior_flow"]
    transforms: int
    """Autoregressive transformations, one after the other."""
    hidden: int
    """Width of the two layers that make the splines of each."""
    bins: int
    """Of a spline."""
