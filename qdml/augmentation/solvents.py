"""Scattering of solvents: built-in liquids, or a measured file.

The built-in model has two terms per molecule (electron units):

    I(Q) = Σ_i (f_i² + S_i) + Σ_{i≠j} f_i f_j sin(Q r_ij)/(Q r_ij) exp(-(u r_ij Q)²/2)            one molecule
         + (Σ_i f_i)² [ρ h_hole(Q) + n sin(Q r)/(Q r) exp(-(w Q)²/2)]                             between molecules

Around any atom a sphere of radius R holds no atom of another molecule (h_hole: minus the transform of that sphere,
its surface blurred by a Gaussian of width v), and n molecules more than average sit in a shell at r ± w. R follows
from the density ρ and the compressibility, S(0) = 0.02. That gives the ring at 1.3 to 1.4 Å⁻¹ (A. Habenschuss &
A. H. Narten, J. Chem. Phys. 92, 5692 (1990) for n-alkanes; A. H. Narten, J. Chem. Phys. 48, 1630 (1968) for aromatic
liquids), the weak maxima at 3 and 5 Å⁻¹ of the carbon skeleton, and Compton scattering beyond. n, r, w, v are
adjusted to the height and width of the ring; the profile is good to ~10 % rms and 30 % on the flank of the ring, which
is why training varies it. Conformers are not averaged: u = 0.04 blurs distances in proportion to their length.

Symbols: q [Å⁻¹], r distances [Å], ρ molecules per Å³.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from qdml.config import SolventConfig

__all__ = ["LIQUIDS", "Liquid", "liquid_profile", "solvent_profile"]

_FLEXIBILITY = 0.04
_COMPRESSIBILITY = 0.02
_AVOGADRO_PER_CM3 = 0.602214076  # molecules per Å³ of a substance of 1 g/cm³ and 1 g/mol


@dataclass(frozen=True, slots=True, kw_only=True)
class Liquid:
    """A molecular liquid."""

    density: float
    """[g/cm³] at 25 °C."""
    molar_mass: float
    """[g/mol]."""
    neighbours: float
    """n, molecules above average in the first shell."""
    shell: float
    """r, its distance [Å]."""
    shell_width: float
    """w [Å]."""
    hole_width: float
    """v [Å]."""


#: Densities: CRC Handbook of Chemistry and Physics.
LIQUIDS = {
    "hexane": Liquid(
        density=0.6548, molar_mass=86.18, neighbours=3.49, shell=5.09, shell_width=1.01, hole_width=0.98
    ),
    "toluene": Liquid(
        density=0.8623, molar_mass=92.14, neighbours=2.75, shell=4.86, shell_width=0.92, hole_width=1.13
    ),
}


def _hexane() -> tuple[np.ndarray, np.ndarray]:
    """All-trans n-hexane: C-C 1.53 Å, C-H 1.10 Å, C-C-C 113°, H-C-H 107°."""
    half, tilt = np.radians(113 / 2), np.radians(107 / 2)
    along, across = 1.53 * np.sin(half), 1.53 * np.cos(half)
    carbon = np.array([(i * along, (i % 2) * across, 0.0) for i in range(6)])
    hydrogen = []
    for i, (x, y, _) in enumerate(carbon):
        outward = 1.10 * np.cos(tilt) * (1 if i % 2 else -1)
        hydrogen += [(x, y + outward, 1.10 * np.sin(tilt)), (x, y + outward, -1.10 * np.sin(tilt))]
    # The third hydrogen of each methyl group continues the zigzag.
    hydrogen += [
        (carbon[0, 0] - 0.92, carbon[0, 1] + 0.60, 0.0),
        (carbon[-1, 0] + 0.92, carbon[-1, 1] - 0.60, 0.0),
    ]
    return carbon, np.array(hydrogen)


def _toluene() -> tuple[np.ndarray, np.ndarray]:
    """Toluene: ring C-C 1.397 Å, C-H 1.08 Å, C-CH3 1.51 Å, methyl C-H 1.09 Å."""
    angle = np.radians(60 * np.arange(6))
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    methyl = 1.397 + 1.51
    turn = np.radians(120 * np.arange(3))
    hydrogen = np.stack([np.full(3, methyl + 0.39), 1.02 * np.cos(turn), 1.02 * np.sin(turn)], axis=1)
    return np.vstack([1.397 * ring, [[methyl, 0, 0]]]), np.vstack([2.48 * ring[1:], hydrogen])


_MOLECULES = {"hexane": _hexane, "toluene": _toluene}


def liquid_profile(name: str, q: np.ndarray) -> np.ndarray:
    """Coherent and incoherent scattering of a built-in liquid.

    Args:
        name: a name of `LIQUIDS`.
        q: (q,) float64 [Å⁻¹], > 0.

    Returns:
        (q,) float64 [electron units per molecule].
    """
    from hpc.form_factors import compton, scattering_factor

    liquid, (carbon, hydrogen) = LIQUIDS[name], _MOLECULES[name]()
    f = {element: scattering_factor(element, q, anomalous=False).real for element in ("C", "H")}
    element = ["C"] * len(carbon) + ["H"] * len(hydrogen)
    position = np.vstack([carbon, hydrogen])

    intensity = np.zeros_like(q)
    for symbol, number in (("C", len(carbon)), ("H", len(hydrogen))):
        intensity += number * (f[symbol] ** 2 + compton(symbol, q))
    for i in range(len(position)):
        for j in range(i):
            r = np.linalg.norm(position[i] - position[j])
            blur = np.exp(-((_FLEXIBILITY * r * q) ** 2) / 2)
            intensity += 2 * f[element[i]] * f[element[j]] * np.sinc(q * r / np.pi) * blur

    rho = liquid.density * _AVOGADRO_PER_CM3 / liquid.molar_mass
    volume = (1 - _COMPRESSIBILITY + liquid.neighbours) / rho
    x = q * (3 * volume / (4 * np.pi)) ** (1 / 3)
    hole = -3 * volume * (np.sin(x) - x * np.cos(x)) / x**3 * np.exp(-((liquid.hole_width * q) ** 2) / 2)
    shell = np.sinc(q * liquid.shell / np.pi) * np.exp(-((liquid.shell_width * q) ** 2) / 2)
    amplitude = len(carbon) * f["C"] + len(hydrogen) * f["H"]
    return intensity + amplitude**2 * (rho * hole + liquid.neighbours * shell)


def solvent_profile(solvent: SolventConfig, q: np.ndarray) -> np.ndarray:
    """A solvent on the grid of the patterns.

    Args:
        solvent: a built-in liquid or a file.
        q: (q,) float64 [Å⁻¹], uniform.

    Returns:
        (q,) float64, positive, of mean 1.

    Raises:
        ValueError: the file cannot be read or does not cover q.
    """
    if solvent.file is None:
        profile = liquid_profile(solvent.name, q)
    else:
        profile = _measured_profile(solvent, q)
    return profile / profile.mean()


def _measured_profile(solvent: SolventConfig, q: np.ndarray) -> np.ndarray:
    from qdml.measured.patterns import read_pattern, regrid

    assert solvent.file is not None
    unit = "1/A" if solvent.wavelength is None else None
    pattern = read_pattern(solvent.file, wavelength=solvent.wavelength, q_unit=unit)
    on_grid = regrid(pattern, q)
    if not on_grid.mask.all():
        raise ValueError(
            f"the solvent file {solvent.file} must cover the patterns' Q, {q[0]:g} to {q[-1]:g} Å⁻¹; it has usable "
            f"points from {on_grid.window[0]:.4g} to {on_grid.window[1]:.4g} Å⁻¹ and {int((~on_grid.mask).sum())} of "
            f"{q.size} grid points are missing; use another file, or simulate a smaller Q range"
        )
    return on_grid.intensity
