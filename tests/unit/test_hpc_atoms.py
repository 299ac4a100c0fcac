"""Atoms, mixed sites and what is refused."""

import numpy as np
import pytest

from hpc.structure.atoms import expand_to_kinds, group_sites, make_atoms
from hpc.structure.material import kind_pairs

TWO = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]])


@pytest.mark.parametrize(
    ("position", "element", "options", "message"),
    [
        (np.zeros((0, 3)), [], {}, "there are no atoms"),
        (np.zeros((2, 2)), ["Pb", "S"], {}, r"shape \(atoms, 3\), got \(2, 2\)"),
        (TWO, ["Pb"], {}, "one element for each of the 2 positions"),
        (TWO, ["Pb", "Xx"], {}, "element must be a chemical symbol .* got 'Xx'"),
        (TWO * [1, 1, np.nan], ["Pb", "S"], {}, r"atom 1 \(Pb\) has a position that is not finite"),
        (
            TWO,
            ["Pb", "S"],
            {"occupancy": [1, 1.2]},
            r"atom 2 \(S\) must have an occupancy in 0 to 1, got 1.2",
        ),
        (TWO, ["Pb", "S"], {"occupancy": -0.1}, r"atom 1 \(Pb\) must have an occupancy in 0 to 1, got -0.1"),
        (TWO, ["Pb", "S"], {"occupancy": [np.nan, 1]}, "must have an occupancy in 0 to 1, got nan"),
        (TWO, ["Pb", "S"], {"occupancy": [1, 1, 1]}, "one number or one for each of the 2 atoms"),
        (TWO, ["Pb", "S"], {"occupancy": 0.0}, "no atoms: every occupancy is 0"),
        (TWO, ["Pb", "S"], {"b_iso": [0, -1]}, r"atom 2 \(S\) must have b_iso >= 0 Å², got -1"),
    ],
)
def test_bad_atoms_are_refused(position, element, options, message):
    with pytest.raises(ValueError, match=message):
        make_atoms(position, element, **options)


def test_atoms_of_occupancy_zero_are_left_out():
    atoms = make_atoms(TWO, ["Pb", "S"], occupancy=[0, 0.5])
    assert atoms.element.tolist() == ["S"]
    np.testing.assert_array_equal(atoms.position, TWO[1:])


@pytest.mark.parametrize(
    ("distance", "occupancy", "message"),
    [
        (0.0, 1.0, r"atoms 1 \(Pb\) and 3 \(S\) lie on top of each other .* they are 0 Å apart"),
        (0.0, 0.6, "occupancies that add up to more than 1"),
        (0.2, 0.5, r"atoms 1 \(Pb\) and 3 \(S\) are not two atoms: they are 0.2 Å apart"),
    ],
)
def test_overlapping_atoms_are_named(distance, occupancy, message):
    position = [[0, 0, 0], [5, 0, 0], [0, distance, 0]]
    atoms = make_atoms(position, ["Pb", "Pb", "S"], occupancy=occupancy)
    with pytest.raises(ValueError, match=message):
        group_sites(atoms)


def test_too_many_kinds_are_refused():
    position = 3.0 * np.arange(40)[:, None] * [1, 0, 0]
    with pytest.raises(ValueError, match="distinguish 40 kinds of atoms, at most 32"):
        group_sites(make_atoms(position, ["Pb"] * 40, b_iso=np.linspace(0, 1, 40)))


def test_sites_are_grouped_by_what_occupies_them():
    """S alone, Cd and Zn on one position in either order of the file, Cd alone."""
    position = np.array([[0, 0, 0], [3, 0, 0], [3, 0, 0], [6, 0, 0], [6, 0, 0], [9, 0, 0]], dtype=float)
    element = ["S", "Cd", "Zn", "Zn", "Cd", "Cd"]
    occupancy = [1, 0.7, 0.3, 0.3, 0.7, 1]
    sites = group_sites(make_atoms(position, element, occupancy=occupancy))
    found = {
        (kind.element, kind.occupancy): (sites.class_of[index], len(sites.positions[sites.class_of[index]]))
        for index, kind in enumerate(sites.kinds)
    }
    assert {key: n for key, (_, n) in found.items()} == {
        ("S", 1.0): 1,
        ("Cd", 1.0): 1,
        ("Cd", 0.7): 2,
        ("Zn", 0.3): 2,
    }
    assert found["Cd", 0.7][0] == found["Zn", 0.3][0]
    assert len({class_ for class_, _ in found.values()}) == 3
    assert sum(len(positions) for positions in sites.positions) == 4
    np.testing.assert_array_equal(sites.n_atoms, [n for _, n in found.values()])


def test_pairs_of_kinds_follow_from_pairs_of_positions():
    """Numbers of ordered pairs: of 2 mixed positions and 3 plain ones, whose occupants are counted one by one."""
    mixed, plain = 2, 3
    position = 3.0 * np.arange(mixed + plain)[:, None] * [1, 0, 0]
    where = [0, 0, 1, 1, 2, 3, 4]
    element = np.array(["Cd", "Zn", "Cd", "Zn", "S", "S", "S"])
    sites = group_sites(make_atoms(position[where], element, occupancy=np.where(element == "S", 1.0, 0.5)))
    sizes = [len(positions) for positions in sites.positions]
    classes = [
        (n * (n - 1) if a == b else 2 * n * sizes[b]) for a, b in kind_pairs(len(sizes)) for n in [sizes[a]]
    ]
    found = expand_to_kinds(np.array(classes, dtype=float)[:, None], sites)[:, 0]
    for (a, b), pairs in zip(kind_pairs(3), found, strict=True):
        one, two = sites.kinds[a].element, sites.kinds[b].element
        expected = sum(
            {element[i], element[j]} == {one, two} and where[i] != where[j]
            for i in range(7)
            for j in range(7)
        )
        assert pairs == expected, (one, two)
