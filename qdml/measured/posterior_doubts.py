"""Reasons to doubt a posterior: what its training did not cover, what it does not explain, what contradicts itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from qdml.answers import posterior_samples, quantities_of

if TYPE_CHECKING:
    from qdml.files.patterns import OnGrid
    from qdml.measured.comparison import Comparison
    from qdml.measured.measurement import Measurement
    from qdml.measured.posterior import Inferred
    from qdml.measured.refinement import Refinement

__all__ = ["WORDS", "disagreement", "outside_training", "posterior_doubts", "prior_ranges"]

# Of the posterior, beyond the range of the training: more means that the range and not the pattern ends the interval.
_MAX_BEYOND = 0.05
# 99 % quantile of χ² with 3 degrees of freedom: two posteriors of three numbers of one pattern.
_MAX_DISAGREEMENT = 11.3
# Standard deviation of ln σ from which the pattern says little of σ: a factor of 1.5 either way.
_VAGUE_SIGMA = 0.4
# See qdml.measured.answer. With surroundings fitted too, real patterns leave 1 to 3 %.
_MAX_RWP, _MIN_EXPLAINED = 0.06, 0.93
# Of the model error that the residual of a fit shows. Five patterns of PbS show 2 to 4 %.
_MAX_MODEL_ERROR = 0.06
# Photons at the highest point, relative to the ends of the range of the training.
_ROOM_FOR_PHOTONS = 3.0
# Of the points inside the window. A network answered a measured pattern without its 400 (3 %) 4 % too small.
_MAX_MISSING = 0.01
# Of the atoms, in dots larger than the basis has.
_MAX_BEYOND_BASIS = 1e-2
# That stand for a posterior.
_POINTS = 4096

#: Quantity -> its name, its unit and the factor to it.
WORDS = {
    "diameter_nm": ("D", " nm", 1.0),
    "diameter_volume_nm": ("D_v", " nm", 1.0),
    "sigma": ("σ", " %", 100.0),
    "strain": ("the strain", " %", 100.0),
}


def prior_ranges(card: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Between which values the dots of a training lay, by the names of `qdml.answers.QUANTITIES`."""
    prior = card["prior"]
    size = "diameter_nm" if prior["mean"] == "number" else "diameter_volume_nm"
    pairs = {size: prior["diameter_nm"], "sigma": prior["sigma"], "strain": prior["strain"]}
    return {name: (float(low), float(high)) for name, (low, high) in pairs.items()}


def disagreement(a: Inferred, b: Inferred) -> float:
    """Squared distance of two posteriors' means, in units of both their widths, for dots of the training.

    Whatever is wrong with real dots is wrong for both.
    """
    (mean_a, covariance_a), (mean_b, covariance_b) = a.within.moments(), b.within.moments()
    away = (mean_a - mean_b)[0].double().numpy()
    both = (covariance_a + covariance_b)[0].double().numpy()
    return float(away @ np.linalg.solve(both, away))


def posterior_doubts(
    network: Inferred,
    refinement: Refinement | None,
    comparison: Comparison,
    on_grid: OnGrid,
    measurement: Measurement,
    card: Mapping[str, Any],
) -> list[str]:
    """One sentence for each reason; none where no check failed."""
    refined = None if refinement is None else refinement.inferred
    final = refined if refinement is not None and refinement.converged and refined is not None else network
    return [
        *outside_training(on_grid, measurement, card),
        *(_gaps(on_grid, measurement) if final is network else []),
        *_at_the_edge(final, card),
        *_two_answers(network, refinement),
        *_misfit(comparison, refinement),
    ]


