"""Liquids: their files, their molecules, their families."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from hpc.liquids import (
    Liquid,
    container_names,
    container_profile,
    liquid_names,
    liquid_profile,
    liquid_terms,
    load_liquid,
    varied,
)
from hpc.liquids.molecule import bond_counts, conformers, distances, with_hydrogens

Q = np.arange(0.3, 20.0, 0.02)
# Formula and molar mass [g/mol]: CRC Handbook of Chemistry and Physics.
FORMULAS = {
    "chloroform": ({"C": 1, "H": 1, "Cl": 3}, 119.378),
    "cyclohexane": ({"C": 6, "H": 12}, 84.159),
    "hexane": ({"C": 6, "H": 14}, 86.175),
    "octadecene": ({"C": 18, "H": 36}, 252.478),
    "octane": ({"C": 8, "H": 18}, 114.229),
    "oleate": ({"C": 18, "H": 34, "O": 2}, 282.462),
    "tetrachloroethylene": ({"C": 2, "Cl": 4}, 165.833),
    "toluene": ({"C": 7, "H": 8}, 92.139),
    "water": ({"O": 1, "H": 2}, 18.015),
}
# A molecule of four atoms in a row: every number of the z-matrix can be read off the positions.
CHAIN = """
name: chain
density: 0.8
temperature: 300
compressibility: 1.0
groups: {C: {element: C, hydrogens: 0, sigma: 3.5, epsilon: 40, charge: 0}}
skeleton:
  - [A, C]
  - [B, C, A, 1.5]
  - [D, C, B, 1.4, A, 110]
  - [E, C, D, 1.3, B, 100, A, 70]
