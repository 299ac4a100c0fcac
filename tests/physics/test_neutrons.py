"""Neutrons: scattering lengths against published tables, and the limits that patterns of nuclei must have."""

import numpy as np
import pytest

from hpc.debye import fq, gr, iq, pair_sums, sq
from hpc.dots import dot_pattern
from hpc.neutrons import incoherent_self, neutron_energy, scattering_length
from hpc.structure.material import Kind, load_material

Q = np.linspace(0.0, 25.0, 501)

# V. F. Sears, Neutron News 3 (3), 26 (1992): b_coh [fm] and σ_inc [barn] of the natural elements (and of D).
SEARS = {
    "H": (-3.7390, 80.26),
    "D": (6.671, 2.05),
    "C": (6.6460, 0.001),
    "N": (9.36, 0.50),
    "O": (5.803, 0.0008),
    "S": (2.847, 0.007),
    "Ti": (-3.438, 2.87),
    "Zn": (5.680, 0.077),
    "Se": (7.970, 0.32),
    "Br": (6.795, 0.10),
    "Te": (5.80, 0.09),
    "Cs": (5.42, 0.21),
    "Au": (7.63, 0.43),
    "Pb": (9.405, 0.0030),
}


@pytest.mark.parametrize("element", SEARS)
def test_scattering_lengths_of_the_tables(element):
    """The values used are newer (2003 and later); they moved most for Au (7.63 to 7.90 fm) and Te (5.80 to 5.68)."""
    b, incoherent = SEARS[element]
    assert scattering_length(element).real == pytest.approx(b, rel=0.04)
    assert scattering_length(element).imag <= 0
    assert 4 * np.pi / 100 * incoherent_self(element) == pytest.approx(incoherent, rel=0.03, abs=2e-3)


def test_lead_and_sulfur_to_all_digits():
    assert scattering_length("Pb").real == pytest.approx(9.4024, abs=2e-3)
    assert scattering_length("S").real == pytest.approx(2.847, abs=1e-3)


def test_energy_of_thermal_neutrons():
    assert neutron_energy(1.798) == pytest.approx(0.0253, rel=1e-3)
    assert neutron_energy(1.0) == pytest.approx(0.0818042, rel=1e-5)  # 81.8042 meV Å²


def test_cadmium_follows_its_resonance():
    """Thermal value of the table; the optical theorem gives the absorption; the resonance is at 0.68 Å."""
    thermal = scattering_length("Cd", wavelength=1.798)
    assert thermal == pytest.approx(4.83 - 0.70j, abs=0.02)  # Sears: 4.87(5) - 0.70(1) i
    assert 1e3 * 2 * 1.798 * abs(thermal.imag) == pytest.approx(2520, rel=0.02)  # σ_a = 2 λ |b''| [barn]
    wavelengths = np.linspace(0.5, 1.2, 701)
    b = np.array([scattering_length("Cd", wavelength=w) for w in wavelengths])
    absorbed = 1e3 * 2 * wavelengths * np.abs(b.imag)
    peak = wavelengths[np.argmax(np.abs(b.imag))]
    assert neutron_energy(peak) == pytest.approx(0.178, abs=0.003)
    assert absorbed.max() == pytest.approx(7.7e3, rel=0.03)  # natural cadmium at 0.178 eV
    # Far below the resonance the length is constant; far above, the resonance pulls the other way.
    cold = scattering_length("Cd", wavelength=8.0)
    assert cold == pytest.approx(scattering_length("Cd", wavelength=12.0), abs=0.02)
    assert scattering_length("Cd", wavelength=0.5).real > cold.real + 2


@pytest.mark.parametrize(
    ("element", "wavelength", "message"),
    [
        ("Xx", 1.8, "chemical symbol, got 'Xx'"),
        ("pb", 1.8, "chemical symbol, got 'pb'"),
        ("Po", 1.8, "no neutron scattering length of Po"),
        ("Cd", None, "scattering length of Cd depends on the wavelength.*give one in Å"),
        ("Gd", None, "scattering length of Gd depends on the wavelength"),
        ("Yb", None, "scattering length of Yb depends on the wavelength"),
        ("Cd", 0.1, r"wavelength must be >= 0\.2 Å for Cd, got 0\.1"),
        ("Sm", 0.3, r"wavelength must lie in 0\.404 to 2\.86 Å, the table of Sm; got 0\.3"),
        ("Gd", 9.0, r"wavelength must lie in .* to 6\.4 Å, the table of Gd"),
        ("Pb", -1.0, "wavelength must be > 0 Å, got -1"),
        ("Pb", float("inf"), "wavelength must be > 0 Å, got inf"),
    ],
)
def test_what_is_not_known_is_refused(element, wavelength, message):
    with pytest.raises(ValueError, match=message):
        scattering_length(element, wavelength=wavelength)


