"""Which engine counts a variant, and the tables of each: sizes, units of work, particles of exact diameters."""

from importlib import resources

import numpy as np
import pytest

from hpc.device import select_device
from hpc.ensemble import number_weights
from hpc.pairs.counting import CutCounting, LadderCounting
from hpc.pairs.families import Sampling, Sizes, count_family, plan_counting, variant_kinds
from hpc.pairs.moments import choose_bins
from hpc.pairs.size_rows import rows_of_sites
from hpc.structure.material import kind_pairs, load_material
from hpc.structure.particles import build_particle
from hpc.structure.sites import cut_sites
from hpc.structure.variant import GROUPS, Variant
from hpc.transform import sinc

CPU = select_device("cpu")
PBS = load_material("pbs")
Q = np.linspace(0.5, 15, 120)
RELAXED = {"disorder": {"relaxation": 0.15}}
SHAKEN = {"disorder": {"core": 0.05, "surface": 0.1}}
RHOMBOHEDRAL = {"lattice": {"alpha_deg": 89.5}}
FAULTED = {"faults": {"deformation": 0.05}}


def variant(**groups):
    return Variant.from_config({"material": PBS, "shape": "sphere", **groups})


def sizes(diameter=(16.0,), sigma=(0.1,), tail=1e-3):
    return Sizes(diameter=np.array(diameter), sigma=np.array(sigma), tail=tail)


def plan(chosen, asked=None, **sampling):
    return plan_counting(
        chosen, asked or sizes(), q_max=15.0, device=CPU, sampling=Sampling(**sampling) if sampling else None
    )


def particle_sums(family, row):
    """(pair, q) of the particle of one row."""
    return np.stack(
        [table.entering[: row + 1].sum(axis=0) @ sinc(np.outer(table.distance, Q)) for table in family.pairs]
    )


def direct_sums(positions):
    """(pair, q) from all distances."""
    sums = []
    for a, b in kind_pairs(len(positions)):
        r = np.linalg.norm(positions[a][:, None] - positions[b], axis=-1)
        r = r[~np.eye(len(r), dtype=bool)] if a == b else np.concatenate((r.ravel(), r.ravel()))
        sums.append(sinc(np.outer(Q, r)).sum(axis=1))
    return np.stack(sums)


def row_of(family, diameter):
    (row,) = np.flatnonzero(number_weights(family.diameter, np.array([diameter]), np.zeros(1))[0])
    return row


# Engines


@pytest.mark.parametrize(
    ("groups", "engine"),
    [
        ({}, "lattice"),
        ({"shape": "cube", "surface": "cation_terminated"}, "lattice"),
        ({"shape": {"name": "sphere", "centres": ["Pb", "bond", "cell"]}}, "lattice"),
        ({"disorder": {"vacancies": {"S": 0.1}}}, "lattice"),
        ({"lattice": {"size_strain": [0.0, 0.01]}}, "lattice"),
        # grids of 1/4 and 1/6 of the edge have no common integer distances
        ({"shape": {"name": "sphere", "centres": [[0.25, 0, 0], [1 / 6, 0, 0]]}}, "cut"),
        ({"shape": {"name": "sphere", "centres": [[0.1234567, 0, 0]]}}, "cut"),
        (RHOMBOHEDRAL, "cut"),
        ({"lattice": {"displacement": {"Pb": [0.02, 0.02, 0.02]}}}, "cut"),
        (FAULTED, "cut"),
        (RELAXED, "ladder"),
        (SHAKEN, "ladder"),
        ({"faults": {"planes": 1}}, "ladder"),
        ({"coating": {"material": "pbse", "thickness_nm": 0.3}}, "ladder"),
    ],
)
def test_every_variant_has_the_engine_that_is_right_for_it(groups, engine):
    counting = plan(variant(**groups))
    assert counting.engine == engine
    assert counting.kinds == variant_kinds(variant(**groups))
    assert len(counting.size) == len(counting.diameter)
    assert np.all(np.diff(counting.diameter) > 0)


