"""The published benchmark, answered by the exact classifier, by refine and by networks.

    qd-simulate experiment=allara2024 store.path=runs/allara2024/store.zarr
    python benchmarks/published_benchmark.py runs/allara2024/store.zarr [MODEL ...] --patterns 64 --markdown table.md

17 sizes x 4 dispersions x 19 strains in 32 noise cells (`conf/augment/allara2024.yaml`). Test patterns of the split
that the models were trained with; the same noisy patterns for every answer. What each is told:

- exact classifier: the cell (solvent, nanocrystal fraction, photons) and the grid of hypotheses;
- refine: the photons of each point, the two solvents, the ranges of size, dispersion and strain; it starts from a scan,
  fits the fraction and the mixture of solvents, and its continuous posterior is read at the grid's hypotheses;
- a network: the pattern, its noise and mask, and the photons if it takes conditions.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine

from hpc.device import select_device
from hpc.store import open_store
from qdml.answers import grid_probabilities, log_uniform_prior, targets_of
from qdml.augmentation.allara import AllaraRecipe
from qdml.augmentation.recipes import build_recipe
from qdml.checkpoint import load_model, training_config
from qdml.dataset import Rows, lane_generator, read_rows, split_samples
from qdml.densities import GaussianMixture
from qdml.limits.cramer_rao import cramer_rao, rmse_over_bound
from qdml.limits.exact import exact_posterior
from qdml.limits.published import PUBLISHED
from qdml.limits.unknowns import MainPrior
from qdml.losses import class_probabilities
from qdml.observation import Observation
from qdml.preprocess import network_input
from qdml.refine import refine
from qdml.scan import scan

NAMES = {"diameter": "size", "sigma": "dispersion"}
ROLE = 33  # of the random stream
RMS = "rmse_over_bound"
LEAST = 1e-9  # probability that a log loss knows of


def main(words: Sequence[str] | None = None) -> None:
    arguments = read_words(words)
    torch.set_num_threads(1)
    device = torch.device("cpu")
    store = open_store(arguments.store)
    models = {folder.name: load_model(folder) for folder in arguments.models}
    recipe = build_recipe(augmentation(), store, device)
    assert isinstance(recipe, AllaraRecipe)
    test = test_samples(store, models)
    drawn = {}
    for seed in arguments.seeds:
        chosen = np.sort(np.random.default_rng(seed).permutation(test)[: arguments.patterns])
        drawn[seed] = read_rows(store, chosen, device)
    patterns = sum(map(len, drawn.values()))
    everything = read_rows(store, np.arange(store.n_samples), device)
    grid = Grid(everything)
    prior = MainPrior.of_ranges(recipe.basis.ranges, device)
    cells = range(len(recipe.cells)) if arguments.cells is None else arguments.cells
    results = []
    for cell in cells:
        each = []
        for seed, rows in drawn.items():
            generator = lane_generator(device, seed, ROLE, cell)
            each.append(answer_cell(recipe, cell, rows, everything, grid, prior, models, generator))
            if len(drawn) > 1:
                print(line_of(f"seed {seed}", each[-1]), flush=True)
        results.append(mean_of(each))
        print(line_of(recipe.cells[cell], results[-1]), flush=True)
    record = {
        "benchmark": "published",
        "patterns": patterns,
        "cells": [recipe.cells[cell] for cell in cells],
        "results": results,
        "machine": machine(select_device("cpu")),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = table(results, patterns)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n", encoding="utf-8")


def read_words(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="store of experiment=allara2024")
    parser.add_argument("models", nargs="*", type=Path, help="folders of models trained on it")
    parser.add_argument(
        "--patterns", type=int, default=64, help="base patterns of the test split (default: 64)"
    )
    parser.add_argument("--cells", type=int, nargs="+", help="numbers of cells (default: all 32)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="of patterns and noise; several are averaged"
    )
    parser.add_argument("--output", type=Path, help="write all numbers here (JSON)")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    return parser.parse_args(words)


def augmentation() -> Any:
    """`conf/augment/allara2024.yaml`."""
    from importlib.resources import files

    import yaml

    from qdml.augmentation.config import AllaraConfig
    from qdml.config_reader import read_config

    text = (files("conf") / "augment" / "allara2024.yaml").read_text(encoding="utf-8")
    return read_config(AllaraConfig, yaml.safe_load(text))


def test_samples(store: Any, models: dict[str, Any]) -> np.ndarray:
    """The test split that all models have, or that of `conf/data/store.yaml`."""
    splits = set()
    for _, card in models.values():
        config = training_config(card)
        splits.add((config.data.train, config.data.validation, config.seed))
    if len(splits) > 1:
        raise SystemExit(f"the models must have one split, got (train, validation, seed) {sorted(splits)}")
    train, validation, seed = splits.pop() if splits else (0.7, 0.1, 0)
    return split_samples(store.n_samples, train, validation, seed)["test"]


class Grid:
    """Hypotheses of the benchmark and their classes."""

    def __init__(self, rows: Rows) -> None:
        self.targets = targets_of(rows.diameter, rows.sigma, rows.strain)
        self.values = {"diameter": rows.diameter.unique(), "sigma": rows.sigma.unique()}
        self.label = self.labels(rows)

    def labels(self, rows: Rows) -> dict[str, torch.Tensor]:
        return {
            name: torch.searchsorted(values, getattr(rows, name).contiguous())
            for name, values in self.values.items()
        }

    def marginals(self, p_BH: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            name: p_BH @ torch.nn.functional.one_hot(label, len(self.values[name])).double()
            for name, label in self.label.items()
        }


def answer_cell(
    recipe: AllaraRecipe,
    cell: int,
    rows: Rows,
    everything: Rows,
    grid: Grid,
    prior: MainPrior,
    models: dict[str, Any],
    generator: torch.Generator,
) -> dict[str, Any]:
    """Accuracies and seconds per pattern of every answer."""
    setting, z_BL = recipe.draw(rows, generator, cell)
    observation = recipe.observe(recipe.expected(rows.main(), setting, z_BL), generator)
    truth, n = grid.labels(rows), len(rows)
    found: dict[str, Any] = {}

    def score(name: str, answers: dict[str, torch.Tensor], seconds: float, **more: Any) -> None:
        right = {key: float((p.argmax(dim=1) == truth[key]).double().mean()) for key, p in answers.items()}
        true_B = answers["sigma"].double().gather(1, truth["sigma"][:, None])[:, 0]
        # Two readings of the same few patterns differ by chance in accuracy, and by what they are worth in ln p.
        loss = {"log_loss_sigma": float(-true_B.clamp(min=LEAST).log().mean())}
        found[name] = right | loss | {"ms": 1e3 * seconds / n} | more

    started = time.process_time()
    sizes = {name: len(values) for name, values in grid.values.items()}
    exact = exact_posterior(recipe, cell, observation, everything.intensity, grid.label, sizes)
    score("exact classifier", exact, time.process_time() - started)

    started = time.process_time()
    starts = scan(recipe, observation, setting, prior=prior, keep=2)
    fitted = refine(recipe, observation, setting, starts, prior=prior)
    seconds = time.process_time() - started
    bound = cramer_rao(recipe, replace(rows.main(), intensity=None), setting, z_BL, prior)
    deviation = fitted.posterior.moments()[0] - targets_of(rows.diameter, rows.sigma, rows.strain)
    ratio = rmse_over_bound(deviation, bound.diagonal(dim1=1, dim2=2).sqrt())
    score(
        "refine",
        grid.marginals(grid_probabilities(fitted.posterior, grid.targets, log_uniform_prior)),
        seconds,
        **{RMS: ratio.tolist()},
        chi2=float(fitted.chi2.mean()),
    )
    for name, (module, card) in models.items():
        started = time.process_time()
        with torch.inference_mode():
            score(
                name, network_answers(module, card, observation, recipe, grid), time.process_time() - started
            )
    return found


def network_answers(
    module: torch.nn.Module, card: dict[str, Any], observation: Observation, recipe: AllaraRecipe, grid: Grid
) -> dict[str, torch.Tensor]:
    config = training_config(card)
    q = torch.linspace(card["q"]["min"], card["q"]["max"], card["q"]["size"], dtype=torch.float64)
    outputs = module(network_input(observation, q, config.network.input))
    if isinstance(outputs, GaussianMixture):
        return grid.marginals(grid_probabilities(outputs.to(torch.float64), grid.targets, log_uniform_prior))
    p = class_probabilities(outputs, config.classes)
    return {"diameter": p["diameter_nm"], "sigma": p["sigma"]}


def mean_of(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, of as many patterns each; of errors over the bound the root mean square."""
    found: dict[str, Any] = {}
    for name, first in each[0].items():
        found[name] = {key: float(np.mean([one[name][key] for one in each])) for key in first if key != RMS}
        if RMS in first:
            found[name][RMS] = np.sqrt(np.mean([np.square(one[name][RMS]) for one in each], axis=0)).tolist()
    return found


