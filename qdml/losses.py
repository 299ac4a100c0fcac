"""Class labels, the loss, and probabilities from logits.

    loss = Σ_heads mean_B [-Σ_k t_k ln p_k],   p = softmax(logits)

t is the nearest class, or a Gaussian of `width` class steps about the true value, sampled at the centres. The second
says that neighbours of the right class are nearly right, where values lie between the centres.

Symbols: B pattern, D size class, S dispersion class, K class of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import cross_entropy

from qdml.config import ClassConfig
from qdml.dataset import nearest_class

__all__ = ["class_labels", "class_loss", "class_probabilities"]


def class_labels(values: torch.Tensor, centres: Sequence[float], width: float) -> torch.Tensor:
    """(B, K) float32 target probabilities.

    Args:
        values: (B,) true values.
        centres: K increasing centres.
        width: standard deviation in class steps; 0 for the nearest class alone.
    """
    if width == 0:
        return torch.nn.functional.one_hot(nearest_class(values, centres), len(centres)).float()
    centre = torch.as_tensor(centres, dtype=torch.float64, device=values.device)
    step = (centre[-1] - centre[0]) / (len(centres) - 1)
    return torch.softmax(-0.5 * ((values.double()[:, None] - centre) / (width * step)) ** 2, dim=1).float()


def class_loss(
    logits: Mapping[str, torch.Tensor],
    diameter: torch.Tensor,
    sigma: torch.Tensor,
    classes: ClassConfig,
    width: float = 0.0,
) -> torch.Tensor:
    """Mean cross-entropy over the batch, summed over the heads [nats].

    Args:
        logits: of a model, (B, K) each.
        diameter: (B,) true D [nm].
        sigma: (B,) true σ.
        classes: centres.
        width: of the labels, in class steps.
    """
    t_BD = class_labels(diameter, classes.diameter_nm, width)
    t_BS = class_labels(sigma, classes.sigma, width)
    targets = {"diameter": t_BD, "sigma": t_BS, "joint": (t_BD[:, :, None] * t_BS[:, None, :]).flatten(1)}
    losses = [cross_entropy(one.to(torch.promote_types(one.dtype, torch.float32)), targets[name].to(one.device))
              for name, one in logits.items()]  # fmt: skip
    return torch.stack(losses).sum()


def class_probabilities(logits: Mapping[str, torch.Tensor], classes: ClassConfig) -> dict[str, torch.Tensor]:
    """`diameter_nm` (B, D) and `sigma` (B, S) float64 probabilities; a joint head is summed over the other quantity."""
    p = {name: torch.softmax(one.double(), dim=1) for name, one in logits.items()}
    if "joint" in p:
        joint = p["joint"].unflatten(1, (len(classes.diameter_nm), len(classes.sigma)))
        return {"diameter_nm": joint.sum(dim=2), "sigma": joint.sum(dim=1)}
    return {"diameter_nm": p["diameter"], "sigma": p["sigma"]}
