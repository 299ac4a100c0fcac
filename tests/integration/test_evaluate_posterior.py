"""`qd-evaluate` with a posterior: beside the bound, with and without refine, and on stress sets."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import trained

from hpc.instrument.resolution import widths
from hpc.store import open_store
from qdml.answers import QUANTITIES
from qdml.augmentation.instrument import InstrumentRecipe
from qdml.augmentation.recipes import build_recipe
from qdml.checkpoint import load_model, training_config
from qdml.config import ClassConfig, DeviceConfig, EvaluateConfig, EvaluateDataConfig, StressRunConfig
from qdml.densities import GaussianMixture
from qdml.evaluate import evaluate
from qdml.evaluation.summary import posterior_lines, stress_lines
from qdml.stress.make import StressSet, make_set
from qdml.stress.run import StressRun
from qdml.stress.seen import as_seen
from qdml.stress.sets import StressConfig, load_stress
from qdml.stress.table import StressModel, score_answers, try_set

STRIP = (
    "{name:synchrotron_strip,weight:1,fraction:[0.5,0.8],texture:[0.02,0.05],energy_kev:[16,30],"
    "ranges:{resolution_factor:[0.6,16]}}"
)
CU = "{name:lab_cu,weight:1,fraction:[0.5,0.8],texture:[0.02,0.1],energy_kev:null,ranges:{}}"
ENDLESS = (
    "data=ensemble data.diameter_nm=[2,3] data.sigma=[0.05,0.1] data.strain=[-0.002,0.004] data.b_scale=[1,1]"
)
NETWORK = (
    "network=posterior network.components=60 network.width=32 network.blocks=1 network.mixture=2 optim=muon"
)
TRAIN = "trainer.steps=30 trainer.evaluate_every=30 trainer.batch=64"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, smoke_store: Path, few_for_whitening: None) -> Path:
    """A store, and a posterior that has learned a little from its basis."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "store.zarr").symlink_to(smoke_store)
    words = f"{ENDLESS} {NETWORK} {TRAIN} data.store={smoke_store} classes=none augment=instrument"
    trained(folder / "model", *words.split(), f"augment.instruments=[{STRIP},{CU}]")
    return folder


def config(run: Path, **changes: object) -> EvaluateConfig:
    values = {
        "model": str(run / "model"),
        "data": EvaluateDataConfig(store=str(run / "store.zarr"), split="prior"),
        "classes": ClassConfig(diameter_nm=(2.0, 2.5, 3.0), sigma=(0.05, 0.1)),
        "draws": 1,
        "patterns": 12,
        "refine": True,
        "refine_patterns": 2,
        "classical_patterns": 0,
        "stress": StressRunConfig(sets=(), folder=str(run / "stress"), refine_patterns=2, processes=0),
        "batch": 16,
        "output": str(run / "out"),
        "device": DeviceConfig(name="cpu"),
        "seed": 0,
    }
    return EvaluateConfig(**(values | changes))


@pytest.fixture(scope="module")
def metrics(run: Path) -> dict:
    return evaluate(config(run))


def test_every_number_stands_beside_the_bound(metrics: dict) -> None:
    found = metrics["posterior"]
    assert found["patterns"] == 24 and [cell["cell"] for cell in found["cells"]] == [
        "synchrotron_strip",
        "lab_cu",
    ]
    every = found["all"]
    assert {who: every[who]["patterns"] for who in every} == {
        "network": 24, "ideal": 24, "refined": 4, "network, refined patterns": 4
    }  # fmt: skip
    for who, scores in every.items():
        assert all(np.isfinite(scores["error_over_bound"][name]) for name in QUANTITIES), who
    # 24 draws from the bound itself: their rms is known to 15 %.
    assert every["ideal"]["error_over_bound"]["diameter_volume_nm"] == pytest.approx(1.0, abs=0.5)
    # 30 steps teach little; refine starts there and ends near the bound.
    network, refined = every["network, refined patterns"], every["refined"]
    for name in ("diameter_volume_nm", "diameter_nm"):
        assert refined["error_over_bound"][name] < network["error_over_bound"][name]
    assert 0 <= found["fits"]["converged"] <= 1 and found["fits"]["right_variant"] == 1
    assert found["fits"]["derivatives"] >= 1
    mean = found["mean_over_cells"]["refined"]
    for name in QUANTITIES:
        cells = [cell["refined"]["error_over_bound"][name] for cell in found["cells"]]
        assert mean["error_over_bound"][name] == pytest.approx(np.mean(cells))
        assert 0 < mean["error_over_bound_error"][name] < np.inf
    # Smoke has one shape, and 30 steps of few patterns teach a little of what else varies.
    guess = found["guess"]
    assert guess["variant_accuracy"] == 1 and guess["variant_log_loss"] == pytest.approx(0, abs=1e-6)
    assert guess["log_b_explained"] is None and -0.5 < guess["latents_explained"] < 1
    assert set(guess["explained"]) >= {"fraction", "correlation", "solvent"}
    assert set(found["seconds_per_pattern"]) == {"network", "bound", "refine"}