def test_neutrons_have_no_photon_energy():
    with pytest.raises(ValueError, match="energy_kev is that of photons"):
        iq(DIMER, ["Pb", "S"], Q, particle="neutron", energy_kev=22.0)
    with pytest.raises(ValueError, match="particle must be 'xray' or 'neutron', got 'electron'"):
        iq(DIMER, ["Pb", "S"], Q, particle="electron")


DIMER = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])  # 3 Å apart


def sinc(x):
    return np.sinc(x / np.pi)


def test_a_dimer_by_hand():
    """b₁² + b₂² + 2 b₁ b₂ sinc(3Q): no form factor falls off."""
    lead, sulfur = 9.4024, 2.847
    found = iq(DIMER, ["Pb", "S"], Q, particle="neutron")
    np.testing.assert_allclose(found, lead**2 + sulfur**2 + 2 * lead * sulfur * sinc(3 * Q), rtol=2e-6)
    damped = iq(DIMER, ["Pb", "S"], Q, particle="neutron", b_iso={"Pb": 1.3, "S": 1.2})
    thermal = np.exp(-2.5 * (Q / (4 * np.pi)) ** 2)
    expected = lead**2 + sulfur**2 + 2 * lead * sulfur * sinc(3 * Q) * thermal
    np.testing.assert_allclose(damped, expected, rtol=2e-6)


def test_complex_lengths_interfere_by_their_real_product():
    b = [scattering_length(element, wavelength=0.7) for element in ("Cd", "Se")]
    found = iq(DIMER, ["Cd", "Se"], Q, particle="neutron", wavelength=0.7)
    expected = abs(b[0]) ** 2 + abs(b[1]) ** 2 + 2 * (b[0] * b[1].conjugate()).real * sinc(3 * Q)
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    assert abs(b[0].imag) > 4  # near the resonance, where the wrong product would show


def test_forward_scattering_is_the_square_of_all_lengths():
    rng = np.random.default_rng(3)
    elements = np.repeat(["Pb", "S", "C", "H"], [20, 25, 30, 60])
    position = 2.5 * rng.permutation(np.stack(np.meshgrid(*3 * [np.arange(6)]), -1).reshape(-1, 3))[:135]
    total = sum(scattering_length(element) for element in elements)
    found = iq(position.astype(float), elements, np.zeros(1), particle="neutron")
    assert found[0] == pytest.approx(abs(total) ** 2, rel=1e-6)


def test_incoherent_scattering_is_flat_and_comes_on_top():
    elements = ["C", "H", "H"]
    position = np.array([[0.0, 0, 0], [1.1, 0, 0], [0, 1.1, 0]])
    without = iq(position, elements, Q, particle="neutron")
    extra = iq(position, elements, Q, particle="neutron", compton=True) - without
    np.testing.assert_allclose(extra, (0.001 + 2 * 80.26) * 100 / (4 * np.pi), rtol=1e-3)


def test_heavy_and_light_hydrogen_at_one_site_cancel():
    """0.641 H + 0.359 D have no mean length: no interference, only b² of each nucleus, whatever the structure.

    That part is Laue's monotonic scattering: x₁x₂ (b₁ - b₂)² where the mean is zero.
    """
    light, heavy = (scattering_length(element).real for element in ("H", "D"))
    share = heavy / (heavy - light)  # x b_H + (1 - x) b_D = 0
    assert share == pytest.approx(0.641, abs=0.001)
    corners = 2.5 * np.stack(np.meshgrid(*3 * [np.arange(3.0)]), -1).reshape(-1, 3)
    position = np.concatenate((corners, corners))
    elements = np.repeat(["H", "D"], len(corners))
    occupancy = np.repeat([share, 1 - share], len(corners))
    found = iq(position, elements, Q, particle="neutron", occupancy=occupancy)
    laue = len(corners) * share * (1 - share) * (light - heavy) ** 2
    np.testing.assert_allclose(found, laue, rtol=1e-6)
    # X-rays see no difference between the two.
    x_rays = iq(position, elements, Q, energy_kev=22.0, occupancy=occupancy)
    np.testing.assert_allclose(x_rays, iq(corners, np.repeat("H", 27), Q, energy_kev=22.0), rtol=1e-6)


