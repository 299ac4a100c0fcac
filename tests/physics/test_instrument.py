"""What an instrument does to a pattern, against direct integrals, moments, limits and published tables."""

import math

import numpy as np
import pytest
import torch
import xraylib

from hpc.dots import dot_sums
from hpc.instrument.angles import (
    capillary_shift,
    check_reach,
    displacement_shift,
    q_of,
    two_theta_of,
    zero_shift,
)
from hpc.instrument.capillary import capillary_absorption
from hpc.instrument.geometry import (
    constant_length,
    in_plane_behind_monochromator,
    in_plane_of_synchrotron,
    polarisation,
    ring_pixels,
    solid_angle_flat,
    thin_film,
)
from hpc.instrument.lines import interpolate, seen
from hpc.instrument.resolution import broaden, fwhm, pseudo_voigt, widths
from hpc.instrument.setup import instrument_names, load_instrument
from hpc.structure.material import load_material
from hpc.structure.variant import Variant, load_group

FWHM = math.sqrt(8 * math.log(2))


def pbs_sphere(diameter_nm, q, *, b_iso=None):
    material = load_material("pbs")
    if b_iso is not None:
        material = material.with_b_iso(b_iso)
    variant = Variant.from_config({"material": material, "shape": load_group("shape", "sphere")})
    return dot_sums(variant, q=q, diameter_nm=diameter_nm, sigma=0.08)


def sphere_lines(diameter, q):
    """Reflections of PbS balls of a diameter [Å]: Σ m/Q² p(Q - Q_hkl) on a constant, p from the overlap of two balls.

    Exact at any Q, with every distance up to the diameter.
    """
    node, weight = np.polynomial.legendre.leggauss(1200)
    r, dr = diameter * (node + 1) / 2, diameter * weight / 2
    overlap = dr * (1 - 1.5 * r / diameter + 0.5 * (r / diameter) ** 3) / math.pi
    index = np.array([3, 4, 8, 11, 12, 16, 19, 20, 24, 27, 32, 35, 36, 40, 43, 44, 48, 51, 52, 56])
    at = 2 * math.pi * np.sqrt(index) / 5.936
    strength = 40 * np.where(index % 2 == 1, 0.5, 1.0) / at**2
    waves = np.exp(1j * at[:, None] * r) * overlap
    phase = np.exp(1j * np.outer(q, r))
    return 50 + (phase.conj() @ (strength @ waves)).real * 10


@pytest.fixture(scope="module")
def fine():
    """Patterns of 4, 10 and 20 nm on a fine grid: Q, and intensity per diameter."""
    q = np.arange(0.6, 8.0, 0.001)
    return q, {d: sphere_lines(10 * d, q) for d in (4, 10, 20)}


def voigt(x, gaussian, lorentzian):
    """Voigt function of unit area: full widths of its parts."""
    from scipy.special import voigt_profile

    return voigt_profile(x, gaussian / FWHM, lorentzian / 2)


@pytest.mark.parametrize(
    ("name", "step", "diameter"),
    [
        ("lab_cu", 0.01, 4),
        ("lab_cu", 0.01, 10),
        ("lab_cu", 0.005, 20),
        ("synchrotron_strip", 0.005, 20),
        ("synchrotron_area", 0.005, 20),
    ],
)
def test_resolution_against_an_integral_over_the_angle(fine, name, step, diameter):
    """Real instruments, dots up to 20 nm: within 1e-4 of the peak of ∫ I(2θ') Voigt(2θ - 2θ') d2θ'."""
    instrument = load_instrument(name)
    wavelength, parameters = instrument.wavelength, instrument.resolution.radians()
    q_fine, patterns = fine
    y_fine = patterns[diameter]
    every = round(step / 0.001)
    q, y = q_fine[::every], y_fine[::every]
    sigma, gamma = widths(q, wavelength, *parameters)
    found = broaden(y, sigma, gamma, step=step, sigma_max=sigma.max(), gamma_max=gamma.max())

    angle = two_theta_of(q_fine, wavelength)
    weight = np.gradient(angle)
    at = np.flatnonzero((q > 1.5) & (q < min(7.0, instrument.q_window()[1])))[::37]
    for i in at:
        here = two_theta_of(q[i], wavelength)
        gaussian, lorentzian = fwhm(here, *parameters)
        kernel = voigt(angle - here, gaussian, lorentzian) * weight
        # A Lorentzian reaches beyond the grid: what lies there is taken as the mean of what is seen of it.
        expected = (kernel @ y_fine) / kernel.sum()
        assert found[i] == pytest.approx(expected, abs=1e-4 * y.max() + (2e-4 * y.max() if lorentzian else 0))


