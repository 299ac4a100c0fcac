"""Fits of simulated patterns with solvent, counts, texture and doublets: sizes come back within their errors."""

from dataclasses import replace

import numpy as np
import pytest

from hpc.dots import dot_pattern
from hpc.instrument.angles import two_theta_of
from hpc.instrument.geometry import polarisation
from hpc.instrument.lines import seen
from hpc.instrument.recorded import Sample, ideal_window, measure
from hpc.instrument.resolution import broaden, widths
from hpc.instrument.setup import Resolution, instrument_names, load_instrument
from hpc.liquids import liquid_profile
from hpc.radiation import load_radiation
from hpc.structure.material import load_material
from hpc.structure.variant import Faults, Motion, Shape, Variant
from qdml.files.patterns import Pattern, read_pattern
from qdml.fitting import Fit, fit_pattern, fit_settings


def sphere(material: str = "pbs") -> Variant:
    return Variant(material=load_material(material), shape=Shape(name="sphere"))


def counted(
    q: np.ndarray,
    dots: np.ndarray,
    *,
    energy: float,
    seed: int,
    peak: float = 1e5,
    response: np.ndarray | float = 1.0,
) -> Pattern:
    """Equal areas of dots and hexane, a flat background and Poisson counts."""
    liquid = liquid_profile("hexane", q, energy_kev=energy)
    y = response * (0.5 * dots / dots.mean() + 0.5 * liquid / liquid.mean()) + 0.03
    counts = np.random.default_rng(seed).poisson(y * peak / y.max()).astype(float)
    return Pattern(
        source=f"seed {seed}", q=q, intensity=counts, sigma=np.sqrt(np.maximum(counts, 1)), energy_kev=energy
    )


def simulated(
    variant: Variant, *, diameter_nm: float, sigma: float, strain: float, seed: int, **changes
) -> Pattern:
    q = np.arange(0.9, 13.0, 0.005)
    energy = 22.0
    dots = dot_pattern(
        variant, q=q, diameter_nm=diameter_nm, sigma=sigma, strain=strain, energy_kev=energy, b_scale=1.3
    )
    return counted(q, dots, energy=energy, seed=seed, **changes)


def deviations(fit: Fit, *, diameter_nm: float, sigma: float, strain: float) -> np.ndarray:
    """(4,) in units of half the 68 % interval: D, D_vol, σ, ε."""
    truth = (diameter_nm, diameter_nm * (1 + sigma**2) ** 3, sigma, strain)
    found = (fit.diameter_nm, fit.diameter_volume_nm, fit.sigma, fit.strain)
    return np.array([(f.mean - t) / ((f.hi68 - f.lo68) / 2) for f, t in zip(found, truth, strict=True)])


TRUTHS = [
    pytest.param("pbs", {"diameter_nm": 3.2, "sigma": 0.12, "strain": 0.002}, id="PbS 3.2 nm"),
    pytest.param("pbs", {"diameter_nm": 5.0, "sigma": 0.08, "strain": 0.0}, id="PbS 5 nm"),
    pytest.param("cdse", {"diameter_nm": 4.0, "sigma": 0.1, "strain": -0.001}, id="CdSe 4 nm"),
]


@pytest.mark.parametrize("model_error", [0.0, 0.02])
@pytest.mark.parametrize(("material", "truth"), TRUTHS)
def test_sizes_come_back_within_their_errors(material: str, truth: dict, model_error: float) -> None:
    """Four seeds: deviations of size one, whether weights are those of the counts or of an error of the model.

    Four quantities of four patterns, correlated: the root mean square of unbiased deviations stays below 2 in more than
    99 % of such draws, and no deviation reaches 4.
    """
    variant = sphere(material)
    settings = fit_settings(variant, solvents=("hexane",), model_error=model_error, liquid_stretch=0.0)
    found = []
    for seed in range(4):
        fit = fit_pattern(simulated(variant, seed=seed, **truth), settings)
        assert fit.converged
        assert abs(fit.best["diameter_nm"] / truth["diameter_nm"] - 1) < 0.02
        assert abs(fit.best["sigma"] - truth["sigma"]) < 0.012
        found.append(deviations(fit, **truth))
    assert np.abs(found).max() < 4
    assert np.sqrt(np.mean(np.square(found), axis=0)).max() < 2
    # Not wider than they need to be either.
    assert fit.diameter_nm.hi68 - fit.diameter_nm.lo68 < 0.01 * truth["diameter_nm"]


def test_b_and_correlated_motion_come_back() -> None:
    variant = replace(sphere(), motion=Motion(correlation=(0.35, 0.2)))
    truth = {"diameter_nm": 4.5, "sigma": 0.1, "strain": 0.001}
    fit = fit_pattern(
        simulated(variant, seed=1, peak=1e6, **truth),
        fit_settings(sphere(), solvents=("hexane",), model_error=0.005, liquid_stretch=0.0),
    )
    table = {kind.element: kind.b_iso for kind in variant.material.kinds}
    # A slowly varying scale does much of what B does: both B together are known to 0.1 Å², their difference well.
    assert fit.best["b_Pb"] == pytest.approx(1.3 * table["Pb"], abs=0.12)
    assert fit.errors["b_Pb"] > 0.02
    assert fit.best["b_S"] - fit.best["b_Pb"] == pytest.approx(1.3 * (table["S"] - table["Pb"]), abs=0.06)
    assert fit.best["correlation_1"] == pytest.approx(0.35, abs=0.06)
    assert fit.best["correlation_2"] == pytest.approx(0.2, abs=0.04)
    assert np.abs(deviations(fit, **truth)).max() < 4


