"""A model on the stress sets: share of patterns in the right size class, beside the published network's.

What is asked of the patterns, as a model gets them (`qdml.stress.seen`):

    nearest     class of D among the set's sizes, by the largest probability (published: 2 to 10 nm in steps of 0.5)
    volume      the posterior's median D_v is within half a step of the true D_v
    on grid     class of the most probable hypothesis of the published grid, as a network that has seen only that grid
                answers: other sizes, dispersions and strains do not exist

of the network, of `refine` where some patterns are fitted, and of an estimator at the bound (`qdml.stress.ceiling`).

Symbols: B pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qdml import answers
from qdml.asking import ask, input_of
from qdml.config import ClassConfig
from qdml.dataset import nearest_class
from qdml.densities import GaussianMixture
from qdml.losses import class_probabilities
from qdml.metrics import coverage
from qdml.stopwatch import clock
from qdml.stress.ceiling import possible
from qdml.stress.seen import Seen, as_seen
from qdml.stress.sets import BASE, load_stress

if TYPE_CHECKING:
    from qdml.augmentation.recipe import Recipe
    from qdml.nuisance import Nuisance
    from qdml.stress.make import Design, StressSet
    from qdml.stress.sets import StressConfig

__all__ = ["StressModel", "score_answers", "try_set"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StressModel:
    """A model, and what its answers need."""

    module: torch.nn.Module
    card: Mapping[str, Any]
    recipe: Recipe | None
    """The world of its training; None: no fits."""
    variants: Mapping[int, float]
    """Numbers of the variants that fits try -> how common each is."""
    device: torch.device
    batch: int
    seed: int


def try_set(
    model: StressModel,
    config: StressConfig,
    content: StressSet,
    *,
    refine_patterns: int = 0,
    show: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """One row of the table.

    Args:
        model: what is tried.
        config: of the set.
        content: its patterns.
        refine_patterns: how many are fitted too, chosen evenly; 0 for none.
        show: called with a line when it is done.

    Raises:
        ValueError: the set does not cover the model's Q range.
    """
    seen = as_seen(model.card, config, content, model.device)
    row: dict[str, Any] = {
        "title": config.title,
        "patterns": len(content.design),
        "published": config.published,
        "goal": config.goal,
        "goal_on_volume": config.goal_on_volume,
        "fingerprint": config.fingerprint,
        "notes": list(seen.notes),
    }
    if model.card["task"] == "classes":
        with torch.inference_mode():
            outputs = [
                model.module(input_of(model.card, seen.observation.take(slice(s, s + model.batch))))
                for s in range(0, len(content.design), model.batch)
            ]
        row["network"] = _score_classes(outputs, model.card, config, content)
    else:
        posterior, guess = ask(model.module, model.card, seen.observation, model.batch)
        row["network"] = score_answers(posterior, config, content.design, model)
        if refine_patterns and model.recipe is not None and seen.setting is not None:
            n = len(content.design)
            chosen = np.unique(np.linspace(0, n - 1, min(refine_patterns, n)).astype(int))
            row |= _fitted(
                model, config, content.design.take(chosen), seen.take(chosen), posterior, guess, chosen
            )
    found = row.get("refined", row["network"])
    show(
        f"{config.title}: nearest class {100 * row['network']['nearest']:.1f} %"
        + (f", refined {100 * found['nearest']:.1f} %" if "refined" in row else "")
    )
    return row


def _fitted(
    model: StressModel,
    config: StressConfig,
    design: Design,
    seen: Seen,
    posterior: GaussianMixture,
    guess: Nuisance,
    chosen: np.ndarray,
) -> dict[str, Any]:
    """What `refine` makes of some patterns, and what is possible on these."""
    from qdml.augmentation.instrument import InstrumentRecipe
    from qdml.evaluation.posterior import main_prior
    from qdml.refine import refine

    assert model.recipe is not None and seen.setting is not None
    recipe = model.recipe
    if seen.widths is not None and isinstance(recipe, InstrumentRecipe):
        recipe = recipe.with_widths(int(seen.setting.instrument[0]), seen.widths)
    pick, prior = torch.as_tensor(chosen, device=model.device), main_prior(model.card, model.device)
    now = clock(model.device)
    started = now()
    fits = refine(
        recipe,
        seen.observation,
        seen.setting,
        posterior.take(pick),
        nuisance=guess.take(pick),
        prior=prior,
        variants=tuple(model.variants),
        weights=tuple(model.variants.values()),
    )
    seconds = (now() - started) / len(chosen)
    shapes = [title.split()[0] for title in model.card["variants"]]
    variant = shapes.index(config.shape) if config.shape in shapes else None
    return {
        "refined": score_answers(fits.posterior, config, design, model),
        "network_of_refined": score_answers(posterior.take(pick), config, design, model),
        "ceiling": possible(recipe, config, seen, design, fits, variant, prior),
        "fits": {
            "converged": float(fits.converged.double().mean()),
            "explained": float((fits.unit == 1).double().mean()),
            "right_variant": None if variant is None else float((fits.variant == variant).double().mean()),
            "derivatives": float(fits.steps.double().mean()),
            "seconds": seconds,
        },
    }


def score_answers(
    posterior: GaussianMixture,
    config: StressConfig,
    design: Design,
    model: StressModel,
) -> dict[str, float]:
    """Shares of right answers of a posterior, its errors and the coverage of D_v.

    Args:
        posterior: of some patterns of the set.
        config: of the set.
        design: what these patterns are of.
        model: its device, seed, and prior.
    """
    device = posterior.mean.device
    diameter, sigma, strain = (
        torch.as_tensor(getattr(design, name), device=device) for name in ("diameter_nm", "sigma", "strain")
    )
    published = load_stress(BASE)
    classes = ClassConfig(diameter_nm=config.diameter_nm, sigma=published.sigma)
    label = nearest_class(diameter, classes.diameter_nm)
    nearest = answers.class_probabilities(posterior, classes).sum(dim=2).argmax(dim=1)
    grid = answers.targets_of(
        *torch.meshgrid(
            torch.tensor(config.diameter_nm, dtype=torch.float64),
            torch.tensor(published.sigma, dtype=torch.float64),
            torch.linspace(published.strain[0], published.strain[1], published.strains, dtype=torch.float64),
            indexing="ij",
        )
    )
    p_BH = answers.grid_probabilities(
        posterior, grid.flatten(0, 2), lambda t: _log_prior(t, model.card["prior"]["mean"])
    )
    on_grid = p_BH.unflatten(1, grid.shape[:3]).sum(dim=(2, 3)).argmax(dim=1)
    truth = answers.quantities_of(answers.targets_of(diameter, sigma, strain))
    values = answers.quantities_of(answers.posterior_samples(posterior, model.seed))
    volume, true_volume = values["diameter_volume_nm"], truth["diameter_volume_nm"]
    half = min(np.diff(config.diameter_nm)) / 2
    ranks = {
        name: (((values[name] < truth[name]).sum(dim=0) + 0.5) / (len(volume) + 1)).cpu().numpy()
        for name in ("diameter_nm", "diameter_volume_nm", "sigma")
    }
    return {
        "patterns": len(design),
        "nearest": _share(nearest == label),
        "volume": _share((volume.quantile(0.5, dim=0) - true_volume).abs() < half),
        "on_grid": _share(on_grid == label),
        "error_nm": float((values["diameter_nm"].mean(dim=0) - truth["diameter_nm"]).abs().mean()),
        "volume_error_nm": float((volume.mean(dim=0) - true_volume).abs().mean()),
        "sigma_error": float((values["sigma"].mean(dim=0) - truth["sigma"]).abs().mean()),
        **{
            f"coverage_{name}_{level}": share
            for name, u in ranks.items()
            for level, share in coverage(u).items()
        },
    }


def _score_classes(
    outputs: list[Any], card: Mapping[str, Any], config: StressConfig, content: StressSet
) -> dict[str, float]:
    """Shares of right size classes of a classifier."""
    classes = ClassConfig(
        diameter_nm=tuple(card["classes"]["diameter_nm"]), sigma=tuple(card["classes"]["sigma"])
    )
    p_BD = torch.cat([class_probabilities(one, classes)["diameter_nm"] for one in outputs]).cpu()
    centre = torch.tensor(classes.diameter_nm, dtype=torch.float64)
    # The nearest size of the set to the most probable centre; and to its own classes, the class itself.
    said = nearest_class(centre[p_BD.argmax(dim=1)], config.diameter_nm)
    truth = torch.as_tensor(content.design.diameter_nm)
    right = said == nearest_class(truth, config.diameter_nm)
    return {
        "patterns": len(truth),
        "nearest": _share(right),
        "error_nm": float((p_BD @ centre - truth).abs().mean()),
        "confidence": float(p_BD.amax(dim=1).mean()),
    }


def _log_prior(targets: torch.Tensor, mean: str) -> torch.Tensor:
    """Ln of the density of targets when σ, ε and one of the two means are uniform."""
    if mean == "number":
        return answers.log_uniform_prior(targets)
    return targets[:, 0] + targets[:, 1]


def _share(right: torch.Tensor) -> float:
    return float(right.double().mean())
