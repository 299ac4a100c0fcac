"""Limits and symmetries of I(Q) that hold whatever the algorithm is."""

import numpy as np
import pytest

from hpc.dots import dot_pattern
from hpc.structure.material import Kind, Material, load_material

PBS = load_material("pbs")
BARE = {"anomalous": False, "b_scale": 0.0, "per_atom": False}


def write_xyz(path, position, element):
    lines = [str(len(position)), ""]
    lines += [f"{e} " + " ".join(f"{x:.17g}" for x in p) for e, p in zip(element, position, strict=True)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def xyz_pattern(tmp_path, qd_pattern):
    """`qd-pattern FILE.xyz` of given atoms."""

    def run(position, element, options):
        write_xyz(tmp_path / "atoms.xyz", np.asarray(position, dtype=float), element)
        return qd_pattern(f"atoms.xyz {options}")

    return run


@pytest.fixture(scope="module")
def disordered():
    """300 atoms without any symmetry, no two closer than 1.5 Å."""
    rng = np.random.default_rng(11)
    position = rng.uniform(0, 28, (1, 3))
    while len(position) < 300:
        candidate = rng.uniform(0, 28, 3)
        if np.linalg.norm(position - candidate, axis=1).min() > 1.5:
            position = np.vstack((position, candidate))
    return position, np.where(rng.random(300) < 0.5, "Pb", "S")


@pytest.mark.parametrize("energy", [None, 8.048])
def test_forward_scattering_is_the_square_of_all_electrons(rocksalt_sphere, form_factors, energy):
    _, element = rocksalt_sphere(26.0)
    f = form_factors(np.zeros(1), energy)
    found = dot_pattern(
        PBS,
        q=np.zeros(1),
        diameter_nm=2.6,
        centres=["Pb"],
        energy_kev=energy,
        anomalous=energy is not None,
        per_atom=False,
    )
    assert found[0] == pytest.approx(abs(sum(f[e][0] for e in element)) ** 2, rel=1e-12)


def test_the_average_at_large_q_is_the_self_scattering(rocksalt_sphere, form_factors):
    q = np.arange(50, 75, 0.01)
    found = dot_pattern(PBS, q=q, diameter_nm=2.0, centres=["Pb"], anomalous=False, per_atom=False)
    _, element = rocksalt_sphere(20.0)
    f = form_factors(q)
    self_ = sum(np.sum(element == e) * abs(f[e]) ** 2 for e in f)
    # B = 1.3 Å² has damped every pair by exp(-41) or more at q = 50.
    np.testing.assert_allclose(found, self_, rtol=1e-12)
    undamped = dot_pattern(PBS, q=q, diameter_nm=2.0, centres=["Pb"], **BARE)
    assert np.mean(undamped / self_) == pytest.approx(1, abs=0.02)
    assert np.std(undamped / self_) > 0.03


def test_debye_waller_factors_leave_the_self_term_alone(form_factors):
    """One atom: nothing to be damped."""
    q = np.linspace(0, 20, 21)
    found = dot_pattern(PBS, q=q, diameter_nm=0.1, centres=["S"], anomalous=False, per_atom=False)
    np.testing.assert_allclose(found, abs(form_factors(q)["S"]) ** 2, rtol=1e-12)


def test_a_dimer(xyz_pattern, form_factors):
    q, found = xyz_pattern(
        [[0, 0, 0], [1.0, 2.0, 2.0]], ["S", "S"], "--no-anomalous --no-compton --q 0 20 0.1"
    )
    f = form_factors(q)["S"].real
    np.testing.assert_allclose(found, 2 * f**2 * (1 + np.sinc(3 * q / np.pi)), rtol=1e-6)
    assert found[0] == pytest.approx(4 * f[0] ** 2, rel=1e-12)


def test_a_single_atom(xyz_pattern, form_factors):
    q, found = xyz_pattern([[1, 2, 3]], ["Pb"], "--energy-kev 22 --no-compton --q 0 20 0.5")
    np.testing.assert_allclose(found, abs(form_factors(q, 22.0)["Pb"]) ** 2, rtol=1e-12)


def test_atoms_without_a_lattice(xyz_pattern, disordered, form_factors, double_sum):
    q, found = xyz_pattern(*disordered, "--energy-kev 8.048 --no-compton --b-iso Pb=0.3 S=0.5 --q 0 20 0.1")
    expected = double_sum(*disordered, q, form_factors(q, 8.048), b={"Pb": 0.3, "S": 0.5})
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_lattice_particle_from_a_file_is_the_model_particle(xyz_pattern, rocksalt_sphere):
    q, found = xyz_pattern(*rocksalt_sphere(30.0), "--energy-kev 22 --b-iso Pb=1.28 S=1.25 --q 0.5 20 0.05")
    model = dot_pattern(
        PBS, q=q, diameter_nm=3.0, centres=["Pb"], energy_kev=22.0, compton=True, per_atom=False
    )
    np.testing.assert_allclose(found, model, rtol=1e-6)


def test_order_place_and_orientation_do_not_matter(xyz_pattern, disordered):
    position, element = disordered
    options = "--energy-kev 22 --no-compton --q 0.2 20 0.2"
    _, reference = xyz_pattern(position, element, options)
    rng = np.random.default_rng(3)
    order = rng.permutation(len(element))
    _, reordered = xyz_pattern(position[order], element[order], options)
    np.testing.assert_allclose(reordered, reference, rtol=1e-9)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    _, moved = xyz_pattern(position @ rotation + [3.7, -150.0, 11.1], element, options)
    # Rounding may move a distance into the next bin: the error of the histogram, not of the geometry.
    np.testing.assert_allclose(moved, reference, rtol=1e-6)


def test_the_guinier_slope_is_the_radius_of_gyration(rocksalt_sphere, form_factors):
    diameter = 33.0
    position, element = rocksalt_sphere(diameter)
    q = np.array([1e-3, 2e-3])
    f = {e: value[0].real for e, value in form_factors(q).items()}
    charge = np.array([f[e] for e in element])
    rg2 = charge @ (position**2).sum(axis=1) / charge.sum()
    intensity = dot_pattern(PBS, q=q, diameter_nm=diameter / 10, centres=["Pb"], **BARE)
    # f itself falls with q: take it out (all atoms much alike at such q).
    f_q = {e: value.real for e, value in form_factors(q).items()}
    slope = np.diff(np.log(intensity))[0] / np.diff(q**2)[0]
    own = 2 * np.diff(np.log([sum(f_q[e][i] for e in element) for i in (0, 1)]))[0] / np.diff(q**2)[0]
    assert slope - own == pytest.approx(-rg2 / 3, rel=1e-4)
    assert rg2 == pytest.approx(3 / 5 * (diameter / 2) ** 2, rel=0.05)


def test_small_angles_see_a_homogeneous_sphere():
    """|F(qR)|² = [3 (sin x - x cos x)/x³]² up to the first minimum, with R from the number of atoms."""
    diameter, cell = 80.0, 5.936
    q = np.linspace(0.01, 0.09, 17)
    intensity = dot_pattern(PBS, q=q, diameter_nm=diameter / 10, **BARE)
    forward = dot_pattern(PBS, q=np.zeros(1), diameter_nm=diameter / 10, **BARE)[0]
    # 8 atoms in a cell: the radius of the sphere of as many cells
    per_atom = dot_pattern(PBS, q=np.zeros(1), diameter_nm=diameter / 10, anomalous=False, b_scale=0.0)[0]
    atoms = forward / per_atom
    x = q * (3 * atoms * cell**3 / 8 / (4 * np.pi)) ** (1 / 3)
    sphere = (3 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2
    np.testing.assert_allclose(intensity / forward, sphere, atol=0.003)


def test_bragg_peaks_lie_where_the_lattice_puts_them():
    """220 of a large particle, strained or not; 111 and 200 too."""
    cell, q = 5.936, np.arange(1.5, 3.2, 0.002)
    for strain in (0.0, 0.004):
        intensity = dot_pattern(PBS, q=q, diameter_nm=14.0, energy_kev=22.0, strain=strain)
        for h2 in (3, 4, 8):
            expected = 2 * np.pi * np.sqrt(h2) / (cell * (1 + strain))
            near = np.abs(q - expected) < 0.1
            assert q[near][intensity[near].argmax()] == pytest.approx(expected, abs=0.006)


def test_another_crystal_and_other_kinds(rocksalt_sphere, form_factors, double_sum):
    """One element on both sites of rocksalt is a simple cubic crystal of half the edge."""
    cell = 5.0
    simple = Material(
        name="Po",
        space_group="P m -3 m",
        cell_angstrom=(cell / 2,) * 3 + (90.0,) * 3,
        kinds=(Kind(label="X", element="S", occupancy=1, b_iso=0),),
        positions=((0, 0, 0),),
    )
    q = np.linspace(0.3, 12, 25)
    position, element = rocksalt_sphere(16.0, cell=cell)
    f = {"S": form_factors(q)["S"]}
    expected = double_sum(position, np.full(len(element), "S"), q, f)
    found = dot_pattern(simple, q=q, diameter_nm=1.6, centres=["X"], **BARE)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