def test_without_correlated_motion_the_size_is_wrong() -> None:
    """What the study of measured patterns found: perfect spheres come out smaller and broader."""
    variant = replace(sphere(), motion=Motion(correlation=(0.35, 0.2)))
    pattern = simulated(variant, seed=1, diameter_nm=4.5, sigma=0.1, strain=0.001)
    settings = fit_settings(sphere(), solvents=("hexane",))
    rigid = fit_pattern(pattern, replace(settings, correlation_shells=0))
    free = fit_pattern(pattern, settings)
    assert rigid.chi2_model > 2 * free.chi2_model
    assert abs(rigid.best["diameter_nm"] - 4.5) > 2 * abs(free.best["diameter_nm"] - 4.5)


def test_the_profile_of_a_weak_pattern_covers_the_truth() -> None:
    """Ten patterns of 300 counts at the peak: of ten 95 % intervals, 8 hold the truth with probability 0.99."""
    truth = {"diameter_nm": 3.5, "sigma": 0.1, "strain": 0.0}
    settings = fit_settings(sphere(), solvents=("hexane",), model_error=0.0, liquid_stretch=0.0)
    inside = {"diameter_nm": 0, "sigma": 0, "strain": 0}
    width = []
    for seed in range(10):
        fit = fit_pattern(simulated(sphere(), seed=100 + seed, peak=300, **truth), settings)
        for name, value in truth.items():
            one = getattr(fit, name)
            inside[name] += one.lo95 <= value <= one.hi95
        width.append(fit.sigma.hi95 - fit.sigma.lo95)
    assert min(inside.values()) >= 8
    assert np.median(width) > 0.03  # such a pattern does not say much


def test_a_fraction_of_faulted_dots_comes_back() -> None:
    q = np.arange(0.9, 13.0, 0.005)
    faulted = replace(sphere(), faults=Faults(deformation=0.1))
    one, other = (
        dot_pattern(v, q=q, diameter_nm=3.0, sigma=0.1, energy_kev=22.0, b_scale=1.3)
        for v in (sphere(), faulted)
    )
    pattern = counted(q, 0.7 * one + 0.3 * other, energy=22.0, seed=4)
    settings = fit_settings(
        (sphere(), faulted), solvents=("hexane",), liquid_stretch=0.0, model_error=0.0, largest_nm=(6.0, 12.0)
    )
    fit = fit_pattern(pattern, settings)
    area = {name: curve.sum() for name, curve in fit.contributions.items() if name.startswith("dots")}
    assert area["dots 2"] / sum(area.values()) == pytest.approx(0.3, abs=0.04)
    assert abs(fit.best["diameter_nm"] - 3.0) < 0.03


def film(seed: int, gains: dict[str, float]) -> Pattern:
    """An oriented film of 4 nm dots on a copper diffractometer: doublet, resolution, polarisation, gains."""
    setup = load_instrument("lab_cu")
    energy = setup.radiation.energy_kev
    q = np.arange(1.0, 7.4, 0.004)
    from qdml.fitting.dots import CountedDots
    from qdml.fitting.forward import DotModel
    from qdml.fitting.reflections import texture_groups

    dots = CountedDots(sphere(), largest=80.0, q_max=10.0)
    model = DotModel(dots, q, energy_kev=energy, nodes=np.empty(0), split=True, bin_width=0.0)
    size = np.log(40.0 * 1.01**3)
    bragg, rest = model(
        {"log_volume_diameter": size, "sigma": 0.1, "strain": 0.0, "b_Pb": 1.7, "b_S": 1.7, "zero": 0.0},
        slopes=False,
    ).value
    settings = fit_settings(sphere(), texture="direction")
    shares, labels = texture_groups(sphere().material, q, settings, energy_kev=energy, log_size=size)
    ideal = bragg * (shares @ [gains.get(label, 1.0) for label in labels]) + rest
    sigma, gamma = widths(q, setup.wavelength, *setup.resolution.radians())
    blurred = broaden(ideal, sigma, gamma, step=0.004, sigma_max=sigma.max(), gamma_max=gamma.max())
    shown = seen(blurred, q, setup.radiation.wavelengths, setup.radiation.weights)
    response = polarisation(two_theta_of(q, setup.wavelength))
    return counted(q, shown, energy=energy, seed=seed, response=response)


@pytest.fixture(scope="module")
def oriented() -> Pattern:
    return film(2, {"111": 0.5, "110": 4.0, "311": 2.0})


