"""Radiations on the command line: lines by name, neutrons, and what the files and stores say of them."""

import logging

import numpy as np
import pytest
from runs import simulated

from hpc.dots import dot_pattern
from hpc.form_factors import energy_of_wavelength
from hpc.pattern import main
from hpc.radiation import load_radiation
from hpc.schema import INTENSITY
from hpc.storetool import main as store_main
from hpc.structure.material import load_material

SPHERE = "sphere --material pbs --diameter-nm 2 --q 1 5 0.05"


@pytest.fixture
def pattern(tmp_path, monkeypatch):
    """Options -> header of the written file as a dict, its last line and its columns."""
    monkeypatch.chdir(tmp_path)

    def run(options, source=SPHERE):
        main(f"{source} {options} -o out.txt".split())
        lines = (tmp_path / "out.txt").read_text().splitlines()
        comments = [line[2:] for line in lines if line.startswith("#")]
        header = dict(comment.split(": ", 1) for comment in comments[:-1])
        return header, comments[-1], np.loadtxt(lines, unpack=True)

    return run


@pytest.fixture
def refused(capsys):
    def run(options):
        with pytest.raises(SystemExit):
            main(f"{SPHERE} {options}".split())
        return capsys.readouterr().err

    return run


def test_a_line_by_name_is_its_energy(pattern):
    header, _, named = pattern("--radiation cu_kalpha")
    _, _, by_wavelength = pattern("--wavelength 1.5405929")
    np.testing.assert_array_equal(named, by_wavelength)
    assert header["radiation"] == "cu_kalpha"
    assert float(header["energy_kev"]) == energy_of_wavelength(load_radiation("cu_kalpha").wavelength)


def test_neutrons(pattern):
    header, titles, (q, found) = pattern("--radiation neutron --no-compton --per-atom")
    assert titles.endswith("I [fm^2 per atom]")
    assert header["particle"] == "neutron"
    assert "energy_kev" not in header
    assert "wavelength_angstrom" not in header
    expected = dot_pattern(load_material("pbs"), q=q, diameter_nm=2.0, particle="neutron")
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    _, titles, (_, with_incoherent) = pattern("--radiation neutron")
    assert titles.endswith("I [fm^2]")
    assert (with_incoherent > found).all()


@pytest.mark.parametrize("kind", ["sq", "fq", "gr", "partials"])
def test_structure_functions_of_neutrons(pattern, tmp_path, kind):
    (tmp_path / "dimer.xyz").write_text("2\n\nPb 0 0 0\nS 0 0 3\n")
    source = "dimer.xyz --q 0 20 0.05 --r 0 10 0.1"
    _, _, (x, *values) = pattern(f"--radiation neutron --output-kind {kind}", source)
    _, _, (_, *x_rays) = pattern(f"--energy-kev 22 --output-kind {kind}", source)
    if kind == "partials":
        np.testing.assert_array_equal(values, x_rays)
        return
    assert np.abs(np.subtract(values, x_rays)).max() > 0.01
    if kind == "sq":
        lead, sulfur = 9.4024, 2.847
        mean = (lead + sulfur) / 2
        np.testing.assert_allclose(
            values[0] - 1, lead * sulfur * np.sinc(3 * x / np.pi) / mean**2, rtol=1e-3, atol=1e-5
        )


def test_a_nucleus_with_a_resonance_needs_a_wavelength(pattern, tmp_path, capsys):
    (tmp_path / "dimer.xyz").write_text("2\n\nCd 0 0 0\nSe 0 0 3\n")
    with pytest.raises(SystemExit):
        main(["dimer.xyz", "--radiation", "neutron", "--q", "0", "5", "0.1"])
    assert "scattering length of Cd depends on the wavelength" in capsys.readouterr().err
    header, _, (_, near) = pattern("--wavelength 0.7", "dimer.xyz --radiation neutron --q 0 5 0.1")
    _, _, (_, thermal) = pattern("--wavelength 1.8", "dimer.xyz --radiation neutron --q 0 5 0.1")
    assert header["wavelength_angstrom"] == "0.7"
    assert np.abs(near / thermal - 1).max() > 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "energy is missing.*--radiation cu_kalpha"),
        ("--radiation synchrotron", "energy is missing"),
        ("--radiation radium", "radiation must be one of"),
        ("--radiation mo_kalpha --energy-kev 17.5", "mo_kalpha has its own wavelength, 0.709317 Å"),
        ("--radiation neutron --energy-kev 22", "energy_kev is that of photons"),
        ("--radiation neutron --no-anomalous", "neutrons have none"),
        ("--radiation neutron --wavelength 0", "wavelength must be > 0"),
    ],
)
def test_what_does_not_fit_is_one_message(refused, options, message):
    answer = refused(options)
    assert answer.startswith("qd-pattern: error: ")
    assert len(answer.splitlines()) == 1
    for part in message.split(".*"):
        assert part in answer


def test_an_energy_near_an_edge_is_noted(pattern, caplog):
    with caplog.at_level(logging.INFO):
        pattern("--energy-kev 13.06")
    assert "13.06 keV is near the L3 edge of Pb at 13.035 keV" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        pattern("--energy-kev 13.5")
        pattern("--energy-kev 13.06 --no-anomalous")
        pattern("--radiation neutron")
    assert "near the" not in caplog.text


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of neutrons."""
    path = tmp_path_factory.mktemp("store") / "neutrons.zarr"
    return simulated(path, "energy_kev=null", "radiation=neutron", "wavelength=1.8", "compton=true")


def test_a_store_of_neutrons(store, capsys):
    from hpc.store import open_store

    opened = open_store(store)
    expected = {"radiation": "neutron", "particle": "neutron", "energy_kev": None, "wavelength_angstrom": 1.8}
    assert {name: opened.attrs[name] for name in expected} == expected
    assert opened.attrs["units"]["intensity"] == "fm^2 per atom"
    assert opened.attrs["normalisation"].startswith("fm^2 per atom: ")
    assert opened.attrs["software"]["periodictable"]
    store_main(["info", str(store)])
    assert "neutrons of 1.8 Å" in capsys.readouterr().out


def test_patterns_of_a_store_of_neutrons(store):
    import zarr

    from hpc.store import open_store

    opened = open_store(store)
    intensity = zarr.open_group(store, mode="r")[INTENSITY]
    assert intensity.attrs["units"] == "fm^2 per atom"
    row = opened.n_samples // 2
    sample = {name: float(values[row]) for name, values in opened.parameters.items()}
    expected = dot_pattern(
        load_material("pbs"),
        q=opened.q,
        diameter_nm=sample["diameter"],
        sigma=sample["sigma"],
        strain=sample["strain"],
        particle="neutron",
        compton=True,
    )
    np.testing.assert_allclose(intensity[row], expected, rtol=1e-5)
