"""The forward model of a fit: equal to the simulation, and its derivatives to differences of itself."""

from dataclasses import replace

import numpy as np
import pytest

from hpc.dots import dot_pattern
from hpc.instrument.angles import two_theta_of
from hpc.instrument.geometry import polarisation
from hpc.instrument.lines import seen
from hpc.instrument.resolution import broaden, widths
from hpc.instrument.setup import load_instrument
from hpc.motion import near_terms, tail_weights
from hpc.scattering import coefficients
from hpc.structure.crystal import shells
from hpc.structure.material import load_material
from hpc.structure.variant import Faults, Shape, Surface, Variant
from hpc.transform import partial_sums, waves
from qdml.files.patterns import Pattern
from qdml.fitting.dots import CountedDots
from qdml.fitting.forward import SIGMA, SIZE, STRAIN, TAIL, ZERO, DotModel, b_name, correlation_name
from qdml.fitting.instrument import Optics
from qdml.fitting.points import points_of
from qdml.fitting.settings import fit_settings

PBS = load_material("pbs")
SPHERE = Variant(material=PBS, shape=Shape(name="sphere"))
Q = np.arange(120, 901) * 0.01
ENERGY = 22.0
VALUES = {
    SIZE: np.log(31.0),
    SIGMA: 0.11,
    STRAIN: 0.002,
    b_name("Pb"): 1.6,
    b_name("S"): 2.1,
    correlation_name(0): 0.35,
    correlation_name(1): 0.2,
    ZERO: 2e-4,
}


@pytest.fixture(scope="module")
def dots() -> CountedDots:
    return CountedDots(SPHERE, largest=60.0, q_max=20.0)


def model(dots: CountedDots, **changes) -> DotModel:
    nodes, _ = shells(dots.variant.material, 3)
    return DotModel(dots, Q, **{"energy_kev": ENERGY, "nodes": nodes, "bin_width": 0.0} | changes)


def test_waves_are_the_sums_of_sines_and_cosines() -> None:
    rng = np.random.default_rng(0)
    r, a, b = 100 * rng.random(300) + 2, rng.normal(size=(3, 300)), rng.normal(size=(2, 300))
    sine, cosine = waves(a, b, r, float(Q[0]), 0.01, len(Q))
    np.testing.assert_allclose(sine, a @ np.sin(np.outer(r, Q)), atol=1e-11)
    np.testing.assert_allclose(cosine, b @ np.cos(np.outer(r, Q)), atol=1e-11)
    np.testing.assert_allclose(
        waves(a / r, b, r, float(Q[0]), 0.01, len(Q))[0] / Q, partial_sums(a, r, Q), atol=1e-12
    )


def test_without_correlation_it_is_the_simulated_pattern(dots: CountedDots) -> None:
    sigma, strain = 0.11, 0.002
    diameter = 3.1 / (1 + sigma**2) ** 3
    simulated = dot_pattern(
        PBS.with_b_iso({"Pb": 1.6, "S": 2.1}),
        q=Q,
        diameter_nm=diameter,
        sigma=sigma,
        strain=strain,
        energy_kev=ENERGY,
    )
    values = VALUES | {correlation_name(0): 0.0, correlation_name(1): 0.0}
    fitted = model(dots)(values, slopes=False).value[0]
    np.testing.assert_allclose(fitted, simulated, rtol=2e-6)


def test_correlated_motion_is_that_of_the_simulation(dots: CountedDots) -> None:
    ensemble = dots.ensemble(VALUES[SIZE], VALUES[SIGMA])
    nodes, _ = shells(PBS, 3)
    kinds = PBS.with_b_iso({"Pb": 1.6, "S": 2.1}).kinds
    terms = coefficients(kinds, Q, energy_kev=ENERGY)
    from hpc.motion import correlation_weights

    expected = np.zeros_like(Q)
    for index, (distance, counts) in enumerate(ensemble.tables):
        near = distance < nodes[-1]
        weights = correlation_weights(distance[near], nodes)
        one = np.zeros((len(ensemble.tables), near.sum()))
        one[index] = counts[0, near]
        expected += near_terms(
            one,
            distance[near],
            np.array([0.35, 0.2]) @ weights,
            Q,
            undamped=terms.undamped,
            exponent=terms.exponent,
            strain=0.002,
        )
    off = VALUES | {correlation_name(0): 0.0, correlation_name(1): 0.0}
    with_c, without = (model(dots)(values, slopes=False).value[0] for values in (VALUES, off))
    np.testing.assert_allclose(
        with_c - without, expected / ensemble.atoms[0].sum(), atol=1e-9 * without.max()
    )


