"""The pair engine against direct sums, exact pair counts and laws of scaling; every size against its particle."""

from types import SimpleNamespace

import numpy as np
import pytest

from hpc.pairs.cut import count_cut_pairs
from hpc.pairs.moments import choose_bins, estimated_error
from hpc.pairs.nested import count_pairs
from hpc.pairs.single import pair_extent, pair_weights, partial_sums_of_positions
from hpc.scattering import intensity
from hpc.structure.lattice_sites import cut_nested_sites
from hpc.structure.material import kind_pairs, load_material
from hpc.transform import partial_sums

Q = np.concatenate([np.arange(0.2, 20.0, 0.13), [20.0]])
PBS = load_material("pbs")
#: Amplitudes like those of Pb and S.
F = np.array([80.0, 15.0])


def whole(partial, sizes, amplitudes=F):
    """I(Q) of two kinds with constant amplitudes."""
    pairs = [amplitudes[a] * amplitudes[b] for a, b in kind_pairs(len(sizes))]
    ones = np.ones((1, partial.shape[-1]))
    return intensity(partial, np.array(sizes, float), np.outer(pairs, ones), np.outer(amplitudes**2, ones))


def direct_sum(positions, q):
    """(pair, q) float64, pair by pair."""
    out = []
    for a, b in kind_pairs(len(positions)):
        r = np.linalg.norm(positions[a][:, None] - positions[b][None], axis=-1)
        r = r[np.triu_indices(len(r), 1)] if a == b else r.ravel()
        out.append([2 * np.sum(np.sin(x * r) / r) / x for x in q])
    return np.array(out)


def by_kind(position, element):
    return [position[element == symbol] for symbol in ("Pb", "S")]


def nested_sphere(diameter):
    """An exact lattice particle: distances, (pair, n) numbers of pairs and sites by kind."""
    sites = cut_nested_sites(PBS, shape="sphere", centre="Pb", diameter_max=diameter)
    counts = count_pairs(sites).sum(axis=1).astype(float)
    occurring = counts.any(axis=0)
    distance = sites.unit * np.sqrt(np.arange(sites.n_class))
    return distance[occurring], counts[:, occurring], sites.atoms.sum(axis=0)


@pytest.mark.parametrize("diameter", [30.0, 42.0])
@pytest.mark.parametrize("noise", [0.0, 0.003, 0.02, 0.1])
def test_error_against_the_direct_sum(rocksalt_sphere, diameter, noise):
    position, element = rocksalt_sphere(diameter)
    positions = by_kind(position + np.random.default_rng(3).normal(0, noise, position.shape), element)
    sizes = [len(one) for one in positions]
    q = Q if diameter < 40 else Q[3::9]
    expected = direct_sum(positions, q)
    # Identical atoms have the deepest minima between reflections.
    for tolerance in (1e-6, 1e-4):
        found = partial_sums_of_positions(positions, q, tolerance=tolerance)
        for amplitudes in (F, np.ones(2)):
            I = whole(expected, sizes, amplitudes)
            assert (np.abs(whole(found, sizes, amplitudes) - I) / I).max() < tolerance


def test_three_kinds_against_the_direct_sum(rocksalt_sphere):
    position, element = rocksalt_sphere(26.0)
    rng = np.random.default_rng(0)
    position = position + rng.normal(0, 0.05, position.shape)
    lead, sulfur = by_kind(position, element)
    positions = [lead[::2], sulfur, lead[1::2]]
    found = partial_sums_of_positions(positions, Q)
    sizes, amplitudes = [len(one) for one in positions], np.array([80.0, 15.0, 40.0])
    np.testing.assert_allclose(
        whole(found, sizes, amplitudes), whole(direct_sum(positions, Q), sizes, amplitudes), rtol=1e-6
    )


@pytest.mark.parametrize("diameter", [20.0, 50.0, 80.0, 120.0])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-6, 1e-8])
def test_the_estimate_bounds_the_error_of_perfect_crystals(diameter, tolerance):
    """Exact numbers of pairs of a lattice, through the bins: without a double sum, sizes can be real ones."""
    distance, counts, sizes = nested_sphere(diameter)
    q = np.concatenate([np.arange(0.2, 20.0, 0.02), [20.0]])
    bins = choose_bins(distance.max(), q_max=20.0, tolerance=tolerance)
    weights = np.stack([bins.node_weights(bins.moments_of(distance, row)) for row in counts])
    expected, found = partial_sums(counts, distance, q), partial_sums(weights, bins.nodes, q)
    for amplitudes in (F, np.ones(2)):
        I = whole(expected, sizes, amplitudes)
        error = (np.abs(whole(found, sizes, amplitudes) - I) / I).max()
        assert error < estimated_error(bins, 20.0) <= tolerance
    # An estimate, not a fear: for identical atoms within a factor of 30.
    assert error > estimated_error(bins, 20.0) / 30


