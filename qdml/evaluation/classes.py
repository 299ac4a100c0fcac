"""Classes on patterns a model has not learned from: answers per noise cell -> metrics, beside what is possible.

Every pattern of the split is augmented `draws` times in every noise cell of the recipe that the model was trained
with. For the published recipe the exact-likelihood classifier answers the same patterns, knowing the cell; and a
posterior is asked which hypothesis of the published grid it was (`qdml.answers.grid_probabilities`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qdml import answers
from qdml.asking import input_of
from qdml.augmentation.allara import AllaraRecipe
from qdml.augmentation.recipe import Recipe
from qdml.augmentation.recipes import build_recipe
from qdml.checkpoint import training_config
from qdml.config import ClassConfig, EvaluateConfig
from qdml.dataset import Rows, lane_generator, nearest_class, read_rows
from qdml.densities import GaussianMixture
from qdml.evaluation.samples import choose_samples
from qdml.limits.exact import exact_posterior
from qdml.limits.published import PUBLISHED
from qdml.losses import class_probabilities
from qdml.metrics import (
    accuracy,
    calibration_error,
    class_accuracy,
    confusion_matrix,
    mean_absolute_error,
    reliability,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpc.store import Store
    from qdml.observation import Observation

__all__ = ["QUANTITIES", "Evaluation", "evaluate_model"]

#: Quantity -> its name in tables and figures.
QUANTITIES = {"diameter_nm": "size", "sigma": "dispersion"}

_EVALUATION = 21  # role of the random stream, apart from those of training
# Hypotheses of the exact classifier: beyond this its tables (8 bytes x 5000 points each) fill a small machine.
_MAX_HYPOTHESES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Every answer of a model: arrays over (cell, pattern), pattern running over draws, then samples."""

    cells: Sequence[str]
    classes: ClassConfig
    truth: dict[str, np.ndarray]
    """Quantity -> (pattern,) true values."""
    label: dict[str, np.ndarray]
    """Quantity -> (pattern,) class of the true value."""
    network: dict[str, np.ndarray]
    """Quantity -> (cell, pattern, class) float32 probabilities."""
    exact: dict[str, np.ndarray] | None
    """The same of the exact classifier; None where it does not apply."""

    def metrics(self) -> dict[str, Any]:
        """Everything that metrics.json says of the answers."""
        result: dict[str, Any] = {
            "patterns": int(len(self.truth["sigma"]) * len(self.cells)),
            "network": self._scores(self.network),
            "exact_classifier": self._scores(self.exact) if self.exact else None,
            "cells": [],
        }
        for index, cell in enumerate(self.cells):
            entry: dict[str, Any] = {"cell": cell}
            for name in QUANTITIES:
                centres = np.array(getattr(self.classes, name))
                p = self.network[name][index]
                entry[name] = {
                    "accuracy": accuracy(p, self.label[name]),
                    "mean_absolute_error": mean_absolute_error(p, centres, self.truth[name])["mean"],
                    "exact_accuracy": accuracy(self.exact[name][index], self.label[name])
                    if self.exact
                    else None,
                }
            result["cells"].append(entry)
        if self.exact:
            result["published"] = PUBLISHED
        return result

    def _scores(self, answers: dict[str, np.ndarray]) -> dict[str, Any]:
        scores: dict[str, Any] = {}
        for name in QUANTITIES:
            p, label, truth = self._pooled(answers, name)
            centres = np.array(getattr(self.classes, name))
            scores[name] = {
                "accuracy": accuracy(p, label),
                "worst_cell_accuracy": min(accuracy(one, self.label[name]) for one in answers[name]),
                "mean_absolute_error": mean_absolute_error(p, centres, truth),
                "expected_calibration_error": calibration_error(p, label),
                "class_accuracy": dict(
                    zip(map(str, centres.tolist()), class_accuracy(confusion_matrix(p, label)), strict=True)
                ),
            }
        return scores

    def confusion(self, name: str) -> np.ndarray:
        """(K, K) counts over all cells."""
        p, label, _ = self._pooled(self.network, name)
        return confusion_matrix(p, label)

    def reliability(self, name: str) -> list[tuple[int, float, float]]:
        """(patterns, confidence, accuracy) of each bin over all cells."""
        p, label, _ = self._pooled(self.network, name)
        return reliability(p, label)

    def _pooled(self, answers: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        p = answers[name]
        return (
            p.reshape(-1, p.shape[-1]),
            np.tile(self.label[name], len(p)),
            np.tile(self.truth[name], len(p)),
        )


@torch.inference_mode()
def evaluate_model(
    module: torch.nn.Module,
    card: dict[str, Any],
    store: Store,
    config: EvaluateConfig,
    device: torch.device,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Evaluation, Recipe, Rows]:
    """Let a model answer the patterns of a split in every noise cell.

    Args:
        module: the network, on the device.
        card: its card.
        store: where the patterns are.
        config: split, draws, batch size, seed.
        device: of the network.
        show: called with the number of finished cells and of all.

    Returns:
        the answers, the recipe, and the clean patterns of the split.

    Raises:
        ValueError: see `choose_samples`.
    """
    training = training_config(card)
    classes = training.classes or config.classes
    if classes is None:
        raise ValueError("a model without classes of its own needs some to be asked for; choose classes=NAME")
    if config.data.split == "prior":
        raise ValueError("classes are told apart on the samples of a store; choose data.split=test or all")
    index = choose_samples(store, card, config.data.split)
    recipe = build_recipe(training.augment, store, device)
    exact = isinstance(recipe, AllaraRecipe) and store.n_samples <= _MAX_HYPOTHESES
    rows = read_rows(store, index, device, intensity=recipe.needs_intensity)
    everything = read_rows(store, np.arange(store.n_samples), device) if exact else None

    values = {"diameter_nm": rows.diameter, "sigma": rows.sigma}
    network: dict[str, list[np.ndarray]] = {name: [] for name in QUANTITIES}
    ceiling: dict[str, list[np.ndarray]] = {name: [] for name in QUANTITIES}
    for cell in range(len(recipe.cells)):
        generator = lane_generator(device, config.seed, _EVALUATION, cell)
        given: list[dict[str, torch.Tensor]] = []
        for _ in range(config.draws):
            for start in range(0, len(rows), config.batch):
                part = rows.take(slice(start, start + config.batch))
                observation = recipe.cell(cell, part, generator)
                outputs = module(input_of(card, observation))
                answer = _answer(outputs, classes, everything)
                if everything is not None and isinstance(recipe, AllaraRecipe):
                    answer.update(_exact(recipe, cell, observation, everything, classes))
                given.append(answer)
        for name in QUANTITIES:
            network[name].append(torch.cat([one[name] for one in given]).float().cpu().numpy())
            if exact:
                ceiling[name].append(torch.cat([one[f"exact {name}"] for one in given]).float().cpu().numpy())
        show(cell + 1, len(recipe.cells))

    evaluation = Evaluation(
        cells=recipe.cells,
        classes=classes,
        truth={name: np.tile(value.cpu().numpy(), config.draws) for name, value in values.items()},
        label={
            name: np.tile(nearest_class(value, getattr(classes, name)).cpu().numpy(), config.draws)
            for name, value in values.items()
        },
        network={name: np.stack(parts) for name, parts in network.items()},
        exact={name: np.stack(parts) for name, parts in ceiling.items()} if exact else None,
    )
    return evaluation, recipe, rows


def _answer(outputs: Any, classes: ClassConfig, everything: Rows | None) -> dict[str, torch.Tensor]:
    """Class probabilities: of the hypotheses of the grid where there is one, for a posterior."""
    if not isinstance(outputs, GaussianMixture):
        return class_probabilities(outputs, classes)
    if everything is None:
        joint = answers.class_probabilities(outputs, classes)
        return {"diameter_nm": joint.sum(dim=2), "sigma": joint.sum(dim=1)}
    # The training draws sizes and dispersions uniformly.
    p_BH = answers.grid_probabilities(
        outputs,
        answers.targets_of(everything.diameter, everything.sigma, everything.strain),
        answers.log_uniform_prior,
    )
    labels, sizes = _labels(everything, classes)
    return {
        name: p_BH @ torch.nn.functional.one_hot(labels[name], sizes[name]).double() for name in QUANTITIES
    }


def _exact(
    recipe: AllaraRecipe, cell: int, observation: Observation, everything: Rows, classes: ClassConfig
) -> dict[str, torch.Tensor]:
    assert everything.intensity is not None
    found = exact_posterior(recipe, cell, observation, everything.intensity, *_labels(everything, classes))
    return {f"exact {name}": found[name] for name in QUANTITIES}


def _labels(rows: Rows, classes: ClassConfig) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Class of every row, and the number of classes, of each quantity."""
    values = {"diameter_nm": rows.diameter, "sigma": rows.sigma}
    labels = {name: nearest_class(values[name], getattr(classes, name)) for name in QUANTITIES}
    return labels, {name: len(getattr(classes, name)) for name in QUANTITIES}
