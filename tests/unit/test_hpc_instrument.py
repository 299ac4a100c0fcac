"""Instruments by name, windows, counts, and what is refused."""

import math

import numpy as np
import pytest
import torch
import yaml

from hpc.gather import plus_product
from hpc.instrument.counts import counting_sigma, peak_scale
from hpc.instrument.ends import continued, fft_length
from hpc.instrument.lines import seen
from hpc.instrument.recorded import Sample, factors, ideal_window, measure
from hpc.instrument.resolution import broaden
from hpc.instrument.setup import instrument_names, load_instrument
from hpc.instrument.windows import angle_grid, visible

PLAIN = Sample(zero_deg=0.0, displacement_mm=0.0, solvents={}, isotropic=0.0, background=0.0)


def sample(**changes):
    given = {"zero_deg": 0.0, "displacement_mm": 0.0, "solvents": {}, "isotropic": 0.0, "background": 0.0}
    return Sample(**(given | changes))


@pytest.fixture(scope="module")
def ideal():
    """An ideal pattern with two reflections for every instrument."""
    q = np.arange(0.0, 29.0, 0.005)
    return q, 100 + 3000 * np.exp(-0.5 * ((q - 2.1) / 0.05) ** 2) + 1000 * np.exp(
        -0.5 * ((q - 5) / 0.05) ** 2
    )


# windows


def test_angle_grid_includes_its_end():
    grid = angle_grid(15, 120, 0.02)
    assert grid.size == 5251
    assert grid[-1] == pytest.approx(120, abs=1e-9)
    assert angle_grid(0.126, 120.8304, 0.0036).size == 33530


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ((20, 20, 0.02), "window of 2θ is empty"),
        ((120, 20, 0.02), "window of 2θ is empty"),
        ((20, 190, 0.02), "0 to 180°"),
        ((-5, 90, 0.02), "0 to 180°"),
        ((20, 90, 0.0), "step of 2θ must be > 0"),
        ((20, 90, -1.0), "step of 2θ must be > 0"),
        ((20, 20.1, 0.02), "at least 16 points"),
        ((float("nan"), 90, 1.0), "finite"),
    ],
)
def test_windows_that_cannot_be(window, message):
    with pytest.raises(ValueError, match=message):
        angle_grid(*window)


def test_masks_by_window_and_gap():
    x = np.arange(10.0)
    mask = visible(x, 2, 8, gaps=[(4, 6)])
    assert x[mask].tolist() == [2, 3, 4, 6, 7, 8]
    many = visible(torch.arange(10.0), torch.tensor([[0.0], [5.0]]), 8.0)
    assert many.sum(dim=1).tolist() == [9, 4]


# ends and lengths


@pytest.mark.parametrize("least", [1, 7, 97, 1001, 2161])
def test_fft_lengths(least):
    length = fft_length(least)
    assert length >= least
    assert length % 2 == 0
    rest = length
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    assert rest == 1


def test_ends_keep_value_and_slope():
    y = np.exp(np.linspace(0, 1, 30))
    around = continued(np, y, 5, 48)
    assert around.shape == (48,)
    np.testing.assert_array_equal(around[:30], y)
    np.testing.assert_allclose(around[0] - around[-1], y[1] - y[0])
    np.testing.assert_allclose(around[30] - around[29], y[-1] - y[-2])
    assert np.abs(np.diff(np.append(around, around[0]))).max() < 0.5


# counts


def test_doses_and_their_sigma():
    y = np.array([[1.0, 4.0, 2.0], [8.0, 1.0, 1.0]])
    np.testing.assert_allclose((y * peak_scale(y, 100.0)).max(axis=1), 100)
    np.testing.assert_allclose(peak_scale(y, np.array([[10.0], [80.0]]))[:, 0], [2.5, 10])
    assert counting_sigma(np.array([0.0, 1.0, 100.0]), 10.0).tolist() == [0.1, 0.1, 1.0]


# arguments that cannot be


def test_resolution_wider_than_the_range():
    y = np.ones(100)
    with pytest.raises(ValueError, match=r"narrower than the range of Q, 0.99 .* check the units"):
        broaden(y, 0.5, None, step=0.01, sigma_max=0.5)
    with pytest.raises(ValueError, match="sigma_max must be >= 0"):
        broaden(y, -0.1, None, step=0.01, sigma_max=-0.1)
    with pytest.raises(ValueError, match="step must be > 0"):
        broaden(y, 0.1, None, step=0.0, sigma_max=0.1)