def test_groups_hold_every_pattern_once(metrics: dict) -> None:
    found = metrics["posterior"]
    for name in ("counts", "dots", "window"):
        groups = [group for group in found["groups"] if group["by"] == name]
        assert sum(group["network"]["patterns"] for group in groups) == 24
        assert sum(group["refined"]["patterns"] for group in groups if "refined" in group) == 4
        assert all(a["to"] <= b["to"] for a, b in pairwise(groups))
    parts = [
        found[part].get("network", {"patterns": 0})["patterns"] for part in ("regular", "nearly_degenerate")
    ]
    assert sum(parts) == 24 and parts[1] > 0


def test_files_and_lines(run: Path, metrics: dict) -> None:
    out = run / "out"
    assert json.loads((out / "metrics.json").read_text()) == metrics
    names = {path.name for path in out.glob("*.png")}
    assert names == {"error_over_bound.png", "coverage.png", "ranks.png", "cell_errors.png", "examples.png"}
    text = "\n".join(posterior_lines(metrics["posterior"]))
    assert "24 patterns in 2 cells, 4 of them refined" in text
    assert (
        "mean over cells" in text
        and "±" in text
        and "network's guess of the rest: right shape 100.0 %" in text
    )
    assert "network + refine" in text and "ideal, at the bound" in text and "nearly degenerate: " in text


def test_the_same_seed_gives_the_same_numbers(run: Path, metrics: dict) -> None:
    again = evaluate(config(run, refine=False, output=str(run / "again")))
    assert again["posterior"]["all"]["network"] == metrics["posterior"]["all"]["network"]
    other = evaluate(config(run, refine=False, output=str(run / "other"), seed=1))
    assert other["posterior"]["all"]["network"] != metrics["posterior"]["all"]["network"]


def test_the_classical_fit_stands_beside_them(run: Path) -> None:
    found = evaluate(config(run, refine=False, classical_patterns=1, output=str(run / "classical")))[
        "posterior"
    ]
    scores = found["all"]["classical"]
    assert scores["patterns"] == 2 and found["seconds_per_pattern"]["classical"] > 0
    # Perfect dots without halo and surface: far from the bound, near the truth.
    assert 0.2 < scores["error_over_bound"]["diameter_volume_nm"] < 1000
    assert scores["mean_absolute_error"]["diameter_volume_nm"] < 1
    assert "classical fit (qd-fit)" in "\n".join(posterior_lines(found))
    with pytest.raises(ValueError, match="classical_patterns must lie in 0 to patterns=12, got 13"):
        config(run, classical_patterns=13)


def test_samples_of_the_store_are_a_test_split_too(run: Path) -> None:
    data = EvaluateDataConfig(store=str(run / "store.zarr"), split="test")
    found = evaluate(config(run, data=data, refine=False, classes=None, output=str(run / "split")))
    assert found["posterior"]["all"]["network"]["size_accuracy"] is None
    train = EvaluateDataConfig(store=str(run / "store.zarr"), split="train")
    with pytest.raises(ValueError, match="has learned from no sample .* choose data.split=test"):
        evaluate(config(run, data=train))


#: A stress set of the model's sizes, coarse and few: what the table does is the same.
SMALL = {
    "diameter_nm": [2.0, 2.5, 3.0], "q": {"min": 0.99, "max": 13.99, "step": 0.005}, "per_size": 4
}  # fmt: skip


@pytest.fixture(scope="module")
def stressed(run: Path) -> StressModel:
    device = torch.device("cpu")
    loaded, card = load_model(run / "model")
    recipe = build_recipe(training_config(card).augment, open_store(run / "store.zarr"), device)
    return StressModel(
        module=loaded, card=card, recipe=recipe, variants={0: 1.0}, device=device, batch=5, seed=0
    )


def stress_set(name: str, **changes: object) -> tuple[StressConfig, StressSet]:
    described = load_stress(name, **(SMALL | changes))
    return described, make_set(described)


