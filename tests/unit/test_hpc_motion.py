"""Shells of crystals and of lists of atoms, laws of correlation, and the tables of batches."""

import numpy as np
import pytest
import torch

from hpc.motion import (
    correlation_weights,
    halo_terms,
    near_table,
    near_terms,
    smooth_correlation,
    table_weights,
    tail_weights,
)
from hpc.near_part import shells_of_positions
from hpc.scattering import coefficients
from hpc.structure.crystal import REACH, neighbour_distances, shells
from hpc.structure.material import load_material
from hpc.structure.variant import Motion, Variant

PBS = load_material("pbs")
Q = np.linspace(0.1, 20, 60)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Ordered pairs per atom by pair of kinds. Rocksalt: 6 unlike, 12 like, 8 unlike, 6 like neighbours.
        ("pbs", [[0, 6, 0], [6, 0, 6], [0, 8, 0], [3, 0, 3]]),
        # Zinc blende: 4 unlike, 12 like, 12 unlike.
        ("znse", [[0, 4, 0], [6, 0, 6], [0, 12, 0]]),
        ("au", [[12], [6], [24], [12]]),
        # Wurtzite: split distances are one shell; the second has 12 of the same kind.
        ("cdse_wurtzite", [[0, 4, 0]]),
    ],
)
def test_shells_of_crystals(name, expected):
    distance, neighbours = shells(load_material(name), len(expected))
    np.testing.assert_allclose(neighbours, expected, atol=1e-12)
    assert np.all(np.diff(distance) > 0)


def test_distances_of_shells():
    distance, _ = shells(PBS, 5)
    np.testing.assert_allclose(distance, 5.936 / 2 * np.sqrt([1, 2, 3, 4, 5]), rtol=1e-12)
    every = neighbour_distances(PBS)
    n = np.rint((2 * every / 5.936) ** 2)
    np.testing.assert_allclose(every, 5.936 / 2 * np.sqrt(n), rtol=1e-12)
    assert {7, 15, 23}.isdisjoint(n)  # no sums of three squares
    assert every[-1] < REACH


def test_shells_that_are_not_there():
    with pytest.raises(ValueError, match=r"PbS has \d+ shells of neighbours within 20 Å, 60 are asked for"):
        shells(PBS, 60)
    with pytest.raises(ValueError, match="at least 1"):
        shells(PBS, 0)


def test_the_law_of_shells_is_flat_at_shells_and_a_partition_before_the_last():
    nodes = np.array([3.0, 4.2, 5.1])
    np.testing.assert_allclose(correlation_weights(nodes, nodes), [[1, 0, 0], [0, 1, 0]], atol=1e-15)
    r = np.linspace(0, 8, 801)
    weights = correlation_weights(r, nodes)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=0)[r <= 4.2], 1)
    assert np.all(weights[:, r >= 5.1] == 0)
    np.testing.assert_allclose(weights[:, r <= 3.0], np.array([1, 0])[:, None] * np.ones(301))
    # A strained or displaced neighbour belongs to its shell all the same.
    np.testing.assert_allclose(correlation_weights(1.01 * nodes[:2], nodes), [[1, 0], [0, 1]], atol=2e-4)


def test_the_smooth_law():
    r = np.linspace(0, 25, 2501)
    c = smooth_correlation(r, 2.2)
    assert c[0] == pytest.approx(1)
    assert np.all(np.diff(c) <= 1e-12)
    assert np.all(c[r >= REACH] == 0)
    middle = (r > 3.0) & (r < 16)
    np.testing.assert_allclose(c[middle], 2.2 / r[middle], rtol=1e-3)
    assert np.all(smooth_correlation(r, 0.0) == 0)


def test_a_correlation_near_zero_has_derivatives_in_float32():
    torch = pytest.importorskip("torch")
    r = torch.tensor([3.0, 4.2, 19.0], dtype=torch.float32)
    for r_c in (0.0, 1e-6, 0.05):
        value, slope = torch.func.jvp(
            lambda c: smooth_correlation(r, c), (torch.tensor([r_c]),), (torch.ones(1),)
        )
        torch.testing.assert_close(value[:2], r_c / r[:2])
        torch.testing.assert_close(slope[:2], 1 / r[:2])
        assert bool(torch.isfinite(slope).all())


def test_tables_of_batches_give_the_exact_terms():
    """Twelve nodes of the damping, for any c and factor on B: what the docstring of `near_table` says."""
    distance, neighbours = shells(PBS, 4)
    terms = coefficients(PBS.kinds, Q, energy_kev=22.0)
    pairs = neighbours.T
    nodes = 0.75 * (1 - np.cos(np.pi * (2 * np.arange(12) + 1) / 24))
    table = near_table(distance, Q, nodes, undamped=terms.undamped, exponent=terms.exponent, strain=0.003)
    for b_scale, c in ((1.0, [0.8, 0.4, 0.2, 0.1]), (1.4, [0.0, 0.9, 0.0, 0.3]), (0.7, [1.0, 0.0, 0.0, 0.0])):
        correlation = np.array(c)
        exact = near_terms(
            pairs,
            distance,
            correlation,
            Q,
            undamped=terms.undamped,
            exponent=terms.exponent,
            b_scale=b_scale,
            strain=0.003,
        )
        weights = table_weights(b_scale * (1 - correlation), nodes)
        weights = weights - table_weights(np.full(4, b_scale), nodes)
        found = np.einsum("pn,nm,pnmq->q", pairs, weights, table)
        size = np.einsum("pn,pq->q", pairs, terms.undamped).max()
        np.testing.assert_allclose(found, exact, atol=1e-5 * size)