@pytest.mark.parametrize("groups", [{}, {"shape": "cube"}, {"surface": "skin"}])
def test_the_engine_of_real_positions_agrees_with_the_integers(groups):
    chosen = variant(**groups)
    integers = plan(chosen)
    centres = [cut_sites(chosen, centre=c, diameter_max=sizes().largest) for c in chosen.centres]
    real = CutCounting(centres, lambda extent: choose_bins(extent, q_max=15.0))
    expected, found = count_family(integers), count_family(real)
    np.testing.assert_allclose(found.diameter, expected.diameter, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.atoms, expected.atoms, rtol=1e-14)
    for row in (0, 3, len(found.diameter) - 1):
        # The tolerance is relative to I(Q), which is never far below one term for each atom.
        scale = found.atoms[: row + 1].sum()
        np.testing.assert_allclose(
            particle_sums(found, row), particle_sums(expected, row), rtol=0, atol=1e-6 * scale
        )


@pytest.mark.parametrize("groups", [{}, RHOMBOHEDRAL, FAULTED, RELAXED, SHAKEN])
def test_units_may_be_counted_anywhere_in_any_order(groups, monkeypatch):
    """As ranks do: tables that hold some of the units, added up. The bits do not depend on who counted what."""
    monkeypatch.setattr("hpc.pairs.counting._VISITS", 1e3)
    counting = plan(variant(**groups), size_step=4.0, realisations=2)
    units = len(counting.costs)
    assert units >= 3

    def count(*hands):
        total = None
        for hand in hands:
            tables = counting.tables()
            for unit in hand:
                counting.count(unit, tables, device=CPU, threads=1 + unit % 2)
            total = tables if total is None else [a + b for a, b in zip(total, tables, strict=True)]
        return counting.family(total)

    one = count(range(units))
    for hands in ([range(units)[::-1]], [range(0, units, 2), range(1, units, 2)], [[], range(units)]):
        other = count(*hands)
        assert one.atoms.tobytes() == other.atoms.tobytes()
        for a, b in zip(one.pairs, other.pairs, strict=True):
            assert a.entering.tobytes() == b.entering.tobytes()
            assert a.distance.tobytes() == b.distance.tobytes()


@pytest.mark.parametrize(
    "groups", [{}, RHOMBOHEDRAL, RELAXED, {"lattice": {"size_strain": [0.001, 0.01]}}, {"shape": "rod"}]
)
def test_a_particle_of_n_sites_has_n_times_n_less_one_pairs(groups):
    chosen = variant(**{"shape": {"name": "sphere", "centres": ["S"]}, **groups})
    family = count_family(plan(chosen))
    pairs = np.sum([np.cumsum(table.entering.sum(axis=1)) for table in family.pairs], axis=0)
    n = np.cumsum(family.atoms.sum(axis=1))
    if chosen.shape.centres is None:  # the mean of N(N-1) over centres is not that of the mean N
        assert np.all(pairs >= n * (n - 1) - 1e-9 * pairs)
    else:
        np.testing.assert_allclose(pairs, n * (n - 1), rtol=1e-10, atol=1e-7)


# Sizes


def test_a_monodisperse_ensemble_is_the_particle_of_exactly_its_diameter_beside_others():
    """Among steps of 4 Å the row of a relaxed particle of 15.3 Å, and of one on a border of the steps."""
    asked = sizes((16.0, 15.3, 16.0), (0.1, 0.0, 0.0))
    chosen = variant(**RELAXED, shape={"name": "sphere", "centres": ["Pb"]})
    family = count_family(plan(chosen, asked, size_step=4.0))
    for diameter in (15.3, 16.0):
        _, positions = build_particle(chosen, centre="Pb", diameter=diameter, seed=0)
        row = row_of(family, diameter)
        assert np.cumsum(family.atoms, axis=0)[row].tolist() == [len(one) for one in positions]
        np.testing.assert_allclose(particle_sums(family, row), direct_sums(positions), rtol=0, atol=1e-4)
    # A lognormal ensemble sees the rows of the steps alone: those of no width weigh nothing.
    weights = number_weights(family.diameter, np.array([16.0]), np.array([0.1]))[0]
    assert weights[[row_of(family, 15.3), row_of(family, 16.0)]].sum() < 1e-6
    without = count_family(plan(chosen, sizes(), size_step=4.0))
    for table, plain in zip(family.pairs, without.pairs, strict=True):
        mean = weights @ np.cumsum(table.entering, axis=0)
        expected = number_weights(without.diameter, np.array([16.0]), np.array([0.1]))[0]
        np.testing.assert_allclose(mean, expected @ np.cumsum(plain.entering, axis=0), atol=1e-4)


