"""How weights follow gradients: `optim=adam`, `adamw` (one rule for all weights) or `muon`.

Muon (K. Jordan, 2024; torch.optim.Muon) moves a matrix by the orthogonal part of its momentum, so that weak directions
of a gradient count as much as strong ones. It is for the matrices that a network names (`matrices()`); AdamW takes the
rest.

The learning rate of a step is a function of the step and of the last one alone, so that a resumed run needs no state.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from qdml.config import MuonConfig

if TYPE_CHECKING:
    from qdml.config import OptimConfig

__all__ = ["build_optimizers", "learning_rate", "set_progress"]


def build_optimizers(config: OptimConfig, model: torch.nn.Module) -> list[torch.optim.Optimizer]:
    """The optimisers of a network; together they have each weight that is learned once.

    Args:
        config: from `optim=NAME`.
        model: on its device.

    Raises:
        ValueError: Muon for a network that names no matrices.
    """
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    fused = learned[0].is_cuda  # one kernel instead of one for each operation
    if not isinstance(config, MuonConfig):
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
        return [kind(learned, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)]
    matrices = list(getattr(model, "matrices", list)())
    if not matrices:
        raise ValueError(
            "optim=muon is for networks with matrices between hidden layers, which this one does not name; choose "
            "optim=adamw"
        )
    named = {id(weight) for weight in matrices}
    rest = [weight for weight in learned if id(weight) not in named]
    return [
        torch.optim.Muon(
            matrices,
            lr=config.matrix_learning_rate,
            weight_decay=config.matrix_weight_decay,
            momentum=config.momentum,
            ns_steps=config.iterations,
        ),
        torch.optim.AdamW(rest, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused),
    ]


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Learning rate of a step: constant, or a linear warm-up and half a cosine down to zero."""
    return config.learning_rate * _factor(config, step, steps)


def set_progress(optimizers: list[torch.optim.Optimizer], config: OptimConfig, step: int, steps: int) -> None:
    """Give each group of weights its learning rate of a step."""
    factor = _factor(config, step, steps)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * factor


def _factor(config: OptimConfig, step: int, steps: int) -> float:
    if config.schedule == "constant":
        return 1.0
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))
