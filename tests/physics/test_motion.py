"""Correlated motion, halo and surface B against double sums over all pairs, limits, and sum rules."""

from dataclasses import replace

import numpy as np
import pytest
from runs import exact_samples, simulated_grid
from scipy.spatial import cKDTree

from hpc.debye import iq, pair_sums
from hpc.dots import dot_pattern, dot_sums
from hpc.form_factors import scattering_factor
from hpc.motion import correlation_weights, smooth_correlation
from hpc.pairs.families import Sampling
from hpc.store import verify_store
from hpc.structure.crystal import REACH, shells
from hpc.structure.material import load_material
from hpc.structure.particles import build_particle
from hpc.structure.variant import Motion, Variant

PBS = load_material("pbs")
Q = np.linspace(0, 20, 101)
VALUES = (0.5, 0.3, 0.2, -0.1)
ONE = Sampling(realisations=1)


def dot(**groups):
    shape = {"name": groups.pop("shape", "sphere"), "centres": ["Pb"]}
    return Variant.from_config({"material": PBS, "shape": shape, **groups})


def independent(variant):
    return replace(variant, motion=Motion())


def atoms_of(variant, diameter):
    """Positions, elements and B of one particle whose atoms are all alike at the surface and in the core."""
    kinds, positions = build_particle(independent(variant), centre="Pb", diameter=diameter, seed=0)
    each = np.repeat(np.arange(len(kinds)), [len(one) for one in positions])
    element = np.array([kind.element for kind in kinds])[each]
    return np.concatenate(positions), element, np.array([kind.b_iso for kind in kinds])[each]


def double_sum(position, element, b, q, correlation):
    """Σ_ij f_i f_j* exp(-(B_i+B_j)(1-c_ij) s²) sinc(Q r_ij), i ≠ j, plus Σ |f_i|²."""
    r = np.linalg.norm(position[:, None] - position, axis=-1)
    damping = (b[:, None] + b) * (1 - correlation(r))
    total = np.empty(len(q))
    for index, x in enumerate(q):
        table = {
            e: complex(scattering_factor(e, np.array([x]), energy_kev=22.0)[0]) for e in np.unique(element)
        }
        f = np.array([table[e] for e in element])
        pairs = np.sinc(x * r / np.pi) * np.exp(-damping * (x / (4 * np.pi)) ** 2)
        np.fill_diagonal(pairs, 1.0)
        total[index] = (f.conj() @ pairs @ f).real
    return total


def by_shells(r):
    nodes, _ = shells(PBS, len(VALUES) + 1)
    return (np.array(VALUES) @ correlation_weights(r.ravel(), nodes)).reshape(r.shape)


def by_law(r):
    return smooth_correlation(r.ravel(), 2.2).reshape(r.shape)


@pytest.mark.parametrize(("motion", "law"), [({"correlation": VALUES}, by_shells), ({"smooth": 2.2}, by_law)])
@pytest.mark.parametrize(
    ("groups", "tolerance"),
    [
        ({}, 1e-11),  # integer classes: exact
        ({"lattice": "rhombohedral"}, 1e-6),  # one pass at real positions, nodes
        ({"disorder": {"core": 0.05}}, 1e-6),  # particle by particle, nodes
        ({"faults": "facet_layer", "shape": "truncated_octahedron"}, 1e-6),
    ],
)
def test_every_engine_against_the_double_sum_with_its_own_b_for_every_pair(motion, law, groups, tolerance):
    variant = dot(motion=motion, **groups)
    position, element, b = atoms_of(variant, 20.0)
    exact = double_sum(position, element, b, Q, law)
    found = dot_sums(variant, q=Q, diameter_nm=2.0, sampling=ONE).iq(energy_kev=22.0)
    np.testing.assert_allclose(found, exact, rtol=tolerance)
    plain = dot_sums(independent(variant), q=Q, diameter_nm=2.0, sampling=ONE).iq(energy_kev=22.0)
    assert np.abs(plain / exact - 1).max() > 0.05  # it does something


def test_strain_and_b_scale_go_through():
    variant = dot(motion={"correlation": VALUES})
    position, element, b = atoms_of(variant, 20.0)
    sums = dot_sums(variant, q=Q, diameter_nm=2.0, strain=0.02)
    exact = double_sum(1.02 * position, element, 1.7 * b, Q, lambda r: by_shells(r / 1.02))
    np.testing.assert_allclose(sums.iq(energy_kev=22.0, b_scale=1.7), exact, rtol=1e-11)