def variants() -> list:
    zincblende = Variant(material=load_material("cdse"), shape=Shape(name="octahedron"))
    skin = replace(SPHERE, surface=Surface(site="S", neighbours=4, occupancy=0.5))
    faulted = replace(SPHERE, faults=Faults(deformation=0.05))
    return [
        pytest.param(SPHERE, {}, id="sphere"),
        pytest.param(SPHERE, {"split": True}, id="textured"),
        pytest.param(SPHERE, {"tail": 25.0}, id="tail of correlated motion"),
        pytest.param(zincblende, {"bin_width": None}, id="another material, octahedron, bins"),
        pytest.param(skin, {"split": True}, id="partly occupied skin"),
        pytest.param(faulted, {}, id="off the lattice"),
    ]


@pytest.mark.parametrize(("variant", "changes"), variants())
@pytest.mark.parametrize("instrument", [None, "lab_cu"])
def test_derivatives_are_exact(variant: Variant, changes: dict, instrument: str | None) -> None:
    setup = None if instrument is None else load_instrument(instrument)
    energy = ENERGY if setup is None else setup.radiation.energy_kev
    q = Q[:500]
    dots = CountedDots(variant, largest=40.0, q_max=10.0)
    optics = Optics.of(setup, q, energy_kev=energy)
    nodes, _ = shells(variant.material, 2 if "tail" in changes else 3)
    one = DotModel(dots, q, **{"energy_kev": energy, "nodes": nodes, "optics": optics, **changes})
    values = dict.fromkeys(one.names, 1.7) | {k: v for k, v in VALUES.items() if k in one.names}
    values[SIZE] = np.log(26.0)
    parts = one(values)
    for index, name in enumerate(one.names):
        step = 1e-5 * (1e-2 if name == ZERO else 1e-1 if name == STRAIN else 1)
        up, down = (one(values | {name: values[name] + side * step}, slopes=False).value for side in (1, -1))
        numeric = (up - down) / (2 * step)
        scale = np.abs(numeric).max()
        np.testing.assert_allclose(parts.slopes[:, index], numeric, atol=1e-6 * scale, err_msg=name)
    assert parts.value.shape == (2 if changes.get("split") else 1, len(q))


def test_a_tail_beyond_the_first_shell(dots: CountedDots) -> None:
    """Of no strength it is one free shell; otherwise each pair moves as 1/r says."""
    nodes, _ = shells(PBS, 2)
    both = {b_name("Pb"): 1.5, b_name("S"): 1.5, TAIL: 0.0}
    one_shell = model(dots, nodes=nodes)(VALUES, slopes=False).value[0]
    tailed = model(dots, nodes=nodes, tail=25.0)
    np.testing.assert_allclose(tailed(VALUES | {TAIL: 0.0}, slopes=False).value[0], one_shell, rtol=1e-12)
    added = tailed(VALUES | both | {TAIL: 0.4}, slopes=False).value[0]
    added -= tailed(VALUES | both, slopes=False).value[0]
    ensemble = dots.ensemble(VALUES[SIZE], VALUES[SIGMA])
    undamped = coefficients(PBS.kinds, Q, energy_kev=ENERGY).undamped
    s2 = (Q / (4 * np.pi)) ** 2
    expected = np.zeros_like(Q)
    for factor, (distance, counts) in zip(undamped, ensemble.tables, strict=True):
        weights = tail_weights(distance, *nodes, reach=25.0)[1]
        for r, number, c in zip(distance, counts[0], 0.4 * weights, strict=True):
            x = Q * r * (1 + VALUES[STRAIN])
            c_1 = VALUES[correlation_name(0)] * (r < 3.5)
            rise = np.exp(-3.0 * (1 - c - c_1) * s2) - np.exp(-3.0 * (1 - c_1) * s2)
            expected += factor * number * np.sin(x) / x * rise
    np.testing.assert_allclose(added, expected / ensemble.atoms[0].sum(), atol=1e-9 * one_shell.max())


def test_what_texture_multiplies_is_never_negative_and_the_rest_has_no_reflections(dots: CountedDots) -> None:
    values = VALUES | {correlation_name(0): 0.0, correlation_name(1): 0.0}
    whole = model(dots)(values).value[0]
    bragg, rest = model(dots, split=True)(values).value
    np.testing.assert_allclose(bragg + rest, whole, rtol=1e-12)
    assert bragg.min() > -1e-6 * bragg.max()
    assert np.abs(np.diff(rest, n=2)).max() < 1e-5 * rest.max()


def test_bins_are_means_of_the_pattern(dots: CountedDots) -> None:
    """Against eleven points in each bin; form factors change within a bin too, so not to rounding."""
    mean = model(dots, bin_width=0.01)(VALUES, slopes=False).value[0]
    fine = 1.2 + (np.arange(len(Q) * 11) - 5) * 0.01 / 11
    nodes, _ = shells(PBS, 3)
    dense = DotModel(dots, fine, energy_kev=ENERGY, nodes=nodes, bin_width=0.0)(VALUES, slopes=False).value[0]
    np.testing.assert_allclose(mean, dense.reshape(-1, 11).mean(axis=1), rtol=3e-4)


