"""`qd-predict`, `qdml.example` and `qdml.report` on a small model that is really trained."""

import base64
import csv
import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from runs import trained

from qdml import example, predict, report

WAVELENGTH = str(example.WAVELENGTH)
SAMPLES = tuple(
    example.Sample(diameter_nm=d, sigma=0.05, strain=0.001, solvent="hexane", fraction=0.6, peak_counts=1e5)
    for d in (2.0, 2.5, 3.0)
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, smoke_store: Path) -> Path:
    """A run: a store of 2, 2.5 and 3 nm dots, a network that has learned to tell them apart, three samples."""
    run = tmp_path_factory.mktemp("run")
    (run / "store.zarr").symlink_to(smoke_store)
    train = (
        "classes=smoke network=residual_mlp optim=adamw trainer.batch=32 trainer.steps=400 "
        "trainer.evaluate_every=100 trainer.checkpoint_every=100"
    )
    trained(run / "model", f"data.store={smoke_store}", *train.split())
    (run / "samples").mkdir()
    example.write_samples(run / "samples", SAMPLES)
    return run


@pytest.fixture(scope="module")
def sized(run_folder: Path) -> str:
    """The samples are sized, into `sizes` of the run: what the screen showed."""
    files = [str(run_folder / "samples" / one.file) for one in SAMPLES]
    options = ["--wavelength", WAVELENGTH, "--model", str(run_folder / "model")]
    with redirect_stdout(io.StringIO()) as shown:
        assert predict.main([*files, *options, "-o", str(run_folder / "sizes")]) == 0
    return shown.getvalue()


@pytest.fixture
def sample(run_folder: Path) -> Path:
    return run_folder / "samples" / SAMPLES[1].file


def is_png(content: bytes) -> bool:
    return content.startswith(b"\x89PNG")


def test_sizes_patterns_that_training_never_saw(run_folder: Path, sized: str) -> None:
    output = run_folder / "sizes"
    content = json.loads((output / "results.json").read_text())
    assert [Path(one["file"]).name for one in content["results"]] == [one.file for one in SAMPLES]
    for record, truth in zip(content["results"], SAMPLES, strict=True):
        size = record["diameter_nm"]
        assert abs(size["mean"] - truth.diameter_nm) < 0.25
        for name in ("diameter_nm", "diameter_volume_nm", "sigma"):
            one = record[name]
            assert one["lo95"] <= one["lo68"] <= one["mean"] <= one["hi68"] <= one["hi95"]
        assert record["diameter_volume_nm"]["mean"] > size["mean"]
        assert record["strain"] is None
        classes = record["classes"]
        assert np.sum(classes["joint_probability"]) == pytest.approx(1.0)
        assert np.sum(classes["joint_probability"], axis=1) == pytest.approx(classes["diameter_probability"])
        assert record["pattern"]["q_window"] == pytest.approx([1.0, 12.0])
        assert record["display_fit"]["strain"] == pytest.approx(0.001, abs=5e-4)
        assert is_png((output / record["figure"]).read_bytes())

    with (output / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["diameter_nm_mean"]) for row in rows] == pytest.approx(
        [one["diameter_nm"]["mean"] for one in content["results"]], rel=1e-4
    )
    assert "results.json" in sized
    assert f"{content['results'][0]['diameter_nm']['mean']:.2f} [" in sized


@pytest.mark.usefixtures("sized")
def test_the_report_holds_the_whole_run_in_one_file(run_folder: Path) -> None:
    """The table of sizes beside the truth, every figure embedded, and the missing part named."""
    assert report.main([str(run_folder)]) == 0
    page = (run_folder / "report.html").read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) >= len(SAMPLES) + 1
    assert all(is_png(base64.b64decode(one)) for one in images)
    assert not re.search(r'(src|href)="(?!data:)', page)
    for one in SAMPLES:
        assert one.file in page
    assert "<th>true</th>" in page
    assert "<td>patterns</td><td>96</td>" in page
    assert "Not in this run: there is no" in page  # the evaluation


def test_the_report_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_q_in_inverse_nanometres_gives_the_same_answer(
    run_folder: Path, sample: Path, tmp_path: Path
) -> None:
    two_theta, intensity, sigma = np.loadtxt(sample, unpack=True)
    q = 40 * np.pi * np.sin(np.radians(two_theta) / 2) / example.WAVELENGTH
    same = tmp_path / "same.csv"
    np.savetxt(
        same, np.column_stack([q, intensity, sigma]), fmt="%.12g", delimiter=";", header="Q;I;s", comments=""
    )
    model = str(run_folder / "model")
    by_angle = [str(sample), "--wavelength", WAVELENGTH, "--model", model, "-o", str(tmp_path / "a")]
    by_q = [
        str(same),
        "--q-unit",
        "1/nm",
        "--wavelength",
        WAVELENGTH,
        "--model",
        model,
        "-o",
        str(tmp_path / "b"),
    ]
    assert predict.main(by_angle) == predict.main(by_q) == 0
    a, b = (json.loads((tmp_path / name / "results.json").read_text())["results"][0] for name in "ab")
    assert a["classes"]["diameter_probability"] == pytest.approx(
        b["classes"]["diameter_probability"], abs=1e-6
    )


