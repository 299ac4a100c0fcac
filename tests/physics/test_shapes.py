"""Shapes, surfaces and lattices against sums over the atoms, written out here."""

import itertools

import numpy as np
import pytest
from scipy.stats import lognorm

from hpc.pairs.nested import count_pairs
from hpc.structure.lattice_sites import cut_nested_sites
from hpc.structure.material import kind_pairs, load_material
from hpc.structure.shapes import SHAPES
from hpc.structure.sites import cut_sites, deformation, dot_kinds
from hpc.structure.variant import Lattice, Shape, Surface, Variant

PBS = load_material("pbs")
CELL = PBS.cell_angstrom[0]
Q = np.linspace(0.3, 20.0, 120)
#: float64 sums over up to 10⁶ pairs, phases of up to 10³.
EXACT = 1e-10
SHAPES_TRIED = [
    *(Shape(name=name) for name in SHAPES),
    Shape(name="ellipsoid", aspect=0.6, axis=(1.0, 1.0, 1.0)),
    Shape(name="rod", aspect=2.0, axis=(1.0, 2.0, 0.0)),
    Shape(name="platelet", thickness_nm=1.2),
]
SURFACES = [
    Surface(),
    Surface(site="S", neighbours=6),
    Surface(site="S", neighbours=4, occupancy=0.125),
    Surface(site="Pb", neighbours=5, occupancy=0.7),
]


def named(shape):
    return f"{shape.name} {shape.aspect or shape.thickness_nm}"


def amplitude(kind):
    """Any smooth amplitude will do: 82 and 16 electrons that fall off, and a B of their own."""
    electrons, width = {"Pb": (82, 3.0), "S": (16, 2.0)}[kind.element]
    return electrons * np.exp(-width * (Q / (4 * np.pi)) ** 2), kind.b_iso


def direct_sum(position, kinds, occupancy):
    """I(Q) of sites that are filled independently of each other; (site,) kinds and occupancies."""
    f, b = np.array([amplitude(kind)[0] for kind in kinds]), np.array([amplitude(kind)[1] for kind in kinds])
    s2 = (Q / (4 * np.pi)) ** 2
    total = (occupancy[:, None] * f**2).sum(axis=0)
    species = sorted({kind.element for kind in kinds})
    of = np.array([species.index(kind.element) for kind in kinds])
    for first, second in itertools.product(range(len(species)), repeat=2):
        one, two = np.flatnonzero(of == first), np.flatnonzero(of == second)
        if not (len(one) and len(two)):
            continue
        r = np.linalg.norm(position[one][:, None] - position[two][None], axis=-1)
        weight = np.outer(occupancy[one], occupancy[two])
        weight[r == 0] = 0
        x = np.where(r == 0, 1.0, r)
        waves = np.array([(weight * np.sin(q * x) / (q * x)).sum() for q in Q])
        total += f[one[0]] * f[two[0]] * np.exp(-(b[one[0]] + b[two[0]]) * s2) * waves
    return total


def counted(sites, kinds, diameter):
    """I(Q) of the particle of one diameter of a nested family, from its integer pair counts."""
    shell = np.searchsorted(sites.diameter, diameter * (1 + 1e-9))
    counts = count_pairs(sites)[:, :shell].sum(axis=1)
    atoms = sites.atoms[:shell].sum(axis=0)
    f, b = np.array([amplitude(kind)[0] for kind in kinds]), [kind.b_iso for kind in kinds]
    occupancy = [kind.occupancy for kind in kinds]
    total = np.einsum("a,a,aq->q", atoms, occupancy, f**2)
    for index, (one, two) in enumerate(kind_pairs(len(kinds))):
        n = np.flatnonzero(counts[index])
        r = sites.unit * np.sqrt(n)
        waves = (counts[index][n] * np.sinc(np.outer(Q, r) / np.pi)).sum(axis=1)
        damping = np.exp(-(b[one] + b[two]) * (Q / (4 * np.pi)) ** 2)
        total += occupancy[one] * occupancy[two] * f[one] * f[two] * damping * waves
    return total


@pytest.mark.parametrize("shape", SHAPES_TRIED, ids=named)
def test_diameter_is_that_of_the_ball_of_equal_volume(shape):
    """Atoms times volume per atom, mean over sizes and centres: faces sweep over lattice planes."""
    ratios = []
    for centre in ([0, 0, 0], [0.25, 0, 0], [0.05, 0.2, 0.1]):
        sites = cut_nested_sites(PBS, shape=shape, centre=centre, diameter_max=60.0)
        atoms = np.cumsum(sites.atoms.sum(axis=1))
        diameters = np.linspace(40.0, 60.0, 101)
        found = atoms[np.searchsorted(sites.diameter, diameters * (1 + 1e-9)) - 1]
        expected = np.pi / 6 * diameters**3
        if shape.thickness_nm:
            # Two faces do not sweep: the planes between them are as many as they are.
            planes = CELL / 2 * np.arange(-9, 10) - CELL * centre[2]
            layers = (np.abs(planes) <= 5 * shape.thickness_nm).sum()
            expected *= layers * CELL / 2 / (10 * shape.thickness_nm)
        ratios.append(found * CELL**3 / 8 / expected)
    assert np.mean(ratios) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("shape", SHAPES_TRIED, ids=named)