def test_lines_need_weights():
    with pytest.raises(ValueError, match="as many weights as wavelengths"):
        seen(np.ones(10), np.arange(10.0), (1.54, 1.544), (1.0,))
    with pytest.raises(ValueError, match="at least 4 points"):
        seen(np.ones(3), np.arange(3.0), (1.54,), (1.0,), 0.1)
    np.testing.assert_allclose(seen(np.ones(4), np.arange(4.0), (1.54, 1.544), (0.6, 0.4), 0.1), 1)


def changed(tmp_path, name="lab_cu", **changes):
    """A file of an instrument with other values."""
    from importlib.resources import files

    config = yaml.safe_load((files("conf") / "instrument" / f"{name}.yaml").read_text()) | changes
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


WIDE = {"u": 0.0, "v": 0.0, "w": 12000.0, "x": 0.0, "y": 0.0}
NEGATIVE = {"u": 0.0, "v": -0.1, "w": 0.01, "x": 0.0, "y": 0.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": WIDE}, "must be narrower than the window"),
        ({"resolution": NEGATIVE}, "resolution is negative at 2θ"),
        (
            {"two_theta_deg": {"first": 20, "last": 190, "step": 0.02}},
            "two_theta_deg: 2θ must lie in 0 to 180°",
        ),
        ({"two_theta_deg": {"first": 90, "last": 20, "step": 0.02}}, "window of 2θ is empty"),
        ({"radius_mm": 0}, "displacements are relative to it"),
        ({"radius_mm": "far"}, "radius_mm must be a finite number"),
        ({"geometry": "guinier"}, "geometry must be one of"),
        ({"geometry": "flat_panel", "slits": None}, "ends below 90°"),
        ({"slits": None}, "slits are for bragg_brentano"),
        ({"mu_r": 1.0}, "mu_r is for debye_scherrer"),
        ({"mu_t": 0}, "mu_t and random.mu_t must be > 0 for bragg_brentano"),
        ({"peak_counts": -5}, "peak_counts must be > 0"),
        ({"counts_per_unit": 0}, "counts_per_unit must be > 0"),
        ({"gaps_deg": [[30, 20]]}, "gaps_deg must be pairs low < high"),
        ({"gaps_deg": [20]}, "must be two numbers"),
        ({"corrected": ["lorentz"]}, "corrected may hold"),
        ({"polarisation": {"angle": 3}}, "polarisation is none"),
        ({"polarisation": {"degree": 2, "azimuth_deg": 0}}, "degree of polarisation"),
        ({"radiation": "fe_kalpha"}, "radiation must be one of"),
        ({"energy_kev": 8.0}, "own wavelength"),
        ({"extra": 1}, "has the keys"),
        ({"random": {"zero_deg": [0, 1]}}, "random has the keys"),
    ],
)
def test_instruments_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_instrument(changed(tmp_path, **changes))


@pytest.mark.parametrize(
    ("key", "pair", "message"),
    [
        ("zero_deg", [0.3, -0.3], "low <= high"),
        ("first_deg", [15, 80], "empty window"),
        ("displacement_mm", [-50, 50], "displacement_mm must be low <= high within -24"),
        ("mu_r", [0, 9], "within 0 to 4"),
        ("mu_t", [0, 3], "mu_t and random.mu_t must be > 0 for bragg_brentano"),
        ("mu_t", [0.1, 300], "within 0 to 100"),
        ("peak_counts", [0, 10], "within 1"),
    ],
)
def test_ranges_that_cannot_be(tmp_path, key, pair, message):
    from importlib.resources import files

    random = yaml.safe_load((files("conf") / "instrument" / "lab_cu.yaml").read_text())["random"]
    with pytest.raises(ValueError, match=message):
        load_instrument(changed(tmp_path, random=random | {key: pair}))


