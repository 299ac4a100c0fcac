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
    from qdml.config import EvaluateConfig

__all__ = ["evaluate", "main"]

_log = logging.getLogger(__name__)
# Patterns in the figure of activation maps.
_MAPS = 4


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a model, write metrics.json and the figures.

    Returns:
        what metrics.json holds.

    Raises:
        ValueError: the model or the store cannot be used; the message says why.
    """
    import torch

    from hpc.store import open_store
    from qdml import charts
    from qdml.checkpoint import load_model
    from qdml.distributed import choose_device
    from qdml.evaluation import QUANTITIES, evaluate_model

    device = choose_device(config.device.name)
    module, card = load_model(config.model, device)
    if not card["finished"]:
        _log.warning("%s is not finished: these are the best weights so far", config.model)
    store = open_store(config.data.store)
    evaluation, recipe, rows = evaluate_model(
        module, card, store, config, device,
        show=lambda done, total: _log.info("noise cell %d of %d", done, total) if done % 8 == 0 else None,
    )  # fmt: skip
    metrics = {
        "model": config.model,
        "store": config.data.store,
        "split": config.data.split,
        "samples": len(rows),
        "draws": config.draws,
        **evaluation.metrics(),
    }
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))

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
    return metrics


def _draw_maps(module: Any, card: dict[str, Any], recipe: Any, rows: Any, q: Any, path: Path) -> None:
    """Activation maps of a few patterns from the smallest to the largest size, in the first noise cell."""
    import torch

    from qdml.charts import draw_activation_maps
    from qdml.dataset import lane_generator
    from qdml.preprocess import network_input

    order = torch.argsort(rows.diameter)
    chosen = rows.take(order[torch.linspace(0, len(rows) - 1, _MAPS, device=order.device).long()])
    with torch.inference_mode():
        y_BQ, mask_BQ = recipe.cell(0, chosen, lane_generator(chosen.intensity.device, 0))
        x_BCQ = network_input(y_BQ, mask_BQ, q, card["input"])
        head = next(iter(module.heads))
        answer = module(x_BCQ)[head].argmax(dim=1)
        maps_BKQ = module.activation_map(x_BCQ, head)
    # A softmax does not see what all classes have in common.
    maps_BKQ = maps_BKQ - maps_BKQ.mean(dim=1, keepdim=True)
    maps_BQ = maps_BKQ[torch.arange(len(chosen), device=answer.device), answer]
    n_sigma = len(card["classes"]["sigma"])
    size = answer // n_sigma if head == "joint" else answer
    titles = [
        f"D = {d:.2f} nm, σ = {100 * s:.0f} %; answer {card['classes']['diameter_nm'][k]:g} nm ({recipe.cells[0]})"
        for d, s, k in zip(chosen.diameter.tolist(), chosen.sigma.tolist(), size.tolist(), strict=True)
    ]
    draw_activation_maps(q.numpy(), x_BCQ[:, 0].cpu().numpy(), maps_BQ.cpu().numpy(), titles, path)


def _print_summary(metrics: dict[str, Any], output: str) -> None:
    from qdml.evaluation import QUANTITIES

    print(f"{metrics['samples']} patterns x {metrics['draws']} draws x {len(metrics['cells'])} noise cells")
    ceiling, published = metrics["exact_classifier"], metrics.get("published")
    for name, title in QUANTITIES.items():
        score, unit = metrics["network"][name], " nm" if name == "diameter_nm" else ""
        line = f"{title:10s}  right class {100 * score['accuracy']:5.1f} %"
        line += f", worst cell {100 * score['worst_cell_accuracy']:5.1f} %"
        line += f"; mean error {score['mean_absolute_error']['mean']:.3g}{unit}"
        line += f"; calibration error {100 * score['expected_calibration_error']:.1f} %"
        print(line)
        if ceiling:
            exact = ceiling[name]
            print(
                f"{'':10s}  exact classifier, same patterns: {100 * exact['accuracy']:.1f} %, "
                f"worst cell {100 * exact['worst_cell_accuracy']:.1f} %"
            )
        if published:
            key = "diameter" if name == "diameter_nm" else "sigma"
            for who, values in published.items():
                overall, worst = (
                    "-" if value is None else f"{100 * value:.1f} %"
                    for value in (values[key], values[f"worst_{key}"])
                )
                print(f"{'':10s}  {who}, reference: {overall}, worst cell {worst}")
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