def outside_training(on_grid: OnGrid, measurement: Measurement, card: Mapping[str, Any]) -> list[str]:
    """Of the pattern itself, whatever the answer: a window or a noise that the training did not have."""
    found = []
    window = card["windows"][measurement.index]
    low, high = card["q"]["min"], card["q"]["max"]
    first, last = min(window["first"][1], high), max(min(window["last"][0], high), low)
    name = measurement.instrument.name
    if on_grid.window[0] > first + 0.05 or on_grid.window[1] < last - 0.05:
        found.append(
            f"the pattern covers {on_grid.window[0]:.2f} to {on_grid.window[1]:.2f} Å⁻¹, in training every pattern of "
            f"{name} covered at least {first:.2f} to {last:.2f} Å⁻¹"
        )
    least, most = measurement.instrument.random.peak_counts
    photons = measurement.photons(on_grid, (high - low) / (card["q"]["size"] - 1))
    if not least / _ROOM_FOR_PHOTONS <= photons <= most * _ROOM_FOR_PHOTONS:
        found.append(
            f"noise as of {photons:.1e} photons at the highest point of the instrument's step, training went from "
            f"{least:.0e} to {most:.0e}; is the third column the standard deviation?"
        )
    return found


def _gaps(on_grid: OnGrid, measurement: Measurement) -> list[str]:
    """Holes that no pattern of the training had: a fit leaves them out, a network takes them for something."""
    seen = np.flatnonzero(on_grid.mask)
    missing = 1 - len(seen) / (seen[-1] - seen[0] + 1)
    if missing <= _MAX_MISSING or measurement.instrument.gaps_deg:
        return []
    sentence = (
        f"{100 * missing:.0f} % of the points between first and last Q are missing; in training no pattern of "
        f"{measurement.instrument.name} had gaps, and the network's size may be wrong: take that of the fit"
    )
    return [sentence]


def _at_the_edge(final: Inferred, card: Mapping[str, Any]) -> list[str]:
    """Where the end of the training's range and not the pattern ends an interval, of dots of the training."""
    found = []
    points = posterior_samples(final.within, 0, _POINTS)[:, 0]
    values = {name: column.numpy() for name, column in quantities_of(points).items()}
    for name, (low, high) in prior_ranges(card).items():
        word, unit, factor = WORDS[name]
        samples = values[name]
        for share, word_of_end in (
            (float((samples < low).mean()), "smaller"),
            (float((samples > high).mean()), "larger"),
        ):
            if share > _MAX_BEYOND:
                found.append(
                    f"{word} is at the edge of what the model knows, {factor * low:.3g} to {factor * high:.3g}{unit}: "
                    f"{100 * share:.0f} % of the posterior lies beyond; the true value may be {word_of_end}"
                )
    if float(points[:, 1].std()) > _VAGUE_SIGMA:
        found.append("the pattern hardly says what σ is: quote D_v, which does not depend on it, and not D")
    return found


def _two_answers(network: Inferred, refinement: Refinement | None) -> list[str]:
    if refinement is None:
        return []
    if not refinement.converged:
        return ["the fit from the network's answer did not converge: the answer is the network's"]
    distance = disagreement(network, refinement.inferred)
    if distance <= _MAX_DISAGREEMENT:
        return []
    size, sigma = network.estimates["diameter_volume_nm"], network.estimates["sigma"]
    sentence = (
        f"network (D_v {size.text(2)} nm, σ {sigma.text(1, factor=100)} %) and fit differ by {np.sqrt(distance):.1f} "
        "times their widths: something in the pattern is not in the training"
    )
    return [sentence]


def _misfit(comparison: Comparison, refinement: Refinement | None) -> list[str]:
    found = []
    if comparison.explained < _MIN_EXPLAINED or comparison.rwp > _MAX_RWP:
        found.append(
            f"the simulated answer describes the pattern badly: it explains {100 * max(comparison.explained, 0):.0f} % "
            f"of the structure (expected {100 * _MIN_EXPLAINED:.0f} % or more) at Rwp {100 * comparison.rwp:.1f} % "
            f"(expected {100 * _MAX_RWP:.0f} % or less); is it this material, this wavelength, this instrument?"
        )
    elif refinement is not None and refinement.model_error > _MAX_MODEL_ERROR:
        found.append(
            f"the residual of the fit shows a model error of {100 * refinement.model_error:.1f} %, more than the "
            f"{100 * _MAX_MODEL_ERROR:.0f} % of usual samples: something in the pattern is not in the training"
        )
    if refinement is not None and refinement.beyond > _MAX_BEYOND_BASIS:
        found.append(
            f"{100 * refinement.beyond:.0f} % of the atoms would lie in dots larger than the model's basis has"
        )
    return found
