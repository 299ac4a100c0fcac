"""Makes a trained posterior model the one that travels with the package: qdml/shipped/NAME/.

    qd-train experiment=production ...;  qd-evaluate model=MODEL data.store=STORE output=EVALUATION ...
    python benchmarks/ship_model.py MODEL EVALUATION [--name pbs] [--store STORE]

Takes of MODEL the best weights, the basis of its dots and the card, and of EVALUATION (qd-evaluate of the same model)
the numbers, which go into the card; leaves the state to resume, logs and figures behind. The copy is loaded, fits one
of its own simulated patterns, and has at most 20 MB, before it replaces what was there. README.md beside it is the card
for a reader. With --store the basis is made anew from the store, for a model whose basis file is of an older version.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from qdml.basis_file import BASIS_FILE, read_basis, write_basis
from qdml.checkpoint import load_model, read_card, training_config

SHIPPED = Path(__file__).resolve().parents[1] / "qdml" / "shipped"
MAX_MEGABYTES = 20.0
# Of what is said of the posteriors in metrics.json: all patterns, each instrument, those where σ can be told.
_KEPT = (
    "patterns",
    "all",
    "mean_over_cells",
    "cells",
    "regular",
    "nearly_degenerate",
    "guess",
    "fits",
    "seconds_per_pattern",
)
LIMITS = """\
- One sort of crystal, in the shapes of the table; no mixtures of materials, no second population of sizes.
- Patterns as measured, with solvent and background; one from which something was subtracted is like none in training.
- Instruments, energies and windows of Q as listed. The resolution must be known to about 5 %.
- Answers hold for what the training contains. For real dots qd-predict widens them by 0.5 % of D_v, with
  0.7 % (D_v / 5 nm)² in quadrature, and by 0.005 of σ²: what simulated dots of other shapes, distributions, crystals
  and films are off by (benchmarks/results/size_misfits.md), mostly without a residual. A second size or a skewed
  distribution moves D by 0.1 to 0.2 nm; strain that differs within a sample, which it does not know, D_v by 1 to 2 %.
- D < 3 nm with σ < 8 % is nearly degenerate: quote D_v.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description="Install a trained model as the one of the package.")
    parser.add_argument("model", type=Path, help="folder that qd-train wrote")
    parser.add_argument("evaluation", type=Path, help="folder that qd-evaluate wrote for it")
    parser.add_argument("--name", default="pbs", help="its name (default: pbs)")
    parser.add_argument("--store", type=Path, help="make the basis anew from this store")
    parser.add_argument(
        "--into", type=Path, default=SHIPPED, help="folder of all models (default: the package's)"
    )
    options = parser.parse_args(arguments)
    try:
        folder, size = ship(
            options.model, options.evaluation, options.into / options.name, store=options.store
        )
    except ValueError as error:
        print(f"ship_model: error: {error}", file=sys.stderr)
        return 2
    print(f"{folder}: {size:.1f} MB. Read {folder / 'README.md'}, run the tests, commit.")
    return 0