def test_an_oriented_film_of_a_tube_comes_back(oriented: Pattern) -> None:
    setup = load_instrument("lab_cu")
    settings = fit_settings(
        sphere(),
        texture="direction",
        instrument=setup,
        solvents=("hexane",),
        model_error=0.005,
        liquid_stretch=0.0,
    )
    fit = fit_pattern(oriented, settings)
    assert fit.best["diameter_nm"] == pytest.approx(4.0, abs=0.08)
    assert fit.best["diameter_volume_nm"] == pytest.approx(4.0 * 1.01**3, abs=0.05)
    assert fit.gains["110"] / fit.gains["100"] == pytest.approx(4.0, rel=0.1)
    assert fit.gains["111"] / fit.gains["100"] == pytest.approx(0.5, rel=0.1)
    assert fit.rwp < 0.01


def test_without_texture_or_instrument_the_film_is_described_worse(oriented: Pattern) -> None:
    setup = load_instrument("lab_cu")
    plain = fit_settings(sphere(), solvents=("hexane",), instrument=setup)
    assert fit_pattern(oriented, plain).rwp > 0.05
    perfect = replace(
        setup,
        resolution=Resolution(u=0.0, v=0.0, w=0.0, x=0.0, y=0.0),
        radiation=load_radiation("cu_kalpha1"),
    )
    sharp = fit_pattern(
        oriented,
        fit_settings(
            sphere(), texture="direction", solvents=("hexane",), model_error=0.005, instrument=perfect
        ),
    )
    right = fit_pattern(
        oriented,
        fit_settings(
            sphere(), texture="direction", solvents=("hexane",), model_error=0.005, instrument=setup
        ),
    )
    # Kα2 and the resolution make reflections wider, dots smaller.
    assert sharp.best["diameter_volume_nm"] < right.best["diameter_volume_nm"] - 0.01
    assert sharp.chi2_model > right.chi2_model


def test_more_particles_are_counted_where_the_answer_needs_them() -> None:
    truth = {"diameter_nm": 5.0, "sigma": 0.2, "strain": 0.0}
    settings = fit_settings(sphere(), solvents=("hexane",), liquid_stretch=0.0, largest_nm=(6.0, 20.0))
    fit = fit_pattern(simulated(sphere(), seed=0, **truth), settings)
    assert fit.beyond < 1e-4
    assert fit.best["diameter_nm"] == pytest.approx(5.0, abs=0.05)


MEASURED = [
    pytest.param("PbS_synchr_wl0p49547592A_3p17nm.xye", 0.49547592, 3.17, 0.3, id="3.17 nm"),
    pytest.param("PbS_synchr_wl0p564162A_5p03nm_hexane.xye", 0.564162, 5.03, 0.3, id="5.03 nm"),
    pytest.param("PbS_synchr_wl0p56371210A_7p12nm.xye", 0.56371210, 7.12, 0.3, id="7.12 nm"),
]


@pytest.mark.parametrize(("name", "wavelength", "size", "tolerance"), MEASURED)
def test_measured_patterns_of_a_synchrotron(shared_data, name, wavelength, size, tolerance) -> None:
    pattern = read_pattern(shared_data / "pbs_measured" / name, wavelength=wavelength)
    solvents = tuple(
        read_pattern(shared_data / "solvents" / one, wavelength=0.564162)
        for one in ("Hexane.xye", "Toluene.xye")
    )
    fit = fit_pattern(
        pattern, fit_settings(sphere(), solvents=solvents, instrument=load_instrument("synchrotron_strip"))
    )
    assert abs(fit.best["diameter_nm"] - size) < tolerance
    assert fit.diameter_nm.lo95 < size < fit.diameter_nm.hi95 or abs(fit.diameter_nm.mean / size - 1) < 0.05
    assert fit.rwp < 0.025
    assert fit.explained > 0.98


@pytest.mark.parametrize("name", instrument_names())
def test_what_an_instrument_records_gives_the_size_back(name: str) -> None:
    """Resolution, lines, polarisation, absorption, solid angle and a zero error, by the model that writes files."""
    setup = load_instrument(name)
    energy = setup.radiation.energy_kev
    low, high = ideal_window(setup)
    q = np.arange(low, high + 0.005, 0.005)
    dots = dot_pattern(load_material("pbs"), q=q, diameter_nm=4.5, sigma=0.1, energy_kev=energy)
    zero = setup.random.zero_deg[1] / 2  # of some instruments it is known to be 0
    sample = Sample(zero_deg=zero, displacement_mm=0.0, solvents={"toluene": 0.3}, background=0.02)
    file = measure(q, dots, setup, sample, peak_counts=1e6, seed=1)
    shown = 4 * np.pi / setup.wavelength * np.sin(np.radians(file.two_theta) / 2)
    pattern = Pattern(source=name, q=shown, intensity=file.intensity, sigma=file.sigma, energy_kev=energy)
    fit = fit_pattern(pattern, fit_settings(sphere(), solvents=("toluene",), instrument=setup))
    assert fit.best["diameter_nm"] == pytest.approx(4.5, rel=0.01)
    assert fit.best["sigma"] == pytest.approx(0.1, abs=0.015)
    assert fit.best["zero_deg"] == pytest.approx(zero, abs=0.005)
    assert fit.rwp < 0.006