closures: []
torsions: {free: [0, 0, 0, 0], gauche: [0, 355.03, -68.19, 791.32]}
vibration: {heavy: [0.05, 0.07, 0.1], hydrogen: [0.08, 0.11, 0.15]}
structure: {kind: hard_spheres}
"""


def chain(**changes: object) -> Liquid:
    return Liquid.from_config({**yaml.safe_load(CHAIN), **changes})


def angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    x, y = a - b, c - b
    return float(np.degrees(np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))))


def test_every_liquid_is_expected() -> None:
    assert liquid_names() == sorted(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_and_mass(name: str) -> None:
    liquid = load_liquid(name.upper())
    formula, mass = FORMULAS[name]
    assert liquid.name == name
    assert liquid.composition == formula
    assert liquid.molar_mass == pytest.approx(mass, rel=2e-4)
    assert 0.004 < liquid.forward < 0.08


@pytest.mark.parametrize("name", FORMULAS)
def test_no_two_atoms_of_a_molecule_meet(name: str) -> None:
    liquid = load_liquid(name)
    skeleton, share = conformers(liquid, count=300)
    atoms, elements, owner = with_hydrogens(liquid, skeleton)
    assert atoms.shape[1] == len(elements) == len(owner) == sum(liquid.composition.values())
    assert share.sum() == pytest.approx(1)
    apart = np.linalg.norm(atoms[:, :, None] - atoms[:, None], axis=-1) + 9 * np.eye(len(elements))
    likely = share > 0.2 / len(share)
    assert apart[likely].min() > 0.95
    hydrogen = np.array([e == "H" for e in elements])
    # Hydrogens sit on one atom each, at 0.97 to 1.1 Å, and do not touch each other.
    if hydrogen.any():
        assert apart[likely][:, hydrogen][:, :, ~hydrogen].min(axis=2).max() < 1.101
    if hydrogen.sum() > 1:
        assert apart[likely][:, hydrogen][:, :, hydrogen].min() > 1.55


@pytest.mark.parametrize(
    ("name", "first", "last", "length"), [("toluene", 0, 5, 1.399), ("cyclohexane", 0, 5, 1.536)]
)
def test_rings_close(name: str, first: int, last: int, length: float) -> None:
    liquid = load_liquid(name)
    positions = conformers(liquid)[0][0]
    assert np.linalg.norm(positions[first] - positions[last]) == pytest.approx(length, abs=0.003)
    assert bond_counts(liquid)[first, last] == 1


def test_a_molecule_has_the_numbers_of_its_file() -> None:
    a, b, d, e = conformers(chain())[0][0]
    assert np.linalg.norm(b - a) == pytest.approx(1.5)
    assert np.linalg.norm(d - b) == pytest.approx(1.4)
    assert np.linalg.norm(e - d) == pytest.approx(1.3)
    assert angle(a, b, d) == pytest.approx(110)
    assert angle(b, d, e) == pytest.approx(100)
    first, second = np.cross(b - a, d - b), np.cross(d - b, e - d)
    assert angle(first, np.zeros(3), second) == pytest.approx(70)


def test_torsions_follow_boltzmann() -> None:
    skeleton = [*yaml.safe_load(CHAIN)["skeleton"][:3], ["E", "C", "D", 1.3, "B", 100, "A", "gauche"]]
    positions, share = conformers(chain(skeleton=skeleton), count=20000)
    normal = np.cross(positions[:, 1] - positions[:, 0], positions[:, 2] - positions[:, 1])
    other = np.cross(positions[:, 2] - positions[:, 1], positions[:, 3] - positions[:, 2])
    cosine = (normal * other).sum(axis=1) / np.linalg.norm(normal, axis=1) / np.linalg.norm(other, axis=1)
    phi = np.radians(np.arange(0, 360, 0.1))
    c = chain().torsions["gauche"]
    weight = np.exp(
        -(c[1] * (1 + np.cos(phi)) + c[2] * (1 - np.cos(2 * phi)) + c[3] * (1 + np.cos(3 * phi))) / 300
    )
    trans = weight[np.cos(phi) < -0.5].sum() / weight.sum()
    # Standard error of 20 000 draws: 0.0034.
    assert share[cosine < -0.5].sum() == pytest.approx(trans, abs=0.012)


def test_distances_count_every_pair() -> None:
    liquid = load_liquid("hexane")
    count = {pair.elements: pair.weight.sum() for pair in distances(liquid, count=50)}
    assert count == pytest.approx({("C", "C"): 30, ("C", "H"): 2 * 84, ("H", "H"): 182})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"density": -1}, "density of the liquid chain must be > 0, got -1"),
        (
            {"skeleton": [["A", "C"], ["B", "C", "X", 1.5]]},
            r"row 2 .*must be different labels of earlier rows",
        ),
        ({"skeleton": [["A", "N"]]}, r"row 1 .*the group must be one of \['C'\]"),
        ({"skeleton": [["A", "C"], ["A", "C", "A", 1.5]]}, "the label occurs twice"),
        ({"skeleton": [["A", "C", 1.5]]}, "expected a label, a group and 0 pairs"),
        (
            {"groups": {"C": {"element": "C", "hydrogens": 4, "sigma": 1, "epsilon": 1, "charge": 0}}},
            "hydrogens of a group must be 0, 1, 2 or 3, got 4",
        ),
        ({"structure": {"kind": "crystal"}}, r"structure.kind of the liquid chain must be one of"),
        ({"structure": {"kind": "table"}}, "there is no table of the structure of chain"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        liquid_profile(chain(**changes), Q)


def test_a_dihedral_that_is_no_torsion() -> None:
    skeleton = [*yaml.safe_load(CHAIN)["skeleton"][:3], ["E", "C", "D", 1.3, "B", 100, "A", "alkane"]]
    with pytest.raises(ValueError, match=r"a number or one of the torsions \['free', 'gauche'\]"):
        chain(skeleton=skeleton)


def test_a_missing_key() -> None:
    config = yaml.safe_load(CHAIN)
    del config["temperature"]
    with pytest.raises(ValueError, match="the key 'temperature' is missing"):
        Liquid.from_config(config)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"liquid must be one of \['chloroform'.*got 'ether'"):
        liquid_profile("ether", Q)
    with pytest.raises(ValueError, match=r"container must be one of .*got 'steel'"):
        container_profile("steel", Q)
    with pytest.raises(ValueError, match="particle must be xray or neutron, got 'muon'"):
        liquid_profile("water", Q, particle="muon")  # type: ignore[arg-type]


@pytest.mark.parametrize("q", [[0.0, 1.0], [1.0, 0.5], [], [[1.0, 2.0]], [1.0, np.nan]])
def test_impossible_q(q: list) -> None:
    with pytest.raises(ValueError, match="q must be one row of ascending values > 0"):
        liquid_profile("water", np.array(q))
    with pytest.raises(ValueError, match="q must be one row of ascending values > 0"):
        container_profile("kapton", np.array(q))


def test_neutral_parameters_change_nothing() -> None:
    terms = liquid_terms("toluene", Q)
    one = np.ones((1, 1))
    same = varied(terms, stretch=one, width=one, height=one)
    assert same.shape == (1, Q.size)
    assert same[0] == pytest.approx(terms.total, rel=1e-12)


def test_a_family_moves_widens_and_raises_its_ring() -> None:
    q = np.arange(0.3, 4.0, 0.005)
    terms = liquid_terms("hexane", q)
    one = np.array([[1.0]])

    def ring(y: np.ndarray) -> tuple[float, float, float]:
        top = int(y.argmax())
        half = (y[top] + y[:top].min()) / 2
        return float(q[top]), float(y[top]), float(q[top] - q[:top][y[:top] < half][-1])

    position, height, width = ring(terms.total)
    assert ring(varied(terms, stretch=1.05 * one, width=one, height=one)[0])[0] == pytest.approx(
        1.05 * position, rel=0.02
    )
    assert ring(varied(terms, stretch=one, width=one, height=1.2 * one)[0])[1] == pytest.approx(
        1.2 * height, rel=0.01
    )
    # The molecules' own scattering is not widened with the ring: 1.3 is not met exactly.
    assert 1.15 * width < ring(varied(terms, stretch=one, width=1.3 * one, height=one)[0])[2] < 1.45 * width


def test_a_family_is_positive_and_smooth() -> None:
    terms = liquid_terms("water", Q)
    rng = np.random.default_rng(1)
    stretch, width, height = (
        rng.uniform(low, high, (200, 1)) for low, high in ((0.9, 1.1), (0.6, 1.6), (0.7, 1.4))
    )
    family = varied(terms, stretch=stretch, width=width, height=height)
    assert family.min() > 0
    step = np.abs(np.diff(family, n=2, axis=1)).max() / np.abs(np.diff(terms.total, n=2)).max()
    assert step < 6


def test_a_family_lies_between_points_as_on_a_finer_grid() -> None:
    """Straight lines between points 0.02 Å⁻¹ apart would be off by 10⁻³ of the ring, with a kink at each of them."""
    fine = liquid_terms("toluene", np.arange(0.3, 12.0, 0.01))
    coarse = fine.convert(lambda column: column[::2])
    parameters = {"stretch": np.array([[1.03]]), "width": np.array([[1.1]]), "height": np.array([[1.0]])}
    off = varied(coarse, **parameters) - varied(fine, **parameters)[:, ::2]
    assert np.abs(off[:, 3:-3]).max() < 1e-4 * fine.total.max()


def test_one_is_the_same_as_a_batch_and_torch_as_numpy() -> None:
    terms = liquid_terms("toluene", Q)
    rng = np.random.default_rng(2)
    parameters = [rng.uniform(0.9, 1.1, (5, 1)) for _ in range(3)]
    batch = varied(terms, **dict(zip(("stretch", "width", "height"), parameters, strict=True)))
    single = varied(
        terms, **{n: p[3:4] for n, p in zip(("stretch", "width", "height"), parameters, strict=True)}
    )
    assert np.array_equal(batch[3:4], single)
    tensors = [torch.as_tensor(p).requires_grad_() for p in parameters]
    on_torch = varied(terms.convert(torch.as_tensor), stretch=tensors[0], width=tensors[1], height=tensors[2])
    assert on_torch.detach().numpy() == pytest.approx(batch, rel=1e-12)
    on_torch.sum().backward()
    assert all(bool((t.grad != 0).all()) for t in tensors)


def test_scaled_terms() -> None:
    terms = liquid_terms("hexane", Q)
    assert terms.scaled(0.1).total == pytest.approx(0.1 * terms.total)


def test_terms_of_single_precision() -> None:
    terms = liquid_terms("hexane", Q).convert(lambda a: torch.as_tensor(a, dtype=torch.float32))
    one = torch.ones((2, 1))
    family = varied(terms, stretch=one, width=one, height=one)
    assert family.dtype == torch.float32


def test_a_grid_that_is_not_uniform_has_no_family() -> None:
    terms = liquid_terms("hexane", np.geomspace(0.5, 10, 50))
    one = np.ones((1, 1))
    with pytest.raises(ValueError, match="uniform"):
        varied(terms, stretch=one, width=one, height=one)


def test_energy_matters_for_chlorine_alone() -> None:
    near = liquid_profile("chloroform", Q, energy_kev=8.0)
    far = liquid_profile("chloroform", Q, energy_kev=60.0)
    assert np.abs(near / far - 1).max() > 0.01
    hexane = liquid_profile("hexane", Q, energy_kev=8.0) / liquid_profile("hexane", Q, energy_kev=60.0)
    assert np.abs(hexane - 1).max() < 0.01


def test_a_liquid_of_another_density() -> None:
    liquid = replace(load_liquid("hexane"), structure={"kind": "hard_spheres"})
    dense = replace(liquid, density=1.1 * liquid.density, compressibility=liquid.compressibility / 1.1)
    ring = liquid_terms(liquid, Q).ring, liquid_terms(dense, Q).ring
    assert ring[1] / ring[0] == pytest.approx(1.1 ** (1 / 3), abs=0.01)


def test_containers() -> None:
    assert container_names() == ["borosilicate", "kapton", "silica"]
    for name in container_names():
        assert container_profile(name, Q).min() > 0