def test_moments_of_a_line():
    """Area conserved, first moment kept, second moments add (Gaussian)."""
    step = 0.01
    q = 1 + step * np.arange(1200)
    line = np.exp(-0.5 * ((q - 7) / 0.05) ** 2)
    sigma = np.linspace(0, 0.04, 9)[:, None]
    seen_ = broaden(np.broadcast_to(line, (9, q.size)), sigma, None, step=step, sigma_max=0.04)
    area = seen_.sum(axis=1)
    np.testing.assert_allclose(area, line.sum(), rtol=1e-12)
    mean = (seen_ * q).sum(axis=1) / area
    np.testing.assert_allclose(mean, 7, atol=1e-12)
    variance = (seen_ * (q - 7) ** 2).sum(axis=1) / area
    np.testing.assert_allclose(variance, 0.05**2 + sigma[:, 0] ** 2, rtol=5e-4)


def test_width_of_voigt_functions():
    """A single point becomes a Voigt function with the stated widths."""
    step = 0.002
    q = 1 + step * np.arange(4001)
    point = np.zeros(4001)
    point[2000] = 1 / step
    gaussian, lorentzian = 0.03, 0.02
    found = broaden(
        point, gaussian / FWHM, lorentzian / 2, step=step, sigma_max=gaussian / FWHM, gamma_max=lorentzian / 2
    )
    middle = slice(1700, 2301)
    expected = voigt(q[middle] - q[2000], gaussian, lorentzian)
    # Sharper than any pattern: the error is that of the factors themselves, 2e-4 of every Fourier component.
    np.testing.assert_allclose(found[middle], expected, atol=2e-2 * expected.max())
    full, _ = pseudo_voigt(gaussian, lorentzian)
    half = np.interp(full / 2, q[2000:2300] - q[2000], found[2000:2300])
    assert half == pytest.approx(found[2000] / 2, rel=0.02)


def test_no_width_is_the_identity():
    y = np.random.default_rng(0).random((3, 400))
    assert broaden(y, 0.0, None, step=0.01, sigma_max=0.0) is y
    wide = np.array([[0.0], [0.01], [0.0]])
    found = broaden(y, wide, 0 * wide, step=0.01, sigma_max=0.02, gamma_max=0.01)
    np.testing.assert_allclose(found[[0, 2]], y[[0, 2]], rtol=1e-12)
    assert np.abs(found[1] - y[1]).max() > 0.1


