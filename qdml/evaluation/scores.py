"""Posteriors beside the Cramér-Rao bound: errors over the bound, calibration, classes; of any group of patterns.

    error over bound    √<(estimate - truth)²/bound²>: 1 for an estimator that reaches the bound; with its standard
                        error, because one or two patterns decide the rms of a few
    rank                u = P(value < truth): uniform where posteriors are exact and the truth is drawn from the prior
    σ over prior        RMSE(σ) over the spread of σ in the patterns: 1 where nothing is known of σ
    classes             nearest class of D and of σ, by the largest probability
    explained           1 - <(z - guess)²> / <z²> of each latent that a network guesses: 0 where the pattern says
                        nothing, 1 where all

*Ideal* answers are normal posteriors of the bound's covariance about a draw from it: what an estimator at the bound
would score. They are the ceiling of everything that has no other one. Dots below 3 nm with σ below 8 % are nearly
degenerate (σ changes less than counts do), and are told apart.

Symbols: B pattern, K quantity (`qdml.answers.QUANTITIES`), L latent, T target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qdml.answers import QUANTITIES, class_probabilities, posterior_samples, quantities_of
from qdml.dataset import nearest_class
from qdml.densities import GaussianMixture
from qdml.limits.cramer_rao import quantity_errors
from qdml.metrics import coverage, rank_test, rms_ratio, rms_ratio_error, robust_ratio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qdml.augmentation.recipe import Main
    from qdml.config import ClassConfig
    from qdml.nuisance import Nuisance

__all__ = ["DEGENERATE", "Scored", "group_scores", "ideal_answers", "score", "score_guess"]

#: Below this D [nm] and this σ, σ is hardly in the pattern at all.
DEGENERATE = (3.0, 0.08)

# Patterns at a time: 1024 points x 1024 patterns x 3 float64 are 25 MB.
_CHUNK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Some patterns, what was said of each, and what could be known."""

    index: np.ndarray
    """(B,) int64, numbers of the patterns in the trial."""
    truth: np.ndarray
    """(B, K) float64 true quantities."""
    estimate: np.ndarray
    """(B, K) float64 means of the posteriors."""
    spread: np.ndarray
    """(B, K) float64 their standard deviations."""
    bound: np.ndarray
    """(B, K) float64 standard deviations of the Cramér-Rao bound."""
    rank: np.ndarray
    """(B, K) float64 in 0 to 1."""
    right: dict[str, np.ndarray]
    """`diameter_nm`, `sigma` -> (B,) bool: the most probable class is the true one; empty where none were asked for."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def degenerate(self) -> np.ndarray:
        """(B,) bool: see `DEGENERATE`."""
        diameter, sigma = self.truth[:, 0], self.truth[:, QUANTITIES.index("sigma")]
        return (diameter < DEGENERATE[0]) & (sigma < DEGENERATE[1])

    def take(self, chosen: np.ndarray) -> Scored:
        """Some of the patterns: indices or a boolean mask."""
        right = {name: values[chosen] for name, values in self.right.items()}
        names = ("index", "truth", "estimate", "spread", "bound", "rank")
        return Scored(**{name: getattr(self, name)[chosen] for name in names}, right=right)


def score(
    posterior: GaussianMixture,
    targets_BT: torch.Tensor,
    bound_BTT: torch.Tensor,
    classes: ClassConfig | None,
    index: np.ndarray,
    seed: int,
) -> Scored:
    """Compare posteriors with the truth.

    Args:
        posterior: of B patterns.
        targets_BT: (B, 3) float64, the truth.
        bound_BTT: (B, 3, 3) Cramér-Rao bound of the targets.
        classes: of size and dispersion; None to ask for none.
        index: (B,) numbers of the patterns.
        seed: of the points that stand for a posterior.
    """
    truth = quantities_of(targets_BT)
    pieces: dict[str, list[torch.Tensor]] = {name: [] for name in ("estimate", "spread", "rank")}
    for start in range(0, len(posterior), _CHUNK):
        part = slice(start, start + _CHUNK)
        values = quantities_of(posterior_samples(posterior.take(part), seed))
        columns = {name: (v, truth[name][part]) for name, v in values.items()}
        pieces["estimate"].append(torch.stack([v.mean(dim=0) for v, _ in columns.values()], dim=1))
        pieces["spread"].append(torch.stack([v.std(dim=0) for v, _ in columns.values()], dim=1))
        below = [((v < t).sum(dim=0) + 0.5) / (len(v) + 1) for v, t in columns.values()]
        pieces["rank"].append(torch.stack(below, dim=1))
    right = {}
    if classes is not None:
        joint_BDS = class_probabilities(posterior, classes)
        right = {
            name: nearest_class(truth[name], getattr(classes, name)) == joint_BDS.sum(dim=dim).argmax(dim=1)
            for name, dim in (("diameter_nm", 2), ("sigma", 1))
        }
    return Scored(
        index=index,
        truth=torch.stack(list(truth.values()), dim=1).cpu().numpy(),
        bound=quantity_errors(bound_BTT, targets_BT).cpu().numpy(),
        right={name: values.cpu().numpy() for name, values in right.items()},
        **{name: torch.cat(parts).cpu().numpy() for name, parts in pieces.items()},
    )


def ideal_answers(
    targets_BT: torch.Tensor, bound_BTT: torch.Tensor, generator: torch.Generator
) -> GaussianMixture:
    """Normal posteriors as wide as the bound, their means drawn from it about the truth."""
    # 1e-9 of each variance: bounds with a target that is known have none.
    scale = bound_BTT.diagonal(dim1=1, dim2=2).clamp(min=1e-12)
    tril_BTT = torch.linalg.cholesky(bound_BTT + torch.diag_embed(1e-9 * scale))
    drawn = torch.randn(
        targets_BT.shape, dtype=targets_BT.dtype, device=targets_BT.device, generator=generator
    )
    mean_BT = targets_BT + (tril_BTT @ drawn[..., None])[..., 0]
    return GaussianMixture(
        logits=torch.zeros_like(mean_BT[:, :1]), mean=mean_BT[:, None], scale_tril=tril_BTT[:, None]
    )


def group_scores(scored: Scored, prior_spread: float) -> dict[str, Any]:
    """Every number of a group of patterns.

    Args:
        scored: the group; at least one pattern.
        prior_spread: standard deviation of σ in all patterns of the trial.
    """
    error = scored.estimate - scored.truth
    sigma = QUANTITIES.index("sigma")
    named = list(enumerate(QUANTITIES))
    ranks = {name: rank_test(scored.rank[:, k]) for k, name in named}
    return {
        "patterns": len(scored),
        "error_over_bound": {name: rms_ratio(error[:, k], scored.bound[:, k]) for k, name in named},
        "error_over_bound_error": {
            name: rms_ratio_error(error[:, k], scored.bound[:, k]) for k, name in named
        },
        "median_error_over_bound": {name: robust_ratio(error[:, k], scored.bound[:, k]) for k, name in named},
        "spread_over_bound": {
            name: float(np.median(scored.spread[:, k] / scored.bound[:, k])) for k, name in named
        },
        "mean_absolute_error": {name: float(np.abs(error[:, k]).mean()) for k, name in named},
        "sigma_over_prior": float(np.sqrt(np.mean(error[:, sigma] ** 2)) / prior_spread),
        "coverage": {name: coverage(scored.rank[:, k]) for k, name in named},
        "rank_histogram": {name: histogram for name, (histogram, _) in ranks.items()},
        "rank_p_value": {name: p for name, (_, p) in ranks.items()},
        "size_accuracy": float(scored.right["diameter_nm"].mean()) if scored.right else None,
        "dispersion_accuracy": float(scored.right["sigma"].mean()) if scored.right else None,
    }


def score_guess(
    guess: Nuisance, main: Main, z_BL: torch.Tensor, names: Mapping[str, slice]
) -> dict[str, Any]:
    """How much of what is not asked for a network knows, where `refine` begins.

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
