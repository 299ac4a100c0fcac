"""Every file of conf/material against the literature: density, bonds, composition, Debye-Waller factors."""

import itertools
import re
from dataclasses import dataclass, field

import gemmi
import numpy as np
import pytest
from scipy.constants import atomic_mass, h, k
from scipy.integrate import quad

from hpc.dots import dot_pattern
from hpc.form_factors import scattering_factor
from hpc.structure.crystal import cell_vectors
from hpc.structure.files import repeat_cell
from hpc.structure.material import Material, equivalent_positions, load_material, material_names

CHARGE = {
    "Pb": 2,
    "Cd": 2,
    "Zn": 2,
    "In": 3,
    "Ga": 3,
    "Cs": 1,
    "S": -2,
    "Se": -2,
    "Te": -2,
    "P": -3,
    "As": -3,
}
CHARGE |= {"Sb": -3, "Cl": -1, "Br": -1, "I": -1, "Au": 0, "Ag": 0, "Pt": 0, "Pd": 0}
# Formamidinium CH(NH2)2+ with C +2, N -3, H +1.
CHARGE |= {"C": 2, "N": -3, "H": 1}


@dataclass(frozen=True)
class Known:
    """What the literature says of a material."""

    formula: str
    per_cell: int
    """Formula units in the cell."""
    density: float
    """[g/cm³], known to 1 %."""
    shortest: dict[str, float]
    """Pair of elements -> distance [Å] of the closest two atoms, known to 1 %."""
    bonds: dict[str, float] = field(default_factory=dict)
    """Pair of elements -> distance [Å] that occurs, where alternatives of partly occupied sites lie closer."""
    debye: float | None = None
    """Debye temperature [K] behind B_iso, for one B of all atoms."""
    b_iso: tuple[float, float] = (0.25, 2.0)
    """Range of B [Å²]."""


# Densities: CRC Handbook (metals, III-V), tables of semiconductors (Kasap; Madelung), X-ray densities of the powder
# cards and papers that the files cite (other forms, perovskites). Distances: sums of tetrahedral, octahedral and
# metallic radii; C-N, C-H, N-H: International Tables C, 9.5. Debye temperatures: see the files.
SOFT = (1.5, 12.0)
LITERATURE = {
    "pbs": Known("PbS", 4, 7.60, {"Pb-S": 2.968, "Pb-Pb": 4.197}),
    "pbse": Known("PbSe", 4, 8.26, {"Pb-Se": 3.062, "Pb-Pb": 4.33}),
    "pbte": Known("PbTe", 4, 8.20, {"Pb-Te": 3.23, "Pb-Pb": 4.57}, debye=105),
    "cdse": Known("CdSe", 4, 5.66, {"Cd-Se": 2.63, "Cd-Cd": 4.30}, debye=0.87 * 181),
    "cdse_wurtzite": Known("CdSe", 2, 5.66, {"Cd-Se": 2.63, "Cd-Cd": 4.29}, debye=0.87 * 181),
    "cds": Known("CdS", 4, 4.87, {"Cd-S": 2.52, "Cd-Cd": 4.11}, debye=0.87 * 219),
    "cds_wurtzite": Known("CdS", 2, 4.82, {"Cd-S": 2.53, "Cd-Cd": 4.12}, debye=0.87 * 219),
    "cdte": Known("CdTe", 4, 5.86, {"Cd-Te": 2.81, "Cd-Cd": 4.58}, debye=0.87 * 162.7),
    "cdte_wurtzite": Known("CdTe", 2, 5.86, {"Cd-Te": 2.81, "Cd-Cd": 4.58}, debye=0.87 * 162.7),
    "zns": Known("ZnS", 4, 4.09, {"Zn-S": 2.34, "Zn-Zn": 3.82}),
    "zns_wurtzite": Known("ZnS", 2, 4.09, {"Zn-S": 2.34, "Zn-Zn": 3.82}),
    "znse": Known("ZnSe", 4, 5.27, {"Zn-Se": 2.45, "Zn-Zn": 4.01}, debye=0.87 * 271),
    "inp": Known("InP", 4, 4.81, {"In-P": 2.54, "In-In": 4.15}, debye=0.87 * 321),
    "inas": Known("InAs", 4, 5.67, {"In-As": 2.62, "In-In": 4.28}, debye=0.87 * 249),
    "insb": Known("InSb", 4, 5.77, {"In-Sb": 2.81, "In-In": 4.58}, debye=0.87 * 202),
    "gaas": Known("GaAs", 4, 5.318, {"Ga-As": 2.45, "Ga-Ga": 4.00}),
    "au": Known("Au", 4, 19.3, {"Au-Au": 2.88}, debye=165),
    "ag": Known("Ag", 4, 10.5, {"Ag-Ag": 2.89}, debye=225),
    "pt": Known("Pt", 4, 21.45, {"Pt-Pt": 2.77}, debye=240),
    "pd": Known("Pd", 4, 12.0, {"Pd-Pd": 2.75}, debye=274),
    "cspbcl3": Known("CsPbCl3", 1, 4.21, {"Pb-Cl": 2.80, "Cs-Cl": 3.96, "Pb-Pb": 5.605}, b_iso=SOFT),
    "cspbbr3": Known("CsPbBr3", 1, 4.75, {"Pb-Br": 2.94, "Cs-Br": 4.15, "Pb-Pb": 5.874}, b_iso=SOFT),
    "cspbi3": Known("CsPbI3", 1, 4.81, {"Pb-I": 3.14, "Cs-I": 4.45, "Pb-Pb": 6.289}, b_iso=SOFT),
    "cspbcl3_orthorhombic": Known(
        "CsPbCl3", 4, 4.22, {"Pb-Cl": 2.83, "Cs-Cl": 3.58, "Pb-Pb": 5.59}, b_iso=SOFT
    ),
    "cspbbr3_orthorhombic": Known(
        "CsPbBr3", 4, 4.86, {"Pb-Br": 2.96, "Cs-Br": 3.68, "Pb-Pb": 5.81}, b_iso=SOFT
    ),
    "cspbi3_orthorhombic": Known("CsPbI3", 4, 5.05, {"Pb-I": 3.19, "Cs-I": 3.80, "Pb-Pb": 6.16}, b_iso=SOFT),
    "fapbbr3": Known(
        "CN2H5PbBr3",
        1,
        3.79,
        {"Pb-Br": 2.997, "Pb-Pb": 5.99, "Br-Br": 4.24},
        bonds={"C-N": 1.31, "C-H": 1.09, "N-H": 1.02, "N-N": 2.33},
        b_iso=SOFT,
    ),
}


