"""A model on the stress sets: share of patterns in the right size class, beside the published network's.

A model of the set's own Q grid gets the patterns as they are. Any other model gets them as `qd-predict` would: brought
onto its grid by `qdml.measured.patterns.regrid`, where the counts of a bin add up, with the conditions of a synchrotron
instrument of the set's resolution. What is asked:

    nearest     class of D among the set's sizes, by the largest probability (published: 2 to 10 nm in steps of 0.5)
    volume      the posterior's median D_v is within half a step of the true D_v
    on grid     class of the most probable hypothesis of the published grid, as a network that has seen only that grid
                answers: other sizes, dispersions and strains do not exist

Symbols: B pattern, Q point of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qdml import answers
from qdml.config import ClassConfig
from qdml.dataset import nearest_class
from qdml.densities import GaussianMixture
from qdml.losses import class_probabilities
from qdml.metrics import coverage
from qdml.observation import Observation, conditions
from qdml.preprocess import network_input
from qdml.stress.sets import BASE, load_stress

if TYPE_CHECKING:
    from qdml.augmentation.recipe import Recipe, Setting
    from qdml.stress.make import StressSet
    from qdml.stress.sets import StressConfig

__all__ = ["StressModel", "as_seen", "score_answers", "try_set"]


# Users know their resolution to about that (conf/augment/instrument.yaml): so much beyond a range is not outside it.
_RESOLUTION_ROOM = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class StressModel:
    """A model, and what its answers need."""

    module: torch.nn.Module
    card: Mapping[str, Any]
    recipe: Recipe | None
    """The world of its training; None: no fits."""
    device: torch.device
    batch: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A set as a model gets it."""

    q: np.ndarray
    """(Q,) float64 [Å⁻¹], the model's grid."""
    observation: Observation
    setting: Setting | None
    """What a fit knows; None for a model without instruments."""
    notes: tuple[str, ...]
    """Where the set lies outside what the model was trained for."""


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
    design = content.design
    rows = np.arange(len(design))
    outputs = [_ask(model, seen, slice(s, s + model.batch)) for s in range(0, len(rows), model.batch)]
    row: dict[str, Any] = {
        "title": config.title,
        "patterns": len(design),
        "published": config.published,
        "goal": config.goal,
        "goal_on_volume": config.goal_on_volume,
        "fingerprint": config.fingerprint,
        "notes": list(seen.notes),
    }
    if not isinstance(outputs[0], GaussianMixture):
        row["network"] = _score_classes(outputs, model.card, config, content)
        show(f"{config.title}: nearest class {100 * row['network']['nearest']:.1f} %")
        return row
    posterior = GaussianMixture.cat(outputs).to(torch.float64)
    row["network"] = score_answers(posterior, config, content, rows, model)
    if refine_patterns and model.recipe is not None and seen.setting is not None:
        from qdml.evaluation.posterior import main_prior
        from qdml.refine import refine

        chosen = np.unique(np.linspace(0, len(rows) - 1, min(refine_patterns, len(rows))).astype(int))
        pick = torch.as_tensor(chosen, device=model.device)
        found = refine(
            model.recipe,
            seen.observation.take(pick),
            seen.setting.take(pick),
            posterior.take(pick),
            prior=main_prior(model.card, model.device),
            variants=tuple(range(len(model.card["variants"]))),
        )
        row["refined"] = score_answers(found.posterior.to(torch.float64), config, content, chosen, model)
        row["network_of_refined"] = score_answers(posterior.take(pick), config, content, chosen, model)
        row["converged"] = float(found.converged.double().mean())
    show(f"{config.title}: nearest class {100 * row['network']['nearest']:.1f} %")
    return row


def as_seen(card: Mapping[str, Any], config: StressConfig, content: StressSet, device: torch.device) -> Seen:
    """Bring a set to a model, as a file of a synchrotron instrument of the set's resolution.

    Raises:
        ValueError: the set does not cover the model's Q range.
    """
    grid = card["q"]
    q = np.linspace(grid["min"], grid["max"], grid["size"])
    own = len(q) == len(content.q) and np.allclose(q, content.q, rtol=0, atol=1e-6 * grid["step"] + 1e-9)
    if own:
        intensity, noise = content.intensity, content.noise
        mask = np.broadcast_to(content.mask, intensity.shape)
        index, factor, least = 0, 1.0, 0.0
        notes: list[str] = []
    else:
        index, factor, least, window, notes = _instrument(card, config)
        intensity, noise, mask = _regrid(content, q, window)
    intensity_BQ, noise_BQ, mask_BQ = (
        torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32, device=device)
        for values in (intensity, noise, mask)
    )
    n = len(intensity_BQ)
    counts_BQ = (intensity_BQ / noise_BQ.clamp(min=1e-30)) ** 2 * mask_BQ
    one_B1 = torch.ones((n, 1), device=device)
    energy = config.energy_kev
    known = conditions(
        wavelength_B=torch.full((n,), _wavelength(energy), device=device),
        widths_B3=max(config.resolution, least) * one_B1.expand(-1, 3),
        doublet_B=torch.zeros(n, device=device),
        plate_B=torch.zeros(n, device=device),
        counts_B=counts_BQ.sum(dim=1) / mask_BQ.sum(dim=1),
    )
    from qdml.augmentation.recipe import Setting

    setting = Setting(
        instrument=torch.full((n,), index, device=device),
        energy_kev=energy * one_B1,
        resolution_factor=factor * one_B1,
        # Fits take the noise that is declared.
        dose=counts_BQ.amax(dim=1, keepdim=True),
        mask=mask_BQ,
    )
    observation = Observation(intensity=intensity_BQ, noise=noise_BQ, mask=mask_BQ, conditions=known)
    return Seen(q=q, observation=observation, setting=setting, notes=tuple(notes))


