"""Attenuation, edges and fluorescence against other tables, and against numbers that everyone knows."""

import numpy as np
import pytest
import xraydb
import xraylib

from hpc.absorption import attenuation, edges_below, edges_near, fluorescence, read_composition
from hpc.form_factors import compton, scattering_factor
from hpc.structure.material import load_material

ENERGIES = (8.0478, 17.4793, 22.0, 60.0)


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize(
    ("compound", "density"), [("PbS", 7.6), ("C6H14", 0.655), ("H2O", 1.0), ("SiO2", 2.2)]
)
def test_attenuation_of_compounds_by_another_library(compound, density, energy):
    expected = density * xraylib.CS_Total_CP(compound, energy)
    assert attenuation(compound, density, energy) == pytest.approx(expected, rel=2e-3)


def test_attenuation_everyone_knows():
    """NIST XCOM, 20 keV: water 0.8096, lead 86.4 cm²/g."""
    assert attenuation("H2O", 1.0, 20.0) == pytest.approx(0.8096, rel=0.02)
    assert attenuation({"Pb": 1}, 1.0, 20.0) == pytest.approx(86.36, rel=0.02)


def test_attenuation_is_linear_in_the_density_and_does_not_ask_how_a_formula_is_written():
    one = attenuation("PbS", 1.0, 22.0)
    assert attenuation("PbS", 7.6, 22.0) == pytest.approx(7.6 * one)
    assert attenuation({"Pb": 20, "S": 20}, 1.0, 22.0) == pytest.approx(one)
    by_mass = (207.2 * attenuation({"Pb": 1}, 1.0, 22.0) + 32.06 * attenuation({"S": 1}, 1.0, 22.0)) / 239.26
    assert one == pytest.approx(by_mass, rel=1e-4)


def test_a_dispersion_of_dots_in_a_capillary():
    """1 % by volume of PbS in hexane and 0.5 mm of radius at 22 keV: μR of 0.24, of which hexane is a twentieth."""
    dots, hexane = attenuation("PbS", 7.6, 22.0), attenuation("C6H14", 0.655, 22.0)
    mu = 0.01 * dots + 0.99 * hexane
    assert 0.05 * mu == pytest.approx(0.24, abs=0.02)
    assert 0.04 < 0.99 * hexane / mu < 0.08


def test_edges_of_lead_sulfide():
    """Bearden & Burr (1967): L1 15.8608, L2 15.2000, L3 13.0352 keV of Pb; K of S 2.4720 keV."""
    found = edges_below(["Pb", "S"], 22.0, above_kev=2.47)
    names = [(edge.element, edge.shell) for edge in found]
    assert names[:3] == [("Pb", "L1"), ("Pb", "L2"), ("Pb", "L3")]
    assert [edge.energy_kev for edge in found[:3]] == pytest.approx([15.8608, 15.2000, 13.0352], abs=1e-3)
    assert names[-1] == ("S", "K")
    assert found[-1].energy_kev == pytest.approx(2.472, abs=1e-3)
    assert ("Pb", "L3") not in [(e.element, e.shell) for e in edges_below(["Pb"], 13.0)]


def test_energies_near_an_edge_are_told():
    assert [(e.element, e.shell) for e in edges_near(["Pb", "S"], 13.0)] == [("Pb", "L3")]
    assert [(e.element, e.shell) for e in edges_near(["Cd", "Se", "Pb"], 12.66)] == [("Se", "K")]
    for energy in ENERGIES:
        assert edges_near(["Pb", "S"], energy) == []


@pytest.mark.parametrize(
    ("element", "edge"), [("Pb", 13.035), ("Se", 12.658), ("Cd", 26.711), ("Br", 13.474), ("Au", 11.919)]
)
def test_fluorescence_begins_at_the_edge(element, edge):
    """Nothing above 5 keV below the first edge there, and a step of thousands of electron units at it."""
    assert fluorescence({element: 1}, edge - 0.02, lines_above_kev=5) == 0
    assert fluorescence({element: 1}, edge + 0.02, lines_above_kev=5) > 2000


def test_size_of_the_step_by_another_table():
    """At the L3 edge of Pb: photo-absorption beyond the edge, times the share of L3, times its yield (Elam et al.)."""
    edge = xraydb.xray_edges("Pb")["L3"]
    barn = float(xraydb.mu_elam("Pb", 13100.0, kind="photo")) * xraydb.atomic_mass("Pb") / 0.602214076
    expected = barn * (1 - 1 / edge.jump_ratio) * edge.fyield / (4 * np.pi * 0.0794078765)
    assert fluorescence("Pb", 13.1, lines_above_kev=5) == pytest.approx(expected, rel=0.05)