def test_pair_counts_and_the_general_cut_equal_the_sum_over_atoms(shape, surface):
    """The occupancy of every atom is found by counting its neighbours, as if there were no families."""
    variant = Variant(material=PBS, shape=shape, surface=surface)
    kinds, diameter = dot_kinds(variant), 21.0
    plain = cut_sites(Variant(material=PBS, shape=shape), centre="S", diameter_max=diameter)
    distance = np.linalg.norm(plain.position[:, None] - plain.position[None], axis=-1)
    missing = (np.abs(distance - CELL / 2) < 0.01).sum(axis=1) < surface.neighbours
    label = np.array(PBS.labels)[plain.kind]
    occupancy = np.where(missing & (label == surface.site), surface.occupancy, 1.0)
    expected = direct_sum(plain.position, [PBS.kinds[kind] for kind in plain.kind], occupancy)

    # A larger family, so that the particle is not the last of it.
    sites = cut_nested_sites(PBS, shape=shape, surface=surface, centre="S", diameter_max=25.0)
    np.testing.assert_allclose(counted(sites, kinds, diameter), expected, rtol=EXACT)

    general = cut_sites(variant, centre="S", diameter_max=25.0)
    inside = general.gauge <= diameter * (1 + 1e-9)
    own = [kinds[kind] for kind in general.kind[inside]]
    found = direct_sum(general.position[inside], own, np.array([kind.occupancy for kind in own]))
    np.testing.assert_allclose(found, expected, rtol=EXACT)


@pytest.mark.parametrize("alpha", [89.6, 92.0])
def test_a_rhombohedral_particle_has_the_distances_of_its_metric(alpha):
    """r² = a² (u² + v² + w² + 2 cos α (uv + vw + wu)) for a difference [uvw] of fractional coordinates."""
    dot = Variant(material=PBS, shape=Shape(name="cube"), lattice=Lattice(alpha_deg=alpha))
    sites = cut_sites(dot, centre="Pb", diameter_max=22.0)
    plain = cut_sites(Variant(material=PBS, shape=Shape(name="cube")), centre="Pb", diameter_max=22.0)
    difference = (plain.position[:, None] - plain.position[None]) / CELL
    metric = np.full((3, 3), np.cos(np.radians(alpha))) + (1 - np.cos(np.radians(alpha))) * np.eye(3)
    expected = CELL * np.sqrt(np.einsum("ijk,kl,ijl->ij", difference, metric, difference))
    found = np.linalg.norm(sites.position[:, None] - sites.position[None], axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.abs(found - np.linalg.norm(difference, axis=-1) * CELL).max() > 0.1


def test_the_reflections_of_a_rhombohedral_particle_split():
    """111 of the cube becomes 111 at a longer and three others at shorter spacings: along [111] by √(1 + 2 cos α)."""
    stretch = deformation(Lattice(alpha_deg=89.6))
    normals = np.linalg.inv(stretch).T @ np.array([[1, 1, 1], [1, 1, -1]]).T / CELL
    spacing = 1 / np.linalg.norm(normals, axis=0)
    assert spacing[0] * np.sqrt(3) / CELL == pytest.approx(1.00696, abs=2e-5)
    assert spacing[1] < CELL / np.sqrt(3)


def test_merged_shells_change_an_ensemble_by_little():
    """An ellipsoid of low symmetry, 2.4 nm, σ = 10 %: less for finer steps, within what `merge_sizes` says."""
    shape = Shape(name="ellipsoid", aspect=1.6, axis=(1.0, 2.0, 3.0))
    spread = np.sqrt(np.log(1.01))
    distribution = lognorm(spread, scale=24 * np.exp(-(spread**2) / 2))
    f = np.array([amplitude(kind)[0] for kind in PBS.kinds])

    def ensemble(step):
        sites = cut_nested_sites(PBS, shape=shape, centre="Pb", diameter_max=36.0, size_step=step)
        present = distribution.sf(sites.diameter)
        counts = np.tensordot(present, count_pairs(sites), axes=(0, 1))
        total = (present @ sites.atoms) @ f**2
        for index, (one, two) in enumerate(kind_pairs(2)):
            n = np.flatnonzero(counts[index])
            waves = np.sinc(np.outer(Q, sites.unit * np.sqrt(n)) / np.pi) @ counts[index][n]
            total += f[one] * f[two] * waves
        return total, len(sites.diameter)

    exact, shells = ensemble(None)
    fine, some = ensemble(0.05)
    coarse, few = ensemble(0.2)
    assert few < 0.6 * some < 0.6 * shells
    error = np.abs(np.array([fine, coarse]) / exact - 1).max(axis=1)
    assert 1e-5 < error[0] < 0.002
    assert 2 * error[0] < error[1] < 0.01
