"""The fit of a whole world to one measured pattern, from a network's answer: `qdml.refine` for the chemist.

The recipe of the training is built from the model's folder alone (its card and `basis.safetensors`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qdml.measured.comparison import Comparison
from qdml.measured.posterior import Inferred, inferred_of

if TYPE_CHECKING:
    import torch

    from qdml.augmentation.recipe import Recipe, Setting
    from qdml.nuisance import Nuisance
    from qdml.observation import Observation

__all__ = ["MODEL_ERROR", "Refinement", "load_recipe", "refine_pattern", "shape_index"]

#: Of measured patterns, what the world does not explain when all its latents have been fitted, relative, as if it were
#: noise of independent points: the number of conf/fit. Of the misfits of benchmarks/misfits.py 1 and 2 % make the same
#: sizes; with 2 % every search converges.
MODEL_ERROR = 0.02
_STEPS = 24
# Shapes that are less probable are in results.json alone.
_LIKELY = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What the fit of one pattern found."""

    inferred: Inferred
    comparison: Comparison
    shapes: Mapping[str, float]
    """Title of each structural variant that was fitted -> its probability, the most probable first."""
    chi2: float
    """s²: χ² per point that is not used up by an unknown."""
    unit: float
    """s²τ by which the posterior has been widened beyond noise and model error."""
    model_error: float
    """φ √(s²τ): the relative error of independent points that weighs as much as the residual."""
    b_scale: float
    """Factor on the Debye-Waller factors."""
    beyond: float
    """Fraction of the atoms in dots larger than the basis has."""
    converged: bool
    steps: int
    seconds: float

    @property
    def likely(self) -> str:
        """The shapes of at least 1 % as text, the first one the one that `comparison` shows."""
        short = [title.split()[0] for title in self.shapes]
        names = short if len(set(short)) == len(short) else list(self.shapes)
        pairs = zip(names, self.shapes.values(), strict=True)
        return ", ".join(f"{name} {100 * p:.0f} %" for name, p in pairs if p >= _LIKELY)

    def as_record(self) -> dict[str, Any]:
        """JSON data."""
        return self.inferred.as_record() | {
            "shapes": dict(self.shapes),
            "chi2": self.chi2,
            "widened_by": float(np.sqrt(self.unit)),
            "model_error": self.model_error,
            "b_scale": self.b_scale,
            "atoms_beyond_basis": self.beyond,
            "converged": self.converged,
            "steps": self.steps,
            "seconds": self.seconds,
        }


def load_recipe(folder: str | Path, card: Mapping[str, Any]) -> Recipe:
    """The world that a model was trained in, on the CPU.

    Raises:
        ValueError: the folder has no basis.
    """
    import torch

    from qdml.augmentation.recipes import build_recipe
    from qdml.basis_file import read_basis
    from qdml.checkpoint import training_config

    device = torch.device("cpu")
    return build_recipe(training_config(card).augment, read_basis(folder, device), device)


def shape_index(card: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Which of a model's variants have a shape, whatever else is different about them.

    Raises:
        ValueError: none has; the message names the shapes there are.
    """
    shapes = [title.split()[0] for title in card["variants"]]
    found = tuple(index for index, shape in enumerate(shapes) if shape == name.lower())
    if not found:
        raise ValueError(
            f"--shape must be one that the model knows, {', '.join(dict.fromkeys(shapes))}; got {name}"
        )
    return found


def refine_pattern(
    recipe: Recipe,
    observation: Observation,
    setting: Setting,
    start: Any,
    nuisance: Nuisance,
    *,
    q: np.ndarray,
    variants: tuple[int, ...] | None = None,
    model_error: float = MODEL_ERROR,
) -> Refinement:
    """Fit one pattern.

    Args:
        recipe: of the training.
        observation: one row.
        setting: what is known of it.
        start: the network's posterior.
        nuisance: its guess of everything else.
        q: (q,) float64 [Å⁻¹], the grid.
        variants: of the basis, by number, where they are known; None for all that the network thinks possible.
        model_error: φ of `qdml.refine`.
    """
    import torch

    from qdml.limits.unknowns import MAIN, main_of
    from qdml.refine import refine

    assert recipe.basis is not None
    started = time.process_time()
    known = recipe.basis.attrs["variants"]
    variants = tuple(range(len(known))) if variants is None else variants
    found = refine(
        recipe,
        observation,
        setting,
        start,
        nuisance=nuisance,
        variants=variants,
        model_error=model_error,
        steps=_STEPS,
    )
    main = main_of(found.values, found.variant)
    with torch.no_grad():
        expected = recipe.expected(main, setting, found.z)
        beyond = recipe.basis.average(
            main.variant, main.log_volume_diameter.float(), main.sigma.float()
        ).beyond
    mask = observation.mask[0].numpy() > 0
    total = np.where(mask, found.intensity[0].double().numpy(), np.nan)
    dots = (expected.parts["dots"] / expected.intensity)[0].double().numpy()
    values = dict(zip(MAIN, found.values[0].tolist(), strict=True))
    comparison = Comparison(
        total=total,
        background=total * (1 - dots),
        strain=values["strain"],
        rwp=_rwp(observation.intensity[0].double().numpy()[mask], total[mask]),
        explained=_explained(observation, total, q),
        energy_kev=float(setting.energy_kev[0, 0]),
    )
    return Refinement(
        inferred=inferred_of(found.posterior, recipe.basis.ranges["sigma"][0]),
        comparison=comparison,
        shapes=_largest_first([known[index]["title"] for index in variants], found.probability[0].tolist()),
        chi2=float(found.chi2[0]),
        unit=float(found.unit[0]),
        model_error=_shown_error(observation, found.intensity, model_error),
        b_scale=float(np.exp(values["log_b_scale"])),
        beyond=float(beyond[0]),
        converged=bool(found.converged[0]),
        steps=int(found.steps[0]),
        seconds=time.process_time() - started,
    )


def _largest_first(titles: Sequence[str], probabilities: Sequence[float]) -> dict[str, float]:
    """Title -> probability of those that have any."""
    pairs = sorted(zip(probabilities, titles, strict=True), reverse=True)
    return {title: probability for probability, title in pairs if probability > 0}


def _shown_error(observation: Observation, intensity: torch.Tensor, model_error: float) -> float:
    """A residual that is correlated over several points weighs more than its size says (`qdml.fitting.profile`)."""
    from qdml.search import correlated_points

    mask = observation.mask.double()
    model = intensity.double().clamp(min=1e-30)
    variance = observation.noise.double() ** 2 + (model_error * model) ** 2
    residual = (observation.intensity - model) / variance.sqrt() * mask
    s2 = (residual**2).sum() / mask.sum()
    return model_error * float((s2 * correlated_points(residual, mask)[0]).sqrt())


def _rwp(y: np.ndarray, total: np.ndarray) -> float:
    """sqrt(Σ (y - f)²/y / Σ y)."""
    return float(np.sqrt(((y - total) ** 2 / y).sum() / y.sum()))


def _explained(observation: Observation, total: np.ndarray, q: np.ndarray) -> float:
    """Part of the squared deviation of ln y from its smooth that the answer explains, at most 1."""
    import torch

    from qdml.preprocess import network_input

    answer = replace(observation, intensity=torch.as_tensor(np.nan_to_num(total), dtype=torch.float32)[None])
    seen, of_answer = (
        network_input(one, torch.as_tensor(q), "log_smooth").pattern[0, 0] for one in (observation, answer)
    )
    return float(1 - ((seen - of_answer) ** 2).sum() / (seen**2).sum())