@pytest.mark.parametrize(
    ("groups", "tolerance"),
    [
        ({}, 1e-11),
        ({"surface": "cation_terminated"}, 1e-11),
        ({"lattice": "rhombohedral", "shape": "octahedron"}, 1e-6),
        ({"disorder": "relaxed_surface"}, 1e-6),
        ({"faults": "twin_plane"}, 1e-6),
    ],
)
def test_surface_b_against_neighbours_counted_atom_by_atom(groups, tolerance):
    variant = dot(motion={"surface_b": 2.5}, **groups)
    position, element, b = atoms_of(variant, 20.0)
    undeformed, kind, _ = atoms_of(
        dot(**{k: v for k, v in groups.items() if k not in ("lattice", "disorder")}), 20.0
    )
    pairs = cKDTree(undeformed).query_pairs(1.2 * 2.968, output_type="ndarray")
    bonds = np.bincount(pairs[kind[pairs[:, 0]] != kind[pairs[:, 1]]].ravel(), minlength=len(b))
    lacking = bonds < 6
    assert 0.2 < lacking.mean() < 0.8
    exact = double_sum(position, element, np.where(lacking, 2.5 * b, b), Q, np.zeros_like)
    sums = dot_sums(variant, q=Q, diameter_nm=2.0, sampling=ONE)
    np.testing.assert_allclose(sums.iq(energy_kev=22.0), exact, rtol=tolerance)
    assert [kind.label for kind in sums.kinds] == ["Pb", "S", "Pb surface", "S surface"]
    assert sums.n_atoms[2:].sum() == pytest.approx(lacking.sum())


def test_surface_b_of_1_is_nothing():
    one, plain = dot(motion={"surface_b": 1.0}), dot()
    assert one == plain
    np.testing.assert_array_equal(
        dot_pattern(one, q=Q, diameter_nm=2.0, energy_kev=22.0),
        dot_pattern(plain, q=Q, diameter_nm=2.0, energy_kev=22.0),
    )


def test_a_rigid_dimer_is_not_damped():
    position, q = [[0, 0, 0], [0, 0, 2.5]], np.linspace(0, 20, 201)
    particle = {"energy_kev": 22.0, "b_iso": 2.0}
    rigid = Motion(correlation=(1.0,), shells=(2.5, 4.0))
    undamped = iq(position, ["Pb", "Pb"], q, energy_kev=22.0)
    np.testing.assert_allclose(iq(position, ["Pb", "Pb"], q, motion=rigid, **particle), undamped, rtol=1e-9)
    assert np.abs(iq(position, ["Pb", "Pb"], q, **particle) / undamped - 1).max() > 0.03
    independent_ = Motion(correlation=(0.0,), shells=(2.5, 4.0))
    np.testing.assert_array_equal(
        iq(position, ["Pb", "Pb"], q, motion=independent_, **particle),
        iq(position, ["Pb", "Pb"], q, **particle),
    )


def test_a_list_of_atoms_shows_the_shells_of_its_crystal():
    variant = dot(motion={"correlation": VALUES})
    position, element, b = atoms_of(variant, 25.0)
    sums = pair_sums(position, element, Q, b_iso=b, motion=Motion(correlation=VALUES))
    model = dot_sums(variant, q=Q, diameter_nm=2.5).iq(energy_kev=22.0)
    np.testing.assert_allclose(sums.iq(energy_kev=22.0), model, rtol=1e-6)


def test_near_peaks_of_the_pdf_are_sharp_and_far_ones_are_not():
    """The width of a peak of G(r), as 1/height at given area: √(1-c) of the independent one near, the same far."""
    variant = dot(motion={"correlation": (0.75,)})
    q, r = np.arange(0, 40, 0.02), np.linspace(2.0, 12.0, 2001)
    moving, plain = (
        dot_sums(v, q=q, diameter_nm=3.0).gr(r, energy_kev=22.0) for v in (variant, independent(variant))
    )
    near, far = np.abs(r - 2.968) < 0.55, np.abs(r - 8.904) < 0.4
    # Less than 2 = 1/√(1-c), since the end of Q widens both.
    assert 1.4 < moving[near].max() / plain[near].max() < 2.0
    np.testing.assert_allclose(moving[far], plain[far], atol=5e-3 * np.abs(plain[far]).max())
    # Motion moves no pair: the area of the peak is the number of neighbours.
    moving_area, plain_area = (np.trapezoid((r * g)[near], r[near]) for g in (moving, plain))
    assert moving_area == pytest.approx(plain_area, rel=0.01)


def test_nothing_changes_at_q_0():
    variant = dot(motion={"correlation": VALUES})
    moving, plain = (
        dot_sums(v, q=np.array([0.0, 40.0]), diameter_nm=2.0).iq(energy_kev=22.0)
        for v in (variant, independent(variant))
    )
    assert moving[0] == pytest.approx(plain[0], rel=1e-12)


