"""Networks by name: one architecture per file.

A model maps a `NetworkInput` to what it is asked for. The task of `allconv` and `residual_mlp` is *classes*: logits
{"diameter": (B, D), "sigma": (B, S)} with two heads, or {"joint": (B, D·S)} with one over all pairs (σ fastest). That
of `posterior` is the *posterior*: a `GaussianMixture` of (ln D_v, ln σ, ε).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qdml.preprocess import CHANNELS

if TYPE_CHECKING:
    from qdml.config import AllConvConfig, ClassConfig, ResidualMlpConfig
    from qdml.network_config import PosteriorConfig

__all__ = ["build_model", "head_sizes"]


def head_sizes(heads: str, classes: ClassConfig) -> dict[str, int]:
    """Name -> number of logits of each head."""
    n_diameter, n_sigma = len(classes.diameter_nm), len(classes.sigma)
    if heads == "joint":
        return {"joint": n_diameter * n_sigma}
    return {"diameter": n_diameter, "sigma": n_sigma}


def build_model(
    config: AllConvConfig | ResidualMlpConfig | PosteriorConfig,
    classes: ClassConfig | None,
    n_q: int,
    n_conditions: int,
) -> torch.nn.Module:
    """The network that a configuration names, with random weights.

    Args:
        config: from `network=NAME`.
        classes: what it tells apart; None for a posterior.
        n_q: points of the Q grid.
        n_conditions: what is known of a measurement, besides its pattern.

    Raises:
        ValueError: the pattern is too short for the network; classes are missing.
    """
    from qdml.config import AllConvConfig
    from qdml.models.allconv import AllConv
    from qdml.models.posterior import Posterior
    from qdml.models.residual_mlp import ResidualMlp
    from qdml.network_config import PosteriorConfig

    channels = CHANNELS[config.input]
    if isinstance(config, PosteriorConfig):
        return Posterior(
            channels=channels,
            n_q=n_q,
            n_conditions=n_conditions,
            components=config.components,
            width=config.width,
            blocks=config.blocks,
            mixture=config.mixture,
            mask=config.mask,
            conditions=config.conditions,
            declared_noise=config.declared_noise,
        )
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
    )
