"""`qd-evaluate`: numbers beside their ceilings, figures, and clear words about a store that does not fit."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import simulated, trained

from hpc.store import open_store
from qdml.checkpoint import load_model
from qdml.config import ClassConfig, DeviceConfig, EvaluateConfig, EvaluateDataConfig, StressRunConfig
from qdml.evaluate import evaluate
from qdml.evaluation.classes import evaluate_model
from qdml.evaluation.samples import choose_samples, prior_rows

TRAIN = ("trainer.steps=60", "trainer.evaluate_every=30", "trainer.batch=64")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, smoke_store: Path) -> Path:
    """Two stores of one Q grid, and a model of either network for the first."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "store.zarr").symlink_to(smoke_store)
    simulated(folder / "unseen.zarr", "grid.diameter_nm=[2.2,2.8]")
    words = ("training=smoke", f"data.store={smoke_store}", *TRAIN)
    trained(folder / "allconv", *words)
    trained(folder / "mlp", *words, "network=residual_mlp")
    return folder


def config(
    run: Path, model: str, store: str = "store.zarr", split: str = "test", **changes: object
) -> EvaluateConfig:
    values = {
        "model": str(run / model),
        "data": EvaluateDataConfig(store=str(run / store), split=split),
        "classes": ClassConfig(diameter_nm=(2.0, 2.5, 3.0), sigma=(0.05, 0.1)),
        "draws": 2,
        "patterns": 12,
        "refine": False,
        "refine_patterns": 2,
        "classical_patterns": 0,
        "stress": StressRunConfig(sets=(), folder=str(run / "stress"), refine_patterns=2, processes=0),
        "batch": 16,
        "output": str(run / f"{model}-{store}"),
        "device": DeviceConfig(name="cpu"),
        "seed": 0,
    }
    return EvaluateConfig(**(values | changes))


@pytest.fixture(scope="module")
def everything(run: Path) -> dict:
    return evaluate(config(run, "mlp"))


@pytest.fixture(scope="module")
def metrics(everything: dict) -> dict:
    return everything["classes"]


def test_the_network_stands_beside_its_ceilings(metrics: dict) -> None:
    assert metrics["patterns"] == 19 * 2 * 32
    for name in ("diameter_nm", "sigma"):
        network, exact = (metrics[who][name] for who in ("network", "exact_classifier"))
        assert 0 <= network["worst_cell_accuracy"] <= network["accuracy"] <= 1
        # The exact classifier is told the noise cell and every hypothesis: 1216 answers, known to 1 %.
        assert exact["accuracy"] >= network["accuracy"] - 0.02
        assert exact["expected_calibration_error"] < 0.03
        cells = metrics["cells"]
        assert len(cells) == 32
        assert np.mean([cell[name]["accuracy"] for cell in cells]) == pytest.approx(network["accuracy"])
        assert cells[0][name]["exact_accuracy"] >= cells[-1][name]["exact_accuracy"]
    assert metrics["exact_classifier"]["diameter_nm"]["accuracy"] > 0.99
    assert metrics["network"]["diameter_nm"]["accuracy"] > 0.6, "three classes, learned for 60 steps"
    assert list(metrics["network"]["diameter_nm"]["class_accuracy"]) == ["2.0", "2.5", "3.0"]
    assert metrics["published"]["network"]["diameter"] == 0.973


def test_files(run: Path, everything: dict) -> None:
    output = run / "mlp-store.zarr"
    assert json.loads((output / "metrics.json").read_text()) == everything
    names = {path.name for path in output.glob("*.png")}
    assert names == {"confusion.png", "cells.png", "calibration.png"}, "a network without pooling has no maps"


def test_activation_maps_of_the_published_network(run: Path) -> None:
    evaluate(config(run, "allconv", draws=1))
    assert (run / "allconv-store.zarr" / "activation_maps.png").stat().st_size > 10_000


def test_the_same_seed_gives_the_same_numbers(run: Path, metrics: dict) -> None:
    again = evaluate(config(run, "mlp", output=str(run / "again")))["classes"]
    assert again["network"] == metrics["network"]
    other = evaluate(config(run, "mlp", output=str(run / "other"), seed=1))["classes"]
    assert other["cells"] != metrics["cells"]