def known(name: str) -> Known:
    assert name in LITERATURE, (
        f"conf/material/{name}.yaml is new: add what the literature says of it to LITERATURE in {__file__} "
        "(formula, formula units per cell, density, shortest distances, where B comes from)"
    )
    return LITERATURE[name]


@pytest.fixture(params=material_names())
def name(request) -> str:
    return request.param


def numbers(material: Material) -> dict[str, float]:
    """Atoms of each element in one cell."""
    found: dict[str, float] = {}
    for kind, images in zip(material.kinds, equivalent_positions(material), strict=True):
        found[kind.element] = found.get(kind.element, 0.0) + kind.occupancy * len(images)
    return found


def distances(material: Material, first: str, second: str) -> np.ndarray:
    """Every distance [Å] up to about an edge between atoms of two elements."""
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    images = list(zip(material.kinds, equivalent_positions(material), strict=True))
    one = np.concatenate([p for kind, p in images if kind.element == first])
    two = np.concatenate([p for kind, p in images if kind.element == second])
    vectors = (two[None, :, None] + shifts - one[:, None, None]).reshape(-1, 3) @ cell_vectors(material)
    length = np.linalg.norm(vectors, axis=1)
    return length[length > 1e-6]


def debye_b(theta: float, mass: float, temperature: float = 298.0) -> float:
    """B [Å²] of the Debye model: 6h²/(m k Θ) (φ(x)/x + 1/4), x = Θ/T (International Tables B, 4.1; mass in u)."""
    x = theta / temperature
    phi = quad(lambda t: t / np.expm1(t), 0, x)[0] / x
    return float(6 * h**2 / (mass * atomic_mass * k * theta) * (phi / x + 0.25) * 1e20)


def test_every_entry_is_of_a_material():
    assert set(LITERATURE) <= set(material_names())


def test_composition_and_charge(name):
    material, literature = load_material(name), known(name)
    formula = {
        element: literature.per_cell * int(count or 1)
        for element, count in re.findall(r"([A-Z][a-z]?)(\d*)", literature.formula)
    }
    assert numbers(material) == pytest.approx(formula, rel=1e-12)
    charge = sum(n * CHARGE[element] for element, n in numbers(material).items())
    assert charge == pytest.approx(0, abs=1e-9)


def test_density(name):
    material = load_material(name)
    mass = sum(n * gemmi.Element(element).weight for element, n in numbers(material).items())
    volume = np.linalg.det(cell_vectors(material))
    assert 1e24 * mass * atomic_mass * 1e3 / volume == pytest.approx(known(name).density, rel=0.01)


def test_distances(name):
    material, literature = load_material(name), known(name)
    for pair, length in literature.shortest.items():
        assert distances(material, *pair.split("-")).min() == pytest.approx(length, rel=0.01), pair
    for pair, length in literature.bonds.items():
        error = np.abs(distances(material, *pair.split("-")) - length)
        assert error.min() < 0.005, pair


