"""Asking a posterior network about many patterns, and how good its guess of all the rest is.

Beside the density a network guesses what is not asked for (`qdml.nuisance.Nuisance`): where `refine` begins. The closer
to the truth, the fewer derivatives the fit needs.

    explained = 1 - <(z - guess)²> / <z²>         of each latent: 0 where the pattern says nothing, 1 where all

Symbols: B pattern, Q point of the grid, L latent.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qdml.densities import GaussianMixture
from qdml.nuisance import Nuisance
from qdml.preprocess import network_input

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qdml.augmentation.recipe import Main
    from qdml.observation import Observation

__all__ = ["ask", "clock", "score_guess"]


@torch.inference_mode()
def ask(
    module: Any, observation: Observation, q: torch.Tensor, form: str, batch: int
) -> tuple[GaussianMixture, Nuisance]:
    """What a posterior network says of every pattern, in float64.

    Args:
        module: a `qdml.models.posterior.Posterior` that answers with mixtures.
        observation: the patterns.
        q: (Q,) [Å⁻¹].
        form: of the input, as the network was trained (`network.input`).
        batch: patterns at a time.
    """
    parts = [
        module.answer(network_input(observation.take(slice(start, start + batch)), q, form))
        for start in range(0, len(observation), batch)
    ]
    densities, guesses = zip(*parts, strict=True)
    return GaussianMixture.cat(list(densities)).to(torch.float64), Nuisance.cat(list(guesses))


def clock(device: torch.device) -> Callable[[], float]:
    """Tells seconds: those of all cores together, which other programs may share; on a GPU those that pass."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def score_guess(
    guess: Nuisance, main: Main, z_BL: torch.Tensor, names: Mapping[str, slice]
) -> dict[str, Any]:
    """How much of what is not asked for a network knows.

    Args:
        guess: of B patterns.
        main: the true dots.
        z_BL: (B, L) the true latents.
        names: of `LatentSpace`.

    Returns:
        `variant_accuracy`, `variant_log_loss` (mean of -ln p of the true variant), `log_b_explained` (None where B
        does not vary), `latents_explained` and, by name, `explained`.
    """
    variant_B = main.variant.to(guess.log_variant.device)
    p_B = guess.log_variant.gather(1, variant_B[:, None])[:, 0]
    log_b_B = main.b_scale.double().log()
    spread = float(log_b_B.var(correction=0))
    away_L = (guess.z.double() - z_BL.double()).square().mean(dim=0)
    explained_L = (1 - away_L / z_BL.double().square().mean(dim=0)).cpu().numpy()
    off = float((guess.log_b_scale.double() - log_b_B).square().mean())
    return {
        "variant_accuracy": float((guess.log_variant.argmax(dim=1) == variant_B).double().mean()),
        "variant_log_loss": float(-p_B.double().mean()),
        "log_b_explained": 1 - off / spread if spread > 0 else None,
        "latents_explained": float(np.mean(explained_L)),
        "explained": {name: float(np.mean(explained_L[where])) for name, where in names.items()},
    }