def test_a_batch_is_its_rows_and_torch_differentiates_it():
    distance, neighbours = shells(PBS, 3)
    terms = coefficients(PBS.kinds, Q, energy_kev=22.0)
    rng = np.random.default_rng(0)
    pairs, c = rng.random((5, 3, 3)) * neighbours.T, rng.random((5, 3))
    b, strain = 1 + rng.random((5, 1)), 0.01 * rng.random((5, 1))
    keys = {"undamped": terms.undamped, "exponent": terms.exponent}
    whole = near_terms(pairs, distance, c, Q, **keys, b_scale=b, strain=strain)
    for i in range(5):
        row = near_terms(
            pairs[i], distance, c[i], Q, **keys, b_scale=float(b[i, 0]), strain=float(strain[i, 0])
        )
        np.testing.assert_allclose(whole[i], row, rtol=1e-12, atol=1e-12)

    tensors = {name: torch.from_numpy(value) for name, value in keys.items()}
    chosen = torch.tensor(c[0], requires_grad=True)
    total = near_terms(
        torch.from_numpy(pairs[0]), torch.from_numpy(distance), chosen, torch.from_numpy(Q), **tensors
    )
    np.testing.assert_allclose(
        total.detach(), near_terms(pairs[0], distance, c[0], Q, **keys), rtol=1e-12, atol=1e-12
    )
    total.sum().backward()
    up, down = (
        near_terms(pairs[0], distance, c[0] + step * np.eye(3)[1], Q, **keys).sum() for step in (1e-6, -1e-6)
    )
    assert float(chosen.grad[1]) == pytest.approx((up - down) / 2e-6, rel=1e-6)


def test_the_halo_of_one_shell():
    distance, neighbours = shells(PBS, 2)
    terms = coefficients(PBS.kinds, Q, energy_kev=22.0)
    table = halo_terms(distance, neighbours, Q, undamped=terms.undamped, b=3.0)
    expected = 6 * terms.undamped[1] * np.sinc(Q * 2.968 / np.pi) * np.exp(-3.0 * (Q / (4 * np.pi)) ** 2)
    np.testing.assert_allclose(table[0], expected, rtol=1e-12)


def test_shells_that_a_list_of_atoms_shows():
    lattice = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3), axis=-1).reshape(-1, 3) * 3.0
    rng = np.random.default_rng(0)
    displaced = lattice + 0.05 * rng.normal(size=lattice.shape)
    found = shells_of_positions(displaced, 3)
    np.testing.assert_allclose(found, 3.0 * np.sqrt([1, 2, 3]), atol=0.05)
    with pytest.raises(ValueError, match=r"3 shells of neighbours are needed .* the particle shows 1"):
        shells_of_positions(np.array([[0.0, 0, 0], [0, 0, 2.5]]), 3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"correlation": 0.5}, "motion.correlation must be a list of numbers, one for each shell"),
        ({"correlation": [1.5]}, r"motion.correlation\[0\] must lie in -1 to 1"),
        ({"correlation": [0.5], "smooth": 2.0}, "two laws for the same thing"),
        ({"smooth": -1.0}, "motion.smooth must lie in 0 to 10"),
        ({"halo": ["a"]}, r"motion.halo\[0\] must be a finite number"),
        ({"correlation": [0.5], "shells": [3.0]}, "motion.shells must be increasing distances, at least 2"),
        ({"correlation": [0.5], "shells": [4.0, 3.0]}, "motion.shells must be increasing distances"),
        ({"surface_b": -1}, "motion.surface_b must lie in 0 to 100"),
    ],
)
def test_motion_that_nobody_can_mean(keys, message):
    with pytest.raises(ValueError, match=message):
        Motion(**keys)


def test_motion_of_more_shells_than_a_crystal_has():
    with pytest.raises(ValueError, match="PbS has .* shells of neighbours within 20 Å"):
        Variant.from_config({"material": PBS, "shape": "sphere", "motion": {"correlation": [0.1] * 40}})


def test_surface_b_and_the_mean_over_stackings():
    from hpc.structure.particles import is_nested
    from hpc.structure.sites import cut_sites

    variant = Variant.from_config(
        {"material": PBS, "shape": "sphere", "faults": "deformation", "motion": {"surface_b": 2.0}}
    )
    assert not is_nested(variant)
    with pytest.raises(ValueError, match=r"motion.surface_b and faults: .* depends on the stacking"):
        cut_sites(variant, centre="Pb", diameter_max=20.0)


def test_tail_is_1_over_r_from_the_second_shell_to_its_end() -> None:
    r = np.linspace(0.5, 30, 2000)
    near, tail = tail_weights(r, 3.0, 4.2, reach=25.0)
    assert (near[r <= 3.0] == 1).all() and (near[r >= 4.2] == 0).all() and (np.diff(near) <= 0).all()
    middle = (r >= 4.2) & (r <= 20)
    np.testing.assert_allclose(tail[middle], 3.0 / r[middle], rtol=1e-12)
    assert (tail[r <= 3.0] == 0).all() and (tail[r >= 25] == 0).all()
    assert (tail >= 0).all() and (near + tail <= 1).all()