def score_answers(
    posterior: GaussianMixture,
    config: StressConfig,
    content: StressSet,
    rows: np.ndarray,
    model: StressModel,
) -> dict[str, float]:
    """Shares of right answers of a posterior, its errors and the coverage of D_v.

    Args:
        posterior: of some patterns of the set.
        config: of the set.
        content: all its patterns.
        rows: which of them.
        model: its device, seed, and prior.
    """
    device = posterior.mean.device
    diameter, sigma, strain = (
        torch.as_tensor(getattr(content.design, name)[rows], device=device)
        for name in ("diameter_nm", "sigma", "strain")
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
        "patterns": len(rows),
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


def _ask(model: StressModel, seen: Seen, part: slice) -> Any:
    with torch.inference_mode():
        inputs = network_input(seen.observation.take(part), torch.as_tensor(seen.q), model.card["input"])
        return model.module(inputs)


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


def _wavelength(energy_kev: float) -> float:
    from hpc.form_factors import HC_KEV_ANGSTROM

    return HC_KEV_ANGSTROM / energy_kev


def _instrument(
    card: Mapping[str, Any], config: StressConfig
) -> tuple[int, float, float, tuple[float, float], list[str]]:
    """What stands for the set's: index, factor on widths, least width of the training, window, notes."""
    from hpc.instrument.resolution import widths
    from qdml.measured.measurement import measurement_of
    from qdml.observation import WIDTHS_AT, voigt_fwhm

    found = measurement_of(
        card, energy_kev=config.energy_kev, instrument=_synchrotron(card, config.energy_kev)
    )
    setup = found.instrument
    sigma, gamma = widths(np.array(WIDTHS_AT), setup.wavelength, *setup.resolution.radians(1.0))
    width = float(voigt_fwhm(torch.as_tensor(sigma), torch.as_tensor(gamma)).mean())
    low, high = setup.random.resolution_factor
    factor = max(config.resolution / width, low)
    notes = []
    if factor > (1 + _RESOLUTION_ROOM) * high:
        notes.append(
            f"beyond the training, where {setup.name} had a resolution of {low * width:.2g} to {high * width:.2g} Å⁻¹"
        )
    return found.index, factor, low * width, found.window(card), notes


def _synchrotron(card: Mapping[str, Any], energy_kev: float) -> str:
    """The first instrument of a model whose energy can be chosen, and was this one in the training.

    Raises:
        ValueError: there is none; a set of monochromatic patterns then has no instrument.
    """
    from qdml.augmentation.config import InstrumentRecipeConfig
    from qdml.checkpoint import training_config

    recipe = training_config(card).augment
    known = recipe.instruments if isinstance(recipe, InstrumentRecipeConfig) else ()
    for one in known:
        if one.energy_kev is not None and one.energy_kev[0] <= energy_kev <= one.energy_kev[1]:
            return one.name
    raise ValueError(
        f"stress sets are monochromatic patterns of {energy_kev:.4g} keV, and the model has learned from no synchrotron"
        f" instrument at that energy (it knows {[one.name for one in known] or 'none'}); leave stress.sets empty, or "
        "train with augment=instrument and such an instrument"
    )


def _regrid(
    content: StressSet, q: np.ndarray, window: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intensity, noise and mask on another grid, each (B, Q)."""
    from qdml.measured.patterns import Pattern, regrid

    visible = content.mask
    noise = content.noise
    parts = []
    for row in range(len(content.intensity)):
        pattern = Pattern(
            source=f"pattern {row}",
            q=content.q[visible],
            intensity=content.intensity[row, visible].astype(np.float64),
            sigma=noise[row, visible].astype(np.float64),
            energy_kev=None,
        )
        on_grid = regrid(pattern, q, window=window)
        parts.append((on_grid.intensity, np.where(on_grid.mask, on_grid.noise, 1.0), on_grid.mask))
    intensity, noise_BQ, mask = (np.stack(column) for column in zip(*parts, strict=True))
    return intensity, noise_BQ, mask
