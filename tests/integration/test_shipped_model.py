"""The model that travels with the package: it loads, answers what it was trained for, and says where that ends."""

import json
from pathlib import Path

import pytest
import torch

from qdml import example, predict
from qdml.asking import ask
from qdml.checkpoint import load_model, training_config
from qdml.measured.posterior_doubts import prior_ranges
from qdml.measured.refinement import load_recipe
from qdml.shipped import DEFAULT, shipped_model, shipped_names

# Simulated patterns, and how many of them may miss the central 95 % interval: 12 of 100 are 3 standard deviations.
PATTERNS, MISSES = 100, 12


@pytest.fixture(scope="module")
def shipped() -> Path:
    assert DEFAULT in shipped_names(), "the package has lost its model (benchmarks/ship_model.py)"
    return shipped_model()


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no model 'zinc' travels with this installation .*--model"):
        shipped_model("zinc")


def test_its_card_is_complete(shipped: Path) -> None:
    card = json.loads((shipped / "card.json").read_text())
    assert card["task"] == "posterior"
    assert card["trained"]["device"]
    assert card["trained"]["seconds"] > 0
    scores = card["evaluation"]["all"]
    assert {"network", "ideal"} <= set(scores)
    assert "/" not in card["training"]["data"]["store"]
    assert card["limits"] in (shipped / "README.md").read_text()
    assert sum(file.stat().st_size for file in shipped.iterdir()) < 20e6


def test_it_answers_simulated_patterns_within_its_intervals(shipped: Path) -> None:
    """Dots of its range on all its instruments; the network alone, its 95 % intervals."""
    from qdml.answers import estimates
    from qdml.dataset import Rows

    module, card = load_model(shipped)
    recipe = load_recipe(shipped, card)
    generator = torch.Generator().manual_seed(7)

    def between(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(PATTERNS, generator=generator, dtype=torch.float64)

    # Where the largest dots of the basis hold all sizes at every dispersion.
    prior = card["prior"]
    low, high = prior["diameter_nm"]
    rows = Rows(
        variant=torch.zeros(PATTERNS, dtype=torch.int64),
        diameter=between(max(low, 2.0), 0.6 * high),
        sigma=between(prior["sigma"][0], min(prior["sigma"][1], 0.2)),
        strain=between(*prior["strain"]),
        b_scale=between(*prior["b_scale"]),
        intensity=None,
    )
    found = estimates(ask(module, card, recipe.random(rows, generator))[0])
    for name, truth in (("diameter_volume_nm", rows.volume_diameter), ("sigma", rows.sigma)):
        missed = sum(
            not one[name].lo95 < value < one[name].hi95
            for one, value in zip(found, truth.tolist(), strict=True)
        )
        assert missed <= MISSES, name
    error = torch.tensor([one["diameter_volume_nm"].mean for one in found]) / rows.volume_diameter - 1
    assert float(error.abs().median()) < 0.03


def test_qd_predict_takes_it_and_says_where_its_range_ends(shipped: Path, tmp_path: Path) -> None:
    """One pattern inside, fit included; one of dots larger than it knows."""
    card = json.loads((shipped / "card.json").read_text())
    largest = next(iter(prior_ranges(card).values()))[1]
    inside = example.SAMPLES[2]
    beyond = example.Sample(
        diameter_nm=1.25 * largest, sigma=0.05, strain=0.0, solvent="hexane", fraction=0.6, peak_counts=3e5
    )
    (file,) = example.write_samples(tmp_path, [inside])
    arguments = ["--wavelength", str(example.WAVELENGTH), "-o", str(tmp_path / "out")]
    assert predict.main([str(file), *arguments]) == 0
    (record,) = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert record["refined"]["converged"]
    assert record["diameter_volume_nm"]["mean"] == pytest.approx(4.963, abs=0.1)
    assert record["diameter_nm"]["mean"] == pytest.approx(inside.diameter_nm, abs=0.2)
    (file,) = example.write_samples(tmp_path, [beyond])
    assert predict.main([str(file), *arguments, "--no-refine"]) == 0
    (record,) = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert record["warnings"]


def test_its_configuration_is_still_understood(shipped: Path) -> None:
    card = json.loads((shipped / "card.json").read_text())
    assert training_config(card).task == "posterior"