def ship(model: Path, evaluation: Path, target: Path, *, store: Path | None = None) -> tuple[Path, float]:
    """Install a model.

    Returns:
        its folder and its size [MB].

    Raises:
        ValueError: the model or its evaluation cannot be used, do not belong together, or are too large.
    """
    card, metrics = read_card(model), _metrics(evaluation)
    if not card["trained"]:
        raise ValueError(
            f"{model} has not been trained to its end, or to a stop: its card does not say how long"
        )
    if card["task"] != "posterior":
        raise ValueError(f"{model} is a model of {card['task']}; only posteriors travel with the package")
    if metrics.get("task") != "posterior" or Path(metrics["model"]).name != model.name:
        raise ValueError(
            f"{evaluation} is of {metrics.get('model')} ({metrics.get('task')}), not of {model}; run qd-evaluate for it"
        )
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "model"
        copy.mkdir()
        shutil.copy(model / "model.safetensors", copy)
        if store is None:
            if not (model / BASIS_FILE).is_file():
                raise ValueError(
                    f"{model} has no {BASIS_FILE}; give the store it was trained from with --store"
                )
            shutil.copy(model / BASIS_FILE, copy)
        else:
            _make_basis(card, store, copy)
        shipped = _without_places(card) | {
            "evaluation": {name: metrics[name] for name in ("split", "seed", "stress")}
            | {name: metrics["posterior"][name] for name in _KEPT},
            "limits": LIMITS,
        }
        (copy / "card.json").write_text(
            json.dumps(shipped, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (copy / "README.md").write_text(_readme(shipped), encoding="utf-8")
        size = sum(file.stat().st_size for file in copy.iterdir()) / 1e6
        if size > MAX_MEGABYTES:
            raise ValueError(
                f"{model} makes {size:.1f} MB, at most {MAX_MEGABYTES:g} MB may travel with the package"
            )
        _try(copy)
        target.mkdir(parents=True, exist_ok=True)
        for old in target.iterdir():
            old.unlink()
        for file in copy.iterdir():
            shutil.copy(file, target)
    return target, size


def _metrics(evaluation: Path) -> dict[str, Any]:
    file = evaluation / "metrics.json"
    try:
        metrics: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}); run qd-evaluate for the model") from None
    return metrics


def _make_basis(card: Mapping[str, Any], store: Path, folder: Path) -> None:
    from hpc.store import open_store
    from qdml.augmentation.recipes import build_recipe
    from qdml.dataset import fingerprint

    opened = open_store(store)
    if fingerprint(opened) != card["store"]["fingerprint"]:
        raise ValueError(f"{store} is not the store that the model was trained from")
    recipe = build_recipe(training_config(card).augment, opened, torch.device("cpu"))
    assert recipe.basis is not None
    write_basis(folder, recipe.basis)


