"""Losses, metrics and limits against their formulas."""

import numpy as np
import pytest
import torch
from scipy.stats import poisson

from qdml.augmentation.allara import AllaraRecipe
from qdml.augmentation.config import SolventConfig
from qdml.config import AllaraConfig, ClassConfig
from qdml.dataset import Rows
from qdml.limits.exact import exact_posterior
from qdml.losses import class_labels, class_loss, class_probabilities
from qdml.metrics import (
    accuracy,
    calibration_error,
    class_accuracy,
    confusion_matrix,
    mean_absolute_error,
    reliability,
)

CLASSES = ClassConfig(diameter_nm=(2.0, 3.0, 4.0), sigma=(0.05, 0.1))
DIAMETER, SIGMA = (
    torch.tensor([2.1, 3.9], dtype=torch.float64),
    torch.tensor([0.05, 0.09], dtype=torch.float64),
)


def test_nearest_labels() -> None:
    assert class_labels(DIAMETER, CLASSES.diameter_nm, 0).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_soft_labels_are_gaussian_about_the_true_value() -> None:
    soft = class_labels(torch.tensor([2.5, 3.0]), CLASSES.diameter_nm, 0.5)
    assert soft.sum(dim=1).tolist() == pytest.approx([1, 1])
    assert float(soft[0, 0]) == pytest.approx(float(soft[0, 1]))
    assert float(soft[1, 0] / soft[1, 1]) == pytest.approx(np.exp(-2), rel=1e-5)


def test_loss_is_the_cross_entropy_of_either_head() -> None:
    torch.manual_seed(0)
    separate = {"diameter": torch.randn(2, 3), "sigma": torch.randn(2, 2)}
    p = {name: torch.softmax(one, dim=1) for name, one in separate.items()}
    chosen = p["diameter"][0, 0], p["diameter"][1, 2], p["sigma"][0, 0], p["sigma"][1, 1]
    expected = -sum(one.log() for one in chosen) / 2
    assert float(class_loss(separate, DIAMETER, SIGMA, CLASSES)) == pytest.approx(float(expected), rel=1e-5)
    # Independent quantities: the joint head of their product has the same loss and the same marginals.
    joint = {"joint": (p["diameter"][:, :, None] * p["sigma"][:, None, :]).log().flatten(1)}
    assert float(class_loss(joint, DIAMETER, SIGMA, CLASSES)) == pytest.approx(float(expected), rel=1e-5)
    for name, one in class_probabilities(joint, CLASSES).items():
        assert torch.allclose(one, class_probabilities(separate, CLASSES)[name], atol=1e-6)


P = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8]])
LABEL = np.array([0, 1, 2, 2])


def test_accuracy_and_confusion() -> None:
    assert accuracy(P, LABEL) == 0.75
    confusion = confusion_matrix(P, LABEL)
    assert confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 2]]
    assert class_accuracy(confusion) == [1.0, 0.0, 1.0]
    assert class_accuracy(np.zeros((2, 2), dtype=int)) == [None, None]


def test_mean_absolute_error() -> None:
    error = mean_absolute_error(P, np.array([2.0, 3.0, 4.0]), np.array([2.0, 3.0, 4.0, 4.0]))
    assert error["mean"] == pytest.approx((0.1 + 0.5 + 0.6 + 0.3) / 4)
    assert error["most_probable"] == pytest.approx(0.25)


def test_calibration() -> None:
    # Confidence 0.9, 0.6, 0.6, 0.8; right, wrong, right, right.
    assert calibration_error(P, LABEL, bins=10) == pytest.approx((0.1 + 2 * 0.1 + 0.2) / 4)
    assert sum(n for n, _, _ in reliability(P, LABEL)) == 4
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([1, 1, 1], size=50_000)
    label = (rng.random(50_000)[:, None] > honest.cumsum(axis=1)).sum(axis=1)
    # 50 000 draws in 15 bins: each frequency is known to about 1 %.
    assert calibration_error(honest, label) < 0.01
    assert calibration_error(honest**3 / (honest**3).sum(axis=1, keepdims=True), label) > 0.1


@pytest.fixture
def recipe() -> AllaraRecipe:
    liquids = (SolventConfig(name="hexane", file=None, wavelength=None),)
    config = AllaraConfig(name="allara2024", solvents=liquids, fractions=(1.0, 0.5), scales=(0.02, 30.0))
    return AllaraRecipe(config, np.linspace(1.0, 3.0, 6), torch.device("cpu"))


def rows_of(clean: torch.Tensor) -> Rows:
    unknown = torch.zeros(len(clean), dtype=torch.float64)
    return Rows(intensity=clean, diameter=unknown, sigma=unknown)


def test_exact_posterior_is_bayes_theorem(recipe: AllaraRecipe) -> None:
    torch.manual_seed(0)
    clean = torch.rand(5, 6) + 0.5
    labels = {"diameter_nm": torch.tensor([0, 0, 1, 2, 2]), "sigma": torch.tensor([0, 1, 0, 0, 1])}
    cell = 2  # half solvent, few counts
    y, _ = recipe.cell(cell, rows_of(clean[:3]), torch.Generator().manual_seed(1))
    got = exact_posterior(recipe, cell, y, clean, labels, {"diameter_nm": 3, "sigma": 2})
    rate = (recipe.scale(cell) * recipe.expected(torch.full((5,), cell), clean.double())).numpy()
    counts = np.rint((y * recipe.scale(cell)).numpy())
    likelihood = poisson.pmf(counts[:, None, :], rate[None]).prod(axis=2)
    posterior = likelihood / likelihood.sum(axis=1, keepdims=True)
    assert got["diameter_nm"][:, 0].numpy() == pytest.approx(posterior[:, :2].sum(axis=1), rel=1e-5)
    assert got["sigma"][:, 1].numpy() == pytest.approx(posterior[:, [1, 4]].sum(axis=1), rel=1e-5)


def test_exact_posterior_is_calibrated(recipe: AllaraRecipe) -> None:
    torch.manual_seed(0)
    clean = torch.rand(4, 6) + 0.5
    truth = torch.arange(4).repeat(5000)
    y, _ = recipe.cell(0, rows_of(clean[truth]), torch.Generator().manual_seed(2))
    labels = {"diameter_nm": torch.arange(4)}
    p = exact_posterior(recipe, 0, y, clean, labels, {"diameter_nm": 4})["diameter_nm"].numpy()
    # 20 000 patterns that are easily confused; each bin's frequency is known to about 1 %.
    assert 0.3 < accuracy(p, truth.numpy()) < 0.95
    assert calibration_error(p, truth.numpy()) < 0.015
