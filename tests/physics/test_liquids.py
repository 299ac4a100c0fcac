"""Liquids and containers against limits, sum rules and measured curves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpc.liquids import container_profile, liquid_names, liquid_terms, load_liquid
from hpc.liquids.molecule import conformers, distances, with_hydrogens
from hpc.liquids.structure import load_table, ordering, percus_yevick
from hpc.liquids.terms import bonded_hydrogen

Q = np.arange(0.05, 24.0, 0.01)
LIQUIDS = liquid_names()


@pytest.fixture(scope="module")
def terms() -> dict:
    """Every liquid on Q."""
    return {name: liquid_terms(name, Q) for name in LIQUIDS}


@pytest.mark.parametrize("name", LIQUIDS)
def test_free_atoms_at_large_q(name: str, terms: dict) -> None:
    far = terms[name].total[Q > 20] / terms[name].self[Q > 20]
    assert np.abs(far - 1).max() < 0.02
    assert np.abs(terms[name].structure[Q > 20]).max() < 0.02


@pytest.mark.parametrize("name", LIQUIDS)
def test_compressibility_at_small_q(name: str, terms: dict) -> None:
    # Compton scattering vanishes there, so what is left is S(0) (Σf)².
    liquid = load_liquid(name)
    assert terms[name].total[0] / terms[name].amplitude2[0] == pytest.approx(liquid.forward, rel=0.2)


@pytest.mark.parametrize("name", LIQUIDS)
def test_a_liquid_is_positive(name: str, terms: dict) -> None:
    assert terms[name].total.min() > 0
    assert terms[name].self.min() > 0
    neutrons = liquid_terms(name, Q, particle="neutron")
    assert neutrons.total.min() > 0


@pytest.mark.parametrize("name", LIQUIDS)
def test_molecules_do_not_overlap(name: str) -> None:
    table = load_table(name)
    heavy = {pair: np.array(values) for pair, values in table["h"].items() if "H" not in pair.split("-")}
    # Nearest: two oxygens of a hydrogen bond, 2.4 Å.
    assert all(np.all(values[: int(2.3 / table["bin_angstrom"])] == -1) for values in heavy.values())
    # Order is lost at half the box; two oxygens per molecule of oleic acid are counted too rarely to see that.
    assert all(
        np.abs(values[-20:]).max() < 0.08
        for pair, values in heavy.items()
        if "O" not in pair or name == "water"
    )


@pytest.mark.parametrize("kind", ["table", "hard_spheres"])
def test_order_scales_with_density(kind: str) -> None:
    liquid = replace(load_liquid("toluene"), structure={"kind": kind, "asymptote_from": 0.5})
    dense = replace(liquid, density=1.02 * liquid.density)
    pairs = distances(liquid)
    q = np.array([1.0, 2.0, 4.0])
    ratio = ordering(dense, q, pairs)["C", "C"] / ordering(liquid, q, pairs)["C", "C"]
    assert np.all(np.isfinite(ratio))
    if kind == "table":  # ρ ∫ h: proportional, but for c and p, which density divides
        assert ratio == pytest.approx(1.02, abs=0.01)


def test_the_molecule_is_a_debye_sum() -> None:
    from hpc.form_factors import scattering_factor

    liquid = replace(load_liquid("toluene"), vibration=((0.0,) * 3, (0.0,) * 3))
    atoms, elements, _ = with_hydrogens(liquid, conformers(liquid)[0])
    q = np.array([0.5, 1.3, 5.0, 12.0])
    f = {"C": scattering_factor("C", q, anomalous=False).real, "H": bonded_hydrogen(q)}
    expected = np.zeros_like(q)
    for i, a in enumerate(elements):
        for j, b in enumerate(elements):
            if i != j:
                expected += f[a] * f[b] * np.sinc(q * np.linalg.norm(atoms[0, i] - atoms[0, j]) / np.pi)
    found = liquid_terms(liquid, q).intra
    # Distances in one bin of 0.03 Å are taken at their mean.
    assert found == pytest.approx(expected, rel=3e-3, abs=2e-3 * expected[0] / 7)


def test_hydrogen_in_a_bond() -> None:
    # International Tables C, table 6.1.1.2: sin θ/λ [Å⁻¹], f.
    table = np.array([(0.0, 1.0), (0.1073, 0.8350), (0.2147, 0.5277), (0.4294, 0.1552), (0.6011, 0.0592)])
    assert bonded_hydrogen(4 * np.pi * table[:, 0]) == pytest.approx(table[:, 1], abs=2e-3)


@pytest.mark.parametrize("packing", [0.1, 0.3, 0.45])
def test_hard_spheres_do_not_overlap(packing: float) -> None:
    diameter = 5.0
    density = 6 * packing / np.pi / diameter**3
    q = np.arange(0.001, 60.0, 0.002)
    s = percus_yevick(q, diameter, packing)
    assert s[0] == pytest.approx((1 - packing) ** 4 / (1 + 2 * packing) ** 2, rel=1e-3)
    assert s[-1] == pytest.approx(1, abs=0.01)
    # Inside the sphere g = 1 + ∫ q² (S - 1) sinc(qr) dq / 2π²ρ vanishes; the integral is cut off smoothly.
    for r in (1.5, 2.5, 3.5):
        integrand = q**2 * (s - 1) * np.sinc(q * r / np.pi) * np.exp(-((q / 25) ** 2))
        assert 1 + integrand.sum() * 0.002 / (2 * np.pi**2 * density) == pytest.approx(0, abs=0.05)


def maxima(q: np.ndarray, y: np.ndarray) -> list[float]:
    """Where y has its local maxima."""
    return [float(x) for x in q[1:-1][(y[1:-1] > y[:-2]) & (y[1:-1] > y[2:])]]


def test_ring_of_cyclohexane(terms: dict) -> None:
    # An X-ray study of liquid benzene, cyclohexane, and their mixtures: 2θ = 8°0' of Mo Kα at 25 °C.
    assert terms["cyclohexane"].ring == pytest.approx(4 * np.pi / 0.7107 * np.sin(np.radians(4.0)), abs=0.03)


def test_water_has_its_double_peak(terms: dict) -> None:
    # L. B. Skinner et al., J. Chem. Phys. 138, 074506 (2013): 2.0 and 2.95 Å⁻¹; g_OO highest, 2.57, at 2.80 Å.
    order = terms["water"].total / terms["water"].self
    first, second = maxima(Q, order)[:2]
    assert first == pytest.approx(2.0, abs=0.15)
    assert second == pytest.approx(2.95, abs=0.3)  # SPC/E puts it at 2.7
    table = load_table("water")
    g = 1 + np.array(table["h"]["O-O"])
    assert (g.argmax() + 0.5) * table["bin_angstrom"] == pytest.approx(2.8, abs=0.1)


def test_silica_has_its_first_sharp_peak() -> None:
    # R. L. Mozzi & B. E. Warren, J. Appl. Cryst. 2, 164 (1969).
    q = np.arange(0.3, 20, 0.01)
    profile = container_profile("silica", q)
    near = (q > 1.0) & (q < 2.2)
    assert q[near][profile[near].argmax()] == pytest.approx(1.52, abs=0.08)
    glass = container_profile("borosilicate", q)
    assert np.corrcoef(glass, profile)[0, 1] > 0.99


@pytest.mark.parametrize(
    ("name", "file", "position", "width"),
    [("hexane", "Hexane.xye", 0.02, 0.16), ("toluene", "Toluene.xye", 0.02, 0.1)],
)
def test_measured_liquids(name: str, file: str, position: float, width: float, shared_data: Path) -> None:
    from qdml.files.patterns import read_pattern

    pattern = read_pattern(shared_data / "solvents" / file, wavelength=0.564162)
    q = np.arange(0.5, 15.0, 0.01)
    measured = np.interp(q, pattern.q, np.convolve(pattern.intensity, np.ones(15) / 15, mode="same"))
    model = liquid_terms(name, q).total
    design = np.column_stack([model, *((q / 15) ** n for n in range(4))])
    scale, *rest = np.linalg.lstsq(design / measured[:, None], np.ones_like(q), rcond=None)[0]
    rest_of_fit = design[:, 1:] @ rest
    assert np.corrcoef(measured, scale * model + rest_of_fit)[0, 1] > 0.995

    def ring(y: np.ndarray) -> tuple[float, float]:
        top = int(y.argmax())
        above = np.flatnonzero(y > y[top] / 2)
        near = np.abs(q - q[top]) < 0.08
        a, b, _ = np.polyfit(q[near], y[near], 2)
        return -b / (2 * a), q[above[-1]] - q[above[0]]

    of_model, of_measured = ring(model), ring(measured - rest_of_fit)
    assert of_model[0] == pytest.approx(of_measured[0], abs=position)
    assert of_model[1] == pytest.approx(of_measured[1], rel=width)
