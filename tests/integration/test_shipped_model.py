"""The model that travels with the package: it loads, answers what it was trained for, and says where that ends."""

import csv
import json
from pathlib import Path

import pytest
import torch

from qdml import example, predict, report
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


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Dots of PbSe, and hexane that holds next to no dots, as a strip detector records them."""
    from hpc import pattern

    folder = tmp_path_factory.mktemp("foreign")
    recorded = ["--instrument", "synchrotron_strip", "--two-theta", "4", "90", "0.0216", "--counts", "300000"]
    files = []
    for material, share in (("pbse", "0.5"), ("pbs", "0.995")):
        file = folder / f"{material}.xye"
        words = ["sphere", "--material", material, "--diameter-nm", "4", "--sigma", "0.1", *recorded]
        pattern.main([*words, "--solvent", f"hexane={share}", "-o", str(file)])
        files.append(file)
    return files


def test_what_is_not_pbs_is_not_sized(
    foreign: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No size on the screen and in the columns of results.csv; what the posterior was stays in results.json."""
    words = [str(foreign[0]), "--energy-kev", "22", "--instrument", "synchrotron_strip", "--no-refine"]
    assert predict.main([*words, "-o", str(tmp_path)]) == 0
    (record,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert not record["sized"]
    assert "the strain would be above all that the model was trained for" in " ".join(record["warnings"])
    with (tmp_path / "results.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["sized"], row["diameter_nm_mean"], row["diameter_volume_nm_hi95"]) == ("no", "", "")
    shown = capsys.readouterr().out
    assert "not sized" in shown
    assert f"{record['diameter_volume_nm']['mean']:.2f}" not in shown
    assert (tmp_path / record["figure"]).stat().st_size > 10_000


def test_the_report_has_no_size_of_what_has_none(foreign: list[Path], tmp_path: Path) -> None:
    words = [str(foreign[0]), "--energy-kev", "22", "--instrument", "synchrotron_strip", "--no-refine"]
    assert predict.main([*words, "-o", str(tmp_path / "sizes")]) == 0
    assert report.main([str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    (record,) = json.loads((tmp_path / "sizes" / "results.json").read_text())["results"]
    assert page.count("not sized") == 3
    assert f"{record['diameter_volume_nm']['mean']:.2f} [" not in page


def test_a_solvent_is_not_sized(foreign: list[Path], tmp_path: Path) -> None:
    """A fit explains it, with the smallest dots as broad humps: it must say that there are none."""
    words = [str(foreign[1]), "--energy-kev", "22", "--instrument", "synchrotron_strip"]
    assert predict.main([*words, "-o", str(tmp_path)]) == 0
    (record,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert not record["sized"]
    assert "shows no dots" in record["warnings"][0]