def test_constants_and_slopes_pass_through():
    q = np.arange(1, 8, 0.01)
    sigma, gamma = np.full(q.size, 0.02), np.full(q.size, 0.003)
    constant = broaden(np.ones_like(q), sigma, gamma, step=0.01, sigma_max=0.02, gamma_max=0.003)
    np.testing.assert_allclose(constant, 1, rtol=1e-12)
    slope = broaden(q, sigma, None, step=0.01, sigma_max=0.02)
    np.testing.assert_allclose(slope, q, rtol=1e-6)  # ends included


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_equals_numpy_and_has_its_derivatives(dtype):
    instrument = load_instrument("lab_cu")
    q = np.arange(1, 7, 0.015)
    y = (
        1
        + np.exp(-0.5 * ((q - 2) / 0.05) ** 2)
        + np.random.default_rng(1).random((4, 1)) * np.sin(20 * q) ** 2
    )
    factor = np.array([[0.8], [1.0], [1.3], [1.6]])
    zero = np.radians(np.array([[-0.3], [0.0], [0.05], [0.3]]))

    def chain(q, y, factor, zero):
        sigma, gamma = widths(q, instrument.wavelength, *instrument.resolution.radians())
        shift = zero_shift(q, instrument.wavelength, zero) + displacement_shift(
            q, instrument.wavelength, zero, 24.0
        )
        y = seen(y, q, instrument.radiation.wavelengths, instrument.radiation.weights, shift)
        return broaden(y, sigma * factor, gamma * factor, step=0.015, sigma_max=0.005, gamma_max=0.002)

    expected = chain(q, y, factor, zero)
    tensors = [torch.as_tensor(array, dtype=dtype) for array in (q, y, factor, zero)]
    for tensor in tensors[1:]:
        tensor.requires_grad_()
    found = chain(*tensors)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found.detach().numpy(), expected, rtol=2e-5 if dtype == torch.float32 else 1e-11
    )
    if dtype == torch.float64:
        part = tensors[0][:80]
        leaves = [tensor[:2].detach().requires_grad_() for tensor in (tensors[1][:, :80], *tensors[2:])]
        assert torch.autograd.gradcheck(lambda *arguments: chain(part, *arguments)[:, 25:55:6], leaves)


def test_interpolation_of_patterns(fine):
    """2e-7 of the peak at 4 nm, 2e-6 at 10 nm and 1e-5 at 20 nm, with 10, 4 and 3 points for the shortest waves."""
    _, patterns = fine
    for diameter, every, error in ((4, 15, 4e-7), (10, 15, 5e-6), (20, 10, 2e-5), (20, 15, 2e-4)):
        y = patterns[diameter]
        coarse = y[::every]
        at = np.arange(300, 6800) / every
        found = interpolate(coarse, at)
        assert np.abs(found - y[300:6800]).max() < error * y.max()


def test_grid_points_and_ends_are_kept():
    y = np.random.default_rng(2).random((2, 50))
    np.testing.assert_allclose(interpolate(y, np.arange(50.0)), y, rtol=1e-11)
    np.testing.assert_allclose(interpolate(y, np.array([-3.0, 60.0])), y[:, [0, -1]], rtol=1e-11)
    each = interpolate(y, np.array([[3.5], [7.25]]))
    np.testing.assert_allclose(each[0], interpolate(y[0], np.array([3.5])), rtol=1e-11)
    np.testing.assert_allclose(each[1], interpolate(y[1], np.array([7.25])), rtol=1e-11)
    np.testing.assert_allclose(
        interpolate(y[0], np.array([[3.5], [7.25]]))[:, 0], interpolate(y[0], np.array([3.5, 7.25]))
    )


def test_doublet_puts_each_line_at_its_angle():
    """A narrow peak at Q_0 is seen at the angles where 4π sin θ / λ_l = Q_0, with the weights of the lines."""
    wavelengths, weights = (1.5405929, 1.5444274), (2 / 3, 1 / 3)
    q = np.arange(4, 6, 0.001)
    y = np.exp(-0.5 * ((q - 5) / 0.003) ** 2)  # the lines are 4 σ apart
    found = seen(y, q, wavelengths, weights)
    at = [5 * wavelengths[1] / wavelength for wavelength in (wavelengths[1], wavelengths[0])]
    second = 5 * wavelengths[1] / wavelengths[0]
    assert at[0] == 5
    at_lines = interpolate(found, (np.array([5, second]) - 4) / 0.001)
    np.testing.assert_allclose(at_lines, weights, atol=5e-4)
    assert found.sum() * 0.001 == pytest.approx(
        sum(w * length / wavelengths[0] for w, length in zip(weights, wavelengths, strict=True))
        * y.sum()
        * 0.001,
        rel=1e-6,
    )


