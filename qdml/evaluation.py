"""A model on patterns it has not learned from: answers per noise cell -> metrics, beside what is possible.

Every pattern of the split is augmented `draws` times in every noise cell of the recipe that the model was trained
with. For the published recipe the exact-likelihood classifier answers the same patterns, knowing the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qdml.augmentation.allara import AllaraRecipe
from qdml.augmentation.recipe import Recipe
from qdml.augmentation.recipes import build_recipe
from qdml.checkpoint import training_config
from qdml.config import ClassConfig, EvaluateConfig
from qdml.dataset import Rows, fingerprint, lane_generator, nearest_class, read_rows, split_samples
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
from qdml.preprocess import network_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpc.store import Store

__all__ = ["QUANTITIES", "Evaluation", "choose_samples", "evaluate_model"]

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


def choose_samples(store: Store, card: dict[str, Any], split: str) -> np.ndarray:
    """Sample indices of a split.

    Args:
        store: the store to evaluate on.
        card: of the model.
        split: train, validation, test, or all.

    Raises:
        ValueError: the store's Q grid is not the model's; a split of a store that the model was not trained on, or
            all of the one it was.
    """
    grid, q = card["q"], store.q
    expected = np.linspace(grid["min"], grid["max"], grid["size"])
    if q.size != grid["size"] or not np.allclose(q, expected, rtol=0, atol=1e-9 + 1e-6 * grid["step"]):
        raise ValueError(
            f"the Q grid of {store.path} must be the model's: {grid['size']} points, {grid['min']:g} to "
            f"{grid['max']:g} Å⁻¹; got {q.size} points, {q[0]:g} to {q[-1]:g} Å⁻¹. Simulate with the q of the model"
        )
    own = fingerprint(store) == card["store"]["fingerprint"]
    if split == "all":
        if own:
            raise ValueError(
                f"{store.path} holds the patterns that the model learned from; choose data.split=test"
            )
        return np.arange(store.n_samples)
    if not own:
        raise ValueError(
            f"{store.path} is not the store that the model was trained on, so it has no {split} split; "
            "choose data.split=all"
        )
    config = training_config(card)
    return split_samples(store.n_samples, config.data.train, config.data.validation, config.seed)[split]


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
    index = choose_samples(store, card, config.data.split)
    recipe = build_recipe(training.augment, store, device)
    rows = read_rows(store, index, device, recipe.atoms)
    q = torch.as_tensor(store.q)
    exact = isinstance(recipe, AllaraRecipe) and store.n_samples <= _MAX_HYPOTHESES
    everything = read_rows(store, np.arange(store.n_samples), device) if exact else None

    values = {"diameter_nm": rows.diameter, "sigma": rows.sigma}
    network: dict[str, list[np.ndarray]] = {name: [] for name in QUANTITIES}
    ceiling: dict[str, list[np.ndarray]] = {name: [] for name in QUANTITIES}
    for cell in range(len(recipe.cells)):
        generator = lane_generator(device, config.seed, _EVALUATION, cell)
        answers: list[dict[str, torch.Tensor]] = []
        for _ in range(config.draws):
            for start in range(0, len(rows), config.batch):
                part = rows.take(slice(start, start + config.batch))
                y_BQ, mask_BQ = recipe.cell(cell, part, generator)
                logits = module(network_input(y_BQ, mask_BQ, q, training.network.input))
                answer = class_probabilities(logits, training.classes)
                if everything is not None and isinstance(recipe, AllaraRecipe):
                    answer.update(_exact(recipe, cell, y_BQ, everything, training.classes))
                answers.append(answer)
        for name in QUANTITIES:
            network[name].append(torch.cat([one[name] for one in answers]).float().cpu().numpy())
            if exact:
                ceiling[name].append(
                    torch.cat([one[f"exact {name}"] for one in answers]).float().cpu().numpy()
                )
        show(cell + 1, len(recipe.cells))

    evaluation = Evaluation(
        cells=recipe.cells,
        classes=training.classes,
        truth={name: np.tile(value.cpu().numpy(), config.draws) for name, value in values.items()},
        label={
            name: np.tile(nearest_class(value, getattr(training.classes, name)).cpu().numpy(), config.draws)
            for name, value in values.items()
        },
        network={name: np.stack(parts) for name, parts in network.items()},
        exact={name: np.stack(parts) for name, parts in ceiling.items()} if exact else None,
    )
    return evaluation, recipe, rows


def _exact(
    recipe: AllaraRecipe, cell: int, y_BQ: torch.Tensor, everything: Rows, classes: ClassConfig
) -> dict[str, torch.Tensor]:
    values = {"diameter_nm": everything.diameter, "sigma": everything.sigma}
    labels = {name: nearest_class(values[name], getattr(classes, name)) for name in QUANTITIES}
    sizes = {name: len(getattr(classes, name)) for name in QUANTITIES}
    answers = exact_posterior(recipe, cell, y_BQ, everything.intensity, labels, sizes)
    return {f"exact {name}": answers[name] for name in QUANTITIES}
