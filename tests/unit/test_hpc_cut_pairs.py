"""Node weights of nested families at real positions, against plain sums over all pairs."""

import itertools

import numpy as np
import pytest

from hpc.pairs.cut import count_cut_pairs
from hpc.pairs.moments import choose_bins
from hpc.structure.material import Kind, kind_pairs
from hpc.structure.sites import Sites
from hpc.transform import partial_sums

Q = np.linspace(0.3, 20.0, 211)
ROWS = 6


def random_sites(rng: np.random.Generator, *, kinds: int = 2, groups: int = 1) -> Sites:
    """Sites of no crystal at all, no two closer than 0.5 Å, sorted by kind, then gauge."""
    corners = np.array(list(itertools.product(range(-2, 3), repeat=3))) * 2.0
    position = corners + rng.uniform(-0.6, 0.6, corners.shape)
    kind = np.sort(rng.integers(0, kinds, len(position)))
    gauge = rng.integers(0, ROWS, len(position)).astype(float)
    order = np.lexsort((gauge, kind))
    existing = rng.uniform(0.0, 1.0, (groups, groups)) * (rng.random((groups, groups)) < 0.7)
    return Sites(
        kinds=tuple(Kind(label=f"X{i}", element="Pb", occupancy=1.0, b_iso=0.0) for i in range(kinds)),
        position=position,
        kind=kind[order].astype(np.int32),
        gauge=gauge[order],
        group=rng.integers(0, groups, len(position)).astype(np.int32),
        weight=np.ones((1, 1)) if groups == 1 else (existing + existing.T) / 2,
    )


def counted(sites: Sites, **options: object) -> np.ndarray:
    table = np.zeros((len(kind_pairs(len(sites.kinds))), ROWS, BINS.n_nodes))
    count_cut_pairs(sites, sites.gauge.astype(int), BINS, table, **options)  # type: ignore[arg-type]
    return table


BINS = choose_bins(20.0, q_max=20.0)


@pytest.mark.parametrize(("kinds", "groups"), [(1, 1), (2, 1), (3, 1), (2, 5)])
def test_rows_are_the_sums_over_pairs_that_enter_with_them(kinds, groups):
    sites = random_sites(np.random.default_rng(kinds + groups), kinds=kinds, groups=groups)
    table = counted(sites)
    distance = np.linalg.norm(sites.position[:, None] - sites.position[None], axis=-1)
    later = np.maximum(sites.gauge[:, None], sites.gauge[None])
    both = sites.weight[sites.group[:, None], sites.group[None]] * ~np.eye(len(distance), dtype=bool)
    for index, (a, b) in enumerate(kind_pairs(kinds)):
        of_pair = (sites.kind[:, None] == a) & (sites.kind[None] == b)
        of_pair |= of_pair.T
        for row in range(ROWS):
            chosen = of_pair & (later == row)
            waves = np.sinc(Q[:, None] * distance[chosen] / np.pi)
            expected = waves @ both[chosen]
            # 1e-7 of the number of sites: the tolerance of the bins is 1e-6.
            got = partial_sums(table[index, row], BINS.nodes, Q)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-7 * len(distance))


def test_bits_depend_neither_on_threads_nor_on_strips():
    sites = random_sites(np.random.default_rng(7), groups=3)
    whole = counted(sites)
    assert np.array_equal(counted(sites, threads=3), whole)
    parts = np.zeros_like(whole)
    for strip in ((4, 6), (0, 1), (1, 4)):
        count_cut_pairs(sites, sites.gauge.astype(int), BINS, parts, strip=strip)
    assert np.array_equal(parts, whole)


def test_two_kinds_at_one_position_are_no_pair():
    kinds = tuple(Kind(label=label, element="S", occupancy=0.5, b_iso=0.0) for label in ("S", "S skin"))
    sites = Sites(
        kinds=kinds,
        position=np.array([[0.0, 0, 0], [3.0, 0, 0], [0.0, 0, 0]]),
        kind=np.array([0, 0, 1], dtype=np.int32),
        gauge=np.zeros(3),
        group=np.zeros(3, dtype=np.int32),
        weight=np.ones((1, 1)),
    )
    assert counted(sites).sum(axis=(1, 2)) == pytest.approx([2.0, 2.0, 0.0])
