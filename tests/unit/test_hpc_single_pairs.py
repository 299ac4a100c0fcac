"""The CPU pair engine: the moments of all pairs on the nodes, whatever the number of kinds, threads and parts."""

import tracemalloc

import numpy as np
import pytest

from hpc.memory import available_memory
from hpc.pairs import single as pairs
from hpc.pairs.moments import MOMENTS, choose_bins
from hpc.pairs.single import (
    add_to_weights,
    memory_needed,
    pair_extent,
    pair_weight_shares,
    pair_weights,
    partial_sums_of_positions,
    zero_moments,
)
from hpc.structure.material import kind_pairs

RNG = np.random.default_rng(5)
Q = np.linspace(0.0, 20.0, 101)


def cloud(*sizes, edge=25.0):
    return [RNG.uniform(-edge / 2, edge / 2, (n, 3)) for n in sizes]


def distances(positions, a, b):
    """Of ordered pairs, as far as one order shows them all."""
    r = np.linalg.norm(positions[a][:, None] - positions[b][None], axis=-1)
    return r[~np.eye(len(r), dtype=bool)] if a == b else np.tile(r.ravel(), 2)


@pytest.mark.parametrize("sizes", [(300,), (200, 90), (130, 70, 1), (40, 0, 300)])
def test_weights_are_those_of_all_distances(sizes):
    positions = cloud(*sizes)
    bins = choose_bins(pair_extent(positions), q_max=20.0)
    weights = pair_weights(positions, bins)
    assert weights.shape == (len(kind_pairs(len(sizes))), bins.n_nodes)
    for row, (a, b) in enumerate(kind_pairs(len(sizes))):
        r = distances(positions, a, b)
        expected = bins.node_weights(bins.moments_of(r, np.ones(len(r))))
        np.testing.assert_allclose(weights[row], expected, rtol=0, atol=1e-9)
    n = sum(sizes)
    assert weights.sum() == pytest.approx(n * (n - 1), rel=1e-12)


@pytest.mark.parametrize("strip", [1, 7, 64, 300])
def test_strips_of_any_length_count_every_pair(strip):
    """Lengths of vectors, remainders, the diagonal: moments against NumPy."""
    first, second = (np.ascontiguousarray(one.T) for one in cloud(strip, 2 * strip + 1))
    bins = choose_bins(60.0, q_max=20.0)
    for others, same in ((first, True), (second, False)):
        moments = zero_moments(bins)
        assert pairs._add_blocks(first, others, same, 0, 1, 1 / bins.width, moments) == 0
        r = np.linalg.norm(first[:, :, None] - others[:, None, :], axis=0)
        r = r[np.triu_indices(len(r), 1)] if same else r.ravel()
        np.testing.assert_allclose(moments, bins.moments_of(r, np.ones(len(r))), atol=1e-9)


def test_moments_start_on_a_line_of_the_cache():
    for count in (64, 640, 6400):
        moments = zero_moments(choose_bins(count * 0.01, q_max=20.0))
        assert moments.ctypes.data % 64 == 0
        assert not moments.any()


def test_compiled_node_weights_equal_those_of_bins():
    bins = choose_bins(30.0, q_max=20.0)
    moments = RNG.normal(size=(bins.count, MOMENTS))
    moments[::3] = 0.0
    weights = np.ones(bins.n_nodes)
    add_to_weights(moments, bins.transfer, 2.0, weights)
    np.testing.assert_allclose(weights - 1, 2 * bins.node_weights(moments), atol=1e-12)


@pytest.fixture
def many_strips(monkeypatch):
    """Small particles in as many strips as large ones."""
    monkeypatch.setattr(pairs, "_VISITS", 3000)


@pytest.mark.usefixtures("many_strips")
def test_threads_and_parts_do_not_change_a_bit():
    positions = cloud(700, 400)
    bins = choose_bins(pair_extent(positions), q_max=20.0)
    whole = pair_weights(positions, bins, threads=1)
    for threads in (2, 5):
        np.testing.assert_array_equal(pair_weights(positions, bins, threads=threads), whole)
    for n in (2, 3, 7):
        shares = [pair_weight_shares(positions, bins, part=(i, n)) for i in range(n)]
        assert all(share.any() for share in shares)
        np.testing.assert_array_equal(sum(shares).sum(axis=0), whole)
        np.testing.assert_array_equal(sum(shares[::-1]).sum(axis=0), whole)


@pytest.mark.usefixtures("many_strips")
def test_rounding_of_shares_loses_nothing():
    """Weights are off by no more than the sums of float64 themselves, not by their coarse part's quantum."""
    positions = cloud(700)
    bins = choose_bins(pair_extent(positions), q_max=20.0, tolerance=1e-11)
    r = distances(positions, 0, 0)
    expected = bins.node_weights(bins.moments_of(r, np.ones(len(r))))
    coarse, _ = pairs._quanta(700)
    np.testing.assert_allclose(pair_weights(positions, bins)[0], expected, rtol=0, atol=coarse / 10)


@pytest.mark.usefixtures("many_strips")
def test_order_rotation_and_translation_of_atoms_do_not_matter():
    positions = cloud(300, 200)
    rotation = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    moved = [one[::-1] @ rotation + [5.0, -80.0, 3.0] for one in positions]
    expected = partial_sums_of_positions(positions, Q)
    n = 500
    np.testing.assert_allclose(partial_sums_of_positions(moved, Q), expected, rtol=0, atol=1e-6 * n)


