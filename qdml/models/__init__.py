"""Networks by name: one architecture per file.

A model maps a `NetworkInput` to what it is asked for. The task of `allconv` and `residual_mlp` is *classes*: logits
{"diameter": (B, D), "sigma": (B, S)} with two heads, or {"joint": (B, D·S)} with one over all pairs (σ fastest). That
of `posterior` is the *posterior* of (ln D_v, ln σ, ε): a `GaussianMixture`, or a `FlowDensity`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qdml.preprocess import CHANNELS

if TYPE_CHECKING:
    from qdml.config import AllConvConfig, ClassConfig, ResidualMlpConfig
    from qdml.network_config import PosteriorConfig, PosteriorConvolutionsConfig, PosteriorFlowConfig

    Posteriors = PosteriorConfig | PosteriorConvolutionsConfig | PosteriorFlowConfig

__all__ = ["build_model", "head_sizes"]


def head_sizes(heads: str, classes: ClassConfig) -> dict[str, int]:
    """Name -> number of logits of each head."""
    n_diameter, n_sigma = len(classes.diameter_nm), len(classes.sigma)
    if heads == "joint":
        return {"joint": n_diameter * n_sigma}
    return {"diameter": n_diameter, "sigma": n_sigma}


def build_model(
    config: AllConvConfig | ResidualMlpConfig | Posteriors,
    classes: ClassConfig | None,
    n_q: int,
    n_conditions: int,
    *,
    n_latents: int = 0,
    n_variants: int = 1,
) -> torch.nn.Module:
    """The network that a configuration names, with random weights.

    Args:
        config: from `network=NAME`.
        classes: what it tells apart; None for a posterior.
        n_q: points of the Q grid.
        n_conditions: what is known of a measurement, besides its pattern.
        n_latents: what is unknown in the world of its patterns, and guessed by a posterior.
        n_variants: structural variants of the dots, of the same use.

    Raises:
        ValueError: the pattern is too short for the network; classes are missing.
    """
    from qdml.config import AllConvConfig, ResidualMlpConfig
    from qdml.models.allconv import AllConv
    from qdml.models.residual_mlp import ResidualMlp

    channels = CHANNELS[config.input]
    if not isinstance(config, AllConvConfig | ResidualMlpConfig):
        return _posterior(config, channels, n_q, n_conditions, n_latents, n_variants)
    if classes is None:
        raise ValueError(f"network={config.name} tells classes apart and needs them: choose classes=NAME")
    sizes = head_sizes(config.heads, classes)
    if isinstance(config, AllConvConfig):
        return AllConv(sizes, channels=channels, n_q=n_q, filters=config.filters, kernels=config.kernels)
    return ResidualMlp(
        sizes,
        channels=channels,
        n_q=n_q,
        components=config.components,
        width=config.width,
        blocks=config.blocks,
        compress_beyond=config.compress_beyond,
    )


def _posterior(
    config: Posteriors, channels: int, n_q: int, n_conditions: int, n_latents: int, n_variants: int
) -> torch.nn.Module:
    from qdml.models.convolutions import ConvolutionBranch
    from qdml.models.flow import FlowHead
    from qdml.models.posterior import MixtureHead, NuisanceHead, Posterior
    from qdml.network_config import PosteriorConvolutionsConfig, PosteriorFlowConfig

    head: MixtureHead | FlowHead
    if isinstance(config, PosteriorFlowConfig):
        head = FlowHead(config.width, transforms=config.transforms, hidden=config.hidden, bins=config.bins)
    else:
        head = MixtureHead(config.width, config.mixture)
    convolutions = None
    if isinstance(config, PosteriorConvolutionsConfig):
        convolutions = ConvolutionBranch(1 + config.mask, n_q, config.filters, config.layers)
    return Posterior(
        channels=channels,
        n_q=n_q,
        n_conditions=n_conditions,
        components=config.components,
        width=config.width,
        blocks=config.blocks,
        head=head,
        nuisance=NuisanceHead(config.width, n_latents, n_variants),
        convolutions=convolutions,
        mask=config.mask,
        conditions=config.conditions,
        declared_noise=config.declared_noise,
        compress_beyond=config.compress_beyond,
    )
