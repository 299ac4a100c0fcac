"""Networks that answer with a posterior (`network=posterior...`): types and checks; values live in `conf/network/`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qdml.config_reader import require

__all__ = ["PosteriorConfig", "PosteriorConvolutionsConfig", "PosteriorFlowConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PosteriorConfig:
    """A residual network on the whitened pattern that answers with a mixture of normal densities."""

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
    nuisance: float
    """Weight of the latents' squared errors in the loss."""

    def __post_init__(self) -> None:
        _check(self, "components", "width", "blocks", "mixture")


@dataclass(frozen=True, slots=True, kw_only=True)
class PosteriorConvolutionsConfig:
    """The same with a branch of convolutions beside the whitening."""

    name: Literal["posterior_convolutions"]
    input: Literal["area", "area_mask", "log_smooth"]
    components: int
    width: int
    blocks: int
    mixture: int
    mask: bool
    conditions: bool
    declared_noise: bool
    nuisance: float
    filters: int
    """Features of each window of 8 points."""
    layers: int
    """Residual blocks of convolutions."""

    def __post_init__(self) -> None:
        _check(self, "components", "width", "blocks", "mixture", "filters", "layers")


@dataclass(frozen=True, slots=True, kw_only=True)
class PosteriorFlowConfig:
    """The same with a spline flow in place of the mixture."""

    name: Literal["posterior_flow"]
    input: Literal["area", "area_mask", "log_smooth"]
    components: int
    width: int
    blocks: int
    mask: bool
    conditions: bool
    declared_noise: bool
    nuisance: float
    transforms: int
    """Autoregressive transformations, one after the other."""
    hidden: int
    """Width of the two layers that make the splines of each."""
    bins: int
    """Of a spline."""

    def __post_init__(self) -> None:
        _check(self, "components", "width", "blocks", "transforms", "hidden", "bins")


def _check(
    config: PosteriorConfig | PosteriorConvolutionsConfig | PosteriorFlowConfig, *positive: str
) -> None:
    for name in positive:
        require(getattr(config, name) >= 1, f"network.{name} must be >= 1, got {getattr(config, name)}")
    require(config.nuisance >= 0, f"network.nuisance must be >= 0, got {config.nuisance:g}")
    require(
        not config.mask or config.input != "area",
        "network.mask=true needs an input with a mask channel; choose network.input=log_smooth or area_mask",
    )
