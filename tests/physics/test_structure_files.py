"""Particles from files against direct double sums over the same atoms."""

import numpy as np
import pytest
from cif_files import ROCKSALT, XYZ, cif_text, space_group

from hpc.debye import iq, pair_sums
from hpc.form_factors import scattering_factor
from hpc.structure.files import read_structure

Q = np.concatenate([np.arange(0.1, 20, 0.37), [20.0]])
COLUMNS = f"label type_symbol {XYZ} occupancy B_iso_or_equiv"
PURE = "Pb1 Pb 0 0 0 1 1.28\nS1 S 0.5 0.5 0.5 1 1.25\n"
MIXED = "Pb1 Pb 0 0 0 0.7 1.28\nSn1 Sn 0 0 0 0.3 0.9\nS1 S 0.5 0.5 0.5 0.9 1.25\n"
WURTZITE = cif_text(
    f"label {XYZ}", "Cd1 0.3333 0.6667 0\nSe1 0.3333 0.6667 0.3767\n",
    a=4.299, c=7.010, gamma=120, symmetry=space_group("P 63 m c"),
)  # fmt: skip


def direct(position, element, q, *, occupancy, b, energy):
    """Every pair of atoms on its own; atoms on one position exclude each other."""
    s2 = (q / (4 * np.pi)) ** 2
    tables = {e: scattering_factor(e, q, energy_kev=energy) for e in set(element)}
    total = sum(o * abs(tables[e]) ** 2 for e, o in zip(element, occupancy, strict=True))
    distance = np.linalg.norm(position[:, None] - position[None], axis=-1)
    for i, j in zip(*np.triu_indices(len(element), 1), strict=True):
        if distance[i, j] < 1e-3:
            continue
        f = (tables[element[i]] * tables[element[j]].conj()).real
        factor = 2 * occupancy[i] * occupancy[j] * np.exp(-(b[i] + b[j]) * s2)
        total = total + factor * f * np.sinc(q * distance[i, j] / np.pi)
    return total


@pytest.mark.parametrize("noise", [0.0, 0.003, 0.02, 0.1, 0.4])
def test_intensity_equals_the_direct_sum(rocksalt_sphere, double_sum, form_factors, noise):
    # Displacements like the bin width are the hardest: smooth over many bins errors cancel.
    position, element = rocksalt_sphere(32.0)
    position = position + np.random.default_rng(3).normal(0, noise, position.shape)
    expected = double_sum(position, element, Q, form_factors(Q, 22.0))
    np.testing.assert_allclose(iq(position, element, Q, energy_kev=22.0), expected, rtol=1e-6)