def line_of(title: str, found: dict[str, Any]) -> str:
    parts = [
        f"{name} {one['diameter']:.3f} {one['sigma']:.3f}, -ln p {one['log_loss_sigma']:.3f} ({one['ms']:.0f} ms)"
        for name, one in found.items()
    ]
    return f"{title}: " + "; ".join(parts)


def table(results: Sequence[dict[str, Any]], patterns: int) -> str:
    """Markdown: means over the cells, and the worst cell, beside the published network and the goals."""
    lines = [
        "| | size | dispersion | worst cell: size | dispersion | -ln p of the true dispersion | ms |",
        "|---|---|---|---|---|---|---|",
    ]

    def percent(x: float | None) -> str:
        return "-" if x is None else f"{100 * x:.1f} %"

    for name in results[0]:
        mean = {key: float(np.mean([one[name][key] for one in results])) for key in (*NAMES, "ms")}
        worst = {key: min(one[name][key] for one in results) for key in NAMES}
        loss = float(np.mean([one[name]["log_loss_sigma"] for one in results]))
        lines.append(
            f"| {name} | {percent(mean['diameter'])} | {percent(mean['sigma'])} | {percent(worst['diameter'])} | "
            f"{percent(worst['sigma'])} | {loss:.3f} | {mean['ms']:.0f} |"
        )
    for name, title in (("network", "published network"), ("goal", "goal")):
        one = PUBLISHED[name]
        numbers = [percent(one[key]) for key in ("diameter", "sigma", "worst_diameter", "worst_sigma")]
        lines.append(f"| {title} | {' | '.join(numbers)} | | |")
    spread = [np.array(one["refine"][RMS]) for one in results]
    rms = np.sqrt(np.mean(np.square(spread), axis=0))
    lines += [
        "",
        f"{patterns} patterns in each of {len(results)} cells. RMSE of refine over the Cramér-Rao bound: "
        + ", ".join(f"{name} {one:.2f}" for name, one in zip(("ln D_v", "ln σ", "ε"), rms, strict=True)),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
