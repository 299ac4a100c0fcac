"""`qd-fit` from files to results: what it writes and says, and what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hpc.dots import dot_pattern
from hpc.liquids import liquid_profile
from hpc.structure.material import load_material
from qdml import fit

WAVELENGTH = 0.56
ENERGY = 12.398419843320026 / WAVELENGTH


def write_sample(path: Path, diameter_nm: float, *, seed: int = 0) -> Path:
    """2θ, counts and their deviation of dots in hexane."""
    q = np.arange(1.0, 10.5, 0.01)
    dots = dot_pattern(
        load_material("pbs"),
        q=q,
        diameter_nm=diameter_nm,
        sigma=0.1,
        strain=0.001,
        energy_kev=ENERGY,
        b_scale=1.4,
    )
    liquid = liquid_profile("hexane", q, energy_kev=ENERGY)
    y = dots / dots.mean() + liquid / liquid.mean()
    counts = np.random.default_rng(seed).poisson(1e5 * y / y.max())
    two_theta = 2 * np.degrees(np.arcsin(q * WAVELENGTH / (4 * np.pi)))
    np.savetxt(path, np.column_stack([two_theta, counts, np.sqrt(counts)]), fmt="%.8g")
    return path


def write_liquid(path: Path) -> Path:
    q = np.arange(0.8, 11.0, 0.01)
    two_theta = 2 * np.degrees(np.arcsin(q * WAVELENGTH / (4 * np.pi)))
    np.savetxt(
        path, np.column_stack([two_theta, 1e4 * liquid_profile("hexane", q, energy_kev=ENERGY)]), fmt="%.10g"
    )
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("samples")
    return [write_sample(folder / f"{d}.xye", d, seed=int(10 * d)) for d in (2.5, 3.5)]


def run(*words: object, unit: tuple[str, ...] = ("--wavelength", str(WAVELENGTH))) -> int:
    return fit.main([*map(str, words), *unit])


def test_sizes_of_several_files(
    samples: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "sizes"
    assert run(*samples, "--material", "pbs", "--solvent", "hexane", "-o", output) == 0
    content = json.loads((output / "results.json").read_text())
    assert [one["file"] for one in content["results"]] == list(map(str, samples))
    assert content["settings"]["solvents"] == ["hexane"]
    for record, truth in zip(content["results"], (2.5, 3.5), strict=True):
        assert record["diameter_nm"]["mean"] == pytest.approx(truth, abs=0.06)
        assert record["sigma"]["mean"] == pytest.approx(0.1, abs=0.03)
        assert record["strain"]["mean"] == pytest.approx(0.001, abs=3e-4)
        for name in ("diameter_nm", "diameter_volume_nm", "sigma", "strain"):
            one = record[name]
            assert one["lo95"] <= one["lo68"] <= one["mean"] <= one["hi68"] <= one["hi95"]
        assert record["parameters"]["b_Pb"]["value"] == pytest.approx(1.8, abs=0.3)
        assert not record["parameters"]["sigma"]["held"]
        assert sum(record["area"].values()) == pytest.approx(1.0)
        assert 0.4 < record["area"]["dots"] < 0.6
        assert record["fit"]["converged"]
        assert min(record["profile"]["chi2_rise"]) == 0
        assert (output / record["figure"]).read_bytes().startswith(b"\x89PNG")
        assert record["warnings"] == []
    with (output / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["diameter_nm_mean"]) for row in rows] == pytest.approx(
        [one["diameter_nm"]["mean"] for one in content["results"]], rel=1e-4
    )
    shown = capsys.readouterr().out
    assert "results.json" in shown
    assert f"{content['results'][0]['diameter_nm']['mean']:.2f} [" in shown
    assert "Rwp" in shown


def test_a_measured_solvent_in_q_and_held_parameters(samples: list[Path], tmp_path: Path) -> None:
    """The same sample over Q, the solvent over 2θ: with @ its columns have a meaning of their own."""
    two_theta, intensity, sigma = np.loadtxt(samples[0], unpack=True)
    q = 4 * np.pi * np.sin(np.radians(two_theta) / 2) / WAVELENGTH
    sample = tmp_path / "q.xye"
    np.savetxt(sample, np.column_stack([q, intensity, sigma]), fmt="%.10g")
    liquid = write_liquid(tmp_path / "hexane.xy")
    code = run(
        *(sample, "--material", "pbs", "--solvent", f"{liquid}@{WAVELENGTH}", "-o", tmp_path / "out"),
        *("--fix", "sigma=0.1", "strain=0.001", "zero_deg=0", "--q-range", 1.1, 9, "--model-error", 0.01),
        unit=("--q-unit", "1/A", "--wavelength", str(WAVELENGTH)),
    )
    assert code == 0
    record = json.loads((tmp_path / "out" / "results.json").read_text())["results"][0]
    assert record["diameter_nm"]["mean"] == pytest.approx(2.5, abs=0.02)
    for name, value in (("sigma", 0.1), ("strain", 0.001), ("zero_deg", 0.0)):
        assert record["parameters"][name] == {"value": pytest.approx(value), "error": 0, "held": True}
    assert record["sigma"]["lo95"] == record["sigma"]["hi95"] == pytest.approx(0.1)
    assert record["pattern"]["q_window"] == pytest.approx([1.1, 9.0])
    assert record["area"][str(liquid)] > 0.4


def test_q_without_an_energy_is_fitted_and_noted(samples: list[Path], tmp_path: Path) -> None:
    two_theta, intensity, sigma = np.loadtxt(samples[0], unpack=True)
    q = 40 * np.pi * np.sin(np.radians(two_theta) / 2) / WAVELENGTH
    sample = tmp_path / "q.csv"
    np.savetxt(sample, np.column_stack([q, intensity, sigma]), fmt="%.10g", delimiter=";")
    code = run(
        sample, "--material", "pbs", "--solvent", "hexane", "-o", tmp_path / "out", unit=("--q-unit", "1/nm")
    )
    assert code == 0
    record = json.loads((tmp_path / "out" / "results.json").read_text())["results"][0]
    assert record["diameter_nm"]["mean"] == pytest.approx(2.5, abs=0.06)
    assert any("the photon energy is not known" in note for note in record["notes"])


def test_every_other_ingredient_has_its_word(samples: list[Path], tmp_path: Path) -> None:
    code = run(
        *(
            samples[0],
            "--material",
            "pbs",
            "--solvent",
            "hexane",
            "--container",
            "kapton",
            "-o",
            tmp_path / "out",
        ),
        *("--instrument", "synchrotron_area", "--halo", 2, "--correlation", 1, "--start", 2, 3),
        *(
            "--shape",
            "octahedron",
            "--motion",
            "independent",
            "--also",
            "surface.site=S",
            "surface.neighbours=4",
        ),
    )
    assert code == 0
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    record, settings = content["results"][0], content["settings"]
    assert {"dots 1", "dots 2", "hexane", "kapton", "halo", "background"} == set(record["area"])
    assert record["gains"] == {}
    assert "correlation_2" not in record["parameters"]
    assert settings["instrument"] == "synchrotron_area"
    assert settings["start_diameters_nm"] == [2, 3]
    assert [one["shape"]["name"] for one in settings["variants"]] == ["octahedron", "octahedron"]


def test_a_tail_of_correlated_motion(samples: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "tail"
    assert run(samples[0], "--material", "pbs", "--solvent", "hexane", "--tail", "-o", output) == 0
    content = json.loads((output / "results.json").read_text())
    assert content["settings"]["correlation_tail"] == 25
    found = content["results"][0]
    assert found["diameter_nm"]["mean"] == pytest.approx(2.5, abs=0.1)
    # The sample's atoms are independent.
    for name in ("correlation_1", "correlation_tail"):
        one = found["parameters"][name]
        assert one["value"] == pytest.approx(0, abs=max(0.1, 4 * one["error"]))
    assert "correlation_2" not in found["parameters"]
    held = ("--tail", 20, "--fix", "correlation_tail=0.4", "-o", tmp_path / "held")
    assert run(samples[0], "--material", "pbs", "--solvent", "hexane", *held) == 0
    content = json.loads((tmp_path / "held" / "results.json").read_text())
    assert content["results"][0]["parameters"]["correlation_tail"] == {
        "value": 0.4,
        "error": 0.0,
        "held": True,
    }


def test_gains_of_an_oriented_sample(samples: list[Path], tmp_path: Path) -> None:
    """These samples are not oriented: all gains come out alike."""
    code = run(
        samples[1],
        "--material",
        "pbs",
        "--solvent",
        "hexane",
        "--texture",
        "reflection",
        "-o",
        tmp_path / "out",
    )
    assert code == 0
    record = json.loads((tmp_path / "out" / "results.json").read_text())["results"][0]
    gains = [record["gains"][name] for name in ("111", "200", "220", "311", "222")]
    assert gains == pytest.approx([gains[2]] * 5, rel=0.15)
    assert record["diameter_nm"]["mean"] == pytest.approx(3.5, abs=0.15)


def test_another_material_is_doubted(
    samples: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(samples[1], "--material", "cdse", "--solvent", "hexane", "-o", tmp_path / "out") == 0
    record = json.loads((tmp_path / "out" / "results.json").read_text())["results"][0]
    assert any("describes the pattern badly" in doubt for doubt in record["warnings"])
    assert "DOUBT" in capsys.readouterr().out


def test_a_size_at_its_bound_is_doubted(samples: list[Path], tmp_path: Path) -> None:
    from hpc.structure.variant import Shape, Variant
    from qdml.files.patterns import read_pattern
    from qdml.fitting import fit_pattern, fit_settings
    from qdml.fitting.record import doubts

    variant = Variant(material=load_material("pbs"), shape=Shape(name="sphere"))
    pattern = read_pattern(samples[1], wavelength=WAVELENGTH)
    found = fit_pattern(pattern, fit_settings(variant, solvents=("hexane",), diameter_volume_nm=(4.5, 8.0)))
    assert "diameter_volume_nm" in found.at_bound
    assert any("D_vol ended at its bound, 4.5" in doubt for doubt in doubts(found))


REFUSED = [
    pytest.param(
        ["--material", "pbs", "--tail", "--correlation", "3"],
        None,
        r"correlation_shells to 1, got 3",
        id="tail",
    ),
    pytest.param(
        ["--material", "pbs", "--texture", "direction", "--also", "faults.growth=0.1"],
        None,
        r"one sort",
        id="gains of two",
    ),
    pytest.param(["--material", "pbs"], (), r"add --wavelength", id="no unit"),
    pytest.param(["--material", "unobtainium"], None, r"unobtainium", id="no material"),
    pytest.param(["--material", "pbs", "--shape", "blob"], None, r"shape must be one of", id="no shape"),
    pytest.param(["--material", "pbs", "--set", "faults.colour=1"], None, r"faults\.colour", id="no key"),
    pytest.param(
        ["--material", "pbs", "--solvent", "gin"], None, r"a file or one of \[.*hexane.*'gin'", id="no liquid"
    ),
    pytest.param(
        ["--material", "pbs", "--solvent", "nowhere.xy@0.5"], None, r"no such file", id="no solvent file"
    ),
    pytest.param(
        ["--material", "pbs", "--container", "wood"], None, r"container must be one of", id="no container"
    ),
    pytest.param(
        ["--material", "pbs", "--instrument", "eye"], None, r"instrument must be one of", id="no instrument"
    ),
    pytest.param(
        ["--material", "pbs", "--instrument", "lab_cu"], None, r"lab_cu has the lines", id="another tube"
    ),
    pytest.param(
        ["--material", "pbs", "--fix", "mood=1"], None, r"parameters are .*'mood'", id="no parameter"
    ),
    pytest.param(["--material", "pbs", "--fix", "sigma"], None, r"NAME=VALUE", id="no value"),
    pytest.param(
        ["--material", "pbs", "--fix", "diameter_nm=3"], None, r"hold sigma too", id="size without width"
    ),
    pytest.param(
        ["--material", "pbs", "--q-range", "12", "15"], None, r"expected at least 2 Å⁻¹", id="no overlap"
    ),
    pytest.param(["--material", "pbs", "--q-range", "5", "2"], None, r"two rising numbers", id="no range"),
    pytest.param(["--material", "pbs", "--start", "-3"], None, r"start_diameters_nm must be > 0", id="start"),
    pytest.param(
        ["--material", "pbs", "--model-error", "-1"], None, r"model_error must lie", id="negative error"
    ),
    pytest.param(
        ["--material", "pbs", "--set", "motion.smooth=3"], None, r"use motion\.correlation", id="smooth"
    ),
]


@pytest.mark.parametrize(("words", "unit", "message"), REFUSED)
def test_refuses_what_it_cannot_do(
    samples: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], words, unit, message
) -> None:
    import re

    output = tmp_path / "out"
    unit = ("--wavelength", str(WAVELENGTH)) if unit is None else unit
    assert run(samples[0], *words, "-o", output, unit=unit) == 2
    error = capsys.readouterr().err
    assert error.startswith("qd-fit: error:")
    assert re.search(message, error), error
    assert not output.exists()


def test_a_solvent_that_does_not_cover_q_is_refused(
    samples: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    liquid = write_liquid(tmp_path / "short.xy")
    rows = np.loadtxt(liquid)
    np.savetxt(liquid, rows[rows[:, 0] < 30])
    assert run(samples[0], "--material", "pbs", "--solvent", liquid, "-o", tmp_path / "out") == 2
    assert "must cover the Q that is fitted" in capsys.readouterr().err


def test_all_files_are_checked_before_the_first_is_fitted(
    samples: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.xy"
    bad.write_text("1 2\n2 3\n")
    assert run(*samples, bad, tmp_path / "none.xy", "--material", "pbs", "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "2 of 4 files cannot be used" in error
    assert "bad.xy" in error
    assert "none.xy" in error
    assert not (tmp_path / "out").exists()