def test_q_zero_is_the_number_of_pairs_and_uneven_q_is_served():
    positions = cloud(50, 30)
    found = partial_sums_of_positions(positions, Q)
    np.testing.assert_allclose(found[:, 0], [50 * 49, 2 * 50 * 30, 30 * 29], rtol=1e-12)
    some = np.array([0.0, 20.0, 3.2, 0.2])
    np.testing.assert_allclose(
        partial_sums_of_positions(positions, some), found[:, [0, 100, 16, 1]], atol=1e-9
    )
    assert partial_sums_of_positions(positions, np.empty(0)).shape == (3, 0)


def test_one_atom_has_no_pairs():
    assert not partial_sums_of_positions([np.array([[4.0, 5.0, 6.0]])], Q).any()


@pytest.mark.parametrize("gap", [0.0, 1e-5])
@pytest.mark.parametrize("kinds", [1, 2])
def test_two_sites_on_top_of_each_other_are_refused(gap, kinds):
    positions = np.concatenate([cloud(20)[0], np.zeros((1, 3)), [[0.0, 0.0, gap]]])
    given = [positions] if kinds == 1 else [positions[:-1], positions[-1:]]
    with pytest.raises(ValueError, match=r"on top of each other \(distance 0, 1 pairs below 0.001 Å\)"):
        partial_sums_of_positions(given, Q)


def test_close_sites_are_counted():
    """Split positions, 0.01 Å apart, lie in the first bins."""
    positions = [np.array([[0.0, 0, 0], [0.01, 0, 0], [3.0, 0, 0]])]
    r = np.array([0.01, 2.99, 3.0])
    expected = 2 * np.sinc(np.outer(Q, r) / np.pi).sum(axis=1)
    np.testing.assert_allclose(partial_sums_of_positions(positions, Q)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([], "at least one site, got none"),
        ([np.empty((0, 3))], "at least one site, got none"),
        ([np.zeros((4, 2))], r"one \(n, 3\) array for each kind, got shapes \[\(4, 2\)\]"),
        ([np.zeros(3)], r"got shapes \[\(3,\)\]"),
        ([np.array([[0.0, np.nan, 0.0]])], "must be finite"),
        ([np.array([[0.0, 0.0, 0.0], [np.inf, 0.0, 0.0]])], "must be finite"),
    ],
)
def test_bad_positions_are_refused(positions, message):
    with pytest.raises(ValueError, match=message):
        partial_sums_of_positions(positions, Q)


def test_bins_that_end_too_early_are_refused():
    with pytest.raises(ValueError, match=r"bins reach to \S+ Å, but sites may be \S+ Å apart"):
        pair_weights(cloud(20, edge=50.0), choose_bins(20.0, q_max=20.0))


def test_too_coarse_a_width_is_refused():
    with pytest.raises(ValueError, match="too coarse"):
        partial_sums_of_positions(cloud(20), Q, width=0.05)
    partial_sums_of_positions(cloud(20), Q, width=0.05, tolerance=1e-2)


def test_the_extent_bounds_every_distance():
    for positions in (cloud(30, 2), [np.array([[9.0, 9.0, 9.0]])], [cloud(50)[0] * [1, 5, 0.1]]):
        everything = np.concatenate(positions)
        largest = np.linalg.norm(everything[:, None] - everything, axis=-1).max()
        assert largest <= pair_extent(positions) <= 3**0.5 * largest + 1e-12
    ball = RNG.normal(size=(500, 3))
    ball *= 20 / np.linalg.norm(ball, axis=1)[:, None]
    assert pair_extent([ball]) <= 40.0 * (1 + 1e-12)


@pytest.mark.parametrize("q", [np.linspace(0.5, 20, 1951), np.geomspace(0.5, 20, 1951)])
def test_memory_stays_below_what_was_announced(q):
    positions = cloud(3000, 2000, edge=60.0)
    bins = choose_bins(pair_extent(positions), q_max=20.0)
    partial_sums_of_positions(positions, q[:5])  # compiled
    tracemalloc.start()
    partial_sums_of_positions(positions, q, threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    needed = memory_needed(positions, bins, len(q), threads=2)
    assert peak <= needed


def test_a_million_atoms_need_less_than_two_gigabytes():
    # 0.0383 atoms per Å³ in PbS; only lengths and the largest distance count.
    positions = [np.broadcast_to(np.zeros(3), (500_000, 3))] * 2
    diameter = 2 * (3e6 / (4 * np.pi * 0.0383)) ** (1 / 3)
    bins = choose_bins(diameter, q_max=20.0)
    assert 1e8 < memory_needed(positions, bins, 1951, threads=64) < 2e9


def test_what_does_not_fit_is_refused_with_numbers(monkeypatch):
    monkeypatch.setattr("hpc.memory.available_memory", lambda: 3_000_000)
    with pytest.raises(
        ValueError, match=r"this particle needs \S+ GB of memory, and 0.003 GB are there; ask for"
    ):
        partial_sums_of_positions(cloud(300), Q)
    # Hundreds of atoms, kilometres of bins.
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"needs \S+ GB of memory, and \S+ GB are there"):
        partial_sums_of_positions([np.array([[0.0, 0, 0], [1e9, 0, 0]])], Q)


def test_available_memory_is_that_of_the_machine_or_less():
    import os

    there = available_memory()
    assert 0 < there <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
