"""Fine bins, nodes and weights; the choice of bins."""

import numpy as np
import pytest

from hpc.pairs.moments import MOMENTS, NODES, Bins, choose_bins, estimated_error

RNG = np.random.default_rng(0)
BINS = choose_bins(60.0, q_max=20.0)


def waves(distance, weights, q):
    return np.sinc(np.outer(q, distance) / np.pi) @ weights


def test_any_cubic_within_fine_bins_is_kept():
    """Weights of nodes sum polynomials of a low degree as the pairs themselves do."""
    distance, pairs = RNG.uniform(0, 60, 500), RNG.uniform(0, 3, 500)
    weights = BINS.node_weights(BINS.moments_of(distance, pairs))
    assert weights.shape == BINS.nodes.shape == (BINS.n_nodes,)
    for power in range(MOMENTS):
        expected = (pairs * (distance / 60) ** power).sum()
        assert (weights * (BINS.nodes / 60) ** power).sum() == pytest.approx(expected, rel=1e-12)


def test_waves_of_pairs_are_waves_of_nodes():
    distance, q = RNG.uniform(2, 60, 200), np.array([0.0, 0.1, 3.0, 12.0, 20.0])
    weights = BINS.node_weights(BINS.moments_of(distance, np.ones(200)))
    np.testing.assert_allclose(waves(BINS.nodes, weights, q), waves(distance, np.ones(200), q), atol=2e-8)


def test_weights_are_linear_in_the_moments():
    moments = RNG.normal(size=(3, 2, BINS.count, MOMENTS))
    weights = BINS.node_weights(moments)
    assert weights.shape == (3, 2, BINS.n_nodes)
    np.testing.assert_allclose(
        BINS.node_weights(moments[0] - 2 * moments[1]), weights[0] - 2 * weights[1], atol=1e-12
    )


def test_nodes_lie_within_their_coarse_bins():
    assert np.all(np.diff(BINS.nodes) > 0)
    coarse = BINS.nodes.reshape(-1, NODES) / (BINS.fine * BINS.width)
    np.testing.assert_array_equal(np.floor(coarse), np.arange(len(coarse))[:, None] * np.ones(NODES))


def test_bins_hold_the_extent():
    for extent in (0.0, 0.05, 3.0, 60.0, 411.0):
        assert choose_bins(extent, q_max=20.0).extent > extent
    longest = BINS.extent
    assert choose_bins(longest, q_max=20.0, width=BINS.width / 2).extent > longest


def test_width_follows_from_tolerance_q_max_and_extent():
    width = choose_bins(100.0, q_max=20.0).width
    # Of fourth order, and in units of 1/Q.
    assert choose_bins(100.0, q_max=20.0, tolerance=1e-10).width == pytest.approx(width / 10, rel=0.05)
    assert choose_bins(100.0, q_max=10.0).width == pytest.approx(2 * width, rel=0.05)
    assert choose_bins(200.0, q_max=20.0).width == pytest.approx(width / 2**0.5, rel=0.05)


@pytest.mark.parametrize("q_max", [0.0, 1.0, 20.0, 60.0])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6, 1e-9])
def test_the_estimate_keeps_the_tolerance(q_max, tolerance):
    for extent in (0.0, 10.0, 100.0, 400.0):
        bins = choose_bins(extent, q_max=q_max, tolerance=tolerance)
        assert estimated_error(bins, q_max) <= tolerance
        finer = Bins(width=bins.width / 2, fine=bins.fine, count=2 * bins.count)
        assert estimated_error(finer, q_max) <= estimated_error(bins, q_max)


def test_too_coarse_a_width_is_refused_and_the_named_one_works():
    with pytest.raises(
        ValueError, match=r"0\.05 Å is too coarse .* tolerance of 1e-06 .* use ([\d.]+) Å or less"
    ) as error:
        choose_bins(100.0, q_max=20.0, width=0.05)
    named = float(str(error.value).split("; use ")[1].split()[0])
    bins = choose_bins(100.0, q_max=20.0, width=named)
    assert bins.width == named
    assert estimated_error(bins, 20.0) <= 1e-6
    assert choose_bins(100.0, q_max=20.0, width=0.05, tolerance=1e-2).width == 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"extent": np.nan}, "extent must be a distance"),
        ({"extent": -1.0}, "extent must be a distance"),
        ({"q_max": -1.0}, "q_max must be >= 0"),
        ({"q_max": np.inf}, "q_max must be >= 0"),
        ({"tolerance": 0.0}, "tolerance must lie in 1e-11 to 0.01, got 0"),
        ({"tolerance": 0.5}, "tolerance must lie in 1e-11 to 0.01, got 0.5"),
        ({"width": 0.0}, "not > 0"),
        ({"width": np.nan}, "too coarse"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        choose_bins(**{"extent": 10.0, "q_max": 20.0, **arguments})


def test_bad_bins_are_refused():
    with pytest.raises(ValueError, match="width of a bin must be > 0 Å, got 0"):
        Bins(width=0.0, fine=8, count=16)
    with pytest.raises(ValueError, match="positive multiple of `fine`, got 20 and 8"):
        Bins(width=0.1, fine=8, count=20)


def test_stretched_weights_are_those_of_the_stretched_particle():
    distance, q = RNG.uniform(2, 55, 300), np.linspace(0.0, 20.0, 41)
    weights = BINS.node_weights(BINS.moments_of(distance, np.ones(300)))
    factor = np.array([1.0, 1.004, 0.97])
    for rows, at in ((np.tile(weights, (3, 1)), None), (np.ones((3, 300)), distance)):
        found = BINS.stretched(rows, factor, distance=at)
        assert found.shape == (3, BINS.n_nodes)
        for row, stretch in zip(found, factor, strict=True):
            expected = waves(distance * stretch, np.ones(300), q)
            np.testing.assert_allclose(waves(BINS.nodes, row, q), expected, rtol=0, atol=1e-6)
    assert not BINS.stretched(np.zeros((1, BINS.n_nodes)), np.array([9.0])).any()


def test_stretching_beyond_the_bins_is_refused():
    with pytest.raises(ValueError, match="a pair is stretched to 66 Å; choose bins for the largest"):
        BINS.stretched(np.ones((1, 1)), np.array([1.1]), distance=np.array([60.0]))