def test_a_halo_adds_neighbours_of_the_bulk_to_every_atom():
    variant = dot(motion={"halo": [0.1, 0.05], "halo_b": 3.0})
    moving, plain = (
        dot_sums(v, q=Q, diameter_nm=2.5, strain=0.01).iq(energy_kev=22.0, per_atom=True)
        for v in (variant, independent(variant))
    )
    f = {e: scattering_factor(e, Q, energy_kev=22.0) for e in ("Pb", "S")}
    r = 1.01 * 5.936 * np.array([0.5, np.sqrt(0.5)])
    waves = [np.sinc(Q * x / np.pi) * np.exp(-3.0 * (Q / (4 * np.pi)) ** 2) for x in r]
    # Per atom: 6 bonds Pb-S; 12 neighbours of the same kind, of half of the atoms each.
    expected = 0.1 * 6 * (f["Pb"] * f["S"].conj()).real * waves[0]
    expected += 0.05 * 6 * (abs(f["Pb"]) ** 2 + abs(f["S"]) ** 2) * waves[1]
    np.testing.assert_allclose(moving - plain, expected, atol=1e-9 * plain.max())


def make(path, *overrides):
    return simulated_grid(path, "grid.diameter_nm=[1.7, 2.2]", *overrides)


def test_every_pattern_of_a_grid_of_motions(tmp_path):
    """Rows of stores, with strain and b_scale, against each ensemble on its own; all three engines."""
    config, store = make(
        tmp_path / "store.zarr",
        "q={min: 0.5, max: 15.0, step: 0.05}",
        "grid.sigma=[0.0, 0.1]",
        "grid.strain=[-0.01, 0.004]",
        "grid.b_scale=[0.5, 1.7]",
        "grid.tail=1e-6",
        "particles.size_step_nm=0.5",
        "particles.realisations=1",
        "variants=[{motion: {correlation: [0.5, 0.3, -0.2], halo: [0.1]}}, {motion: {smooth: 2.2, surface_b: 2.0}}, "
        "{lattice: rhombohedral, motion: {correlation: [0.6], halo: [0.0, 0.1]}}, "
        "{disorder: {core: 0.03}, motion: {smooth: 2.0}}, {motion: independent}]",
    )
    assert verify_store(store.path) == []
    sampling = Sampling(size_step=5.0, realisations=1)
    for sample, stored, exact in exact_samples(config, store, sampling=sampling):
        tolerance = 2e-6 if sample["variant"] != 3 or sample["sigma"] == 0 else 1e-3
        np.testing.assert_allclose(
            stored, exact, rtol=tolerance, atol=1e-6 * exact.max(), err_msg=str(sample)
        )


def test_a_store_keeps_the_near_pairs_that_any_motion_needs(tmp_path):
    """From a store of independent atoms, the same pattern with correlated motion as a simulation with it."""
    from hpc.motion import near_terms
    from hpc.scattering import coefficients

    grid = ("grid.sigma=[0.0]", "grid.strain=[0.004]", "grid.b_scale=[1.3]", "shape.centres=[Pb]")
    config, store = make(tmp_path / "plain.zarr", *grid)
    _, moving = make(tmp_path / "moving.zarr", *grid, "motion={correlation: [0.5, 0.3, 0.2, 0.1]}")
    basis = store.basis()
    assert basis["near_distance"].max() < REACH
    assert np.all(np.diff(basis["near_distance"]) > 0)
    nodes, _ = shells(PBS, 5)
    # Every bond of the largest particle, in both orders, is a near pair.
    position, element, _ = atoms_of(dot(), 10 * basis["diameter"][-1])
    pairs = cKDTree(position).query_pairs(3.0, output_type="ndarray")
    bond = int(np.argmin(np.abs(basis["near_distance"] - nodes[0])))
    assert basis["near_pairs"][:, -1, bond].tolist() == [0, 2 * len(pairs), 0]
    assert (element[pairs[:, 0]] != element[pairs[:, 1]]).all()
    terms = coefficients(config.material.kinds, store.q, energy_kev=22.0)
    correlation = np.array([0.5, 0.3, 0.2, 0.1]) @ correlation_weights(basis["near_distance"], nodes)
    for row, diameter in enumerate(store.parameters["diameter"]):
        k = np.searchsorted(basis["diameter"], diameter * (1 + 1e-9), side="right") - 1
        added = near_terms(
            basis["near_pairs"][:, k] / basis["n_atoms"][k].sum(),
            basis["near_distance"],
            correlation,
            store.q,
            undamped=terms.undamped,
            exponent=terms.exponent,
            b_scale=1.3,
            strain=0.004,
        )
        np.testing.assert_allclose(
            store.read(row, row + 1)[0] + added,
            moving.read(row, row + 1)[0],
            rtol=3e-7,
            atol=1e-7 * added.max(),
        )
    for name, array in moving.basis().items():
        np.testing.assert_array_equal(array, basis[name])