@pytest.fixture(scope="module")
def dot():
    """Atoms of a small PbS cube."""
    steps = np.stack(np.meshgrid(*3 * [np.arange(6)]), -1).reshape(-1, 3)
    return 2.968 * steps, np.where(steps.sum(-1) % 2, "S", "Pb")


def test_structure_factor_tends_to_one_and_to_the_number_of_atoms(dot):
    position, elements = dot
    q = np.linspace(0.0, 30.0, 3001)
    s = sq(position, elements, q, particle="neutron", b_iso=1.0)
    assert np.abs(s[q > 29] - 1).max() < 1e-3
    assert s[0] - 1 == pytest.approx(215 - _forward_defect(), rel=1e-6)
    np.testing.assert_allclose(
        fq(position, elements, q, particle="neutron", b_iso=1.0), q * (s - 1), atol=1e-12
    )


def _forward_defect():
    """N² <b>² less the self pairs is Σ_{i≠j} b_i b_j; per N <b>² it misses N - 1 by <b²>/<b>² - 1."""
    b = np.array([9.4024, 2.847])
    return (b**2).mean() / b.mean() ** 2 - 1


def test_s_of_neutrons_weighs_the_same_partials_differently(dot):
    position, elements = dot
    sums = pair_sums(position, elements, np.linspace(0.5, 12, 200), b_iso=1.0)
    partials = sums.partials()
    b = {"Pb": 9.4024, "S": 2.847}
    mean = (b["Pb"] + b["S"]) / 2
    expected = sum(
        (1 if e == f else 2) * 0.25 * b[e] * b[f] / mean**2 * (a - 1) for (e, f), a in partials.items()
    )
    np.testing.assert_allclose(sums.sq(particle="neutron") - 1, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(sums.sq(particle="neutron") - sums.sq(energy_kev=22.0)).max() > 0.5


def test_g_of_r_counts_neighbours_by_scattering_length(dot):
    """The area of the first peak of r G: Pb-S bonds per atom, 5 in a cube of 6³ atoms, times b_Pb b_S / <b>²."""
    position, elements = dot
    r = np.linspace(2.5, 3.4, 181)
    g = gr(position, elements, r, np.linspace(0.0, 40.0, 4001), particle="neutron", b_iso=1.0)
    area = np.trapezoid(r * g, r)
    bonds = 2 * 3 * 6 * 6 * 5 / 216
    assert area == pytest.approx(bonds * 9.4024 * 2.847 / 6.1247**2, rel=0.02)


def test_ensembles_of_dots():
    q = np.linspace(0.5, 15, 300)
    pbs = load_material("pbs")
    found = dot_pattern(pbs, q=q, diameter_nm=2.5, sigma=0.1, particle="neutron", b_scale=2.0)
    high = dot_pattern(pbs, q=np.array([60.0]), diameter_nm=2.5, sigma=0.1, particle="neutron", b_scale=2.0)
    b2 = np.array([9.4024, 2.847]) ** 2
    assert high[0] == pytest.approx(b2.mean(), rel=0.02)  # per atom, the composition being close to 1 : 1
    assert found.max() > 2 * b2.mean()
    with pytest.raises(ValueError, match="scattering length of Cd depends on the wavelength"):
        dot_pattern(_cadmium(pbs), q=q, diameter_nm=2.5, particle="neutron")
    assert dot_pattern(_cadmium(pbs), q=q, diameter_nm=2.5, particle="neutron", wavelength=1.5).min() > 0


def _cadmium(material):
    from dataclasses import replace

    kinds = tuple(
        Kind(label=k.label, element={"Pb": "Cd"}.get(k.element, k.element), occupancy=1.0, b_iso=k.b_iso)
        for k in material.kinds
    )
    return replace(material, kinds=kinds)