def test_misalignment_moves_lines_by_the_stated_angle():
    wavelength, true = 1.5406, np.radians(50.0)
    q = np.arange(2.5, 4.5, 0.0005)
    y = np.exp(-0.5 * ((q - q_of(true, wavelength)) / 0.005) ** 2)

    def shown(shift):
        return two_theta_of(np.array(q[np.argmax(seen(y, q, (wavelength,), (1.0,), shift))]), wavelength)

    zero = np.radians(0.3)
    assert shown(zero_shift(q, wavelength, zero)) - true == pytest.approx(zero, abs=2e-4)
    assert shown(zero_shift(q, wavelength, -zero)) - true == pytest.approx(-zero, abs=2e-4)
    moved = -2 * 0.5 * math.cos(true / 2) / 240  # below the plane: to lower angles
    assert shown(displacement_shift(q, wavelength, 0.5, 240.0)) - true == pytest.approx(moved, abs=2e-4)
    # By construction: sample at (x, y), detector on the circle of radius R, ray under the true angle.
    x, across, radius = 1.0, 0.7, 240.0
    direction = np.array([math.cos(true), math.sin(true)])
    start = np.array([x, across])
    along = -start @ direction + math.sqrt((start @ direction) ** 2 + radius**2 - start @ start)
    hit = start + along * direction
    expected = math.atan2(hit[1], hit[0]) - true
    assert shown(capillary_shift(q, wavelength, x, across, radius)) - true == pytest.approx(
        expected, abs=2e-4
    )
    assert np.sign(expected) == np.sign(-x * math.sin(true) + across * math.cos(true))


def test_zero_shift_is_exact():
    q = np.linspace(0.5, 8, 50)
    for zero in (0.2, -0.01, 1e-9):
        expected = q_of(two_theta_of(q, 1.5) - zero, 1.5) - q
        np.testing.assert_allclose(zero_shift(q, 1.5, zero), expected, rtol=1e-6, atol=1e-12)


def test_beyond_the_longest_q_nothing_is_undefined():
    """Grids of a training set are longer than what a copper tube sees; the mask hides that, but it must be numbers."""
    q = torch.linspace(0.5, 20, 100, dtype=torch.float64)
    wavelength = torch.tensor([[1.54]], dtype=torch.float64, requires_grad=True)
    sigma, gamma = widths(q, wavelength, 1e-6, -1e-6, 1e-6, 1e-4, 1e-4)
    shift = displacement_shift(q, wavelength, 0.1, 240.0)
    (sigma.sum() + gamma.sum() + shift.sum()).backward()
    assert all(torch.isfinite(value).all() for value in (sigma, gamma, shift, wavelength.grad))
    assert two_theta_of(np.array([30.0]), 1.54)[0] == pytest.approx(math.pi)
    with pytest.raises(ValueError, match=r"Q must be <= 4π/λ = 8.16 .* take a shorter wavelength"):
        check_reach(9.0, 1.54)
    with pytest.raises(ValueError, match="wavelength must be > 0"):
        check_reach(9.0, -1.0)


