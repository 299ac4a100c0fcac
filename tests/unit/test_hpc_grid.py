"""Axes and the order of a grid's samples."""

import numpy as np
import pytest

from hpc.config import GridConfig, QConfig
from hpc.config_axis import Axis
from hpc.ensemble import largest_diameter
from hpc.grid import axis_values, grid_samples, intensity_bytes, q_values, stepped
from hpc.schema import PARAMETERS


def grid(**changes):
    values = {
        "sampling": "cartesian",
        "samples": None,
        "diameter_nm": [2.0, 3.0],
        "sigma": [0.05, 0.1, 0.2],
        "strain": [0.001, -0.001],
        "b_scale": [1.0, 1.5],
        "tail": 1e-6,
        "largest_nm": None,
        "shares": None,
    } | changes
    axes = {name: Axis.read(name, values[name]) for name in ("diameter_nm", "sigma", "strain", "b_scale")}
    return GridConfig(**values | axes)


def test_the_last_step_is_included_whatever_the_last_bit_says():
    for start, stop, step in ((0.5, 20.0, 0.01), (0.0, 1.0, 0.1), (2.0, 10.0, 0.5), (0.99, 14.9999, 0.0028)):
        values = stepped(start, stop, step)
        assert values[0] == start
        assert stop - step < values[-1] <= stop + 1e-9 * step
        assert len(values) == int((stop - start) / step + 1e-6) + 1
    assert stepped(0.0, 1.0, 0.3)[-1] == pytest.approx(0.9)


def test_q_includes_its_end():
    q = q_values(QConfig(min=0.5, max=20.0, step=0.01))
    assert len(q) == 1951
    assert q.dtype == np.float64
    assert q[0] == 0.5
    assert q[-1] == pytest.approx(20.0, abs=1e-12)


def test_the_published_q_has_5004_points():
    np.testing.assert_allclose(
        q_values(QConfig(min=0.99, max=14.9999, step=0.0028)), np.arange(0.99, 15, 0.0028), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ([3, 1, 2], [3, 1, 2]),
        (2.5, [2.5]),
        ("2 to 10 step 4", [2, 6, 10]),
        ("2 to 10 step 3", [2, 5, 8]),
        ("-0.0025 to 0.0051 in 3", [-0.0025, 0.0013, 0.0051]),
        ("1e-3 to .5 in 2", [0.001, 0.5]),
    ],
)
def test_values_of_an_axis(text, expected):
    values = axis_values(Axis.read("grid.x", text))
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, expected, rtol=1e-14)


@pytest.mark.parametrize("n_variants", [1, 3])
def test_a_cartesian_grid_has_the_variant_slowest_and_sigma_fastest(n_variants):
    samples = grid_samples(grid(), 0, n_variants)
    assert tuple(samples) == PARAMETERS
    assert [values.dtype for values in samples.values()] == [np.int64, *[np.float64] * 4]
    expected = [
        (variant, strain, b_scale, diameter, sigma)
        for variant in range(n_variants)
        for strain in (0.001, -0.001)  # in the order of the list
        for b_scale in (1.0, 1.5)
        for diameter in (2.0, 3.0)
        for sigma in (0.05, 0.1, 0.2)
    ]
    assert list(zip(*samples.values(), strict=True)) == expected
    other_seed = grid_samples(grid(), 1, n_variants)
    assert all(np.array_equal(values, other_seed[name]) for name, values in samples.items())


def sobol(samples, **changes):
    axes = {"diameter_nm": "2 to 10", "sigma": "0.05 to 0.25", "strain": "-0.003 to 0.005", "b_scale": 1.2}
    return grid(sampling="sobol", samples=samples, **axes | changes)


def test_a_sobol_grid_fills_its_box_evenly():
    samples = grid_samples(sobol(256), seed=3)
    assert {len(values) for values in samples.values()} == {256}
    for name, low, high in (("diameter", 2, 10), ("sigma", 0.05, 0.25), ("strain", -0.003, 0.005)):
        # 2^n points put exactly as many into each of 16 equal slices.
        counts, _ = np.histogram(samples[name], bins=16, range=(low, high))
        assert np.all(counts == 16), name
    assert np.all(samples["b_scale"] == 1.2)
    # Neighbours in the store share their size tables.
    assert np.all(np.diff(samples["diameter"]) >= 0)


def test_a_largest_dot_lowers_sigma_where_the_mean_is_large() -> None:
    config = sobol(1024, largest_nm=14.0, tail=1e-3)
    samples = grid_samples(config, seed=3)
    diameter, sigma = samples["diameter"], samples["sigma"]
    cuts = np.array([largest_diameter(d, s, tail=1e-3) for d, s in zip(diameter, sigma, strict=True)])
    assert cuts.max() <= 14.0 * (1 + 1e-9)
    # The box keeps its σ where there is room, and its bent face is reached.
    assert sigma[diameter < 4].max() > 0.249
    assert sigma[diameter > 9.5].max() < 0.13
    assert cuts[diameter > 8].max() > 13.95
    for name, values in grid_samples(sobol(1024), seed=3).items():
        if name != "sigma":
            np.testing.assert_array_equal(samples[name], values)


def test_variants_get_their_shares_of_a_sobol_grid() -> None:
    samples = grid_samples(sobol(256, shares=(2.0, 1.0, 1.0)), 0, 3)
    assert np.bincount(samples["variant"]).tolist() == [128, 64, 64]
    counts, _ = np.histogram(samples["diameter"][:128], bins=8, range=(2, 10))
    assert np.all(counts == 16)


@pytest.mark.parametrize("n_variants", [2, 3, 4, 8])
def test_a_sobol_grid_gives_every_variant_an_even_share_of_the_box(n_variants):
    samples = grid_samples(sobol(256), 3, n_variants)
    assert np.all(np.diff(samples["variant"]) >= 0)
    share = np.bincount(samples["variant"])
    assert len(share) == n_variants
    assert share.min() >= 256 // n_variants
    assert share.max() <= -(-256 // n_variants)
    for variant in range(n_variants):
        mine = samples["variant"] == variant
        assert np.all(np.diff(samples["diameter"][mine]) >= 0)
        for name, low, high in (("diameter", 2, 10), ("sigma", 0.05, 0.25), ("strain", -0.003, 0.005)):
            counts, _ = np.histogram(samples[name][mine], bins=4, range=(low, high))
            # A run of Sobol points; every n-th of them would leave whole slices empty.
            assert np.abs(counts - mine.sum() / 4).max() <= 3, (variant, name)


@pytest.mark.parametrize(
    "config", [grid(), grid(sigma="0.1 to 0.2 step 0.03", strain="0 to 0.01 in 7"), sobol(128)]
)
def test_the_size_of_a_grid_is_counted_beforehand(config):
    q = QConfig(min=1.0, max=3.0, step=0.1)
    for n_variants in (1, 3):
        rows = len(grid_samples(config, 0, n_variants)["sigma"])
        assert intensity_bytes(config, q, n_variants) == 4 * rows * len(q_values(q))


def test_the_size_of_a_huge_grid_takes_no_memory():
    huge = grid(strain="0 to 0.01 in 100000000000", sigma="0 to 1 step 1e-9")
    assert intensity_bytes(huge, QConfig(min=0.0, max=20.0, step=1e-9)) > 10**30


def test_a_sobol_grid_is_a_function_of_its_seed():
    one, again, other = (grid_samples(sobol(64), seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], again[name]) for name in PARAMETERS)
    assert not np.array_equal(one["diameter"], other["diameter"])
