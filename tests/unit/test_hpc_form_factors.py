"""Scattering factors against the tables they come from."""

import numpy as np
import pytest
import xraydb
import xraylib

from hpc.form_factors import (
    check_element,
    check_energy,
    compton,
    dispersion,
    energy_of_wavelength,
    recoil,
    scattering_factor,
)

Q = np.array([0.0, 0.5, 3.0, 12.0, 30.0])


def test_wavelength_and_energy():
    assert energy_of_wavelength(1.540593) == pytest.approx(8.04782, abs=1e-4)  # Cu Kα1
    assert energy_of_wavelength(0.56) == pytest.approx(22.14003543, abs=1e-8)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="wavelength must be > 0"):
            energy_of_wavelength(wrong)


@pytest.mark.parametrize(("element", "z"), [("Pb", 82), ("S", 16), ("Se", 34)])
def test_forward_scattering_is_the_number_of_electrons(element, z):
    f = scattering_factor(element, np.zeros(1), anomalous=False)
    assert f.dtype == np.complex128
    assert f[0].imag == 0
    assert f[0].real == pytest.approx(z, rel=2e-3)  # the fit of Waasmaier and Kirfel, not the exact number


@pytest.mark.parametrize("element", ["Pb", "S"])
@pytest.mark.parametrize("energy", [8.048, 22.0])
def test_anomalous_scattering_by_energy(element, energy):
    without = scattering_factor(element, Q, anomalous=False)
    with_ = scattering_factor(element, Q, energy_kev=energy)
    np.testing.assert_allclose(
        without, [float(xraydb.f0(element, q / (4 * np.pi))[0]) for q in Q], rtol=1e-14
    )
    expected = xraydb.f1_chantler(element, 1000 * energy) + 1j * xraydb.f2_chantler(element, 1000 * energy)
    np.testing.assert_allclose(with_ - without, expected, rtol=1e-12)


def test_lead_has_another_f1_at_each_anode():
    """The numbers everyone knows: -4.3 at Cu Kα, -1.4 at 22.2 keV."""
    f1 = [
        float(
            (
                scattering_factor("Pb", np.zeros(1), energy_kev=e)
                - scattering_factor("Pb", np.zeros(1), anomalous=False)
            ).real[0]
        )
        for e in (8.048, 22.2)
    ]
    assert f1 == pytest.approx([-4.3, -1.4], abs=0.2)


def test_the_energy_is_never_guessed():
    with pytest.raises(ValueError, match=r"energy is missing.*no default.*give energy_kev"):
        scattering_factor("Pb", Q)
    for wrong in (0.0, -8.0, float("nan")):
        with pytest.raises(ValueError, match="energy_kev must be > 0"):
            check_energy(wrong)
    with pytest.raises(ValueError, match=r"must lie in .* keV, the table of Pb; got 5000"):
        check_energy(5000.0, ("Pb",))
    with pytest.raises(ValueError, match=r"must lie in .* keV, the table of S; got 0\.001"):
        check_energy(0.001, ("S",))


@pytest.mark.parametrize("wrong", ["Xx", "", "pb", "Na1+", "Cval", "lead"])
def test_only_neutral_elements_are_known(wrong):
    with pytest.raises(ValueError, match="chemical symbol"):
        check_element(wrong)


def test_q_beyond_the_table_is_refused():
    with pytest.raises(ValueError, match=r"q must lie in 0 to 75\.4"):
        scattering_factor("Pb", np.array([1.0, 76.0]), anomalous=False)
    with pytest.raises(ValueError, match="q must lie in 0"):
        scattering_factor("Pb", np.array([-1.0]), anomalous=False)
    assert np.isfinite(scattering_factor("Pb", np.array([75.0]), anomalous=False)).all()


@pytest.mark.parametrize(("element", "z"), [("Pb", 82), ("S", 16)])
def test_compton_goes_from_nothing_to_all_electrons(element, z):
    s = compton(element, np.linspace(0, 75, 200))
    assert s[0] == 0
    assert np.all(np.diff(s) > -1e-9)
    assert 0.9 * z < s[-1] <= z
    assert compton(element, np.array([4 * np.pi]))[0] == pytest.approx(xraylib.SF_Compt(z, 1.0))