def test_names_and_files(tmp_path):
    own = load_instrument(changed(tmp_path, name="lab_mo"))
    assert own == load_instrument("LAB_MO")
    with pytest.raises(ValueError, match=r"instrument must be one of \['lab_ag', 'lab_cu'"):
        load_instrument("lab_co")
    with pytest.raises(ValueError, match="cannot read the instrument"):
        load_instrument("nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(ValueError, match="is no YAML"):
        load_instrument(str(broken))


def test_energy_of_a_synchrotron_can_be_chosen():
    assert load_instrument("synchrotron_strip").radiation.energy_kev == pytest.approx(22)
    assert load_instrument("synchrotron_strip", wavelength=0.5).wavelength == 0.5
    assert load_instrument("synchrotron_area", energy_kev=67).radiation.energy_kev == pytest.approx(67)
    with pytest.raises(ValueError, match="own wavelength"):
        load_instrument("lab_cu", wavelength=0.5)


# the forward model


@pytest.mark.parametrize("name", instrument_names())
def test_what_every_instrument_records(ideal, name):
    instrument = load_instrument(name)
    low, high = ideal_window(instrument)
    assert ideal[0][0] <= low < high <= ideal[0][-1]
    found = measure(*ideal, instrument, PLAIN, peak_counts=1e5, seed=1)
    quiet = measure(*ideal, instrument, PLAIN, peak_counts=1e5, noise=False)
    np.testing.assert_array_equal(found.expected, quiet.intensity)
    photons = found.intensity * found.unit
    np.testing.assert_allclose(photons, np.rint(photons), atol=1e-6)
    expected = found.expected * found.unit
    assert expected.max() == pytest.approx(1e5)
    # Poisson: reduced χ² of 1, its own standard deviation √(2/n).
    chi2 = np.mean((photons - expected) ** 2 / expected)
    assert abs(chi2 - 1) < 5 * math.sqrt(2 / photons.size)
    np.testing.assert_allclose(found.sigma * found.unit, np.sqrt(np.maximum(photons, 1)))
    again = measure(*ideal, instrument, PLAIN, peak_counts=1e5, seed=1)
    np.testing.assert_array_equal(again.intensity, found.intensity)
    other = measure(*ideal, instrument, PLAIN, peak_counts=1e5, seed=2)
    assert np.any(other.intensity != found.intensity)


def test_lines_are_where_bragg_puts_them(ideal):
    instrument = load_instrument("synchrotron_strip")
    for zero in (0.0, 0.02):
        found = measure(*ideal, instrument, sample(zero_deg=zero), noise=False)
        near = np.abs(found.two_theta - 10.8) < 0.1
        line = np.polyfit(found.two_theta[near], np.log(found.intensity[near] - found.intensity.min()), 2)
        top = -line[1] / line[0] / 2
        expected = 2 * math.degrees(math.asin(2.1 * instrument.wavelength / (4 * math.pi))) + zero
        assert top == pytest.approx(expected, abs=2e-3)


def test_corrected_intensities_are_those_of_the_sample(ideal):
    """A panel whose polarisation and solid angle are corrected gives back the pattern; counts are rings'."""
    q, y = ideal
    instrument = load_instrument("synchrotron_area")
    found = measure(q, y, instrument, PLAIN, noise=False)
    at = 4 * math.pi / instrument.wavelength * np.sin(np.radians(found.two_theta) / 2)
    flat = np.abs(at - 2.1) + 0 * at > 0.6
    flat &= np.abs(at - 5) > 0.6
    level = found.intensity[flat]
    np.testing.assert_allclose(level, level.mean(), rtol=1e-6)
    efficiency, pixels, unit = factors(instrument, np.radians(found.two_theta))
    np.testing.assert_allclose(efficiency, unit, rtol=1e-12)
    assert pixels[-1] > 10 * pixels[0]


def test_shares_of_solvent_and_background(ideal):
    instrument = load_instrument("synchrotron_strip")
    dots = measure(*ideal, instrument, PLAIN, noise=False)
    mixed = measure(*ideal, instrument, sample(background=0.25), noise=False, peak_counts=1e6)
    clean = measure(*ideal, instrument, PLAIN, noise=False, peak_counts=1e6)
    # a·clean + b, with b a quarter of the sum
    a, b = np.polyfit(clean.intensity, mixed.intensity, 1)
    np.testing.assert_allclose(a * clean.intensity + b, mixed.intensity, rtol=1e-9)
    assert b * mixed.intensity.size / mixed.intensity.sum() == pytest.approx(0.25)
    wet = measure(*ideal, instrument, sample(solvents={"hexane": 0.4}), noise=False)
    assert wet.two_theta.size == dots.two_theta.size
    ring = np.abs(wet.two_theta - 7.1) < 0.5  # hexane's ring at Q = 1.4
    assert np.mean(wet.intensity[ring]) > 2 * np.mean(dots.intensity[ring])


def test_fluorescence_is_flat_where_it_is_not_polarised(ideal):
    q, y = ideal
    instrument = load_instrument("lab_cu")  # fixed slits: nothing but polarisation depends on the angle
    with_ = measure(q, y, instrument, sample(isotropic=500.0), noise=False, peak_counts=1e6)
    without = measure(q, y, instrument, PLAIN, noise=False, peak_counts=1e6)
    slope, flat = np.polyfit(without.intensity, with_.intensity, 1)
    np.testing.assert_allclose(
        slope * without.intensity + flat, with_.intensity, rtol=3e-3
    )  # Kα2 sees it at its own Q
    # 500 of 3100 at the highest point, whose factor of polarisation is known
    top = np.radians(with_.two_theta[np.argmax(with_.intensity)])
    share = 500 / (500 + 3100 * (1 - 0.5 * np.sin(top) ** 2))
    assert flat / with_.intensity.max() == pytest.approx(share, rel=0.02)


def test_gaps_are_left_out(ideal, tmp_path):
    instrument = load_instrument(changed(tmp_path, gaps_deg=[[40, 41]]))
    found = measure(*ideal, instrument, PLAIN)
    assert not np.any((found.two_theta > 40) & (found.two_theta < 41))
    assert np.any(found.two_theta > 41)
    assert instrument.with_window(50, 90, 0.02).gaps_deg == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solvents": {"hexane": 0.6, "toluene": 0.4}}, "sum to less than 1"),
        ({"solvents": {"hexane": -0.1}}, "must be > 0"),
        ({"isotropic": -1.0}, "fluorescence must be >= 0"),
        ({"background": 1.0}, "background must lie in 0 <= share < 1"),
        ({"zero_deg": 20.0}, "zero error must lie in"),
        ({"displacement_mm": float("nan")}, "displacement must be a number"),
    ],
)
def test_samples_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        sample(**changes)