def test_test_patterns_are_those_that_training_left(run: Path) -> None:
    store, (_, card) = open_store(run / "store.zarr"), load_model(run / "mlp")
    parts = {split: choose_samples(store, card, split) for split in ("train", "validation", "test")}
    assert sorted(np.concatenate(list(parts.values()))) == list(range(store.n_samples))


def test_a_store_that_was_never_seen(run: Path) -> None:
    result = evaluate(config(run, "mlp", "unseen.zarr", "all"))["classes"]
    assert result["samples"] == 64
    # Sizes halfway between the classes: the truth is 0.2 nm from the nearest centre.
    assert result["network"]["diameter_nm"]["mean_absolute_error"]["most_probable"] >= 0.19


def test_confidence_counts(run: Path) -> None:
    model, card = load_model(run / "mlp")
    answers, _, _ = evaluate_model(
        model, card, open_store(run / "store.zarr"), config(run, "mlp"), torch.device("cpu")
    )
    assert answers.network["sigma"].shape == (32, 38, 2)
    assert answers.network["sigma"].sum(axis=2) == pytest.approx(np.ones((32, 38)), abs=1e-6)
    assert (
        sum(n for n, _, _ in answers.reliability("diameter_nm"))
        == answers.confusion("diameter_nm").sum()
        == 32 * 38
    )


@pytest.mark.parametrize(
    ("store", "split", "message"),
    [
        ("unseen.zarr", "test", "is not the store that the model was trained on, so it has no test split"),
        ("store.zarr", "all", "holds the patterns that the model learned from; choose data.split=test"),
        ("nowhere.zarr", "test", "nowhere.zarr does not exist"),
    ],
)
def test_a_store_that_does_not_fit(run: Path, store: str, split: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(config(run, "mlp", store, split))


def test_only_models_of_endless_draws_have_a_prior_to_draw_from(run: Path) -> None:
    store, (_, card) = open_store(run / "store.zarr"), load_model(run / "mlp")
    with pytest.raises(ValueError, match="data.split=prior needs a model of endless draws"):
        prior_rows(store, card, 4, torch.Generator(), torch.device("cpu"))


def test_dots_outside_what_a_model_has_learned_from(run: Path) -> None:
    simulated(run / "large.zarr", "grid.diameter_nm=[2.5,3.5]")
    message = (
        "32 of 64 samples .* outside what .* learned from: diameter_nm is 2 to 3 there, one sample has 3.5"
    )
    with pytest.raises(ValueError, match=message):
        evaluate(config(run, "mlp", "large.zarr", "all"))


def test_another_q_grid(run: Path) -> None:
    simulated(run / "other_q.zarr", "q.max=11")
    with pytest.raises(
        ValueError, match="must be the model's: 551 points, 1 to 12 Å⁻¹; got 501 points, 1 to 11"
    ):
        evaluate(config(run, "mlp", "other_q.zarr", "all"))


def test_the_command(run: Path, run_command: Callable) -> None:
    words = [
        "python",
        "-m",
        "qdml.evaluate",
        f"model={run / 'mlp'}",
        f"data.store={run / 'store.zarr'}",
        "draws=1",
    ]
    done = run_command([*words, "output=report", "device=cpu"])
    assert "19 patterns x 1 draws x 32 noise cells" in done.stdout
    assert "exact classifier, same patterns" in done.stdout
    (run / "file").write_text("not a folder")
    refused = run_command([*words, f"output={run / 'file' / 'report'}", "device=cpu"], returncode=2)
    assert "qd-evaluate: error: cannot make the folder" in refused.stderr
    assert "choose another output" in refused.stderr
    assert "Traceback" not in refused.stderr
    missing = run_command(words, returncode=2)
    assert missing.stderr.strip() == "qd-evaluate: error: output is missing; add output=FOLDER"
    no_model = run_command(
        ["python", "-m", "qdml.evaluate", "model=x", "data.store=y", "output=z"], returncode=2
    )
    assert "qd-evaluate: error: x is not a model: it does not exist" in no_model.stderr