def test_only_what_is_asked_for_is_built():
    asked = sizes((12.0, 15.0, 18.0), (0.0, 0.0, 0.0))
    for groups in (RELAXED, RHOMBOHEDRAL):
        counting = plan(variant(**groups), asked)
        np.testing.assert_array_equal(counting.diameter, [12.0, 15.0, 18.0])


def test_sizes_at_which_few_sites_enter_are_put_on_steps():
    chosen = variant(
        **RHOMBOHEDRAL, shape={"name": "sphere", "centres": [[0.123, 0.234, 0.345], [0.1, 0.3, 0.2]]}
    )
    asked = sizes((24.0, 21.3), (0.1, 0.0))
    fine, coarse = plan(chosen, asked, cut_step=1e-3), plan(chosen, asked, cut_step=0.05)
    assert len(coarse.diameter) <= asked.largest / 0.05 + 3 < len(fine.diameter)
    exact, merged = count_family(fine), count_family(coarse)
    rows = [row_of(family, 21.3) for family in (exact, merged)]
    # The particle of a monodisperse ensemble is left as it is, and the others differ little.
    np.testing.assert_allclose(
        particle_sums(merged, rows[1]), particle_sums(exact, rows[0]), rtol=0, atol=1e-5
    )
    means = [
        number_weights(family.diameter, np.array([24.0]), np.array([0.1]))[0]
        @ np.cumsum(family.atoms, axis=0)
        for family in (exact, merged)
    ]
    np.testing.assert_allclose(means[1], means[0], rtol=5e-4)
    assert np.any(means[1] != means[0])


def test_the_ladder_of_a_perfect_crystal_is_the_exact_family():
    """Rows begin where sites enter, so that nothing is lost between the particles that are built."""
    chosen, asked = variant(), sizes((20.0,), (0.1,), tail=1e-5)
    gauge = np.concatenate(
        [cut_sites(chosen, centre=c, diameter_max=asked.largest).gauge for c in chosen.centres]
    )
    diameter, size = rows_of_sites(gauge, low=5.0, high=asked.largest, step=1.0)
    ladder = LadderCounting(
        chosen,
        diameter=diameter,
        size=size,
        realisations=1,
        seed=0,
        choose_bins=lambda extent: choose_bins(extent, q_max=15.0),
    )
    means = []
    for family in (count_family(plan(chosen, asked)), count_family(ladder)):
        weights = number_weights(family.diameter, asked.diameter, asked.sigma)[0]
        present = np.cumsum(weights[::-1])[::-1]
        pairs = [present @ table.entering @ sinc(np.outer(table.distance, Q)) for table in family.pairs]
        means.append((present @ family.atoms, np.stack(pairs)))
    (n_exact, p_exact), (n, p) = means
    np.testing.assert_allclose(n, n_exact, rtol=1e-9)
    np.testing.assert_allclose(p, p_exact, rtol=0, atol=1e-6 * n_exact.sum())


# ε(D)


def test_size_strain_stretches_every_particle_by_its_own_amount():
    """Monodisperse particles against distances that are stretched by hand, in all engines."""
    diameters = np.array([12.0, 15.3, 18.0])
    strain = -0.002 + 10 * 0.02 / diameters
    for groups in ({}, RHOMBOHEDRAL, RELAXED):
        lattice = {**groups.get("lattice", {}), "size_strain": [-0.002, 0.02]}
        chosen = variant(**{**groups, "lattice": lattice}, shape={"name": "sphere", "centres": ["S"]})
        plain = variant(**groups, shape={"name": "sphere", "centres": ["S"]})
        asked = sizes((*diameters, 16.0), (0.0, 0.0, 0.0, 0.1))
        family = count_family(plan(chosen, asked, size_step=3.0))
        for diameter, epsilon in zip(diameters, strain, strict=True):
            _, positions = build_particle(plain, centre="S", diameter=diameter, seed=0)
            expected = direct_sums([(1 + epsilon) * one for one in positions])
            n = sum(len(one) for one in positions)
            found = particle_sums(family, row_of(family, diameter))
            np.testing.assert_allclose(
                found, expected, rtol=0, atol=2e-6 * n, err_msg=str((groups, diameter))
            )


