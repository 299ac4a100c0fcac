"""qd-evaluate: how good a model is on patterns it has not learned from -> metrics.json and figures.

python -m qdml.evaluate model=runs/quick/model data.store=runs/quick/store.zarr output=runs/quick/evaluation
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    import torch

    from hpc.store import Store
    from qdml.config import EvaluateConfig

__all__ = ["evaluate", "main"]

_log = logging.getLogger(__name__)
# Patterns in the figures of activation maps and of posteriors.
_MAPS = 4


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a model, write metrics.json and the figures.

    Returns:
        what metrics.json holds.

    Raises:
        ValueError: the model or the store cannot be used; the message says why.
    """
    from hpc.store import open_store
    from qdml.checkpoint import load_model
    from qdml.distributed import choose_device
    from qdml.stress.run import StressRun

    device = choose_device(config.device.name)
    module, card = load_model(config.model, device)
    if not card["finished"]:
        _log.warning("%s is not finished: these are the best weights so far", config.model)
    sets = _stress_sets(config)
    store = open_store(config.data.store)
    folder = Path(config.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot make the folder {folder}: {error.strerror}; choose another output"
        ) from None
    metrics: dict[str, Any] = {
        "model": config.model,
        "task": card["task"],
        "store": config.data.store,
        "split": config.data.split,
        "seed": config.seed,
    }
    with StressRun(config, sets, device) as stress:
        if card["task"] == "posterior":
            metrics |= _posterior(module, card, store, config, device, folder)
        # Of a posterior on the published grid the classes too: beside the exact classifier.
        if card["task"] == "classes" or (card["recipe"] == "allara2024" and config.data.split != "prior"):
            metrics |= _classes(module, card, store, config, device, folder)
        metrics["stress"] = stress.rows(show=_log.info)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
    return metrics


def _stress_sets(config: EvaluateConfig) -> list[str]:
    """Names of the sets, checked before anything takes time."""
    from qdml.stress.sets import load_stress, stress_names

    names = stress_names() if "all" in config.stress.sets else list(config.stress.sets)
    for name in names:
        load_stress(name)
    return names


def _classes(
    module: torch.nn.Module,
    card: dict[str, Any],
    store: Store,
    config: EvaluateConfig,
    device: torch.device,
    folder: Path,
) -> dict[str, Any]:
    """Metrics and figures of classes."""
    import torch

    from qdml import charts
    from qdml.evaluation.classes import QUANTITIES, evaluate_model

    evaluation, recipe, rows = evaluate_model(
        module, card, store, config, device,
        show=lambda done, total: _log.info("noise cell %d of %d", done, total) if done % 8 == 0 else None,
    )  # fmt: skip
    metrics = {"samples": len(rows), "draws": config.draws, **evaluation.metrics()}
    labels = {
        "diameter_nm": [f"{d:g}" for d in evaluation.classes.diameter_nm],
        "sigma": [f"{100 * s:g}" for s in evaluation.classes.sigma],
    }
    titles = {"diameter_nm": "size class (nm)", "sigma": "dispersion class (%)"}
    charts.draw_confusion(
        {titles[name]: evaluation.confusion(name) for name in QUANTITIES},
        {titles[name]: labels[name] for name in QUANTITIES},
        folder / "confusion.png",
    )
    curves: dict[str, dict[str, list[float]]] = {}
    for name, title in QUANTITIES.items():
        curves[title] = {"network": [cell[name]["accuracy"] for cell in metrics["cells"]]}
        if evaluation.exact:
            curves[title]["exact classifier"] = [cell[name]["exact_accuracy"] for cell in metrics["cells"]]
    charts.draw_cells(evaluation.cells, curves, folder / "cells.png")
    charts.draw_reliability(
        {title: evaluation.reliability(name) for name, title in QUANTITIES.items()},
        folder / "calibration.png",
    )
    q = torch.as_tensor(store.q)
    if hasattr(module, "activation_map"):
        _draw_maps(module, card, recipe, rows, q, folder / "activation_maps.png")
    else:
        _log.info("no activation maps: %s does not pool over Q", card["architecture"]["name"])
    return {"classes": metrics}


