"""When a posterior is not an answer: no dots of the training look like the pattern.

A network and a fit always end with some size, and often with a narrow interval, of other materials, wrong wavelengths
and solvents without dots too. Such a number must not be read as a size, so it is not shown as one.

Structure: the logarithm of a pattern minus its smooth, what networks are shown (`qdml.preprocess`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qdml.answers import posterior_samples, quantities_of
from qdml.measured.measurement import observation_of
from qdml.measured.posterior_doubts import WORDS, prior_ranges

if TYPE_CHECKING:
    from qdml.files.patterns import OnGrid
    from qdml.measured.comparison import Comparison
    from qdml.measured.posterior import Inferred
    from qdml.measured.refinement import Refinement

__all__ = ["posterior_refusals", "visible_dots"]

# Of the structure, that an answer explains. By a fit: PbS, simulated and measured, 0.98 and more; other materials 0.08
# to 0.92, most 0.5. By spheres of the network's size, where there was no fit: films, whose reflections have gains,
# 0.56 and more; PbSe 0.35, CdSe 0.17, solvents and a wavelength 26 % off 0.
_LEAST_EXPLAINED, _LEAST_BY_SPHERES = 0.80, 0.40
# That the residual of the fit shows. Five measured patterns 0.02 to 0.04; other materials 0.22 to 2.5; dots of 22 nm,
# taken for 16.6, 0.08, of 15 nm, taken for 15, 0.004, by a model that was trained up to 12.
_MOST_MODEL_ERROR, _USUAL_MODEL_ERROR = 0.10, 0.06
# See `visible_dots`. Of 1152 patterns of the training of the package's model the least has 40, half of them have more
# than 390. Measured hexane has 27, hexane with 0.5 % of dots 29: the fit takes broad humps for the smallest dots.
_LEAST_VISIBLE = 35.0
# Relative, of each point: as in `qdml.measured.refinement`.
_MODEL_ERROR = 0.02
# Of the posterior, beyond one end of the training.
_MOST_BEYOND = 0.5
_POINTS = 4096


def posterior_refusals(
    final: Inferred,
    refinement: Refinement | None,
    comparison: Comparison,
    on_grid: OnGrid,
    card: Mapping[str, Any],
    q: np.ndarray,
) -> list[str]:
    """Why a pattern gets no size: one sentence for each reason; none where it gets one.

    Args:
        final: the posterior that would be the answer.
        refinement: the fit; None where there was none.
        comparison: the simulated pattern of the answer.
        on_grid: the pattern.
        card: of the model.
        q: (q,) float64 [Å⁻¹], its grid.
    """
    found = []
    error = 0.0 if refinement is None else refinement.model_error
    if refinement is None:
        unlike = comparison.explained < _LEAST_BY_SPHERES
    else:
        # Few photons leave much of the structure unexplained too, but no more than their noise.
        unexplained = comparison.explained < _LEAST_EXPLAINED and error > _USUAL_MODEL_ERROR
        unlike = error > _MOST_MODEL_ERROR or unexplained
    if unlike:
        left = "" if refinement is None else f" and leave a residual of {100 * error:.0f} % (usual: 2 to 4 %)"
        found.append(
            f"no dots of this model look like the pattern: the nearest explain "
            f"{100 * max(comparison.explained, 0):.0f} % of its structure (usual: 98 %){left}; is it "
            f"{' or '.join(card['materials'])}, this wavelength, this instrument?"
        )
    elif (seen := visible_dots(on_grid, comparison, q)) < _LEAST_VISIBLE:
        found.append(
            f"the pattern shows no dots: their structure would stand {seen:.0f} times above noise and model error, "
            f"usual are hundreds and at least {_LEAST_VISIBLE:.0f}; is it the solvent alone, or a sample too dilute?"
        )
    if refinement is None or error > _USUAL_MODEL_ERROR:
        found += _beyond(final, card)
    return found


def _beyond(final: Inferred, card: Mapping[str, Any]) -> list[str]:
    """Where hardly any of the posterior is inside the training: a good fit may go on there, nothing else."""
    points = posterior_samples(final.within, 0, _POINTS)[:, 0]
    values = {name: column.numpy() for name, column in quantities_of(points).items()}
    found = []
    for name, (low, high) in prior_ranges(card).items():
        word, unit, factor = WORDS[name]
        below, above = (float((values[name] < low).mean()), float((values[name] > high).mean()))
        # Dots may well be more alike than any of the training.
        if above > _MOST_BEYOND or (below > _MOST_BEYOND and name != "sigma"):
            found.append(
                f"{word} would be {'above' if above > below else 'below'} all that the model was trained for, "
                f"{factor * low:.3g} to {factor * high:.3g}{unit}; there it knows no size"
            )
    return found


def visible_dots(on_grid: OnGrid, comparison: Comparison, q: np.ndarray) -> float:
    """How clearly a pattern shows dots: structure that they make in its answer, over noise and 2 % of model error.

    Args:
        on_grid: the pattern.
        comparison: the simulated pattern of the answer.
        q: (q,) float64 [Å⁻¹], the grid.

    Returns:
        √Σ(structure with dots - structure without)²/(n² + 0.02²), n the relative noise: standard deviations.
    """
    import torch

    from qdml.preprocess import network_input

    mask = on_grid.mask
    seen = observation_of(on_grid)

    def structure(values: np.ndarray) -> np.ndarray:
        intensity = torch.as_tensor(np.where(mask, values, 0.0), dtype=torch.float32)[None]
        found = network_input(replace(seen, intensity=intensity), torch.as_tensor(q), "log_smooth")
        return found.pattern[0, 0].double().numpy()[mask]

    of_dots = structure(comparison.total) - structure(comparison.background)
    relative = on_grid.noise[mask] / on_grid.intensity[mask]
    return float(np.sqrt((of_dots**2 / (relative**2 + _MODEL_ERROR**2)).sum()))