def test_a_set_is_seen_as_a_measured_file_would_be(stressed: StressModel) -> None:
    described, content = stress_set("resolution_05")
    seen = as_seen(stressed.card, described, content, stressed.device)
    assert seen.notes == ()
    observation = seen.observation
    # A network is told a Voigt function that damps distances of 70 Å as the set's Gaussian does, its width falling with
    # the angle; a fit the Gaussian itself.
    told = observation.conditions[0, 1:4].exp().numpy()
    assert 0.05 > told[0] > told[1] > told[2] > 0.04
    assert seen.widths is not None and seen.setting is not None
    sigma, gamma = widths(np.array([1.0, 5.0, 12.0]), 0.56, *seen.widths)
    np.testing.assert_allclose(sigma * np.sqrt(8 * np.log(2)), 0.05, rtol=1e-6)
    assert np.all(gamma == 0) and float(seen.setting.resolution_factor[0]) == 1
    # That world sees the set's width, others of its instruments and the world itself do not change.
    assert isinstance(stressed.recipe, InstrumentRecipe)
    other = stressed.recipe.with_widths(0, seen.widths)
    known = [
        one._optics.known(seen.setting.take(slice(0, 1)))[0, 1:4].exp() for one in (other, stressed.recipe)
    ]
    np.testing.assert_allclose(known[0].numpy(), 0.05, rtol=1e-3)
    assert known[1].max() < 0.005
    np.testing.assert_allclose(observation.conditions[0, 0].exp().numpy(), 0.56, rtol=1e-3)
    # Four points of 0.005 to one of 0.02: counts add up, the mean stays.
    counts = (observation.intensity / observation.noise) ** 2 * observation.mask
    fine = content.intensity * content.design.scale[:, None]
    inside = observation.mask[0].numpy() > 0
    mean = counts.sum(dim=1).numpy() / inside.sum()
    within = (content.q > 1.1) & (content.q < 11.9)
    np.testing.assert_allclose(mean, 4 * fine[:, within].mean(axis=1), rtol=0.05)


def test_a_row_of_the_table(stressed: StressModel) -> None:
    described, content = stress_set("window_lab")
    row = try_set(stressed, described, content, refine_patterns=3)
    assert row["patterns"] == 12 and row["refined"]["patterns"] == 3
    assert row["network"]["nearest"] * 12 == pytest.approx(round(row["network"]["nearest"] * 12))
    assert 0 <= row["refined"]["volume_error_nm"] < 1
    assert row["fits"]["right_variant"] == 1 and row["fits"]["seconds"] > 0
    # Dots of 2 to 3 nm and hundreds of counts a point: any good estimator is within half a class.
    assert 0.9 < row["ceiling"]["nearest"] <= 1 and 0.9 < row["ceiling"]["volume"] <= 1
    text = "\n".join(stress_lines({"window_lab": row}))
    assert "lab Q window 1.42-7.06 Å⁻¹" in text and "70.0" in text and "95.0" in text
    assert "at the bound" in text and "3 refined" in text and "right shape 100 %" in text


def test_a_sharp_and_right_posterior_scores_everything(stressed: StressModel) -> None:
    """And one that is off by a size class scores nothing."""
    from qdml.answers import targets_of

    described, content = stress_set("published")
    design = content.design
    truth = targets_of(*(torch.from_numpy(v) for v in (design.diameter_nm, design.sigma, design.strain)))
    rows = np.arange(len(design))
    tril = torch.diag(torch.tensor([1e-3, 1e-2, 1e-4], dtype=torch.float64)).expand(len(rows), 1, 3, 3)
    for shift, share in ((0.0, 1.0), (np.log(4 / 3), 0.0)):
        moved = truth + torch.tensor([shift, 0.0, 0.0], dtype=torch.float64)
        posterior = GaussianMixture(
            logits=torch.zeros(len(rows), 1, dtype=torch.float64), mean=moved[:, None], scale_tril=tril
        )
        # The largest dots have no larger class to go to.
        low = rows if share else rows[design.diameter_nm < 2.9]
        scores = score_answers(posterior.take(torch.from_numpy(low)), described, design.take(low), stressed)
        assert scores["nearest"] == scores["on_grid"] == scores["volume"] == share
        assert (scores["coverage_diameter_volume_nm_95"] > 0.9) == bool(share)


def test_sets_that_a_model_cannot_see(stressed: StressModel) -> None:
    described, content = stress_set("published", energy_kev=40.0)
    with pytest.raises(
        ValueError, match="no synchrotron instrument at that energy .* leave stress.sets empty"
    ):
        try_set(stressed, described, content)
    described, content = stress_set("published", q={"min": 9.0, "max": 10.2, "step": 0.01}, per_size=1)
    with pytest.raises(ValueError, match="expected at least .* of the model's range"):
        try_set(stressed, described, content)


def test_what_a_process_of_its_own_cannot_do_is_said_here(run: Path) -> None:
    (run / "damaged" / "published.zarr").mkdir(parents=True)
    stress = StressRunConfig(sets=("published",), folder=str(run / "damaged"), refine_patterns=0, processes=1)
    asked = replace(config(run), stress=stress)
    with (
        pytest.raises(ValueError, match="published.zarr is no stress set .* delete it"),
        StressRun(asked, stress.sets, torch.device("cpu")) as table,
    ):
        table.rows()
    with pytest.raises(ValueError, match="stress.processes must be 0 on cuda: .* got 1"):
        StressRun(asked, stress.sets, torch.device("cuda"))
    with pytest.raises(ValueError, match="stress.processes must be >= 0, got -1"):
        replace(stress, processes=-1)


def test_the_command_refuses_an_unknown_set(run: Path) -> None:
    stress = StressRunConfig(sets=("nonsense",), folder=str(run / "stress"), refine_patterns=2, processes=0)
    with pytest.raises(ValueError, match="stress sets are .* or all; got 'nonsense'"):
        evaluate(replace(config(run), stress=stress))