def test_fluorescence_of_a_k_shell_by_another_table():
    """Se at 22 keV; the L lines (1.4 keV) are cut. Yields of the two tables differ by 6 %."""
    edge = xraydb.xray_edges("Se")["K"]
    barn = float(xraydb.mu_elam("Se", 22000.0, kind="photo")) * xraydb.atomic_mass("Se") / 0.602214076
    expected = barn * (1 - 1 / edge.jump_ratio) * edge.fyield / (4 * np.pi * 0.0794078765)
    assert fluorescence("Se", 22.0, lines_above_kev=5) == pytest.approx(expected, rel=0.1)


def test_fluorescence_of_lead_outshines_its_scattering_at_wide_angles():
    """At 22 keV lead emits as much as it scatters straight ahead, 82² = 6700 electron units."""
    found = fluorescence("Pb", 22.0, lines_above_kev=5)
    forward = abs(scattering_factor("Pb", np.zeros(1), energy_kev=22.0)[0]) ** 2
    assert found == pytest.approx(6450, rel=0.05)
    assert found == pytest.approx(forward, rel=0.1)
    assert found > 3 * abs(scattering_factor("Pb", np.array([8.0]), energy_kev=22.0)[0]) ** 2
    assert found > 50 * compton("Pb", np.array([8.0]))[0]
    # An analysing detector that cuts at 13 keV sees nearly none of it (L lines of 10.5 to 12.6 and Lγ up to 15.8 keV).
    assert fluorescence("Pb", 22.0, lines_above_kev=13.0) < 0.15 * found
    assert fluorescence("Pb", 22.0, lines_above_kev=16.0) == 0


def test_fluorescence_is_per_atom_and_falls_with_energy():
    lead = fluorescence("Pb", 22.0, lines_above_kev=5)
    assert fluorescence("PbS", 22.0, lines_above_kev=5) == pytest.approx(lead / 2)
    assert fluorescence("Pb3S", 22.0, lines_above_kev=5) == pytest.approx(0.75 * lead)
    series = [fluorescence("PbS", energy, lines_above_kev=5) for energy in (16.0, 22.0, 40.0, 60.0, 80.0)]
    assert np.all(np.diff(series) < 0)
    assert fluorescence("PbS", 22.0, lines_above_kev=0) > fluorescence("PbS", 22.0, lines_above_kev=5)
    assert fluorescence("C6H14", 22.0, lines_above_kev=1) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attenuation("lead", 7.6, 22.0), "formula like C6H14, got 'lead'"),
        (lambda: attenuation("", 7.6, 22.0), "positive number of each element"),
        (lambda: attenuation({"Pb": 0}, 7.6, 22.0), "positive number of each element"),
        (lambda: attenuation({"Xx": 1}, 7.6, 22.0), "chemical symbol.*got 'Xx'"),
        (lambda: attenuation({"C": 6, "D": 14}, 0.767, 22.0), "D absorbs as H"),
        (lambda: attenuation("PbS", 0.0, 22.0), "density must be > 0 g/cm³, got 0"),
        (lambda: attenuation("PbS", 7.6, 0.05), r"energy_kev must lie in 0\.1 to 800 keV.*got 0\.05"),
        (lambda: attenuation("PbS", 7.6, 22000.0), r"energy_kev must lie in 0\.1 to 800 keV.*got 22000"),
        (lambda: fluorescence("PbS", 500.0, lines_above_kev=5), r"must lie in 0\.1 to 300 keV.*got 500"),
        (lambda: fluorescence("PbS", 22.0, lines_above_kev=-1), "lines_above_kev must be >= 0, got -1"),
        (lambda: edges_below(["Pb"], float("nan")), "energy_kev must lie in"),
        (lambda: edges_near(["Qq"], 22.0), "chemical symbol"),
    ],
)
def test_what_cannot_be_looked_up_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_formulas():
    assert read_composition("C6H14") == {"C": 6, "H": 14}
    assert read_composition({"Pb": 1.2, "S": 1}) == {"Pb": 1.2, "S": 1}


@pytest.mark.parametrize("energy", ENERGIES[:3])
def test_anomalous_absorption_and_attenuation_agree(energy):
    """The optical theorem, σ = 2 r_e λ f'': Chantler's f'' against Elam's photoelectric cross sections, to 5 %."""
    for element in {kind.element for kind in load_material("pbs").kinds}:
        f2 = scattering_factor(element, np.zeros(1), energy_kev=energy)[0].imag
        barn = 2 * 2.8179403262e-5 * 12.398419843 / energy * f2 * 1e8
        expected = float(xraydb.mu_elam(element, 1000 * energy, kind="photo"))
        assert barn * 0.602214076 / xraydb.atomic_mass(element) == pytest.approx(expected, rel=0.05)
