"""Asking a model: what its network is shown of patterns, as its card says, and what a posterior one answers.

Symbols: Q point of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qdml.densities import GaussianMixture
from qdml.nuisance import Nuisance
from qdml.preprocess import NetworkInput, network_input

if TYPE_CHECKING:
    from qdml.observation import Observation

__all__ = ["ask", "input_of", "model_grid"]


def model_grid(card: Mapping[str, Any]) -> np.ndarray:
    """(Q,) float64 [Å⁻¹]: the grid of a model, from its card."""
    grid = card["q"]
    return np.linspace(grid["min"], grid["max"], grid["size"])


def input_of(card: Mapping[str, Any], observation: Observation) -> NetworkInput:
    """Patterns as the network of a card sees them."""
    return network_input(observation, torch.as_tensor(model_grid(card)), card["input"])


@torch.inference_mode()
def ask(
    module: Any, card: Mapping[str, Any], observation: Observation, batch: int | None = None
) -> tuple[GaussianMixture, Nuisance]:
    """What a posterior network says of every pattern, in float64: its density, and its guess of all the rest.

    Args:
        module: a `qdml.models.posterior.Posterior` that answers with mixtures, as loaded models do; in eval mode.
        card: its card.
        observation: the patterns, with the conditions of their measurements.
        batch: patterns at a time; None for all at once.
    """
    n = len(observation)
    parts = [
        module.answer(input_of(card, observation.take(slice(start, start + (batch or n)))))
        for start in range(0, n, batch or n)
    ]
    densities, guesses = zip(*parts, strict=True)
    return GaussianMixture.cat(densities).to(torch.float64), Nuisance.cat(guesses).to(torch.float64)