def test_ten_nanometres_perfect_lattice_through_the_engine(rocksalt_sphere):
    """All 2e8 pairs one by one against integer counts, where bins of a fixed 0.0125 Å were off by 6e-6."""
    distance, counts, sizes = nested_sphere(100.0)
    positions = by_kind(*rocksalt_sphere(100.0))
    assert [len(one) for one in positions] == sizes.tolist()
    q = np.linspace(0.5, 20.0, 976)
    found = whole(partial_sums_of_positions(positions, q), sizes)
    np.testing.assert_allclose(found, whole(partial_sums(counts, distance, q), sizes), rtol=1e-6)


def test_large_particles_have_all_their_pairs_and_scale_with_their_number():
    """Far from each other, k copies of a cluster scatter k times as much, where their distances do not matter."""
    rng = np.random.default_rng(1)
    cluster = rng.uniform(0, 8.0, (30, 3))
    shift = rng.permutation(np.stack(np.meshgrid(*[np.arange(6) * 60.0] * 3), axis=-1).reshape(-1, 3))
    copies = (cluster + shift[:, None] + rng.normal(0, 5, (216, 1, 3))).reshape(-1, 3)
    q = np.linspace(4.0, 20.0, 1601)
    one = 30 + partial_sums_of_positions([cluster], q)[0]
    many = 216 * 30 + partial_sums_of_positions([copies], q)[0]
    # Interference of copies is noise of either sign.
    assert many.mean() == pytest.approx(216 * one.mean(), rel=2e-3)
    n = 216 * 30
    assert partial_sums_of_positions([copies], np.zeros(1))[0, 0] == pytest.approx(n * (n - 1), rel=1e-12)


def sites_of(position, kind, *, group=None, weight=None):
    """Sites as `hpc.structure.sites` makes them, of as many kinds as occur."""
    n = len(position)
    return SimpleNamespace(
        kinds=tuple(range(int(kind.max()) + 1)),
        position=position,
        kind=kind.astype(np.int32),
        group=np.zeros(n, dtype=np.int32) if group is None else group,
        weight=np.ones((1, 1)) if weight is None else weight,
    )


def displaced_sphere(rocksalt_sphere, diameter, noise=0.05):
    position, element = rocksalt_sphere(diameter)
    _, rows = np.unique(np.rint(1e6 * np.linalg.norm(position, axis=1)), return_inverse=True)
    rows = rows // 2  # of two shells, so that some rows hold both kinds
    kind = (element == "S").astype(int)
    order = np.lexsort((rows, kind))
    moved = position + np.random.default_rng(2).normal(0, noise, position.shape)
    return moved[order], kind[order], rows[order]


def test_one_pass_gives_every_smaller_particle(rocksalt_sphere):
    position, kind, rows = displaced_sphere(rocksalt_sphere, 26.0)
    bins = choose_bins(2 * np.linalg.norm(position, axis=1).max(), q_max=20.0)
    table = np.zeros((3, rows.max() + 1, bins.n_nodes))
    count_cut_pairs(sites_of(position, kind), rows, bins, table)
    grown = np.cumsum(table, axis=1)
    for k in (0, 1, 5, rows.max()):
        inside = rows <= k
        weights = pair_weights([position[inside & (kind == a)] for a in (0, 1)], bins)
        np.testing.assert_allclose(grown[:, k], weights, rtol=0, atol=1e-8)
    n = np.cumsum(np.bincount(rows))
    np.testing.assert_allclose(grown.sum(axis=(0, 2)), n * (n - 1), rtol=1e-12, atol=1e-9)


def test_threads_and_strips_of_rows_do_not_change_a_bit(rocksalt_sphere):
    position, kind, rows = displaced_sphere(rocksalt_sphere, 24.0)
    group = np.random.default_rng(0).integers(0, 3, len(rows)).astype(np.int32)
    sites = sites_of(position, kind, group=group, weight=np.full((3, 3), 0.3) + 0.2 * np.eye(3))
    bins = choose_bins(pair_extent([position]), q_max=20.0)
    tables = np.zeros((3, 3, rows.max() + 1, bins.n_nodes))
    count_cut_pairs(sites, rows, bins, tables[0], threads=1)
    count_cut_pairs(sites, rows, bins, tables[1], threads=3)
    middle = rows.max() // 2
    for strip in ((middle, rows.max() + 1), (0, middle)):
        count_cut_pairs(sites, rows, bins, tables[2], strip=strip)
    np.testing.assert_array_equal(tables[1], tables[0])
    np.testing.assert_array_equal(tables[2], tables[0])


