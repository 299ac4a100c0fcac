"""Patterns that no dots of a model look like get no size."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from qdml.densities import GaussianMixture
from qdml.files.noise import Noise
from qdml.files.patterns import OnGrid
from qdml.measured.comparison import Comparison
from qdml.measured.refusals import posterior_refusals, visible_dots

Q = np.linspace(1.0, 14.0, 1301)
# Waves that are much shorter than the smooth of 0.35 1/Å, as reflections are.
WAVE = np.sin(2 * np.pi * Q / 0.1)
NOISE = 0.01
CARD = {
    "materials": ["PbS"],
    "prior": {"mean": "number", "diameter_nm": [1.5, 12.0], "sigma": [0.02, 0.35], "strain": [-0.01, 0.01]},
}


def on_grid_of(intensity: np.ndarray) -> OnGrid:
    return OnGrid(
        intensity=intensity,
        noise=NOISE * intensity,
        noise_source=Noise(sigma=np.ones(1), source="third column"),
        mask=np.ones(len(Q), dtype=bool),
        window=(1.0, 14.0),
        n_points=len(Q),
        coverage=1.0,
        counts=1e4,
        notes=(),
    )


def comparison_of(amplitude: float, explained: float = 0.99) -> Comparison:
    background = np.full(len(Q), 1000.0)
    return Comparison(
        total=background * (1 + amplitude * WAVE),
        background=background,
        strain=0.0,
        rwp=0.02,
        explained=explained,
        energy_kev=22.0,
    )


def refused(
    *,
    amplitude: float = 0.2,
    explained: float = 0.99,
    error: float | None = 0.02,
    diameter: float = 5.0,
    sigma: float = 0.1,
    strain: float = 0.0,
) -> list[str]:
    """What is said of an answer; without an error of the fit, of a network's."""
    comparison = comparison_of(amplitude, explained)
    within = GaussianMixture(
        logits=torch.zeros(1, 1),
        mean=torch.tensor([[[np.log(diameter), np.log(sigma), strain]]]),
        scale_tril=0.001 * torch.eye(3)[None, None],
    )
    final: Any = SimpleNamespace(within=within)
    refinement: Any = None if error is None else SimpleNamespace(model_error=error)
    return posterior_refusals(final, refinement, comparison, on_grid_of(comparison.total), CARD, Q)


def test_visible_dots_are_their_structure_over_noise_and_model_error() -> None:
    small = 0.05
    comparison = comparison_of(small)
    expected = np.sqrt((np.log1p(small * WAVE) ** 2).sum() / (NOISE**2 + 0.02**2))
    assert visible_dots(on_grid_of(comparison.total), comparison, Q) == pytest.approx(expected, rel=0.03)
    none = comparison_of(0.0)
    assert visible_dots(on_grid_of(none.total), none, Q) == 0
    noisy = replace(on_grid_of(comparison.total), noise=comparison.total)
    assert visible_dots(noisy, comparison, Q) < 0.05 * expected


def test_usual_answers_are_sizes() -> None:
    assert refused() == []
    assert refused(error=None) == []
    # A textured film, whose reflections spheres of the network's size do not have.
    assert refused(error=None, explained=0.56) == []
    # Few photons: noise is not explained.
    assert refused(explained=0.5) == []


def test_another_material_has_no_size() -> None:
    for sentence in (
        refused(explained=0.5, error=0.08),
        refused(error=0.22),
        refused(error=None, explained=0.3),
    ):
        (reason,) = sentence
        assert reason.startswith("no dots of this model look like the pattern")
        assert "is it PbS, this wavelength, this instrument?" in reason


def test_a_pattern_without_dots_has_no_size() -> None:
    (reason,) = refused(amplitude=0.01)
    assert "shows no dots" in reason
    assert "35" in reason


def test_beyond_the_training_only_a_good_fit_counts() -> None:
    assert refused(diameter=15.0) == []
    for words in ({"error": 0.08}, {"error": None}):
        (reason,) = refused(diameter=15.0, **words)
        assert "D would be above all that the model was trained for, 1.5 to 12 nm" in reason
    assert "D would be below" in refused(diameter=1.0, error=None)[0]
    assert "the strain would be above" in refused(strain=0.015, error=None)[0]
    assert "σ would be above" in refused(sigma=2.0, diameter=5.0, error=None)[-1]
    # More alike than any of the training: as good as the least dispersion.
    assert refused(sigma=0.01, error=None) == []
