"""Files of instruments: what is read, and what is refused with which message."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from hpc.form_factors import HC_KEV_ANGSTROM
from qdml.files.columns import FileError, read_columns
from qdml.files.patterns import Pattern, Radiation, read_pattern, regrid

TWO_THETA = 5.0 + 0.5 * np.arange(60)
COUNTS = 1000 + 10 * np.arange(60) % 70
WAVELENGTH = 0.564162


def text_of(x: np.ndarray = TWO_THETA, *columns: np.ndarray, form: str = "{:.2f}", gap: str = " ") -> str:
    """Lines of `form`atted numbers."""
    columns = columns or (COUNTS,)
    return "".join(gap.join(form.format(v) for v in row) + "\n" for row in zip(x, *columns, strict=True))


def saved(folder: Path, content: str | bytes, name: str = "dot.xy") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


COMMA = text_of().replace(".", ",")
READABLE = {
    "spaces": text_of(),
    "tabs": text_of(gap="\t"),
    "semicolons": text_of(gap=";"),
    "commas": text_of(gap=","),
    "commas and spaces": text_of(gap=", "),
    "a separator at the end of each line": text_of(gap=",").replace("\n", ",\n"),
    "leading and trailing spaces": "  " + text_of().replace("\n", "   \n  "),
    "Windows line ends": text_of().replace("\n", "\r\n"),
    "old Macintosh line ends": text_of().replace("\n", "\r"),
    "Fortran exponents": text_of(form="{:.8E}").replace("E", "D"),
    "decimal commas, spaces": COMMA,
    "decimal commas, tabs": COMMA.replace(" ", "\t"),
    "decimal commas, semicolons": COMMA.replace(" ", ";"),
    "comments": "# a\n! b\n' c\n; d\n// e\n% f\n" + text_of() + "# end\n",
    "a comment behind numbers": text_of().replace("\n", "  # good\n", 3),
    "words, a count of points": "PbS in hexane, 25 °C\n2theta (deg), I\n       60\n" + text_of(),
    "blank lines": "\n\n" + text_of().replace("\n", "\n\n", 5),
    "byte order mark": "\ufeff" + text_of(),
    "no line end at the end": text_of().rstrip("\n"),
    "Latin-1": ("# Wellenlänge in Å, 25 °C\n" + text_of()).encode("latin-1"),
    "UTF-16": text_of().encode("utf-16"),
    "gzip": gzip.compress(text_of().encode()),
}


@pytest.mark.parametrize("name", READABLE)
def test_reads_what_instruments_write(tmp_path: Path, name: str) -> None:
    values = read_columns(saved(tmp_path, READABLE[name])).values
    np.testing.assert_array_equal(values, np.column_stack([TWO_THETA, COUNTS]))


def test_reads_a_third_column_as_sigma(tmp_path: Path) -> None:
    pattern = read_pattern(
        saved(tmp_path, text_of(TWO_THETA, COUNTS, np.sqrt(COUNTS))), wavelength=WAVELENGTH
    )
    assert pattern.sigma is not None
    np.testing.assert_allclose(pattern.sigma, np.sqrt(COUNTS), atol=0.005)


def lines_with(replaced: dict[int, str]) -> str:
    """The readable text with some lines (counted from 1) replaced."""
    lines = text_of().splitlines()
    for number, line in replaced.items():
        lines[number - 1] = line
    return "\n".join(lines) + "\n"


THREE = text_of(TWO_THETA, COUNTS, np.sqrt(COUNTS))
REFUSED = {
    "empty": ("", ["empty"]),
    "binary": (b"RAW1.01\0\0\1\2", ["expected text, got binary"]),
    "damaged gzip": (gzip.compress(THREE.encode())[:200], ["gzip", "copy it again"]),
    "words only": ("no numbers here\n" * 60, ["found none"]),
    "one column": ("".join(f"{v}\n" for v in COUNTS), ["two or three numbers", "found none"]),
    "four columns": (
        text_of(TWO_THETA, COUNTS, COUNTS, COUNTS),
        ["line 1:", "two or three columns", "got 4"],
    ),
    "a column lost": (lines_with({30: "19.50"}), ["line 30:", "expected 2 columns", "got 1", "'19.50'"]),
    "words below the numbers": (lines_with({30: "second scan"}), ["line 30:", "'second scan'", "remove"]),
    "a number that is none": (lines_with({30: "19.50 10x0"}), ["line 30:", "expected 2 numbers", "10x0"]),
    "overflow": (lines_with({30: "19.50 ******"}), ["line 30:", "expected 2 numbers"]),
    "NaN": (lines_with({30: "19.50 NaN"}), ["line 30:", "finite", "NaN"]),
    "infinity": (lines_with({1: "5.00 -inf"}), ["line 1:", "finite", "-inf"]),
    "cut between columns": (
        THREE[: THREE.rindex(" ")],
        ["line 60:", "expected 3 columns", "got 2", "cut off"],
    ),
    "cut inside a number": (THREE[:-3], ["line 60", "cut off", "copy the file again"]),
    "cut inside a whole number": (text_of(form="{:g}")[:-3], ["line 60", "cut off"]),
    "cut inside an exponent": (text_of(form="{:.4e}")[:-2], ["line 60", "cut off"]),
    "cut after the exponent's letter": (text_of(form="{:.4e}")[:-4], ["line 60", "cut off"]),
    "thousands marks": (
        "".join(f"{x:.2f} 1,{100 + i}.5\n" for i, x in enumerate(TWO_THETA)),
        ["thousands marks"],
    ),
    "decimal commas between commas": (COMMA.replace(" ", ","), ["decimal marks", "separators"]),
    "fewer than 50 points": (text_of(TWO_THETA[:49], COUNTS[:49]), ["at least 50 points", "got 49"]),
    "duplicate x": (lines_with({30: "19.00 1000"}), ["line 30:", "x = 19 stands in line 29 already"]),
    "x turns back": (lines_with({30: "18.00 1000"}), ["line 30:", "x = 18 comes after x = 19 in line 29"]),
    "constant": (text_of(TWO_THETA, np.full(60, 7.0)), ["constant intensity 7"]),
    "negative sigma": (text_of(TWO_THETA, COUNTS, -COUNTS), ["line 1:", "standard deviation", "got -1000"]),
    "2θ of zero": (text_of(TWO_THETA - 5), ["line 1:", "between 0 and 180", "got 0"]),
    "2θ beyond 180": (text_of(6 * TWO_THETA), ["line 60:", "between 0 and 180", "--q-unit"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_and_says_where_and_why(tmp_path: Path, name: str) -> None:
    content, words = REFUSED[name]
    path = saved(tmp_path, content)
    with pytest.raises(FileError) as error:
        read_pattern(path, wavelength=WAVELENGTH)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"gone\.xy: no such file"):
        read_columns(tmp_path / "gone.xy")
    with pytest.raises(FileError, match="expected a file, got a folder"):
        read_columns(tmp_path)


def test_q_of_angle_wavelength_and_energy(tmp_path: Path) -> None:
    path = saved(tmp_path, text_of())
    expected = 4 * np.pi * np.sin(np.radians(TWO_THETA / 2)) / WAVELENGTH
    by_wavelength = read_pattern(path, wavelength=WAVELENGTH)
    by_energy = read_pattern(path, energy_kev=HC_KEV_ANGSTROM / WAVELENGTH)
    np.testing.assert_allclose(by_wavelength.q, expected, rtol=1e-14)
    np.testing.assert_allclose(by_energy.q, expected, rtol=1e-14)
    assert by_wavelength.energy_kev == pytest.approx(21.9767, abs=1e-4)


def test_q_units(tmp_path: Path) -> None:
    path = saved(tmp_path, text_of())
    np.testing.assert_array_equal(read_pattern(path, q_unit="1/A").q, TWO_THETA)
    np.testing.assert_allclose(read_pattern(path, q_unit="1/nm").q, TWO_THETA / 10)
    assert read_pattern(path, q_unit="1/A").energy_kev is None
    assert read_pattern(path, q_unit="1/A", energy_kev=22.0).energy_kev == 22.0
    with pytest.raises(FileError, match=r"line 60: expected Q ≤ 60 Å⁻¹, got 69.*--wavelength"):
        read_pattern(saved(tmp_path, text_of(2 * TWO_THETA)), q_unit="1/A")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"add --wavelength .*--energy-kev .*--q-unit 1/A"),
        ({"wavelength": 0.56, "energy_kev": 22.0}, "give one of them"),
        ({"energy_kev": 22000.0}, "got 22000; is it in eV"),
        ({"wavelength": 0.056}, "must be 0.083 to 3.100 Å, got 0.056; is it in nm"),
        ({"wavelength": float("nan")}, "got nan"),
        ({"q_unit": "pm"}, "must be 1/A or 1/nm, got 'pm'"),
    ],
)
def test_the_first_column_needs_a_meaning(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Radiation(**options)


def test_a_falling_scan_is_reversed_and_said(tmp_path: Path) -> None:
    falling = read_pattern(saved(tmp_path, text_of(TWO_THETA[::-1], COUNTS[::-1])), q_unit="1/nm")
    np.testing.assert_array_equal(falling.intensity, COUNTS)
    assert any("reverse" in note for note in falling.notes)


def test_a_header_of_another_wavelength_is_a_warning(tmp_path: Path) -> None:
    path = saved(tmp_path, "# wavelength = 1.5406 Å\n" + text_of())
    assert "1.5406" in read_pattern(path, wavelength=WAVELENGTH).warnings[0]
    assert read_pattern(path, wavelength=1.54060).warnings == ()


GRID = np.linspace(1.0, 9.0, 801)


def pattern_of(q: np.ndarray, intensity: np.ndarray, sigma: np.ndarray | None = None) -> Pattern:
    return Pattern(source="dot.xy", q=q, intensity=intensity, sigma=sigma, energy_kev=None)


@pytest.mark.parametrize("step", [0.0007, 0.0101, 0.025])
def test_a_straight_line_survives_any_grid(step: float) -> None:
    q = np.arange(0.5, 9.5, step)
    on_grid = regrid(pattern_of(q, 3.0 * q + 1.0), GRID)
    assert on_grid.mask.all()
    np.testing.assert_allclose(on_grid.intensity, 3.0 * GRID + 1.0, rtol=1e-12)


def test_fine_points_are_averaged() -> None:
    q = 0.5 + 0.0005 * np.arange(18001)
    noise = np.random.default_rng(0).normal(0.0, 1.0, len(q))
    on_grid = regrid(pattern_of(q, 100.0 + noise), GRID)
    # 20 points per bin; the two at its edges count half
    assert on_grid.intensity.std() == pytest.approx(1 / np.sqrt(20), rel=0.1)


def test_mask_shows_the_measured_window() -> None:
    q = np.arange(2.0, 6.0, 0.004)
    on_grid = regrid(pattern_of(q, 1.0 + q), GRID)
    np.testing.assert_array_equal(on_grid.mask, (GRID > 2.004) & (GRID < 5.992))
    assert on_grid.window == pytest.approx((2.01, 5.99))
    assert on_grid.coverage == pytest.approx(399 / 801)
    assert (on_grid.intensity[~on_grid.mask] == 0).all()


def test_a_gap_of_the_detector_is_masked_and_said() -> None:
    q = np.arange(0.5, 9.5, 0.004)
    q = q[(q < 4.0) | (q > 4.5)]
    on_grid = regrid(pattern_of(q, 1.0 + q), GRID)
    hidden = GRID[~on_grid.mask]
    assert hidden.min() == pytest.approx(4.0, abs=0.011)
    assert hidden.max() == pytest.approx(4.5, abs=0.011)
    assert on_grid.notes == ("51 grid points from Q = 4.000 to 4.500 Å⁻¹ lie in gaps of the file: masked",)


def test_the_window_of_the_training_hides_what_lies_beyond() -> None:
    q = np.arange(0.5, 9.5, 0.004)
    on_grid = regrid(pattern_of(q, 1.0 + q), GRID, window=(1.5, 20.0))
    assert on_grid.window == pytest.approx((1.5, 9.0))


def test_a_few_negative_points_are_masked_many_are_refused() -> None:
    q = np.arange(0.5, 9.5, 0.004)
    on_grid = regrid(pattern_of(q, np.where(q < 1.1, -1.0, 5.0 + q)), GRID)
    assert on_grid.mask.sum() == 791
    assert on_grid.notes == ("10 grid points with an intensity ≤ 0 were masked",)
    with pytest.raises(FileError, match=r"expected positive intensities, got 100 of 801 .* with solvent"):
        regrid(pattern_of(q, np.where(q < 2.0, -1.0, 5.0 + q)), GRID)


def test_a_pattern_outside_the_range_of_the_model_is_refused() -> None:
    q = np.arange(0.1, 2.5, 0.004)
    with pytest.raises(
        FileError, match=r"at least 2 Å⁻¹ of the model's range 1 to 9 Å⁻¹, got 1.5 .*wavelength"
    ):
        regrid(pattern_of(q, 1.0 + q), GRID)
    # The range is there, its points are too far apart: that is what is said.
    with pytest.raises(FileError, match=r"points at most 0.03 Å⁻¹ apart.* got steps of 0.5 Å⁻¹ \(119 points"):
        regrid(pattern_of(np.arange(0.5, 60.0, 0.5), np.arange(119.0)), GRID)


Q_POINTS = np.arange(0.5, 9.5, 0.002)
COUNTED = np.random.default_rng(1).poisson(1e4 * (1 + 0.5 * np.sin(Q_POINTS))).astype(float)
NOISE = {
    "third column": (COUNTED, np.sqrt(COUNTED), 1.0, "third column"),
    "counts": (COUNTED, None, 1.0, "whole counts"),
    "counts over a monitor": (COUNTED / 137.0, None, 1.0, "scatter"),
    # Counts are a tenth of what is written.
    "whole numbers that scatter more": (10 * COUNTED, None, 1.0, "scatter"),
    # A file of counts that was smoothed afterwards keeps the noise of its counts.
    "smoothed whole numbers": (
        np.round(np.convolve(COUNTED, np.ones(5) / 5, mode="same")),
        None,
        1.0,
        "whole counts",
    ),
    "a calculated curve": (1 + 0.5 * np.sin(Q_POINTS), None, None, "none visible"),
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_of_a_grid_point(name: str) -> None:
    """Of the mean of five points: what the file declares, counts, or the scatter of neighbours."""
    intensity, sigma, expected, source = NOISE[name]
    on_grid = regrid(pattern_of(Q_POINTS, intensity, sigma), GRID)
    assert on_grid.noise_source.source == source
    relative = on_grid.noise / on_grid.intensity
    of_counts = 1 / np.sqrt(5e4 * (1 + 0.5 * np.sin(GRID)))
    if expected is None:
        assert 1e-4 < np.median(relative) < 1e-3
    else:
        assert np.median(relative / of_counts) == pytest.approx(expected, rel=0.1)
        assert on_grid.counts == pytest.approx(np.median(of_counts**-2), rel=0.2)


def test_noise_is_known_beside_gaps_and_beyond_zeros() -> None:
    """A σ of 0 stands for no knowledge; what is masked has noise, so that nothing divides by zero."""
    sigma = np.where(Q_POINTS < 3, 0.0, 100.0)
    on_grid = regrid(pattern_of(Q_POINTS, COUNTED, sigma), np.linspace(0.2, 9.0, 801))
    assert (on_grid.noise > 0).all()
    assert not on_grid.mask.all()
    np.testing.assert_allclose(on_grid.noise[on_grid.mask], 100.0 / np.sqrt(5.5), rtol=0.02)


def test_the_measured_patterns_are_read(shared_data: Path) -> None:
    ends = {}
    for path in sorted((shared_data / "pbs_measured").glob("PbS_*")):
        wavelength = float(path.name.split("wl")[1].split("_")[0].rstrip("A").replace("p", "."))
        pattern = read_pattern(path, wavelength=wavelength)
        assert regrid(pattern, 0.99 + 0.0028 * np.arange(5004)).coverage > 0.4
        ends[path.name.split("_wl")[0], len(pattern.q)] = round(float(pattern.q[-1]), 1)
    assert sorted(ends.values()) == [7.1, 7.2, 19.4, 19.4, 22.0]