def test_straight_lines_between_measured_points_are_in_the_model(dots: CountedDots) -> None:
    """Points 0.008 1/Å apart, brought onto the grid as measured patterns are; without the factor the error is 0.3 %."""
    nodes, _ = shells(PBS, 3)
    fine = np.arange(140, 1140) * 0.008
    changes = {"energy_kev": ENERGY, "nodes": nodes}
    values = VALUES | {SIZE: np.log(45.0)}
    shown = DotModel(dots, fine, bin_width=0.0, **changes)(values, slopes=False).value[0]
    pattern = Pattern(source="points", q=fine, intensity=shown, sigma=None, energy_kev=ENERGY)
    points = points_of(pattern, fit_settings(SPHERE, q_range=(1.3, 8.5)))
    assert points.sampling == pytest.approx(0.008)
    right = DotModel(dots, points.q, sampling=points.sampling, **changes)(values, slopes=False).value[0]
    np.testing.assert_allclose(right[points.mask], points.y, rtol=1.5e-3)
    without = DotModel(dots, points.q, **changes)(values, slopes=False).value[0]
    worse = np.sqrt(np.mean((without[points.mask] - points.y) ** 2))
    assert np.sqrt(np.mean((right[points.mask] - points.y) ** 2)) < 0.3 * worse


def test_the_instrument_is_that_of_the_simulation(dots: CountedDots) -> None:
    setup = load_instrument("lab_cu")
    energy = setup.radiation.energy_kev
    nodes, _ = shells(PBS, 3)
    q = Q[: int(np.searchsorted(Q, 7.5))]
    changes = {"energy_kev": energy, "nodes": nodes, "bin_width": 0.0}
    ideal = DotModel(dots, q, **changes)(VALUES, slopes=False).value[0]
    wavelength = setup.wavelength
    sigma, gamma = widths(q, wavelength, *setup.resolution.radians())
    expected = broaden(ideal, sigma, gamma, step=0.01, sigma_max=sigma.max(), gamma_max=gamma.max())
    expected = seen(expected, q, setup.radiation.wavelengths, setup.radiation.weights)
    expected *= polarisation(two_theta_of(q, wavelength))
    optics = Optics.of(setup, q, energy_kev=energy)
    found = DotModel(dots, q, optics=optics, **changes)(VALUES | {ZERO: 0.0}, slopes=False).value[0]
    found *= expected.mean() / found.mean()  # only the course of the response counts
    inner = slice(20, -20)
    np.testing.assert_allclose(found[inner], expected[inner], atol=2e-4 * ideal.max())


def test_dots_that_are_not_nested_are_counted_one_by_one() -> None:
    relaxed = Variant.from_config(
        {"material": PBS, "shape": "sphere", "disorder": {"relaxation": 0.1, "decay": 2.0}}
    )
    counted = CountedDots(relaxed, largest=30.0, q_max=10.0)
    q = np.arange(1.5, 9.5, 0.05)
    values = {SIZE: np.log(20.0 * (1 + 0.1**2) ** 3), SIGMA: 0.1, STRAIN: 0.0, ZERO: 0.0}
    values |= {b_name(kind.element): kind.b_iso for kind in PBS.kinds}
    one = DotModel(counted, q, energy_kev=ENERGY, nodes=np.empty(0), bin_width=0.0)
    found = one(values, slopes=False).value[0]
    exact = dot_pattern(relaxed, q=q, diameter_nm=2.0, sigma=0.1, energy_kev=ENERGY)
    # Rows of sizes begin elsewhere: 5e-4 and less (hpc.pairs.size_rows).
    np.testing.assert_allclose(found, exact, atol=2e-3 * exact.max())


def test_a_positive_zero_error_shows_reflections_at_larger_angles(dots: CountedDots) -> None:
    optics = Optics.of(None, Q, energy_kev=ENERGY)
    shown = [model(dots, optics=optics)(VALUES | {ZERO: z}, slopes=False).value[0] for z in (0.0, 1e-3)]
    # dQ/d2θ = (2π/λ) cos θ: 0.011 Å⁻¹ for 1 mrad.
    position = [Q[150 + np.argmax(one[150:220])] for one in shown]
    assert position[1] - position[0] == pytest.approx(0.011, abs=0.0051)


def test_an_instrument_of_another_wavelength_is_refused() -> None:
    setup = load_instrument("lab_cu")
    with pytest.raises(ValueError, match=r"lab_cu has the lines 1\.54.* the pattern 0\.56356 Å"):
        Optics.of(setup, Q, energy_kev=22.0)
    with pytest.raises(ValueError, match="the wavelength is needed beside --q-unit"):
        Optics.of(setup, Q, energy_kev=None)


def test_atoms_beyond_the_largest_particle_are_told(dots: CountedDots) -> None:
    assert dots.ensemble(np.log(30.0), 0.1).beyond < 1e-6
    # Of the atoms, those in particles above the volume median.
    assert dots.ensemble(np.log(60.0) + 0.5 * np.log1p(0.04), 0.2).beyond == pytest.approx(0.5, abs=1e-6)