def test_patterns_that_cannot_be_recorded(ideal):
    q, y = ideal
    instrument = load_instrument("lab_cu")
    with pytest.raises(ValueError, match="must be >= 0, finite"):
        measure(q, y - 200, instrument, PLAIN)
    with pytest.raises(ValueError, match=r"must cover Q = 1.065 to 7.064"):
        measure(q[500:1200], y[500:1200], instrument, PLAIN)
    with pytest.raises(ValueError, match="uniform"):
        measure(q**1.01, y, instrument, PLAIN)
    with pytest.raises(ValueError, match="at least 16 points"):
        measure(q[:5], y[:5], instrument, PLAIN)
    for counts in (0.0, -10.0, float("nan")):
        with pytest.raises(ValueError, match="counts at the highest point must be > 0"):
            measure(q, y, instrument, PLAIN, peak_counts=counts)
    with pytest.raises(ValueError, match="below a tenth of the radius"):
        measure(q, y, instrument, sample(displacement_mm=100.0))


def test_products_are_added_alike_everywhere() -> None:
    import torch

    z, x, y = (np.random.default_rng(seed).normal(size=(3, 5)) for seed in range(3))
    wanted = z + x * y[:, :1], z - 2.5 * x
    for make in (np.asarray, torch.tensor):
        got = plus_product(make(z), make(x), make(y[:, :1])), plus_product(make(z), make(x), -2.5)
        for one, other in zip(got, wanted, strict=True):
            assert np.asarray(one) == pytest.approx(other, rel=1e-14)


@pytest.mark.parametrize("copies", [(), (2,)])
def test_a_batch_of_sources_with_and_without_a_doublet(copies: tuple[int, ...]) -> None:
    """Rows whose second line has no weight are left out; one pattern for all, or several for each, are seen alike."""
    import torch

    q = np.linspace(1, 4, 200)
    random = np.random.default_rng(0)
    y = np.cumsum(random.normal(size=(*copies, 3, 200)), axis=-1)
    wavelengths, weights = (
        np.array([[1.0, 1.0], [1.54, 1.544], [0.7, 0.7]]),
        np.array([[1, 0], [0.7, 0.3], [1, 0]]),
    )
    shift = 0.02 * random.normal(size=(3, 1)) * q
    for make in (np.asarray, torch.tensor):
        lines = [[make(a[:, [n]]) for n in (0, 1)] for a in (wavelengths, weights)]
        got = np.asarray(seen(make(y), make(q), *lines, make(shift)))
        for row in range(3):
            n = 1 + (row == 1)
            alone = seen(y[..., row, :], q, wavelengths[row, :n], weights[row, :n], shift[row])
            assert got[..., row, :] == pytest.approx(alone, rel=1e-12)
        same = np.asarray(seen(make(y[..., :1, :]), make(q), *lines, make(shift)))
        assert same[..., 0, :] == pytest.approx(got[..., 0, :], rel=1e-12)
        assert same.shape == got.shape