def _posterior(
    module: torch.nn.Module,
    card: dict[str, Any],
    store: Store,
    config: EvaluateConfig,
    device: torch.device,
    folder: Path,
) -> dict[str, Any]:
    """Metrics and figures of a posterior."""
    from qdml import posterior_charts
    from qdml.evaluation.posterior import try_posterior

    trial = try_posterior(module, card, store, config, device, show=_log.info)
    metrics = trial.metrics()
    posterior_charts.draw_error_over_bound(trial.answers, folder / "error_over_bound.png")
    posterior_charts.draw_coverage(trial.answers, folder / "coverage.png")
    posterior_charts.draw_ranks(trial.answers, folder / "ranks.png")
    posterior_charts.draw_cell_errors(metrics["cells"], folder / "cell_errors.png")
    posterior_charts.draw_examples(trial, store.q, folder / "examples.png")
    return {"posterior": metrics}


def _draw_maps(module: Any, card: dict[str, Any], recipe: Any, rows: Any, q: Any, path: Path) -> None:
    """Activation maps of a few patterns from the smallest to the largest size, in the first noise cell."""
    import torch

    from qdml.asking import input_of
    from qdml.charts import draw_activation_maps
    from qdml.dataset import lane_generator

    order = torch.argsort(rows.diameter)
    chosen = rows.take(order[torch.linspace(0, len(rows) - 1, _MAPS, device=order.device).long()])
    with torch.inference_mode():
        observation = recipe.cell(0, chosen, lane_generator(chosen.diameter.device, 0))
        inputs = input_of(card, observation)
        head = next(iter(module.heads))
        answer = module(inputs)[head].argmax(dim=1)
        maps_BKQ = module.activation_map(inputs.pattern, head)
    # A softmax does not see what all classes have in common.
    maps_BKQ = maps_BKQ - maps_BKQ.mean(dim=1, keepdim=True)
    maps_BQ = maps_BKQ[torch.arange(len(chosen), device=answer.device), answer]
    n_sigma = len(card["classes"]["sigma"])
    size = answer // n_sigma if head == "joint" else answer
    titles = [
        f"D = {d:.2f} nm, σ = {100 * s:.0f} %; answer {card['classes']['diameter_nm'][k]:g} nm ({recipe.cells[0]})"
        for d, s, k in zip(chosen.diameter.tolist(), chosen.sigma.tolist(), size.tolist(), strict=True)
    ]
    draw_activation_maps(q.numpy(), inputs.pattern[:, 0].cpu().numpy(), maps_BQ.cpu().numpy(), titles, path)


def _print_summary(metrics: dict[str, Any], output: str) -> None:
    from qdml.evaluation.summary import class_lines, posterior_lines, stress_lines

    lines = posterior_lines(metrics["posterior"]) if "posterior" in metrics else []
    lines += class_lines(metrics["classes"]) if "classes" in metrics else []
    print("\n".join([*lines, *stress_lines(metrics["stress"])]))
    print(f"metrics.json and figures: {output}")


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="evaluate")
def main(composed: DictConfig) -> None:
    """Entry point of qd-evaluate."""
    from qdml.config import EvaluateConfig, read_config

    try:
        for key in ("model", "output", "data.store"):
            if OmegaConf.is_missing(composed.data if "." in key else composed, key.rpartition(".")[2]):
                raise ValueError(f"{key} is missing; add {key}=FOLDER")
        config = read_config(EvaluateConfig, OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]
        metrics = evaluate(config)
    except ValueError as error:
        print(f"qd-evaluate: error: {error}", file=sys.stderr)
        sys.exit(2)
    _print_summary(metrics, config.output)


if __name__ == "__main__":
    main()