def test_a_constant_size_strain_is_the_strain_of_the_lattice():
    strained = count_family(plan(variant(lattice={"size_strain": [0.004, 0.0]})))
    plain = count_family(plan(variant()))
    np.testing.assert_array_equal(strained.diameter, plain.diameter)
    np.testing.assert_allclose(strained.atoms, plain.atoms, atol=1e-12)
    row = len(plain.diameter) - 1
    expected = np.stack(
        [table.entering.sum(axis=0) @ sinc(np.outer(1.004 * table.distance, Q)) for table in plain.pairs]
    )
    np.testing.assert_allclose(particle_sums(strained, row), expected, rtol=0, atol=1e-6 * plain.atoms.sum())


def test_a_strain_that_no_crystal_survives_is_refused():
    with pytest.raises(
        ValueError, match=r"lattice\.size_strain: ε\(D\) must lie in -0\.5 to 0\.5 for every particle"
    ):
        plan(variant(lattice={"size_strain": [0.0, 0.2]}))


# Chance


def test_realisations_are_averaged_and_a_seed_repeats_them():
    chosen = variant(**SHAKEN, shape={"name": "sphere", "centres": ["Pb"]})
    asked = sizes((14.0,), (0.0,))
    family = count_family(plan(chosen, asked, realisations=3, seed=5))
    particles = [
        build_particle(chosen, centre="Pb", diameter=14.0, seed=5, realisation=r, realisations=3)[1]
        for r in range(3)
    ]
    expected = np.mean([direct_sums(positions) for positions in particles], axis=0)
    np.testing.assert_allclose(particle_sums(family, 0), expected, rtol=0, atol=1e-4)
    again = count_family(plan(chosen, asked, realisations=3, seed=5))
    other = count_family(plan(chosen, asked, realisations=3, seed=6))
    assert again.pairs[1].entering.tobytes() == family.pairs[1].entering.tobytes()
    assert other.pairs[1].entering.tobytes() != family.pairs[1].entering.tobytes()


def test_without_chance_one_particle_is_built():
    relaxed, shaken = (plan(variant(**groups), realisations=7) for groups in (RELAXED, SHAKEN))
    assert shaken.costs.sum() == pytest.approx(7 * relaxed.costs.sum(), rel=0.2)


def test_atoms_of_faulted_crystals_are_expectations():
    """Whatever the stacking, a sphere holds as many sites on average as its volume over that of a site."""
    family = count_family(plan(variant(faults={"growth": 0.3}), sizes((30.0,), (0.0,))))
    n = family.atoms.sum()
    assert n == pytest.approx(np.pi / 6 * 30.0**3 * 8 / 5.936**3, rel=0.03)
    assert abs(n - round(n)) > 1e-6


# Configuration


def choices():
    folder = resources.files("conf")
    for group in GROUPS:
        names = sorted(f.name.removesuffix(".yaml") for f in (folder / group).iterdir())
        yield from ((group, name) for name in names if name.isidentifier())


@pytest.mark.parametrize(("group", "name"), list(choices()))
def test_every_choice_of_every_group_can_be_counted(group, name):
    # A shell is of another material with the structure of the core.
    core = "pbse" if name == "pbs_shell" else "pbs"
    chosen = Variant.from_config({"material": core, "shape": "sphere", group: name})
    counting = plan(chosen, sizes((20.0, 18.0), (0.05, 0.0)), size_step=4.0, realisations=1)
    family = count_family(counting)
    assert len(family.pairs) == len(kind_pairs(len(counting.kinds)))
    n = np.cumsum(family.atoms, axis=0)[row_of(family, 18.0)]
    # Of 117 in the volume; the shapes are small enough to differ a lot.
    assert 40 < n @ [kind.occupancy for kind in counting.kinds] < 150
    sums = particle_sums(family, row_of(family, 18.0))
    assert np.isfinite(sums).all()
    assert counting.extent >= 15.0


@pytest.mark.parametrize("groups", [{}, FAULTED])
def test_a_particle_that_memory_cannot_hold_is_refused_before_it_is_cut(groups):
    with pytest.raises(ValueError, match=r"PbS particle of 4e\+04 nm.* are there; ask for smaller diameters"):
        plan(variant(**groups), sizes(diameter=(4e5,), sigma=(0.0,)))


def test_a_table_that_memory_cannot_hold_is_refused_before_it_is_made(monkeypatch):
    counting = plan(variant())
    monkeypatch.setattr("hpc.memory.available_memory", lambda: counting.memory - 1)
    with pytest.raises(ValueError, match=r"pair table of \d+ sizes needs .* are there; ask for smaller"):
        count_family(counting)
