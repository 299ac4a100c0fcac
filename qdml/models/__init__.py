"""Networks by name: one architecture per file.

A model maps x (B, C, Q) to logits: {"diameter": (B, D), "sigma": (B, S)} with two heads, or {"joint": (B, D·S)} with
one over all pairs (σ fastest).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qdml.preprocess import CHANNELS

if TYPE_CHECKING:
    from qdml.config import AllConvConfig, ClassConfig, ResidualMlpConfig

__all__ = ["build_model", "head_sizes"]


def head_sizes(heads: str, classes: ClassConfig) -> dict[str, int]:
    """Name -> number of logits of each head."""
    n_diameter, n_sigma = len(classes.diameter_nm), len(classes.sigma)
    if heads == "joint":
        return {"joint": n_diameter * n_sigma}
    return {"diameter": n_diameter, "sigma": n_sigma}


def build_model(config: AllConvConfig | ResidualMlpConfig, classes: ClassConfig, n_q: int) -> torch.nn.Module:
    """The network that a configuration names, with random weights.

    Args:
        config: from `network=NAME`.
        classes: what it tells apart.
        n_q: points of the Q grid.

    Raises:
        ValueError: the pattern is too short for the network.
    """
    from qdml.config import AllConvConfig
    from qdml.models.allconv import AllConv
    from qdml.models.residual_mlp import ResidualMlp

    sizes, channels = head_sizes(config.heads, classes), CHANNELS[config.input]
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