def test_a_debye_sum_holds_the_lorentz_factor():
    """Rings over 2θ integrate to m |F|² / (sin²θ cos θ): nothing has to be multiplied by it."""
    q = np.arange(1.2, 9.3, 0.002)
    sums = pbs_sphere(12, q, b_iso=0.0)
    intensity = sums.iq(anomalous=False, compton=False, per_atom=True)
    from hpc.form_factors import scattering_factor

    wavelength = 0.5
    angle = two_theta_of(q, wavelength)
    strong = {(2, 0, 0): 6, (2, 2, 0): 12, (4, 0, 0): 6, (4, 2, 2): 24}
    ratios = []
    for (h, k, l), multiplicity in strong.items():
        at = 2 * math.pi * math.sqrt(h * h + k * k + l * l) / 5.936
        window = np.abs(q - at) < 0.16
        # A straight line between the ends takes away the tails of other reflections.
        base = np.interp(q[window], q[window][[0, -1]], intensity[window][[0, -1]])
        area = np.trapezoid(intensity[window] - base, angle[window])
        f = sum(scattering_factor(e, np.array([at]), anomalous=False)[0].real for e in ("Pb", "S"))
        theta = two_theta_of(np.array(at), wavelength) / 2
        ratios.append(area / (multiplicity * f**2 / (math.sin(theta) ** 2 * math.cos(theta))))
    # (2π)³ / (4π V) cells per atom, over 2θ instead of Q.
    n_per_cell, volume = 8, 5.936**3
    q_integral = (2 * math.pi) ** 3 / (4 * math.pi * volume) * 16 / n_per_cell
    constant = q_integral * (wavelength / (4 * math.pi)) ** 2 * (wavelength / (2 * math.pi))
    # What window and base leave of a line, whose profile is the transform of the overlap of two balls.
    r = np.linspace(0, 120, 4001)
    overlap = 1 - 1.5 * r / 120 + 0.5 * (r / 120) ** 3
    wave = 0.16 * np.sinc(0.16 * r / math.pi) - 0.16 * np.cos(0.16 * r)
    left = 2 / math.pi * np.trapezoid(overlap * wave, r)
    np.testing.assert_allclose(np.array(ratios) / constant, left, rtol=0.03)


def test_polarisation():
    two_theta = np.radians([0.0, 30.0, 90.0, 150.0])
    cosine2 = np.cos(two_theta) ** 2
    np.testing.assert_allclose(polarisation(two_theta), (1 + cosine2) / 2)
    vertical = in_plane_of_synchrotron(1.0, math.pi / 2)
    np.testing.assert_allclose(polarisation(two_theta, vertical), 1, atol=1e-15)
    np.testing.assert_allclose(
        polarisation(two_theta, in_plane_of_synchrotron(1.0, 0.0)), cosine2, atol=1e-15
    )
    azimuth = np.linspace(0, 2 * math.pi, 361)[:-1]
    ring = np.mean([polarisation(two_theta, in_plane_of_synchrotron(0.9, a)) for a in azimuth], axis=0)
    np.testing.assert_allclose(ring, (1 + cosine2) / 2, rtol=1e-12)
    k = math.cos(math.radians(26.6)) ** 2  # graphite, Cu Kα
    np.testing.assert_allclose(
        polarisation(two_theta, in_plane_behind_monochromator(math.radians(26.6))),
        (1 + k * cosine2) / (1 + k),
    )
    with pytest.raises(ValueError, match="degree of polarisation"):
        in_plane_of_synchrotron(1.1, 0.0)


def test_flat_detector_counts_the_solid_angle_of_rings():
    edges = np.radians(np.linspace(1, 45, 2001))
    middle = (edges[1:] + edges[:-1]) / 2
    radius = np.tan(edges)
    pixels = np.diff(radius**2)
    np.testing.assert_allclose(
        pixels / pixels[500], ring_pixels(middle) / ring_pixels(middle)[500], rtol=1e-5
    )
    exact = -np.diff(np.cos(edges))
    product = ring_pixels(middle) * solid_angle_flat(middle)
    np.testing.assert_allclose(product / product[500], exact / exact[500], rtol=1e-5)
    assert ring_pixels(np.array([2.0]))[0] == 0
    assert solid_angle_flat(np.array([2.0]))[0] == 0