def test_groups_give_the_expectation_over_what_exists(rocksalt_sphere):
    """Two layers in either of two places: the mean over all four particles, by their probabilities."""
    position, kind, rows = displaced_sphere(rocksalt_sphere, 18.0)
    layer = np.digitize(position[:, 2], [-3.0, 3.0])
    # Groups: 0 always there; 1 and 2 the places of the lowest layer, 3 and 4 those of the highest.
    joint = np.array([[0.1, 0.3], [0.4, 0.2]])
    moved = position + np.array([0.7, 0.4, 0.0])
    low, high = layer == 0, layer == 2
    everything = np.concatenate([position, moved[low], moved[high]])
    group = np.concatenate([np.select([low, high], [1, 3], 0), np.full(low.sum(), 2), np.full(high.sum(), 4)])
    weight = np.zeros((5, 5))
    weight[0] = weight[:, 0] = [1, *joint.sum(axis=1), *joint.sum(axis=0)]
    weight[[1, 2], [1, 2]], weight[[3, 4], [3, 4]] = joint.sum(axis=1), joint.sum(axis=0)
    weight[1:3, 3:], weight[3:, 1:3] = joint, joint.T
    all_kinds, all_rows = (
        np.concatenate([kind, kind[low], kind[high]]),
        np.concatenate([rows, rows[low], rows[high]]),
    )
    bins = choose_bins(pair_extent([everything]), q_max=20.0)
    table = np.zeros((3, rows.max() + 1, bins.n_nodes))
    count_cut_pairs(
        sites_of(everything, all_kinds, group=group.astype(np.int32), weight=weight), all_rows, bins, table
    )
    expected = np.zeros_like(table)
    for (i, j), probability in np.ndenumerate(joint):
        one = np.where((low & (i == 1) | high & (j == 1))[:, None], moved, position)
        part = np.zeros_like(table)
        count_cut_pairs(sites_of(one, kind), rows, bins, part)
        expected += probability * part
    np.testing.assert_allclose(table, expected, rtol=0, atol=1e-9)


def test_kinds_that_share_positions_are_no_pairs(rocksalt_sphere):
    """A partly occupied skin: two kinds at one place, entering at different sizes, do not see each other there."""
    position, kind, rows = displaced_sphere(rocksalt_sphere, 16.0)
    skin = np.flatnonzero(kind == 1)[::3]
    everything = np.concatenate([position, position[skin]])
    all_kinds, all_rows = (
        np.concatenate([kind, np.full(len(skin), 2)]),
        np.concatenate([rows, rows[skin] // 2]),
    )
    bins = choose_bins(pair_extent([everything]), q_max=20.0)
    table = np.zeros((6, rows.max() + 1, bins.n_nodes))
    count_cut_pairs(sites_of(everything, all_kinds), all_rows, bins, table)
    n, m, s = np.sum(kind == 0), np.sum(kind == 1), len(skin)
    pairs = [n * (n - 1), 2 * n * m, 2 * n * s, m * (m - 1), 2 * s * (m - 1), s * (s - 1)]
    np.testing.assert_allclose(table.sum(axis=(1, 2)), pairs, rtol=1e-12)
    nearest = 4 * bins.fine * bins.width
    assert np.abs(table[:, :, bins.nodes < nearest]).max() < 1e-9


def test_tables_rows_and_bins_that_do_not_fit_are_refused():
    sites = sites_of(np.array([[0.0, 0, 0], [0, 0, 20.0]]), np.array([0, 0]))
    bins, rows = choose_bins(50.0, q_max=20.0), np.array([0, 1])
    with pytest.raises(
        ValueError, match=r"the shape \(pair, row, n_nodes\) = \(1, 2, \d+\), got \(1, 2, 7\)"
    ):
        count_cut_pairs(sites, rows, bins, np.zeros((1, 2, 7)))
    with pytest.raises(ValueError, match="rows must lie in 0 to 0, got 0 to 1"):
        count_cut_pairs(sites, rows, bins, np.zeros((1, 1, bins.n_nodes)))
    short = choose_bins(30.0, q_max=20.0)
    with pytest.raises(ValueError, match=r"sites may be 40 Å apart"):
        count_cut_pairs(sites, rows, short, np.zeros((1, 2, short.n_nodes)))
