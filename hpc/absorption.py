"""X-rays that are absorbed: attenuation of a sample, edges below an energy, and the fluorescence that follows.

    I = I_0 exp(-μ t),   μ = ρ Σ_a w_a (μ/ρ)_a          w_a: mass fractions; a mixture has μ = Σ_i φ_i μ_i by volume

Total cross sections (photoelectric, coherent and incoherent): W. T. Elam et al., Radiat. Phys. Chem. 63, 121 (2002),
through xraydb. They are those of free atoms: white lines and EXAFS above an edge are not in them.

Fluorescence is emitted alike in all directions. One electron unit is r_e² per steradian and atom, hence

    F = Σ_lines σ_line(E) / (4π r_e²)                    electron units per atom, flat in Q

with the production cross sections of every K, L and M line by photons of energy E, vacancies that move between the
shells included (T. Schoonjans et al., Spectrochim. Acta B 66, 776 (2011): xraylib; the step at an edge is spread over
0.05 keV by its interpolation). Beside the coherent intensity it carries no polarisation factor: after that correction
it is F divided by the factor. Left out: absorption of the lines in the sample and in air, how much a detector counts of
a line (only the cut `lines_above_kev`), and lines that other lines excite. An area detector without energy threshold
counts nearly all, one with a threshold above the lines none.

Symbols: E photon energy [keV], μ [cm⁻¹], ρ [g/cm³], σ [barn].
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from hpc.form_factors import check_element
from hpc.radiation import Beam

__all__ = [
    "Edge",
    "attenuation",
    "edges_below",
    "edges_near",
    "fluorescence",
    "notes_near_edges",
    "read_composition",
]

# Square of the classical electron radius [barn] (CODATA 2018).
_ELECTRON_UNIT = 0.0794078765
# Highest energies of the tables of Elam et al., and of the cross sections of lines in xraylib, rounded down [keV].
_LOWEST, _HIGHEST, _HIGHEST_OF_LINES = 0.1, 800.0, 300.0
# How far from an edge tables of free atoms are off [keV]: chemical shifts, white lines, near-edge oscillations.
_NEAR = 0.1
# xraylib has aliases for groups of lines beside the lines themselves, which are named by their two subshells.
_LINE = re.compile(r"(K|[LM]\d)[LMNOPQ]\d_LINE")


class Edge(NamedTuple):
    """An absorption edge."""

    element: str
    shell: str
    """K, L1, L2, L3, M1, ..."""
    energy_kev: float


def read_composition(composition: str | Mapping[str, float]) -> dict[str, float]:
    """Element -> number of atoms, from a formula like C6H14 or from a mapping.

    Raises:
        ValueError: not a formula, an unknown element, or numbers that are not positive.
    """
    import xraydb

    numbers: Mapping[str, float]
    if isinstance(composition, str):
        try:
            numbers = xraydb.chemparse(composition)
        except ValueError:
            raise ValueError(f"composition must be a formula like C6H14, got {composition!r}") from None
    else:
        numbers = composition
    if "D" in numbers:
        raise ValueError("composition: D absorbs as H; give H, and the density of the compound with H")
    atoms = {check_element(element): float(number) for element, number in numbers.items()}
    if not atoms or not all(math.isfinite(number) and number > 0 for number in atoms.values()):
        raise ValueError(f"composition must have a positive number of each element, got {composition!r}")
    return atoms


def attenuation(composition: str | Mapping[str, float], density: float, energy_kev: float) -> float:
    """Linear attenuation coefficient μ of a compound.

    PbS dots at a volume fraction of 1 % in hexane, for the μR of a capillary:

        0.01 * attenuation("PbS", 7.6, 22.0) + 0.99 * attenuation("C6H14", 0.655, 22.0)

    Args:
        composition: a formula, or element -> number of atoms.
        density: [g/cm³].
        energy_kev: photon energy [keV].

    Returns:
        μ [cm⁻¹].

    Raises:
        ValueError: unknown composition, density that is not positive, energy outside the tables.
    """
    import xraydb

    atoms = read_composition(composition)
    if not (math.isfinite(density) and density > 0):
        raise ValueError(f"density must be > 0 g/cm³, got {density}")
    _check_energy(energy_kev)
    mass = {element: number * xraydb.atomic_mass(element) for element, number in atoms.items()}
    absorbed = sum(part * float(xraydb.mu_elam(element, 1000 * energy_kev)) for element, part in mass.items())
    return density * absorbed / sum(mass.values())


def edges_below(elements: Iterable[str], energy_kev: float, *, above_kev: float = 0.0) -> list[Edge]:
    """Absorption edges that photons of an energy can excite, highest first.

    Args:
        elements: chemical symbols.
        energy_kev: photon energy [keV].
        above_kev: leaves out edges below it [keV].

    Raises:
        ValueError: unknown element, energy outside the tables.
    """
    _check_energy(energy_kev)
    edges = [edge for edge in _edges(elements) if above_kev < edge.energy_kev <= energy_kev]
    return sorted(edges, key=lambda edge: -edge.energy_kev)


def edges_near(elements: Iterable[str], energy_kev: float) -> list[Edge]:
    """Edges within 0.1 keV of an energy: there f', f'' and μ of free atoms are not those of a solid.

    Raises:
        ValueError: unknown element.
    """
    return [edge for edge in _edges(elements) if abs(edge.energy_kev - energy_kev) < _NEAR]


def notes_near_edges(elements: Iterable[str], beam: Beam) -> list[str]:
    """What a command says of each edge that the energy of X-rays is near: a note, since nothing better is tabulated."""
    energy_kev = beam.get("energy_kev")
    if energy_kev is None or not beam.get("anomalous", True):
        return []
    return [
        f"note: {energy_kev:.5g} keV is near the {edge.shell} edge of {edge.element} at {edge.energy_kev:.5g} keV; "
        "f' and f'' are those of free atoms, which can be off by several electrons here"
        for edge in edges_near(elements, energy_kev)
    ]


def fluorescence(
    composition: str | Mapping[str, float], energy_kev: float, *, lines_above_kev: float
) -> float:
    """Fluorescence of a compound, in the unit of the intensity: a flat background.

    Args:
        composition: a formula, or element -> number of atoms.
        energy_kev: photon energy [keV].
        lines_above_kev: lines of lower energy are not counted [keV]: the threshold of the detector, or what air and
            windows absorb (about 4 keV).

    Returns:
        [electron units per atom], the mean over the atoms of the compound.

    Raises:
        ValueError: unknown composition, energy outside the tables, negative threshold.
    """
    atoms = read_composition(composition)
    _check_energy(energy_kev, highest=_HIGHEST_OF_LINES)
    if not (math.isfinite(lines_above_kev) and lines_above_kev >= 0):
        raise ValueError(f"lines_above_kev must be >= 0, got {lines_above_kev}")
    emitted = sum(
        number * _production(element, energy_kev, lines_above_kev) for element, number in atoms.items()
    )
    return emitted / (4 * math.pi * _ELECTRON_UNIT * sum(atoms.values()))


def _production(element: str, energy_kev: float, lines_above_kev: float) -> float:
    """Cross section [barn per atom] of all lines above a threshold."""
    import xraylib

    z = xraylib.SymbolToAtomicNumber(element)
    total = 0.0
    for line, energy in _lines(z):
        if energy > lines_above_kev:
            try:
                total += xraylib.CSb_FluorLine_Kissel(z, line, energy_kev)
            except ValueError:  # the edge of this line is above the energy
                continue
    return total


@cache
def _lines(z: int) -> tuple[tuple[int, float], ...]:
    """Number and energy [keV] of every line of an element."""
    import xraylib

    numbers = sorted({number for name, number in vars(xraylib).items() if _LINE.fullmatch(name)})
    found = []
    for number in numbers:
        try:
            found.append((number, xraylib.LineEnergy(z, number)))
        except ValueError:  # this element has no such line
            continue
    return tuple(found)


def _edges(elements: Iterable[str]) -> list[Edge]:
    import xraydb

    return [
        Edge(element, shell, edge.energy / 1000)
        for element in dict.fromkeys(elements)
        for shell, edge in xraydb.xray_edges(check_element(element)).items()
    ]


def _check_energy(energy_kev: float, highest: float = _HIGHEST) -> None:
    if not (math.isfinite(energy_kev) and _LOWEST <= energy_kev <= highest):
        raise ValueError(
            f"energy_kev must lie in {_LOWEST:g} to {highest:g} keV, the tables of absorption; got {energy_kev}"
        )