@pytest.mark.parametrize("element", ["H", "C", "S", "Pb"])
def test_compton_reaches_zero_without_a_gap(element):
    # xraylib's tables begin at s = 0.001, Q = 0.0126.
    s = compton(element, np.linspace(0.0, 0.02, 41))
    assert s[0] == 0.0
    assert (np.diff(s) > 0).all()


def test_deuterium_has_the_electrons_of_hydrogen():
    assert check_element("D") == "H"
    np.testing.assert_array_equal(
        scattering_factor("D", Q, energy_kev=22.0), scattering_factor("H", Q, energy_kev=22.0)
    )
    np.testing.assert_array_equal(compton("D", Q), compton("H", Q))


# f' and f'' at Mo Kα and Cu Kα of International Tables C (1992), Table 4.2.6.8, as in SHELXL: another calculation.
INTERNATIONAL_TABLES = [
    ("S", 17.479, 0.1246, 0.1234),
    ("S", 8.048, 0.3331, 0.5567),
    ("Se", 17.479, -0.0929, 2.2259),
    ("Br", 17.479, -0.2901, 2.4595),
    ("Cd", 17.479, -0.8075, 1.2024),
    ("Au", 17.479, -2.0133, 8.8022),
    ("Pb", 17.479, -3.3944, 10.1111),
    ("Pb", 8.048, -4.0753, 8.5060),
]


@pytest.mark.parametrize(("element", "energy", "real", "imaginary"), INTERNATIONAL_TABLES)
def test_forward_scattering_is_z_plus_f1_with_f2_of_the_international_tables(
    element, energy, real, imaginary
):
    """f(0) = Z + f' + i f''; the two calculations of f' differ by up to 0.35 electrons for the heaviest elements."""
    z = xraylib.SymbolToAtomicNumber(element)
    f = scattering_factor(element, np.zeros(1), energy_kev=energy)[0]
    assert f.real - z == pytest.approx(real, abs=0.35)
    assert f.imag == pytest.approx(imaginary, rel=0.05)


@pytest.mark.parametrize("energy", [8.048, 22.0, 60.0])
def test_recoil_is_that_of_klein_and_nishina(energy):
    """Klein-Nishina over Thomson is (E'/E)² up to a term of second order in the energy loss."""
    angle = np.linspace(0.05, 3.1, 40)
    q = 4 * np.pi * energy / 12.398419843 * np.sin(angle / 2)
    exact = [xraylib.DCS_KN(energy, a) / xraylib.DCS_Thoms(a) for a in angle]
    loss = 1 - recoil(q, energy, power=1)
    assert np.all(np.abs(recoil(q, energy) - exact) < 1e-4 + loss**2)
    assert recoil(np.zeros(1), energy)[0] == 1
    np.testing.assert_allclose(recoil(q, energy, power=3), recoil(q, energy) ** 1.5)


def test_recoil_at_wide_angles_is_not_small():
    """At 22 keV and 20 Å⁻¹ a counting detector sees 13 % less than S(s)."""
    assert recoil(np.array([20.0]), 22.0)[0] == pytest.approx(0.874, abs=0.002)
    with pytest.raises(ValueError, match=r"q must lie in 0 to 22\.3 Å⁻¹ \(2θ = 180°\) at 22 keV, got 25"):
        recoil(np.array([25.0]), 22.0)
    with pytest.raises(ValueError, match="energy is missing"):
        recoil(np.array([1.0]), None)


def test_dispersion_of_many_energies_is_that_of_each() -> None:
    energies = np.array([8.048, 16.0, 22.0, 85.0])
    zero = np.zeros(1)
    got = dispersion("Pb", energies)
    for energy, one in zip(energies, got, strict=True):
        wanted = scattering_factor("Pb", zero, energy_kev=energy) - scattering_factor(
            "Pb", zero, anomalous=False
        )
        # A spline through more of the table is another one close to edges: 16 keV lies above Pb L1 at 15.86.
        assert one == pytest.approx(wanted[0], abs=3e-3)
    assert got[0].real == pytest.approx(-4.3, abs=0.1)
    with pytest.raises(ValueError, match="the table of Pb"):
        dispersion("Pb", np.array([22.0, 1e5]))
