"""Losses of classes and the exact classifier against their formulas."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import poisson

from hpc.liquids.terms import liquid_profile
from qdml.augmentation.allara import AllaraRecipe
from qdml.augmentation.config import SolventConfig
from qdml.config import AllaraConfig, ClassConfig
from qdml.dataset import Rows
from qdml.limits.exact import exact_posterior
from qdml.losses import class_labels, class_probabilities, pattern_loss
from qdml.metrics import accuracy, calibration_error

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


def loss(logits: dict[str, torch.Tensor]) -> torch.Tensor:
    zero = torch.zeros(2, dtype=torch.float64)
    rows = Rows(variant=zero.long(), diameter=DIAMETER, sigma=SIGMA, strain=zero, b_scale=zero + 1)
    config = SimpleNamespace(classes=CLASSES, optim=SimpleNamespace(label_width=0.0))
    return pattern_loss(logits, rows, config).mean()  # type: ignore[arg-type]


def test_loss_is_the_cross_entropy_of_either_head() -> None:
    torch.manual_seed(0)
    separate = {"diameter": torch.randn(2, 3), "sigma": torch.randn(2, 2)}
    p = {name: torch.softmax(one, dim=1) for name, one in separate.items()}
    chosen = p["diameter"][0, 0], p["diameter"][1, 2], p["sigma"][0, 0], p["sigma"][1, 1]
    expected = -sum(one.log() for one in chosen) / 2
    assert float(loss(separate)) == pytest.approx(float(expected), rel=1e-5)
    # Independent quantities: the joint head of their product has the same loss and the same marginals.
    joint = {"joint": (p["diameter"][:, :, None] * p["sigma"][:, None, :]).log().flatten(1)}
    assert float(loss(joint)) == pytest.approx(float(expected), rel=1e-5)
    for name, one in class_probabilities(joint, CLASSES).items():
        assert torch.allclose(one, class_probabilities(separate, CLASSES)[name], atol=1e-6)


@pytest.fixture
def recipe() -> AllaraRecipe:
    liquids = (SolventConfig(name="hexane", file=None, wavelength=None),)
    config = AllaraConfig(name="allara2024", solvents=liquids, fractions=(1.0, 0.5), scales=(0.02, 30.0))
    store = SimpleNamespace(q=np.linspace(1.0, 3.0, 6), attrs={"energy_kev": 22.0})
    return AllaraRecipe(config, store, torch.device("cpu"))  # type: ignore[arg-type]


def rows_of(clean: torch.Tensor) -> Rows:
    unknown = torch.ones(len(clean), dtype=torch.float64)
    return Rows(
        variant=unknown.long(), diameter=unknown, sigma=unknown, strain=unknown, b_scale=unknown, intensity=clean
    )  # fmt: skip


def test_exact_posterior_is_bayes_theorem(recipe: AllaraRecipe) -> None:
    torch.manual_seed(0)
    clean = torch.rand(5, 6) + 0.5
    labels = {"diameter_nm": torch.tensor([0, 0, 1, 2, 2]), "sigma": torch.tensor([0, 1, 0, 0, 1])}
    cell = 2  # half solvent, few counts
    observation = recipe.cell(cell, rows_of(clean[:3]), torch.Generator().manual_seed(1))
    got = exact_posterior(recipe, cell, observation, clean, labels, {"diameter_nm": 3, "sigma": 2})
    # By hand: area 1000, half of it dots; scale 0.02.
    dots = (clean / clean.sum(dim=1, keepdim=True)).double().numpy()
    solvent = liquid_profile("hexane", np.linspace(1.0, 3.0, 6))
    rate = 0.02 * 1000 / 0.4 * (0.5 * dots + 0.5 * solvent / solvent.sum())
    np.testing.assert_allclose(recipe.scale(cell), 0.02)
    counts = np.rint((observation.intensity * rate.sum(axis=1).mean() / 6).numpy())
    likelihood = poisson.pmf(counts[:, None, :], rate[None]).prod(axis=2)
    posterior = likelihood / likelihood.sum(axis=1, keepdims=True)
    assert got["diameter_nm"][:, 0].numpy() == pytest.approx(posterior[:, :2].sum(axis=1), rel=1e-5)
    assert got["sigma"][:, 1].numpy() == pytest.approx(posterior[:, [1, 4]].sum(axis=1), rel=1e-5)


def test_exact_posterior_is_calibrated(recipe: AllaraRecipe) -> None:
    torch.manual_seed(0)
    clean = torch.rand(4, 6) + 0.5
    truth = torch.arange(4).repeat(5000)
    observation = recipe.cell(0, rows_of(clean[truth]), torch.Generator().manual_seed(2))
    labels = {"diameter_nm": torch.arange(4)}
    p = exact_posterior(recipe, 0, observation, clean, labels, {"diameter_nm": 4})["diameter_nm"].numpy()
    # 20 000 patterns that are easily confused; each bin's frequency is known to about 1 %.
    assert 0.3 < accuracy(p, truth.numpy()) < 0.95
    assert calibration_error(p, truth.numpy()) < 0.015
