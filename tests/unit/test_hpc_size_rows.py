"""Rows of sizes of particles that are built one by one."""

import numpy as np
import pytest

from hpc.pairs.size_rows import NO_WIDTH, rows_of_sites, with_exact

# Sites enter at 4 (one), at 10 and 10.1 (three and one: within a fifth of the step), and at 12.5 Å.
GAUGE = np.array([12.5, 10.0, 4.0, 10.1, 10.0, 10.0])


def test_rows_begin_where_sites_enter_and_are_split_where_none_does():
    diameter, size = rows_of_sites(GAUGE, low=0.0, high=14.0, step=2.0)
    np.testing.assert_allclose(diameter[:4], 4 + (10.025 - 4) / 4 * np.arange(4))
    np.testing.assert_allclose(diameter[4:], [10.025, 11.2625, 12.5])
    assert np.all(np.diff(np.append(diameter, 14.0)) <= 2.0)
    # In the middle of the row, but where all of its sites and none of the next one's are there.
    np.testing.assert_allclose(size[4:], [10.64375, 11.88125, 13.25])
    np.testing.assert_allclose(size[:4], diameter[:4] + (10.025 - 4) / 8)
    held = [np.count_nonzero(one >= GAUGE) for one in size]
    assert held == [1, 1, 1, 1, 5, 5, 6]


def test_the_size_of_a_narrow_row_holds_its_sites_alone():
    diameter, size = rows_of_sites(np.array([1.0, 5.0, 5.19, 5.25]), low=0.0, high=5.3, step=1.0)
    narrow = np.array([5.0, 5.19, 5.25])
    assert diameter[-2:].tolist() == pytest.approx([(5.0 + 5.19) / 2, 5.25])
    assert [np.count_nonzero(one >= narrow) for one in size[-3:]] == [0, 2, 3]


def test_rows_below_the_smallest_ensemble_are_left_out():
    whole, _ = rows_of_sites(GAUGE, low=0.0, high=14.0, step=10.0)
    np.testing.assert_allclose(whole, [4.0, 10.025, 12.5])
    diameter, _ = rows_of_sites(GAUGE, low=10.5, high=14.0, step=10.0)
    np.testing.assert_allclose(diameter, whole[1:])


def test_an_exact_diameter_has_a_row_of_no_width_within_the_row_that_it_lies_in():
    diameter, size = with_exact(np.array([2.0, 4.0]), np.array([3.0, 5.0]), np.array([1.0, 3.5, 4.0]))
    np.testing.assert_allclose(diameter, [1, 2, 3.5, 3.5, 4, 4])
    np.testing.assert_array_equal(size, [1, 3, 3.5, 3, 4, 5])
    assert np.all(np.diff(diameter) > 0)
    assert diameter[3] / diameter[2] == pytest.approx(1 + NO_WIDTH)


def test_without_steps_or_without_exact_diameters():
    none = np.empty(0)
    for one, other in ((none, np.array([3.0])), (np.array([3.0]), none)):
        diameter, size = with_exact(one, one, other)
        assert diameter.tolist() == size.tolist() == [3.0]
