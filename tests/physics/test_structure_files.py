"""Particles off the lattice: the moment histogram against a direct double sum."""

import numpy as np
import pytest

from hpc.pairs import BIN_WIDTH, gauss_nodes, pair_moments, partial_sums_of_positions
from hpc.pattern import file_pattern

Q = np.concatenate([np.arange(0.1, 20, 0.37), [20.0]])


@pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 1e-10), (0.02, 1e-6), (0.1, 1e-6), (0.4, 1e-6)])
def test_intensity_equals_the_direct_sum(rocksalt_sphere, double_sum, form_factors, noise, tolerance):
    # Displacements like the bin width are the hardest: smooth over many bins errors cancel, at 0 there are none.
    position, element = rocksalt_sphere(32.0)
    position = position + np.random.default_rng(3).normal(0, noise, position.shape)
    expected = double_sum(position, element, Q, form_factors(Q, 22.0))
    positions = [position[element == symbol] for symbol in ("Pb", "S")]
    found = file_pattern(["Pb", "S"], positions, q=Q, energy_kev=22.0, b_iso={}, compton=False)
    np.testing.assert_allclose(found, expected, rtol=tolerance)


def test_every_pair_counts_in_both_orders():
    n, m = 211, 97
    first, second = (np.random.default_rng(0).uniform(0, 10, (count, 3)) for count in (n, m))
    n_bins = int(20 / BIN_WIDTH)
    within = pair_moments(first, None, width=BIN_WIDTH, n_bins=n_bins)
    between = pair_moments(first, second, width=BIN_WIDTH, n_bins=n_bins)
    assert within[:, 0].sum() == n * (n - 1)
    assert between[:, 0].sum() == 2 * n * m


def test_gauss_nodes_keep_four_moments():
    rng = np.random.default_rng(0)
    t = rng.uniform(-0.01, 0.01, 7)
    moments = np.array([[0.0] * 4, [7.0, t.sum(), (t**2).sum(), (t**3).sum()], [3.0, 0.0, 0.0, 0.0]])
    nodes, weights = gauss_nodes(moments, width=0.02)
    inside = nodes < 0.04
    for power in range(4):
        found = (weights[inside] * (nodes[inside] - 0.03) ** power).sum()
        np.testing.assert_allclose(found, moments[1, power], rtol=1e-9, atol=1e-15)
    # Three pairs at one distance are one node.
    np.testing.assert_allclose(nodes[~inside], 0.05)
    np.testing.assert_allclose(weights[~inside], 3)


def test_two_sites_on_top_of_each_other_are_refused():
    twice = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="on top of each other"):
        partial_sums_of_positions([twice], Q)
