"""`qd-predict` with a model of posteriors: a small one that is really trained, on simulated measurements."""

import csv
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from runs import evaluated, simulated, trained

from qdml import example, predict, report
from qdml.asking import model_grid
from qdml.checkpoint import load_model, read_card
from qdml.files.patterns import read_pattern, regrid
from qdml.measured.measurement import measurement_of
from qdml.measured.refinement import load_recipe

WAVELENGTH = str(example.WAVELENGTH)
SAMPLES = tuple(
    example.Sample(diameter_nm=d, sigma=s, strain=0.001, solvent="hexane", fraction=0.6, peak_counts=3e5)
    for d, s in ((2.7, 0.08), (3.6, 0.12))
)
INSTRUMENTS = ",".join(
    f"{{name: {name}, weight: {weight}, fraction: [0.25, 0.8], texture: {texture}, energy_kev: {energy}, ranges: {{}}}}"
    for name, weight, texture, energy in (
        ("synchrotron_strip", 0.7, [0.02, 0.1], [16, 30]),
        ("lab_cu", 0.3, [0.1, 1.0], "null"),
    )
)
SIMULATE = (
    *("grid.samples=64", "grid.diameter_nm=2.0 to 5.0", "q.step=0.03"),
    *("store.rows_per_shard=16", "store.rows_per_chunk=8"),
)
TRAIN = (
    *("data=ensemble", "data.diameter_nm=[2.0,5.0]", "data.lanes=1"),
    *("data.sigma=[0.03,0.20]", "data.strain=[-0.002,0.005]", "classes=none", "augment=instrument"),
    *(
        f"augment.instruments=[{INSTRUMENTS}]",
        "network=posterior",
        "network.components=100",
        "network.width=64",
    ),
    *(
        "network.blocks=1",
        "network.mixture=2",
        "optim=muon",
    ),
    *("trainer.batch=64", "trainer.steps=200", "trainer.evaluate_every=100", "trainer.checkpoint_every=100"),
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, few_for_whitening: None) -> Path:
    """A network of 200 steps, its basis, two samples; the store is gone, as for everyone who is given a model."""
    run = tmp_path_factory.mktemp("run")
    store = simulated(run / "store.zarr", *SIMULATE, experiment="quick")
    trained(run / "model", f"data.store={store}", *TRAIN)
    (run / "samples").mkdir()
    example.write_samples(run / "samples", SAMPLES)
    store.rename(run / "gone.zarr")
    return run


@pytest.fixture
def sample(run_folder: Path) -> Path:
    return run_folder / "samples" / SAMPLES[1].file


def results(folder: Path) -> list[dict]:
    return json.loads((folder / "results.json").read_text())["results"]


