"""`qd-pattern sphere` and `dot_pattern` against double sums over the atoms."""

from dataclasses import replace

import numpy as np
import pytest
import xraylib
from scipy.stats import lognorm

from hpc.dots import dot_pattern
from hpc.structure.material import load_material

PBS = load_material("pbs")
#: float64 sums over up to 10⁶ pairs, phases of up to 10³.
EXACT = 1e-10


def test_a_4_nm_sphere_equals_the_double_sum(
    tmp_path, run_command, rocksalt_sphere, form_factors, double_sum
):
    options = "--centre Pb --b-iso 0 --no-anomalous --no-compton --q 0.5 20 0.01 -o out.xy"
    run_command(["qd-pattern", "sphere", *f"--material pbs --diameter-nm 4 {options}".split()])
    q, intensity = np.loadtxt(tmp_path / "out.xy", unpack=True)
    np.testing.assert_allclose(q, np.linspace(0.5, 20, 1951), rtol=1e-12)
    position, element = rocksalt_sphere(40.0)
    assert len(position) == 1309
    some = np.append(np.arange(0, len(q), 30), len(q) - 1)
    expected = double_sum(position, element, q[some], form_factors(q[some]))
    np.testing.assert_allclose(intensity[some], expected, rtol=EXACT)


@pytest.mark.parametrize(
    ("options", "centre", "b", "energy", "strain"),
    [
        ("--centre S --b-iso 0 --no-anomalous", "S", {}, None, 0.0),
        ("--centre Pb --b-iso 0.7 --no-anomalous", "Pb", {"Pb": 0.7, "S": 0.7}, None, 0.0),
        ("--centre Pb --b-iso Pb=1.3 S=0.6 --energy-kev 8.048", "Pb", {"Pb": 1.3, "S": 0.6}, 8.048, 0.0),
        (
            "--centre S --b-iso Pb=1.3 S=0.6 --wavelength 0.5636",
            "S",
            {"Pb": 1.3, "S": 0.6},
            12.398419843320026 / 0.5636,
            0.0,
        ),
        ("--centre Pb --energy-kev 22 --strain 0.004", "Pb", {"Pb": 1.28, "S": 1.25}, 22.0, 0.004),
        ("--centre Pb --energy-kev 22 --strain -0.01", "Pb", {"Pb": 1.28, "S": 1.25}, 22.0, -0.01),
    ],
)
def test_options_of_one_particle(
    qd_pattern, rocksalt_sphere, form_factors, double_sum, options, centre, b, energy, strain
):
    q, intensity = qd_pattern(f"sphere --material pbs --diameter-nm 2.3 {options} --no-compton --q 0 20 0.25")
    position, element = rocksalt_sphere(23.0, centre)
    expected = double_sum((1 + strain) * position, element, q, form_factors(q, energy), b=b)
    np.testing.assert_allclose(intensity, expected, rtol=EXACT)


def test_the_particle_is_cut_in_the_unstrained_crystal(rocksalt_sphere, form_factors, double_sum):
    """A shell just outside stays outside under compression."""
    q = np.linspace(1, 10, 7)
    diameter = 5.936 * np.sqrt(8) * 0.9999
    position, element = rocksalt_sphere(diameter)
    found = dot_pattern(
        PBS,
        q=q,
        diameter_nm=diameter / 10,
        strain=-0.02,
        centres=["Pb"],
        anomalous=False,
        per_atom=False,
        b_scale=0,
    )
    np.testing.assert_allclose(found, double_sum(0.98 * position, element, q, form_factors(q)), rtol=EXACT)


def test_the_header_holds_every_parameter(tmp_path, qd_pattern):
    qd_pattern(
        "sphere --material pbs --diameter-nm 2 --sigma 0.1 --strain 0.001 "
        "--b-iso Pb=1.3 S=1.2 --energy-kev 22 --q 1 5 0.5"
    )
    header = [line for line in (tmp_path / "out.xy").read_text().splitlines() if line.startswith("#")]
    for text in (
        "PbS",
        "diameter_nm: 2",
        "sigma: 0.1",
        "strain: 0.001",
        "Pb=1.3",
        "S=1.2",
        "energy_kev: 22",
        "compton: True",
    ):
        assert any(text in line for line in header), text


def test_several_centres_are_the_mean(rocksalt_sphere, form_factors, double_sum):
    q = np.linspace(0.5, 15, 30)
    found = dot_pattern(PBS, q=q, diameter_nm=1.9, energy_kev=22.0, b_scale=0.0, per_atom=False)
    patterns = [
        double_sum(*rocksalt_sphere(19.0, centre), q, form_factors(q, 22.0)) for centre in ("Pb", "S")
    ]
    np.testing.assert_allclose(found, np.mean(patterns, axis=0), rtol=EXACT)
    # per atom: the mean intensity over the mean number of atoms
    atoms = np.mean([len(rocksalt_sphere(19.0, centre)[0]) for centre in ("Pb", "S")])
    per_atom = dot_pattern(PBS, q=q, diameter_nm=1.9, energy_kev=22.0, b_scale=0.0)
    np.testing.assert_allclose(per_atom, np.mean(patterns, axis=0) / atoms, rtol=EXACT)


