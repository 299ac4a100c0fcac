"""`qd-pattern --instrument`: files as an instrument writes them, which the readers of measured files take."""

import math
import shlex

import numpy as np
import pytest

from hpc.pattern import main
from qdml.files.patterns import read_pattern

DOT = "sphere --material pbs --diameter-nm 2 --sigma 0.05"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dimer.xyz").write_text("2\n\nPb 0 0 0\nS 0 0 2.97\n")
    return tmp_path


def pattern(line):
    main(shlex.split(line))


def test_a_recorded_file_is_read_as_a_measured_one(here):
    pattern(
        f"{DOT} --instrument lab_cu --solvent hexane=0.3 toluene=0.2 --background 0.1 --counts 20000 -o dot.xye"
    )
    text = (here / "dot.xye").read_text()
    for line in (
        "# instrument: lab_cu: laboratory Bragg-Brentano",
        "# wavelength_angstrom: 1.5405929",
        "# solvents: hexane=0.3 toluene=0.2",
        "# peak_counts: 20000",
        "# noise: Poisson, seed 0",
        "# energy_kev: 8.0478",
        "# 2theta [degree]   I [photons / counts_per_unit]   sigma",
    ):
        assert line in text
    two_theta, counts, sigma = np.loadtxt(here / "dot.xye", unpack=True)
    assert (two_theta[0], two_theta[-1], two_theta.size) == (15, 120, 5251)
    assert np.all(counts == np.rint(counts))
    assert counts.max() == pytest.approx(20000, rel=0.03)
    np.testing.assert_allclose(sigma, np.sqrt(counts))
    read = read_pattern(here / "dot.xye", wavelength=1.5405929)
    np.testing.assert_allclose(read.q, 4 * math.pi / 1.5405929 * np.sin(np.radians(two_theta / 2)), rtol=1e-6)
    np.testing.assert_allclose(read.sigma, sigma)


def test_seed_and_noise(here):
    for name, options in (("a", ""), ("b", ""), ("c", "--seed 7"), ("d", "--no-noise")):
        pattern(f"{DOT} --instrument synchrotron_area --two-theta 1 20 0.05 {options} -o {name}.xye")
    a, b, c, d = (np.loadtxt(here / f"{name}.xye") for name in "abcd")
    np.testing.assert_array_equal(a, b)
    assert np.any(a != c)
    assert np.sqrt(np.mean(((a - d)[:, 1] / d[:, 2]) ** 2)) == pytest.approx(1, abs=0.2)


def test_structure_files_and_folders(here):
    pattern("dimer.xyz --instrument synchrotron_strip --energy-kev 20 --two-theta 5 60 0.05 -o out/")
    text = (here / "out" / "dimer.xye").read_text()
    assert "# wavelength_angstrom: 0.6199" in text
    assert "# energy_kev: 20.0" in text


def test_fluorescence_of_the_elements_of_a_file(here):
    window = "--two-theta 5 60 0.05 --no-noise"
    pattern(f"dimer.xyz --instrument synchrotron_strip {window} -o a.xye")
    pattern(f"dimer.xyz --instrument synchrotron_strip {window} --fluorescence -o b.xye")
    pattern(f"dimer.xyz --instrument synchrotron_strip {window} --fluorescence 15 -o c.xye")
    a, b, c = (np.loadtxt(here / f"{name}.xye") for name in "abc")
    ratio = [x[-1, 1] / x[0, 1] for x in (a, b, c)]
    assert ratio[0] < ratio[2] < ratio[1]  # flatter the more lines are counted
    text = (here / "b.xye").read_text()
    emitted = float(text.split("# fluorescence: ")[1].split()[0])
    from hpc.absorption import fluorescence

    assert emitted == pytest.approx(2 * fluorescence("PbS", 22.0, lines_above_kev=4), rel=1e-3)


def test_zero_error_moves_the_pattern(here):
    for name, options in (("a", ""), ("b", "--zero 0.3"), ("c", "--displacement 0.2")):
        pattern(f"{DOT} --instrument lab_cu --no-noise --two-theta 20 60 0.02 {options} -o {name}.xye")
    a, b, c = (np.loadtxt(here / f"{name}.xye") for name in "abc")
    inside = slice(100, -100)
    np.testing.assert_allclose(np.interp(a[inside, 0] + 0.3, b[:, 0], b[:, 1]), a[inside, 1], rtol=5e-3)
    moved = math.degrees(2 * 0.2 * math.cos(math.radians(20)) / 240)
    np.testing.assert_allclose(np.interp(a[inside, 0] - moved, c[:, 0], c[:, 1]), a[inside, 1], rtol=5e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--instrument lab_co", "instrument must be one of"),
        ("--instrument lab_cu --energy-kev 22", "has its own wavelength"),
        ("--instrument lab_cu --radiation mo_kalpha", "leave out --radiation"),
        ("--instrument lab_cu --output-kind sq", "leave out --output-kind sq"),
        ("--instrument lab_cu --per-atom", "leave out --per-atom"),
        ("--instrument lab_cu --counts -5", "counts at the highest point must be > 0"),
        ("--instrument lab_cu --solvent wine", "--solvent must be one of"),
        ("--instrument lab_cu --solvent hexane=much", "NAME or NAME=SHARE"),
        ("--instrument lab_cu --solvent hexane=1.2", "sum to less than 1"),
        ("--instrument lab_cu --background -0.5", "background must lie in"),
        ("--instrument lab_cu --two-theta 120 20 0.02", "window of 2θ is empty"),
        ("--instrument lab_cu --two-theta 20 200 0.02", "must lie in 0 to 180"),
        ("--instrument lab_cu --q 2 5 0.01", "ideal pattern must cover Q"),
        ("--instrument lab_cu --displacement 90", "below a tenth of the radius"),
        ("--instrument lab_cu --fluorescence -3", "lines_above_kev must be >= 0"),
        ("--energy-kev 22", "--q MIN MAX STEP is missing"),
        ("--energy-kev 22 --q 1 5 0.1 --counts 5 --solvent hexane", "--counts, --solvent need an instrument"),
    ],
)
def test_bad_input_gives_one_message(here, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        pattern(f"{DOT} {options} -o out.xye")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("qd-pattern: error:") == 1
    assert message in error
    assert not (here / "out.xye").exists()