def test_posteriors_of_simulated_measurements(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The contract of the output; the truth within wide limits of what so small a network says."""
    files = [str(run_folder / "samples" / one.file) for one in SAMPLES]
    model = str(run_folder / "model")
    assert predict.main([*files, "--wavelength", WAVELENGTH, "--model", model, "-o", str(tmp_path)]) == 0
    for record, truth in zip(results(tmp_path), SAMPLES, strict=True):
        for found in (record, record["network"], record["refined"]):
            for name in ("diameter_nm", "diameter_volume_nm", "sigma", "strain"):
                one = found[name]
                assert one["lo95"] < one["lo68"] < one["hi68"] < one["hi95"]
                assert one["lo95"] < one["mean"] < one["hi95"]
            covariance = np.array(found["posterior"]["covariance"])
            assert np.linalg.eigvalsh(covariance).min() > 0
            assert found["posterior"]["mean"][0] == pytest.approx(
                np.log(found["diameter_volume_nm"]["mean"]), abs=0.02
            )
            # A size that is known better than its mean number: D falls where σ rises.
            assert -1 < found["posterior"]["correlation_diameter_sigma"] < 0.5
        assert record["diameter_volume_nm"]["mean"] == pytest.approx(
            truth.diameter_nm * (1 + truth.sigma**2) ** 3, abs=0.2
        )
        assert record["answer_of"] in ("network", "refine")
        assert record["refined"]["shapes"] == {"sphere": pytest.approx(1.0)}
        assert record["instrument"] == {
            "name": "synchrotron_strip",
            "assumed": True,
            "resolution_factor": 1.0,
        }
        assert record["pattern"]["noise"] == "third column"
        assert record["display_fit"]["rwp"] < 0.05
        assert (tmp_path / record["figure"]).read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "results.csv").open() as stream:
        (first, _) = csv.DictReader(stream)
    assert float(first["strain_mean"]) == pytest.approx(results(tmp_path)[0]["strain"]["mean"], rel=1e-3)
    shown = capsys.readouterr().out
    assert "instrument assumed from the radiation: synchrotron_strip" in shown
    assert shown.index("D_vol (nm)") < shown.index("D (nm)")


def test_the_network_alone(run_folder: Path, sample: Path, tmp_path: Path) -> None:
    """--no-refine: no fit, the same network, the answer is its."""
    arguments = ["--wavelength", WAVELENGTH, "--model", str(run_folder / "model"), "--instrument"]
    arguments += ["synchrotron_strip", "--no-refine", "-o", str(tmp_path)]
    assert predict.main([str(sample), *arguments]) == 0
    (record,) = results(tmp_path)
    assert record["refined"] is None
    assert record["answer_of"] == "network"
    assert record["diameter_nm"] == record["network"]["diameter_nm"]
    assert not record["instrument"]["assumed"]
    assert not any("assumed" in note for note in record["notes"])


def test_what_is_known_means_what_it_meant_in_training(run_folder: Path, sample: Path) -> None:
    """Conditions of a measured pattern beside those that the recipe states for the same setting."""
    import torch

    from qdml.augmentation.recipe import Main

    _, card = load_model(run_folder / "model")
    q = model_grid(card)
    recipe = load_recipe(run_folder / "model", card)
    pattern = read_pattern(sample, wavelength=example.WAVELENGTH)
    main = Main(
        log_volume_diameter=torch.tensor([1.3]),
        sigma=torch.tensor([0.1]),
        strain=torch.tensor([0.0]),
        variant=torch.tensor([0]),
        b_scale=torch.tensor([1.0]),
    )
    for energy, instrument in ((pattern.energy_kev, "synchrotron_strip"), (8.0478, "lab_cu")):
        known = measurement_of(card, energy_kev=energy, instrument=instrument, resolution_factor=1.2)
        on_grid = regrid(pattern, q, window=known.window(card))
        expected = recipe.expected(
            main, known.setting(on_grid, float(q[1] - q[0])), torch.zeros(1, len(recipe.space))
        )
        observation = known.observe(on_grid)
        assert observation.conditions[0, :-1].tolist() == pytest.approx(expected.known[0].tolist(), abs=2e-3)
        if instrument == "synchrotron_strip":
            # Photons per point of the grid: of the dose at the highest point, and of the declared noise.
            photons = (expected.intensity * expected.rate * expected.mask).sum() / expected.mask.sum()
            assert float(observation.conditions[0, -1]) == pytest.approx(float(photons.log()), abs=0.5)


REFUSED = {
    "Q alone": (["--q-unit", "1/A"], ["must know the photon energy", "add --wavelength"]),
    "an energy that no instrument had": (
        ["--wavelength", "0.95"],
        ["no instrument at 13.05 keV", "synchrotron_strip", "16 to 30 keV", "lab_cu", "--instrument"],
    ),
    "an instrument beyond its energies": (
        ["--wavelength", "0.95", "--instrument", "synchrotron_strip"],
        ["trained for synchrotron_strip at 16 to 30 keV", "13.05 keV"],
    ),
    "an instrument that contradicts the wavelength": (
        ["--wavelength", WAVELENGTH, "--instrument", "lab_cu"],
        ["lab_cu has the lines 1.54059", "0.56416"],
    ),
    "an instrument that the model does not know": (
        ["--wavelength", WAVELENGTH, "--instrument", "lab_mo"],
        ["does not know the instrument 'lab_mo'", "synchrotron_strip", "lab_cu"],
    ),
    "a resolution beyond the training": (
        ["--wavelength", WAVELENGTH, "--resolution", "5"],
        ["--resolution must be 0.6 to 1.6"],
    ),
    "a shape that the model does not know": (
        ["--wavelength", WAVELENGTH, "--shape", "rod"],
        ["--shape must be one that the model knows, sphere; got rod"],
    ),
    "a shape without a fit": (
        ["--wavelength", WAVELENGTH, "--shape", "sphere", "--no-refine"],
        ["--shape is for the fit, which --no-refine leaves out"],
    ),
    "Q from beyond the training on": (
        ["--wavelength", WAVELENGTH, "--q-min", "20"],
        ["--q-min must lie in 0 to", "synchrotron_strip", "got 20"],
    ),
    "no Q in common": (["--wavelength", "0.5", "--no-refine"], ["at least 2 Å⁻¹ of the model's range"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_and_says_what_to_do(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    options, words = REFUSED[name]
    x = np.linspace(0.2, 1.8, 100) if name == "no Q in common" else np.linspace(3.0, 30.0, 400)
    file = tmp_path / "a.xy"
    np.savetxt(file, np.column_stack([x, 100 + x]))
    output = tmp_path / "out"
    model = str(run_folder / "model")
    assert predict.main([str(file), *options, "--model", model, "-o", str(output)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("qd-predict: error: ")
    for word in words:
        assert word in message
    assert not output.exists()


def test_a_model_without_its_basis_can_still_answer(
    run_folder: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("card.json", "model.safetensors"):
        (model / name).write_bytes((run_folder / "model" / name).read_bytes())
    arguments = [str(sample), "--wavelength", WAVELENGTH, "--model", str(model), "-o", str(tmp_path / "out")]
    assert predict.main(arguments) == 2
    assert "has no basis.safetensors" in capsys.readouterr().err
    assert predict.main([*arguments, "--no-refine"]) == 0
    (model / "basis.safetensors").write_bytes(b"no basis")
    assert predict.main(arguments) == 2
    assert "is damaged" in capsys.readouterr().err


def test_doubts_say_why(run_folder: Path, tmp_path: Path) -> None:
    """Dots larger than the training's, a pattern without dots, a noise that no instrument of the training has."""
    large = example.Sample(
        diameter_nm=6.5, sigma=0.05, strain=0.0, solvent="hexane", fraction=0.6, peak_counts=3e5
    )
    (file,) = example.write_samples(tmp_path, [large])
    bare = tmp_path / "bare.xy"
    angle = np.arange(3.0, 80.0, 0.02)
    wave = 1000 * (1 + np.exp(-angle / 20)) + np.sin(300 * angle)
    np.savetxt(bare, np.column_stack([angle, wave, 1e-6 * wave]))
    arguments = ["--wavelength", WAVELENGTH, "--model", str(run_folder / "model"), "--no-refine"]
    assert predict.main([str(file), str(bare), *arguments, "-o", str(tmp_path / "out")]) == 0
    found = results(tmp_path / "out")
    assert not found[1]["sized"]
    of_large, of_bare = (" ".join(one["warnings"]) for one in found)
    assert "all that the model was trained for" in of_large or "describes the pattern badly" in of_large
    assert "no dots of this model look like the pattern" in of_bare
    assert "photons at the highest point" in of_bare


def test_gaps_that_no_training_had_are_doubted(run_folder: Path, sample: Path, tmp_path: Path) -> None:
    rows = np.loadtxt(sample)
    gap = tmp_path / "gap.xye"
    np.savetxt(gap, rows[(rows[:, 0] < 20) | (rows[:, 0] > 23)])
    arguments = ["--wavelength", WAVELENGTH, "--model", str(run_folder / "model"), "--no-refine"]
    assert predict.main([str(sample), str(gap), *arguments, "-o", str(tmp_path / "out")]) == 0
    whole, holed = (" ".join(one["warnings"]) for one in results(tmp_path / "out"))
    assert "had gaps" not in whole
    assert "no pattern of synchrotron_strip had gaps" in holed


def test_the_measured_patterns_are_sized(run_folder: Path, shared_data: Path, tmp_path: Path) -> None:
    """A film and a solution: the right instrument each, an answer near the name's even of so small a network."""
    for pattern, wavelength, instrument, noise in (
        ("*lab*4p76nm*", "1.5406", "lab_cu", "whole counts"),
        ("*synchr*3p17nm*", "0.49547592", "synchrotron_strip", "third column"),
    ):
        (file,) = (shared_data / "pbs_measured").glob(pattern)
        arguments = ["--wavelength", wavelength, "--model", str(run_folder / "model"), "--no-refine"]
        assert predict.main([str(file), *arguments, "-o", str(tmp_path)]) == 0
        (record,) = results(tmp_path)
        assert record["instrument"]["name"] == instrument
        assert record["pattern"]["noise"] == noise
        name = float(pattern.split("*")[2].removesuffix("nm").replace("p", "."))
        assert record["diameter_volume_nm"]["mean"] == pytest.approx(name, abs=0.8)


@pytest.fixture(scope="module")
def evaluation(run_folder: Path) -> Path:
    model, store, output = (run_folder / name for name in ("model", "gone.zarr", "evaluation"))
    evaluated(model, store, output, "data.split=prior", "patterns=4", "refine=false")
    return output


@pytest.fixture(scope="module")
def ship_model(repo_root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("ship_model", repo_root / "benchmarks" / "ship_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_model_is_made_the_one_of_the_package(
    run_folder: Path, evaluation: Path, ship_model: ModuleType, sample: Path, tmp_path: Path
) -> None:
    """What travels: weights, basis, card with its numbers and without the places of a machine; and it answers."""
    model = run_folder / "model"
    assert ship_model.main([str(model), str(evaluation), "--into", str(tmp_path), "--name", "tiny"]) == 0
    shipped = tmp_path / "tiny"
    names = sorted(file.name for file in shipped.iterdir())
    assert names == ["README.md", "basis.safetensors", "card.json", "model.safetensors"]
    text = (shipped / "card.json").read_text()
    assert str(run_folder) not in text
    card = read_card(shipped)
    assert card["prior"]["diameter_nm"] == [2.0, 5.0]
    assert card["evaluation"]["all"]["network"]["error_over_bound"]["diameter_volume_nm"] > 0
    assert card["evaluation"]["patterns"] == 8
    page = (shipped / "README.md").read_text()
    for words in ("number mean D 2 to 5 nm", "| synchrotron_strip | 16 to 30 |", "ideal, at the bound"):
        assert words in page
    arguments = ["--wavelength", WAVELENGTH, "--no-refine", "-o", str(tmp_path / "out")]
    assert predict.main([str(sample), "--model", str(shipped), *arguments]) == 0


def test_the_report_shows_posteriors(
    run_folder: Path, evaluation: Path, sample: Path, tmp_path: Path
) -> None:
    arguments = ["--wavelength", WAVELENGTH, "--no-refine", "--model", str(run_folder / "model")]
    assert predict.main([str(sample), *arguments, "-o", str(run_folder / "sizes")]) == 0
    assert report.main([str(run_folder), "-o", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    for words in ("ideal, at the bound", "posterior of (ln D_v, ln σ, ε)", sample.name, "<th>true</th>"):
        assert words in page
    assert "class probabilities" not in page


def test_what_cannot_travel_is_refused(
    run_folder: Path,
    evaluation: Path,
    ship_model: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, into = run_folder / "model", tmp_path / "into"

    def refusal(*arguments: Path) -> str:
        assert ship_model.main([*map(str, arguments), "--into", str(into)]) == 2
        assert not into.exists()
        return capsys.readouterr().err

    assert "run qd-evaluate for the model" in refusal(model, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.json").write_text('{"task": "posterior", "model": "runs/another"}')
    assert "is of runs/another (posterior), not of" in refusal(model, other)
    monkeypatch.setattr(ship_model, "MAX_MEGABYTES", 0.1)
    assert "at most 0.1 MB may travel" in refusal(model, evaluation)


def test_the_card_says_what_was_trained(run_folder: Path) -> None:
    card = read_card(run_folder / "model")
    assert card["task"] == "posterior"
    assert card["prior"]["diameter_nm"] == [2.0, 5.0]