def test_debye_waller_factors(name):
    material, literature = load_material(name), known(name)
    low, high = literature.b_iso
    for kind in material.kinds:
        assert low <= kind.b_iso <= high, kind.label
    if literature.debye is not None:
        atoms = numbers(material)
        mean_mass = sum(n * gemmi.Element(e).weight for e, n in atoms.items()) / sum(atoms.values())
        expected = debye_b(literature.debye, mean_mass)
        for kind in material.kinds:
            assert kind.b_iso == pytest.approx(expected, abs=0.006), kind.label


def test_lead_selenide_has_a_debye_temperature_for_each_element():
    """Knight et al. 2022: 111 K and 205 K."""
    by_label = {kind.label: kind.b_iso for kind in load_material("pbse").kinds}
    assert by_label == pytest.approx({"Pb": debye_b(111, 207.2), "Se": debye_b(205, 78.971)}, abs=0.006)


def test_the_factor_on_debye_temperatures_gives_measured_values():
    """0.87 of Θ(0): mean B of GaAs (344 K) and ZnS (340 K), which are measured, to 4 %."""
    for name, theta, mass in (("gaas", 344, 72.32), ("zns", 340, 48.72)):
        mean = np.mean([kind.b_iso for kind in load_material(name).kinds])
        assert debye_b(0.87 * theta, mass) == pytest.approx(mean, rel=0.04)


@pytest.mark.parametrize("name", ["cspbbr3_orthorhombic", "cspbi3_orthorhombic", "cspbcl3_orthorhombic"])
def test_octahedra_of_orthorhombic_perovskites_are_nearly_regular(name):
    """Bonds equal to 1 %, angles of 90 ± 3°, and tilted: the angle at the halide is well below 180°."""
    material = load_material(name)
    cell, shifts = cell_vectors(material), np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    images = dict(zip(material.labels, equivalent_positions(material), strict=True))
    halides = np.concatenate([images[label] for label in material.labels[2:]])
    bonds = ((halides[:, None] + shifts).reshape(-1, 3) - material.positions[1]) @ cell
    bonds = bonds[np.argsort(np.linalg.norm(bonds, axis=1))[:6]]
    length = np.linalg.norm(bonds, axis=1)
    assert np.ptp(length) < 0.01 * length.mean()
    cosines = (bonds @ bonds.T / np.outer(length, length))[np.triu_indices(6, 1)]
    assert np.sum(cosines < -0.99) == 3
    assert np.abs(cosines[cosines > -0.99]).max() < np.sin(np.radians(3))
    for label in material.labels[2:]:
        to_lead = (
            (images["Pb"][:, None] + shifts).reshape(-1, 3) - material.positions[material.labels.index(label)]
        ) @ cell
        one, two = to_lead[np.argsort(np.linalg.norm(to_lead, axis=1))[:2]]
        angle = np.degrees(np.arccos(one @ two / np.linalg.norm(one) / np.linalg.norm(two)))
        assert 145 < angle < 170, label


@pytest.mark.parametrize(
    ("name", "centre"), [("cspbbr3_orthorhombic", "Br2"), ("fapbbr3", "Pb"), ("cdte_wurtzite", "Te")]
)
def test_dots_of_any_crystal_against_a_direct_sum(name, centre):
    """Every atom of the crystal within the radius, partly occupied ones and all, pair by pair."""
    q, diameter = np.linspace(0.3, 20, 60), 14.0
    material = load_material(name)
    calculated = dot_pattern(
        material, q=q, diameter_nm=diameter / 10, centres=[centre], energy_kev=22.0, per_atom=False
    )

    block = repeat_cell(material, (5, 5, 5))
    middle = (2 + np.array(material.positions[material.labels.index(centre)])) @ cell_vectors(material)
    position = block.position - middle
    inside = np.linalg.norm(position, axis=1) <= diameter / 2 * (1 + 1e-9)
    position, label = position[inside], block.label[inside]
    sets = [position[label == one] for one in material.labels]
    f = [scattering_factor(kind.element, q, energy_kev=22.0) for kind in material.kinds]
    amplitude = [
        kind.occupancy * f_kind * np.exp(-kind.b_iso * (q / (4 * np.pi)) ** 2)
        for kind, f_kind in zip(material.kinds, f, strict=True)
    ]
    expected = sum(
        len(one) * kind.occupancy * np.abs(f_kind) ** 2
        for one, kind, f_kind in zip(sets, material.kinds, f, strict=True)
    )
    for a, b in itertools.product(range(len(sets)), repeat=2):
        r = np.linalg.norm(sets[a][:, None] - sets[b], axis=-1).ravel()
        pairs = np.sinc(np.outer(q, r[r > 1e-6]) / np.pi).sum(axis=1)
        expected = expected + (amplitude[a] * amplitude[b].conj()).real * pairs
    np.testing.assert_allclose(calculated, expected, rtol=2e-6)