def test_flat_samples_against_integrals_over_depth():
    two_theta = np.radians(np.array([10.0, 40.0, 80.0]))
    theta = two_theta / 2
    t = np.linspace(0, 1, 20001)[:, None]
    for mu_t in (1e-3, 0.5, 3.0):
        film = np.trapezoid(np.exp(-2 * mu_t * t / np.sin(theta)), t, axis=0) / np.sin(theta) * 2 * mu_t
        np.testing.assert_allclose(thin_film(two_theta, mu_t), film, rtol=1e-5)
    np.testing.assert_allclose(thin_film(two_theta, 50.0), 1)  # thick
    np.testing.assert_allclose(thin_film(two_theta, 1e-6) * constant_length(two_theta), 2e-6, rtol=1e-4)


def test_capillary_against_published_values():
    """1/A of C. W. Dwiggins, Acta Cryst. A31, 146 (1975), by the polynomials of a TOPAZ (SNS) script, to their 2e-3."""
    polynomials = {
        0: (1.6516, 1.6251, 0.2971, 0.5155),
        30: (1.7628, 0.9709, 1.0092, -0.1983),
        45: (1.6114, 1.4430, 0.1151, -0.0620),
        90: (1.6851, 0.9814, -0.3190, 0.0403),
    }
    for theta, c in polynomials.items():
        for mu_r in (0.3, 0.6, 1.0):
            expected = 1 + sum(a * mu_r ** (i + 1) for i, a in enumerate(c))
            found = 1 / capillary_absorption(np.radians([2.0 * theta]), mu_r)[0]
            assert found == pytest.approx(expected, rel=5e-3)


def test_capillary_limits():
    y = np.linspace(-1, 1, 200001)
    chord = np.sqrt(1 - y * y)
    for mu_r in (0.1, 1.0, 3.0):  # forward: every ray has one chord
        exact = np.trapezoid(2 * chord * np.exp(-2 * mu_r * chord), y) / math.pi
        assert capillary_absorption(np.zeros(1), mu_r)[0] == pytest.approx(exact, rel=1e-4)
    angle = np.linspace(0, math.pi, 60)
    assert np.all(capillary_absorption(angle, 0.0) == 1)
    # The mean path is 16R/3π for every angle.
    np.testing.assert_allclose(
        -np.log(capillary_absorption(angle, 1e-3)) / 1e-3, 16 / (3 * math.pi), rtol=2e-3
    )
    many = capillary_absorption(torch.tensor(angle), torch.tensor([[0.1], [0.5], [2.0]], dtype=torch.float64))
    assert many.shape == (3, 60)
    assert torch.all(many.diff(dim=1)[1:] > 0)  # back-scattered rays have shorter paths


@pytest.mark.parametrize("name", ["lab_cu", "lab_mo", "lab_ag"])
def test_natural_width_of_laboratory_lines(name):
    """Lorentzian part of the resolution: the width of Kα1 from the widths of its levels."""
    instrument = load_instrument(name)
    z = {"lab_cu": 29, "lab_mo": 42, "lab_ag": 47}[name]
    width = xraylib.AtomicLevelWidth(z, xraylib.K_SHELL) + xraylib.AtomicLevelWidth(z, xraylib.L3_SHELL)
    expected = math.degrees(2 * width / instrument.radiation.energy_kev)
    assert instrument.resolution.x == pytest.approx(expected, abs=6e-4)


def test_width_of_a_flat_panel_falls_as_stated():
    """Capillary of 0.8 mm and pixel of 0.172 mm seen from 0.3 m; cos 2θ."""
    instrument = load_instrument("synchrotron_area")
    two_theta = np.radians(np.linspace(1, 39, 50))
    gaussian, _ = fwhm(two_theta, *instrument.resolution.radians())
    size = FWHM * math.hypot(0.2, 0.172 / math.sqrt(12))
    np.testing.assert_allclose(gaussian, size / 300 * np.cos(two_theta), rtol=0.02)


def test_names_are_those_of_the_files():
    assert {"lab_ag", "lab_cu", "lab_mo", "synchrotron_area", "synchrotron_strip"} <= set(instrument_names())
    assert all(load_instrument(name).name == name for name in instrument_names())