def test_files_of_one_name_keep_a_figure_each(run_folder: Path, sample: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / sample.name
    twin.write_bytes(sample.read_bytes())
    arguments = [
        "--wavelength",
        WAVELENGTH,
        "--model",
        str(run_folder / "model"),
        "-o",
        str(tmp_path / "sizes"),
    ]
    assert predict.main([str(sample), str(twin), *arguments]) == 0
    assert len(list((tmp_path / "sizes").glob("*.png"))) == 2


def test_a_pattern_without_dots_is_doubted(run_folder: Path, tmp_path: Path) -> None:
    q = np.arange(0.9, 13.0, 0.01)
    bare = tmp_path / "bare.xy"
    np.savetxt(bare, np.column_stack([q, 1000 * (1 + np.exp(-q)) + np.sin(200 * q)]))
    arguments = ["--q-unit", "1/A", "--model", str(run_folder / "model"), "-o", str(tmp_path)]
    assert predict.main([str(bare), *arguments]) == 0
    record = json.loads((tmp_path / "results.json").read_text())["results"][0]
    assert any("describes the pattern badly" in one for one in record["warnings"])
    assert record["pattern"]["energy_kev"] is None


REFUSED = {
    "no unit": ([], ["--wavelength", "--energy-kev", "--q-unit"]),
    "two units": (["--wavelength", "0.56", "--energy-kev", "22"], ["give one of them"]),
    "an energy in eV": (["--energy-kev", "22000"], ["is it in eV"]),
    "a unit that is none": (["--q-unit", "nm"], ["must be 1/A or 1/nm"]),
    "a window outside the model": (["--wavelength", "3.0"], ["1 to 12 Å⁻¹", "check the wavelength"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_a_wrong_command_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    options, words = REFUSED[name]
    two_theta = 5.0 + 0.1 * np.arange(400)
    file = tmp_path / "a.xy"
    np.savetxt(file, np.column_stack([two_theta, 100 + two_theta]))
    output = tmp_path / "out"
    assert predict.main([str(file), *options, "--model", str(run_folder / "model"), "-o", str(output)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("qd-predict: error: ")
    for word in words:
        assert word in message
    assert not output.exists()


def test_all_files_are_checked_before_the_first_is_sized(
    run_folder: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.xye"
    cut.write_bytes(sample.read_bytes()[:-30])
    output = tmp_path / "out"
    files = [str(sample), str(cut), str(tmp_path / "gone.xy")]
    arguments = ["--wavelength", WAVELENGTH, "--model", str(run_folder / "model"), "-o", str(output)]
    assert predict.main([*files, *arguments]) == 2
    message = capsys.readouterr().err
    assert "2 of 3 files cannot be used" in message
    assert re.search(r"cut\.xye, line \d+: expected 3 columns", message)
    assert "gone.xy: no such file" in message
    assert not output.exists()


def test_a_folder_that_is_no_model_is_refused(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([str(sample), "--wavelength", WAVELENGTH, "--model", str(tmp_path), "-o", "out"]) == 2
    assert "is not a model" in capsys.readouterr().err


def test_an_output_folder_that_is_a_file_is_refused(
    run_folder: Path, sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--wavelength", WAVELENGTH, "--model", str(run_folder / "model"), "-o", str(sample)]
    assert predict.main([str(sample), *arguments]) == 2
    assert "another with -o" in capsys.readouterr().err


def test_examples_repeat_exactly_and_say_what_went_in(run_folder: Path, tmp_path: Path) -> None:
    (file,) = example.write_samples(tmp_path, SAMPLES[:1])
    assert file.read_bytes() == (run_folder / "samples" / file.name).read_bytes()
    (truth,) = json.loads((tmp_path / "truth.json").read_text())
    assert truth["file"] == file.name
    assert truth["diameter_volume_nm"] == pytest.approx(2.0 * (1 + 0.05**2) ** 3)


def test_the_measured_patterns_are_sized(run_folder: Path, shared_data: Path, tmp_path: Path) -> None:
    """Larger dots than this model knows: an answer at the edge, and doubts."""
    (file,) = (shared_data / "pbs_measured").glob("*5p03nm*")
    arguments = ["--wavelength", "0.564162", "--model", str(run_folder / "model"), "-o", str(tmp_path)]
    assert predict.main([str(file), *arguments]) == 0
    record = json.loads((tmp_path / "results.json").read_text())["results"][0]
    assert record["diameter_nm"]["mean"] > 2.6
    assert record["warnings"]
