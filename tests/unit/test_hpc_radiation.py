"""Radiations: lines against tables, what has to be given and what must not, and what commands make of it."""

from functools import partial

import pytest
import xraydb
import xraylib
import yaml
from runs import simulate_config

from hpc.form_factors import HC_KEV_ANGSTROM
from hpc.named_files import file_names
from hpc.radiation import Radiation, choose_beam, load_radiation

DOUBLETS = {"cu_kalpha": "Cu", "mo_kalpha": "Mo", "ag_kalpha": "Ag"}


def test_the_radiations_of_the_package():
    assert file_names("radiation") == [
        "ag_kalpha",
        "cu_kalpha",
        "cu_kalpha1",
        "mo_kalpha",
        "neutron",
        "synchrotron",
    ]


@pytest.mark.parametrize(("name", "element"), DOUBLETS.items())
def test_doublets_are_those_of_the_tables(name, element):
    """Two tables that are independent of the source of the values; energies of Elam et al. are rounded to 1.5 eV."""
    radiation = load_radiation(name.upper())
    lines = xraydb.xray_lines(element, initial_level="K")
    z = xraylib.SymbolToAtomicNumber(element)
    for wavelength, line, macro in zip(
        radiation.wavelengths, ("Ka1", "Ka2"), (xraylib.KL3_LINE, xraylib.KL2_LINE), strict=True
    ):
        energy = HC_KEV_ANGSTROM / wavelength
        assert energy == pytest.approx(xraylib.LineEnergy(z, macro), abs=1.5e-4)
        assert energy == pytest.approx(lines[line].energy / 1000, abs=2e-3)
    ratio = radiation.weights[1] / radiation.weights[0]
    assert ratio == pytest.approx(lines["Ka2"].intensity / lines["Ka1"].intensity, rel=0.01)
    rates = [xraylib.RadRate(z, macro) for macro in (xraylib.KL2_LINE, xraylib.KL3_LINE)]
    assert ratio == pytest.approx(rates[0] / rates[1], rel=0.01)
    assert sum(radiation.weights) == pytest.approx(1, abs=1e-15)


def test_wavelengths_of_the_international_tables():
    """Volume C (2006), Table 4.2.2.6: 1.54059292(45) and 0.70931713(41) Å."""
    assert load_radiation("cu_kalpha").wavelength == pytest.approx(1.54059292, abs=4.5e-7)
    assert load_radiation("mo_kalpha").wavelength == pytest.approx(0.70931713, abs=4.1e-7)


def test_one_line_of_copper_is_the_first_of_its_doublet():
    one, two = load_radiation("cu_kalpha1"), load_radiation("cu_kalpha")
    assert one.wavelengths == two.wavelengths[:1]
    assert one.weights == (1.0,)
    assert one.energy_kev == two.energy_kev == pytest.approx(8.0478, abs=1e-4)
    assert two.beam == {"particle": "xray", "energy_kev": two.energy_kev, "wavelength": None}


@pytest.mark.parametrize(
    ("name", "mean", "shift"),
    [("cu_kalpha", 1.54187, 0.00084), ("mo_kalpha", 0.7108, 0.0021), ("ag_kalpha", 0.5609, 0.0027)],
)
def test_mean_of_a_doublet(name, mean, shift):
    """The means that powder programs use, and by how much they differ from Kα1: it would look like a strain."""
    radiation = load_radiation(name)
    assert radiation.mean_wavelength == pytest.approx(mean, abs=1e-4)
    assert radiation.mean_wavelength / radiation.wavelength - 1 == pytest.approx(shift, rel=0.02)
    assert load_radiation("cu_kalpha1").mean_wavelength == load_radiation("cu_kalpha1").wavelength


