"""Pair histograms of every particle of a nested family, integer for integer."""

import numpy as np
import pytest

from hpc.pairs.nested import (
    average_over_centres,
    count_pairs,
    count_pairs_reference,
    kind_pairs,
    merge_shells,
)
from hpc.structure.lattice_sites import cut_nested_sites
from hpc.structure.material import Kind, Material, load_material

PBS = load_material("pbs")
#: Two sites, a bond midpoint, an empty corner, a point without any symmetry.
CENTRES = ["Pb", "S", (0.25, 0, 0), (0.25, 0.25, 0.25), (0.05, 0.2, 0.1)]


def cut(centre, diameter, material=PBS):
    return cut_nested_sites(material, shape="sphere", centre=centre, diameter_max=diameter)


def test_pairs_of_kinds_are_ordered():
    assert kind_pairs(1) == [(0, 0)]
    assert kind_pairs(3) == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]


@pytest.mark.parametrize("centre", CENTRES)
def test_counts_equal_the_reference(centre):
    sites = cut(centre, 17.0)
    counts = count_pairs(sites)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, count_pairs_reference(sites))
    n = len(sites.position)
    assert counts.sum() == n * (n - 1)


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("diameter", [9.5, 16.0])
def test_the_prefix_sum_is_the_histogram_of_the_smaller_particle(centre, diameter):
    """Against all distances of a particle cut on its own, as floating-point numbers."""
    sites = cut(centre, 22.0)
    counts = count_pairs(sites)
    small = cut(centre, diameter)
    shell = int(np.searchsorted(sites.diameter, diameter)) - 1
    histogram = counts[:, : shell + 1].sum(axis=1)
    begin, end = small.offset[:, 0], small.offset[:, -1]
    by_kind = [small.unit * small.position[begin[a] : end[a]] for a in range(2)]
    for index, (a, b) in enumerate(kind_pairs(2)):
        distance = np.linalg.norm(by_kind[a][:, None] - by_kind[b][None], axis=-1)
        if a == b:
            distance = distance[~np.eye(len(distance), dtype=bool)]
        n, times = np.unique(np.rint((distance / sites.unit) ** 2).astype(int), return_counts=True)
        np.testing.assert_array_equal(np.flatnonzero(histogram[index]), n)
        np.testing.assert_array_equal(histogram[index][n], times * (1 if a == b else 2))


def test_every_smaller_particle_has_n_times_n_less_one_pairs():
    sites = cut("S", 40.0)
    pairs = np.cumsum(count_pairs(sites).sum(axis=(0, 2)))
    n = np.cumsum(sites.atoms.sum(axis=1))
    np.testing.assert_array_equal(pairs, n * (n - 1))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_a_count(threads):
    sites = cut("Pb", 25.0)
    np.testing.assert_array_equal(count_pairs(sites, threads=threads), count_pairs(sites, threads=3))


def test_counts_beyond_32_bits():
    sites = cut("Pb", 152.0)
    n = len(sites.position)
    assert n * (n - 1) > 2**32
    assert int(count_pairs(sites).sum()) == n * (n - 1)


def test_three_kinds_and_one_kind():
    cell = (4.0, 4.0, 4.0, 90.0, 90.0, 90.0)
    perovskite = Material(
        name="CsPbCl3",
        space_group="P m -3 m",
        cell_angstrom=cell,
        kinds=(
            Kind(label="Cs", element="Cs", occupancy=1, b_iso=1),
            Kind(label="Pb", element="Pb", occupancy=1, b_iso=1),
            Kind(label="Cl", element="Cl", occupancy=1, b_iso=1),
        ),
        positions=(
            (0, 0, 0),
            (0.5, 0.5, 0.5),
            (0.5, 0.5, 0),
        ),
    )
    iron = Material(
        name="Fe",
        space_group="I m -3 m",
        cell_angstrom=cell,
        kinds=(Kind(label="Fe", element="Fe", occupancy=1, b_iso=1),),
        positions=((0, 0, 0),),
    )
    for material, centre in ((perovskite, "Cl"), (perovskite, "Cs"), (iron, "Fe")):
        sites = cut(centre, 12.0, material)
        np.testing.assert_array_equal(count_pairs(sites), count_pairs_reference(sites))


@pytest.mark.parametrize(
    "centres", [["Pb"], ["Pb", "S"], ["S", (0.25, 0.25, 0.25)], ["Pb", (0.25, 0, 0), "S"]]
)
def test_the_family_is_the_mean_over_its_centres(centres):
    sites = [cut(centre, 15.0) for centre in centres]
    family = average_over_centres(sites, [count_pairs(one) for one in sites])
    diameter, atoms, _ = merge_shells(sites)
    np.testing.assert_array_equal(family.diameter, diameter)
    np.testing.assert_array_equal(family.atoms, atoms)
    assert np.all(np.diff(diameter) > 1e-6)
    # Moments of the distances of every particle, which a wrong class or a wrong row would change.
    for power in (0, 1, 2):
        expected = np.zeros((3, len(diameter)))
        for one in sites:
            counts = count_pairs_reference(one)
            moment = counts @ (one.unit * np.sqrt(np.arange(one.n_class))) ** power
            for k, limit in enumerate(diameter):
                inside = one.diameter <= limit + 1e-6
                expected[:, k] += moment[:, inside].sum(axis=1) / len(sites)
        for pair, table in enumerate(family.pairs):
            found = np.cumsum(table.entering @ table.distance**power)
            np.testing.assert_allclose(found, expected[pair], rtol=1e-12, atol=1e-9)


def test_centres_on_grids_that_do_not_divide_each_other_are_refused():
    sites = [cut((0.25, 0, 0), 10.0), cut((1 / 6, 0, 0), 10.0)]
    with pytest.raises(ValueError, match="grids that divide each other"):
        average_over_centres(sites, [count_pairs(one) for one in sites])