def test_the_asked_tolerance_is_kept(rocksalt_sphere, double_sum, form_factors):
    position, element = rocksalt_sphere(24.0)
    expected = double_sum(position, element, Q, form_factors(Q, 22.0))
    errors = [
        np.abs(iq(position, element, Q, energy_kev=22.0, tolerance=tolerance) / expected - 1).max()
        for tolerance in (1e-3, 1e-5, 1e-8)
    ]
    assert all(error < tolerance for error, tolerance in zip(errors, (1e-3, 1e-5, 1e-8), strict=True))
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("sites", [PURE, MIXED])
def test_a_block_of_cells_equals_the_direct_sum(tmp_path, qd_pattern, sites):
    (tmp_path / "crystal.cif").write_text(cif_text(COLUMNS, sites, **ROCKSALT))
    q, found = qd_pattern("crystal.cif --repeat 2 2 2 --energy-kev 22 --no-compton --q 0 20 0.5")
    half = np.indices((4, 4, 4)).reshape(3, -1).T
    even = half.sum(axis=1) % 2 == 0
    # At the origin of the cell is Pb (or Pb and Sn), half an edge along each axis S.
    rows = [("Pb", half[even], 1.0, 1.28), ("S", half[~even], 1.0, 1.25)]
    if sites is MIXED:
        rows = [
            ("Pb", half[even], 0.7, 1.28),
            ("Sn", half[even], 0.3, 0.9),
            ("S", half[~even], 0.9, 1.25),
        ]
    position = 5.936 / 2 * np.concatenate([where for _, where, _, _ in rows])
    columns = [np.concatenate([np.full(len(row[1]), row[index]) for row in rows]) for index in (0, 2, 3)]
    element, occupancy, b = columns
    expected = direct(position, element, q, occupancy=occupancy, b=b, energy=22.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_shape_cut_from_a_crystal_file_is_the_model_particle(tmp_path, qd_pattern):
    options = "--diameter-nm 2.4 --sigma 0.1 --energy-kev 22 --q 0.5 15 0.5"
    (tmp_path / "crystal.cif").write_text(cif_text(COLUMNS, PURE, **ROCKSALT))
    _, cut = qd_pattern(f"crystal.cif --shape sphere {options}")
    _, model = qd_pattern(f"sphere --material pbs {options}")
    np.testing.assert_allclose(cut, model, rtol=1e-12)


def test_a_sphere_of_mixed_sites_equals_the_direct_sum(tmp_path, qd_pattern, rocksalt_sphere):
    (tmp_path / "crystal.cif").write_text(cif_text(COLUMNS, MIXED, **ROCKSALT))
    q, found = qd_pattern(
        "crystal.cif --shape sphere --centre S1 --diameter-nm 1.5 --energy-kev 22 --no-compton --q 0 20 0.5"
    )
    position, kind = rocksalt_sphere(15.0, "S")
    cation = position[kind == "Pb"]
    everything = np.concatenate([position[kind == "S"], cation, cation])
    rows = [
        ("S", 0.9, 1.25, len(position) - len(cation)),
        ("Pb", 0.7, 1.28, len(cation)),
        ("Sn", 0.3, 0.9, len(cation)),
    ]
    element, occupancy, b = (
        np.concatenate([np.full(row[3], row[index]) for row in rows]) for index in (0, 1, 2)
    )
    expected = direct(everything, element, q, occupancy=occupancy, b=b, energy=22.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_hexagonal_crystal_is_cut_like_its_block(tmp_path, qd_pattern):
    """Wurtzite: the sphere cut by the shape's gauge, and the atoms of a block within the same radius."""
    (tmp_path / "cdse.cif").write_text(WURTZITE)
    q, found = qd_pattern(
        "cdse.cif --shape sphere --centre Cd1 --diameter-nm 2 --energy-kev 22 --no-compton --q 0.5 20 0.5"
    )
    block = read_structure(tmp_path / "cdse.cif", repeat=(9, 9, 7))
    middle = block.position.mean(axis=0)
    cadmium = block.position[block.element == "Cd"]
    centre = cadmium[np.linalg.norm(cadmium - middle, axis=1).argmin()]
    inside = np.linalg.norm(block.position - centre, axis=1) <= 10 * (1 + 1e-9)
    expected = iq(block.position[inside], block.element[inside], q, energy_kev=22.0)
    assert 100 < inside.sum() < 300
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_the_average_at_large_q_is_the_self_scattering(rocksalt_sphere):
    position, element = rocksalt_sphere(20.0)
    q = np.arange(40, 70, 0.02)
    sums = pair_sums(position, element, q)
    np.testing.assert_allclose(sums.sq(anomalous=False).mean(), 1, atol=0.01)
    self_ = sum(
        np.sum(element == e) * scattering_factor(e, q, anomalous=False).real ** 2 for e in ("Pb", "S")
    )
    assert np.mean(sums.iq(anomalous=False) / self_) == pytest.approx(1, abs=0.02)


def test_the_guinier_slope_is_the_radius_of_gyration(rocksalt_sphere):
    position, element = rocksalt_sphere(20.0)
    position = position[element == "Pb"]
    q = np.array([1e-3, 2e-3])
    s = pair_sums(position, ["Pb"] * len(position), q).sq(anomalous=False)
    # One element: I = N f² S, so f drops out.
    slope = np.diff(np.log(s))[0] / np.diff(q**2)[0]
    rg2 = ((position - position.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert slope == pytest.approx(-rg2 / 3, rel=1e-4)


def test_peaks_of_the_pair_distribution_are_the_shells_of_the_crystal(tmp_path, qd_pattern, rocksalt_sphere):
    """Positions of the first three shells of a PbS particle, and the area of the second."""
    position, element = rocksalt_sphere(30.0)
    (tmp_path / "dot.xyz").write_text(
        "\n".join(
            [
                str(len(position)),
                "",
                *(f"{e} {x} {y} {z}" for e, (x, y, z) in zip(element, position, strict=True)),
            ]
        )
    )
    options = "--output-kind gr --no-anomalous --b-iso 0.6 --q 0 30 0.02"
    r, g = qd_pattern(f"dot.xyz {options} --r 2 7 0.005")
    for shell in (1, 2, 3):
        expected = 5.936 / 2 * np.sqrt(shell)
        near = np.abs(r - expected) < 0.3
        assert r[near][g[near].argmax()] == pytest.approx(expected, abs=0.01)
    # The second shell holds pairs of equal atoms: Σ f_a² n_a / (N <f>²), nearly constant in Q.
    distance = np.linalg.norm(position[:, None] - position[None], axis=-1)
    second = np.isclose(distance, 5.936 / np.sqrt(2))
    f = {"Pb": 82.0, "S": 16.0}
    charge = np.array([f[e] for e in element])
    area = charge @ second @ charge / (len(charge) * charge.mean() ** 2)
    near = np.abs(r - 5.936 / np.sqrt(2)) < 0.5
    assert np.trapezoid((r * g)[near], r[near]) == pytest.approx(area, rel=0.08)