def test_a_synchrotron_is_told_its_energy_and_neutrons_their_wavelength():
    assert load_radiation("synchrotron", energy_kev=22.0).energy_kev == pytest.approx(22.0, rel=1e-15)
    assert load_radiation("synchrotron", wavelength=0.5636).energy_kev == pytest.approx(21.9986, abs=1e-4)
    neutrons = load_radiation("neutron", wavelength=1.8)
    assert (neutrons.particle, neutrons.wavelength, neutrons.energy_kev) == ("neutron", 1.8, None)
    assert neutrons.beam == {"particle": "neutron", "energy_kev": None, "wavelength": 1.8}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("co_kalpha", {}, r"radiation must be one of \['ag_kalpha', .*\], got 'co_kalpha'"),
        ("../material/pbs", {}, "radiation must be one of"),
        ("synchrotron", {}, r"needs a wavelength \(Å\) or an energy_kev; there is no default"),
        ("neutron", {}, r"neutron needs a wavelength \(Å\); there is no default"),
        (
            "neutron",
            {"energy_kev": 22.0},
            "energy_kev is that of photons; give radiation neutron a wavelength",
        ),
        ("cu_kalpha", {"energy_kev": 8.05}, r"has its own wavelength, 1\.54059 Å; leave out energy_kev"),
        ("cu_kalpha", {"wavelength": 1.54}, "has its own wavelength"),
        ("synchrotron", {"wavelength": 1.0, "energy_kev": 12.4}, "not both"),
        ("synchrotron", {"wavelength": -1.0}, "wavelength must be > 0 Å, got -1"),
        ("synchrotron", {"energy_kev": 0.0}, "energy_kev must be > 0, got 0"),
        ("synchrotron", {"energy_kev": float("nan")}, "energy_kev must be > 0, got nan"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_refused(name, given, message):
    with pytest.raises(ValueError, match=message):
        load_radiation(name, **given)
    if given or name not in ("synchrotron", "neutron"):
        with pytest.raises(ValueError, match=message):
            choose_beam(name, **given)


def test_commands_may_leave_out_what_nothing_depends_on():
    assert choose_beam("synchrotron") == {"particle": "xray", "energy_kev": None, "wavelength": None}
    assert choose_beam("neutron") == {"particle": "neutron", "energy_kev": None, "wavelength": None}
    assert choose_beam("synchrotron", energy_kev=22.14003543)["energy_kev"] == 22.14003543


MINE = {"name": "mine", "particle": "xray", "wavelengths": [1.0, 1.1], "weights": [2, 1]}


def test_a_radiation_of_ones_own():
    radiation = Radiation.from_config(MINE)
    assert radiation.wavelengths == (1.0, 1.1)
    assert radiation.weights == pytest.approx((2 / 3, 1 / 3))
    assert choose_beam(MINE)["energy_kev"] == pytest.approx(HC_KEV_ANGSTROM)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"particle": "electron"}, "particle must be xray or neutron, got 'electron'"),
        ({"wavelengths": [1.0, -1.1]}, "wavelengths must be positive numbers"),
        ({"wavelengths": []}, "wavelengths must be positive numbers"),
        ({"wavelengths": "1.0"}, "wavelengths must be a list of numbers"),
        ({"wavelengths": [1.0, True]}, "wavelengths must be a list of numbers"),
        ({"weights": [1]}, "one for each wavelength, got 1 for 2"),
        ({"weights": [1, 0]}, "weights must be positive numbers"),
        ({"weights": [1, -1]}, "weights must be positive numbers"),
        ({"weights": ["a", "b"]}, "weights must be a list of numbers"),
        ({"energy_kev": 8.0}, "radiation has the keys"),
    ],
)
def test_a_file_that_is_not_a_radiation_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Radiation.from_config(MINE | changes)
    with pytest.raises(ValueError, match=message):
        choose_beam(MINE | changes)
    with pytest.raises(ValueError, match="radiation has the keys"):
        Radiation.from_config({"name": "mine"})


def test_weights_are_checked_where_they_are_not_normalised():
    with pytest.raises(ValueError, match="add up to 1, got 3"):
        Radiation(name="mine", particle="xray", wavelengths=(1.0, 1.1), weights=(2.0, 1.0))


@pytest.fixture
def simulate():
    """Read the smoke configuration with some keys replaced."""
    return partial(simulate_config, "experiment=smoke")


def test_qd_simulate_takes_an_energy_a_wavelength_a_line_or_neutrons(simulate):
    by_energy = simulate()
    assert (by_energy.radiation, by_energy.particle, by_energy.energy_kev) == ("synchrotron", "xray", 22.0)
    assert by_energy.beam == {"particle": "xray", "energy_kev": 22.0, "wavelength": None, "anomalous": True}
    by_wavelength = simulate("energy_kev=null", "wavelength=0.5636")
    assert by_wavelength.energy_kev == pytest.approx(21.9986, abs=1e-4)
    assert by_wavelength.wavelength is None
    lines = simulate("energy_kev=null", "radiation=mo_kalpha")
    assert (lines.radiation, lines.energy_kev) == ("mo_kalpha", pytest.approx(17.4794, abs=1e-4))
    neutrons = simulate("energy_kev=null", "radiation=neutron")
    assert (neutrons.particle, neutrons.energy_kev, neutrons.wavelength) == ("neutron", None, None)
    assert simulate("energy_kev=null", "radiation=neutron", "wavelength=1.8").wavelength == 1.8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["radiation=cu_kalpha"], "cu_kalpha has its own wavelength"),
        (["radiation=neutron"], "energy_kev is that of photons"),
        (["wavelength=0.56"], "give wavelength or energy_kev, not both"),
        (
            ["energy_kev=null", "radiation=neutron", "anomalous=false"],
            "f' and f'' of X-rays; neutrons have none",
        ),
        (["energy_kev=null", "wavelength=-1"], "wavelength must be > 0"),
        (["radiation.weights=[1,1]"], "one for each wavelength, got 2 for 1"),
    ],
)
def test_qd_simulate_refuses_what_does_not_fit(simulate, overrides, message):
    with pytest.raises(ValueError, match=message):
        simulate(*overrides)


def test_every_file_says_where_its_numbers_are_from():
    from importlib.resources import files

    for name in file_names("radiation"):
        text = (files("conf") / "radiation" / f"{name}.yaml").read_text()
        if yaml.safe_load(text)["wavelengths"] is not None:
            assert "SRD 128" in text
        if len(yaml.safe_load(text)["weights"]) > 1:
            assert "Elam et al." in text
