"""The loss of every pattern, scores to watch while training, and probabilities from logits.

    posterior:  loss = -ln p(truth) + guess,   guess = -ln p(variant) + w/2 (|z - ẑ|² + (ln b - ẑ_b)²/0.3²)
    classes:    loss = Σ_heads [-Σ_k t_k ln p_k],   p = softmax(logits)

The guess of what is not asked for (`qdml.nuisance`) is learned with a small weight w (`network.nuisance`); scores do
not count it. t is the nearest class, or a Gaussian of `width` class steps about the true value, sampled at the
centres. The second says that neighbours of the right class are nearly right, where values lie between the centres.

Symbols: B pattern, D size class, S dispersion class, K class of a head, T target of a posterior, L latent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from qdml.config import ClassConfig
from qdml.dataset import nearest_class
from qdml.densities import TARGETS, number_diameter

if TYPE_CHECKING:
    from qdml.config import TrainConfig
    from qdml.dataset import Rows
    from qdml.densities import GaussianMixture
    from qdml.models.flow import FlowDensity
    from qdml.nuisance import Nuisance

__all__ = [
    "class_labels",
    "class_probabilities",
    "nuisance_loss",
    "nuisance_scores",
    "pattern_loss",
    "scores",
]

# Probability of a central interval of one standard deviation.
_CENTRAL = 0.6826894921
# Spread of ln b in the ranges of conf/experiment, beside 1 for the latents.
_LOG_B_SPREAD = 0.3


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


def pattern_loss(
    outputs: GaussianMixture | FlowDensity | Mapping[str, torch.Tensor], rows: Rows, config: TrainConfig
) -> torch.Tensor:
    """(B,) loss of each pattern [nats]; its mean over a batch is what is learned from.

    Args:
        outputs: of a model: a density, or logits (B, K) of each head.
        rows: what the patterns are of.
        config: classes, and the width of their labels.
    """
    if not isinstance(outputs, Mapping):
        return -outputs.log_prob(rows.targets())
    assert config.classes is not None  # checked when the network was built
    width = config.optim.label_width
    t_BD = class_labels(rows.diameter, config.classes.diameter_nm, width)
    t_BS = class_labels(rows.sigma, config.classes.sigma, width)
    targets = {"diameter": t_BD, "sigma": t_BS, "joint": (t_BD[:, :, None] * t_BS[:, None, :]).flatten(1)}
    losses = [
        cross_entropy(
            one.to(torch.promote_types(one.dtype, torch.float32)),
            targets[name].to(one.device),
            reduction="none",
        )
        for name, one in outputs.items()
    ]
    return torch.stack(losses).sum(dim=0)


def nuisance_loss(guess: Nuisance, rows: Rows, z_BL: torch.Tensor, weight: float) -> torch.Tensor:
    """(B,) loss of a network's guess of what it is not asked for [nats].

    Args:
        guess: of the network.
        rows: what the patterns are of.
        z_BL: the latents behind them.
        weight: of the squared errors; the variant is a part of the posterior like any other.
    """
    variant_B = -guess.log_variant.gather(1, rows.variant[:, None])[:, 0]
    log_b_B = (guess.log_b_scale - torch.log(rows.b_scale).to(guess.z.dtype)) / _LOG_B_SPREAD
    return variant_B + 0.5 * weight * ((guess.z - z_BL).square().sum(dim=1) + log_b_B.square())


@torch.no_grad()
def nuisance_scores(guess: Nuisance, rows: Rows, z_BL: torch.Tensor) -> dict[str, torch.Tensor]:
    """How good a guess is.

    Returns:
        Name -> (B,) float: whether the most probable variant is right, and what of the latents' variance (1 each) the
        guess explains; without latents only the former.
    """
    right = {"variant_accuracy": (guess.log_variant.argmax(dim=1) == rows.variant).double()}
    if not z_BL.shape[1]:
        return right
    return right | {"latents_explained": 1 - (guess.z - z_BL).square().mean(dim=1)}


@torch.no_grad()
def scores(
    outputs: GaussianMixture | FlowDensity | Mapping[str, torch.Tensor], rows: Rows, config: TrainConfig
) -> dict[str, torch.Tensor]:
    """How well each pattern is answered, for the lines of a run: their means over patterns are worth reading.

    Returns:
        Name -> (B,) float. Posterior: `nll`, |error| of the point estimate of D_v, D [nm], σ and ε (the mean of each
        target), and whether the central 68 % interval of each target covers the truth. Classes: whether the most
        probable one is right, and |error| of the mean over classes.
    """
    loss = pattern_loss(outputs, rows, config)
    if isinstance(outputs, Mapping):
        assert config.classes is not None
        p, named = class_probabilities(outputs, config.classes), {"nll": loss}
        for name, unit, truth in (("diameter", "_nm", rows.diameter), ("sigma", "", rows.sigma)):
            p_BK, centres = p[f"{name}{unit}"], getattr(config.classes, f"{name}{unit}")
            centre_K = torch.tensor(centres, dtype=torch.float64, device=truth.device)
            named[f"{name}_accuracy"] = (p_BK.argmax(dim=1) == nearest_class(truth, centres)).double()
            named[f"{name}_mae{unit}"] = (p_BK @ centre_K - truth).abs()
        return named
    targets_BT = rows.targets()
    mean_BT = outputs.moments()[0]
    volume, sigma, strain = mean_BT[:, 0].exp(), mean_BT[:, 1].exp(), mean_BT[:, 2]
    inside_BT = (outputs.cdf(targets_BT) - 0.5).abs() < _CENTRAL / 2
    return {
        "nll": loss,
        "volume_diameter_mae_nm": (volume - rows.volume_diameter).abs(),
        "diameter_mae_nm": (number_diameter(volume, sigma) - rows.diameter).abs(),
        "sigma_mae": (sigma - rows.sigma).abs(),
        "strain_mae": (strain - rows.strain).abs(),
        **{f"{name}_in_68": inside_BT[:, i].double() for i, name in enumerate(TARGETS)},
    }


def class_probabilities(logits: Mapping[str, torch.Tensor], classes: ClassConfig) -> dict[str, torch.Tensor]:
    """`diameter_nm` (B, D) and `sigma` (B, S) float64 probabilities; a joint head is summed over the other quantity."""
    p = {name: torch.softmax(one.double(), dim=1) for name, one in logits.items()}
    if "joint" in p:
        joint = p["joint"].unflatten(1, (len(classes.diameter_nm), len(classes.sigma)))
        return {"diameter_nm": joint.sum(dim=2), "sigma": joint.sum(dim=1)}
    return {"diameter_nm": p["diameter"], "sigma": p["sigma"]}