@pytest.mark.parametrize("centre", ["Pb", (0.25, 0.0, 0.0)])
def test_a_lognormal_ensemble_is_the_sum_over_its_particles(
    rocksalt_sphere, form_factors, double_sum, centre
):
    """Every distinct particle on its own, weighted with the probability of the diameters that give it."""
    diameter, sigma, cut = 13.0, 0.15, 34.0
    q = np.linspace(0.4, 14, 25)
    f, b = form_factors(q, 22.0), {"Pb": 1.28, "S": 1.25}
    position, element = rocksalt_sphere(cut, centre)
    size = 2 * np.linalg.norm(position, axis=1)
    edges = size[np.unique(np.rint(size * 1e6), return_index=True)[1]]
    log_sd = np.sqrt(np.log(1 + sigma**2))
    cdf = lognorm(log_sd, scale=diameter * np.exp(-(log_sd**2) / 2)).cdf(np.append(edges, np.inf))
    weights = np.diff(cdf)
    intensity, atoms = np.zeros(len(q)), 0.0
    for edge, weight in zip(edges, weights, strict=True):
        if weight < 1e-13:
            continue
        inside = size <= edge + 1e-5
        intensity += weight * double_sum(position[inside], element[inside], q, f, b=b)
        atoms += weight * inside.sum()
    found = dot_pattern(
        PBS, q=q, diameter_nm=diameter / 10, sigma=sigma, energy_kev=22.0, centres=[centre], tail=1e-9
    )
    # What lies beyond the cuts: 1e-9 of the atoms, which may weigh more where the intensity is small.
    np.testing.assert_allclose(found, intensity / atoms, rtol=1e-8)


def test_zero_sigma_is_the_limit_of_narrow_ensembles():
    q = np.linspace(0.5, 15, 40)
    one = dot_pattern(PBS, q=q, diameter_nm=3.05, energy_kev=22.0)
    narrow = dot_pattern(PBS, q=q, diameter_nm=3.05, sigma=1e-6, energy_kev=22.0)
    np.testing.assert_allclose(narrow, one, rtol=1e-12)


def test_partial_occupancy_is_the_mean_over_random_vacancies(rocksalt_sphere, form_factors, double_sum):
    """Occupancy o in the self term, o_a o_b in the pairs: what independent vacancies give on average."""
    q = np.array([0.3, 2.1, 5.0, 11.0])
    f = form_factors(q)
    position, element = rocksalt_sphere(14.0)
    vacant = replace(PBS, kinds=(PBS.kinds[0], replace(PBS.kinds[1], occupancy=0.6)))
    found = dot_pattern(
        vacant, q=q, diameter_nm=1.4, centres=["Pb"], anomalous=False, b_scale=0.0, per_atom=False
    )
    np.testing.assert_allclose(found, double_sum(position, element, q, f, occupancy={"S": 0.6}), rtol=EXACT)
    rng = np.random.default_rng(7)
    draws = []
    for _ in range(1500):
        kept = (element == "Pb") | (rng.random(len(element)) < 0.6)
        amplitude = [f[e] for e in element[kept]]
        r = np.linalg.norm(position[kept][:, None] - position[kept][None], axis=-1)
        weight = np.array(amplitude).real
        draws.append(
            np.einsum("iq,ijq,jq->q", weight, np.sinc(r[:, :, None] * q / np.pi), weight, optimize=True)
        )
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(np.mean(draws, axis=0) - found) < 4 * error)
    # per atom counts the atoms that are there
    atoms = np.sum(element == "Pb") + 0.6 * np.sum(element == "S")
    per_atom = dot_pattern(vacant, q=q, diameter_nm=1.4, centres=["Pb"], anomalous=False, b_scale=0.0)
    np.testing.assert_allclose(per_atom * atoms, found, rtol=1e-12)


def test_compton_is_the_incoherent_scattering_of_every_atom(rocksalt_sphere):
    q = np.array([0.0, 1.0, 8.0, 25.0])
    both = [
        dot_pattern(PBS, q=q, diameter_nm=2.0, energy_kev=22.0, centres=["S"], compton=c, per_atom=False)
        for c in (False, True)
    ]
    _, element = rocksalt_sphere(20.0, "S")
    s = q[1:] / (4 * np.pi)
    expected = sum(
        np.sum(element == e) * np.array([xraylib.SF_Compt(z, x) for x in s])
        for e, z in (("Pb", 82), ("S", 16))
    )
    np.testing.assert_allclose((both[1] - both[0])[1:], expected, rtol=1e-9)
    assert both[1][0] == both[0][0]