def _without_places(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card without the folders of the machine that it was trained on."""
    training = dict(card["training"])
    training["data"] = training["data"] | {"store": Path(training["data"]["store"]).name}
    training["output"] = Path(training["output"]).name
    if training["trainer"]["initial"]:
        training["trainer"] = training["trainer"] | {"initial": Path(training["trainer"]["initial"]).name}
    kept = {name: value for name, value in card.items() if name != "timing"}
    config = {name: value for name, value in card["store"]["config"].items() if name != "store"}
    return kept | {"training": training, "store": card["store"] | {"config": config}}


def _try(folder: Path) -> None:
    """Load everything and let it answer one of its own patterns, fit included."""
    from qdml.asking import ask
    from qdml.augmentation.recipes import build_recipe
    from qdml.dataset import Rows
    from qdml.measured.posterior import inferred_of
    from qdml.refine import refine

    module, card = load_model(folder)
    if not all(bool(torch.isfinite(weight).all()) for weight in module.parameters()):
        raise ValueError(f"{folder} has weights that are not finite; train the model again")
    device = torch.device("cpu")
    recipe = build_recipe(training_config(card).augment, read_basis(folder, device), device)
    size = (card["prior"]["diameter_nm"][0] * card["prior"]["diameter_nm"][1]) ** 0.5
    rows = Rows(
        variant=torch.tensor([0]),
        diameter=torch.tensor([size], dtype=torch.float64),
        sigma=torch.tensor([0.1], dtype=torch.float64),
        strain=torch.tensor([0.0], dtype=torch.float64),
        b_scale=torch.tensor([1.3], dtype=torch.float64),
        intensity=None,
    )
    generator = torch.Generator().manual_seed(0)
    setting, z_BL = recipe.draw(rows, generator, 0)
    observation = recipe.observe(recipe.expected(rows.main(), setting, z_BL), generator)
    density, nuisance = ask(module, card, observation)
    fitted = refine(recipe, observation, setting, density, nuisance=nuisance).posterior
    found = inferred_of(fitted, card["store"]["ranges"]["sigma"][0]).estimates["diameter_volume_nm"]
    truth = float(rows.volume_diameter[0])
    if abs(found.mean / truth - 1) > 0.1:
        raise ValueError(
            f"the model says D_v = {found.text(2)} nm of a simulated pattern of {truth:.2f} nm: its weights or its "
            "basis do not belong to its card"
        )


def _readme(card: Mapping[str, Any]) -> str:
    """The card for a reader."""
    from qdml.evaluation.summary import posterior_lines, stress_lines

    evaluation = card["evaluation"]
    numbers = "\n".join([*posterior_lines(evaluation), *stress_lines(evaluation["stress"])])
    rows = "\n".join(f"| {name} | {text} |" for name, text in _facts(card).items())
    limits = card["limits"].strip()
    return f"""\
# {card["materials"][0]}: the posterior model of this package

The model that `qd-predict` takes when none is named. This page is written by `benchmarks/ship_model.py`; all of it is
in `card.json` too.

| | |
|---|---|
{rows}

| instrument | keV | Q (Å⁻¹) | weight in training |
|---|---|---|---|
{_instruments(card)}

## How good it is

`qd-evaluate`, split `{evaluation["split"]}`: patterns it has not learned from. Errors are over the Cramér-Rao bound
with all unknowns and their priors; *ideal* is an estimator at the bound, the ceiling of coverage and of classes.

```
{numbers}
```

## Limits

{limits}
"""


def _facts(card: Mapping[str, Any]) -> dict[str, str]:
    """What a reader asks first."""
    prior, trained, q = card["prior"], card["trained"], card["q"]
    config = training_config(card)
    mean = "number mean D" if prior["mean"] == "number" else "volume mean D_v"
    low, high = prior["diameter_nm"]
    sigma, strain, b = (
        f"{factor * prior[name][0]:g} to {factor * prior[name][1]:g}"
        for name, factor in (("sigma", 100), ("strain", 100), ("b_scale", 1))
    )
    network = ", ".join(f"{name} {value}" for name, value in card["architecture"].items() if name != "name")
    times = config.trainer.observations
    again = (
        "none twice"
        if times == 1
        else f"each expected pattern observed {times} times, with photons of its own"
    )
    return {
        "answers": "posterior of (ln D_v, ln σ, ε), D_v = D(1 + σ²)³; D, intervals and size distribution follow",
        "input": f"a pattern, any scale and window in Q = {q['min']:g} to {q['max']:g} Å⁻¹; its noise; the instrument",
        "dots": f"{', '.join(card['materials'])}: {'; '.join(card['variants'])}",
        "sizes": f"{mean} {low:g} to {high:g} nm, σ {sigma} %, strain {strain} %, B times {b}",
        "world": f"augment={card['recipe']}: see conf/augment and conf/instrument; its values are in card.json",
        "network": f"{card['architecture']['name']}: {network}",
        "learned from": f"{trained['patterns']:,} patterns ({trained['steps']:,} steps), {again}",
        "training": f"{trained['seconds'] / 60:.0f} minutes on {trained['device']}, {trained['processes']} processes "
        f"of {trained['threads']} threads; seed {config.seed}, {config.trainer.steps:,} steps planned",
        "began with": _ancestors(card),
        "software": ", ".join(f"{name} {number}" for name, number in card["software"].items()),
    }


def _ancestors(card: Mapping[str, Any]) -> str:
    """What the models were trained on whose weights the training began with, the last one first."""
    found, before = [], card["began_with"]
    while before:
        found.append(
            f"a model of {before['patterns']:,} patterns, {before['seconds'] / 60:.0f} minutes on {before['device']}"
        )
        before = before["began_with"]
    return "; ".join(found) or "random weights"


def _instruments(card: Mapping[str, Any]) -> str:
    """Rows of a table."""
    from hpc.instrument.setup import load_instrument
    from qdml.augmentation.config import InstrumentRecipeConfig

    recipe, q = training_config(card).augment, card["q"]
    assert isinstance(recipe, InstrumentRecipeConfig)
    rows = []
    for choice, window in zip(recipe.instruments, card["windows"], strict=True):
        own = load_instrument(choice.name).radiation.energy_kev
        energy = f"{own:.3g}" if choice.energy_kev is None else "{:g} to {:g}".format(*choice.energy_kev)
        low, high = max(window["first"][0], q["min"]), min(window["last"][1], q["max"])
        rows.append(f"| {choice.name} | {energy} | {low:.2f} to {high:.2f} | {choice.weight:g} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
