"""Scattering factors of neutral atoms.

    f(Q, E) = f0(s) + f'(E) + i f''(E),   s = Q/4π = sin θ/λ

f0: Waasmaier & Kirfel, Acta Cryst. A51, 416 (1995), through xraydb; valid for s <= 6 Å⁻¹ (Q <= 75 Å⁻¹).
f', f'': Chantler, J. Phys. Chem. Ref. Data 24, 71 (1995), through xraydb.
Incoherent (Compton) scattering: S(s) of xraylib, electron units per atom, without the loss by recoil; that is

    R(Q, E) = (E'/E)²,   E/E' = 1 + (E / m c²) (1 - cos 2θ),   1 - cos 2θ = 2 (Q / Q_back)²,   Q_back = 4π E / hc

for a detector that counts photons (Breit & Dirac: G. Breit, Phys. Rev. 27, 362 (1926)).

Symbols: q [Å⁻¹], E photon energy [keV], λ wavelength [Å].
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "HC_KEV_ANGSTROM",
    "Q_MAX",
    "check_element",
    "check_energy",
    "compton",
    "dispersion",
    "energy_of_wavelength",
    "recoil",
    "scattering_factor",
]

#: Planck constant times speed of light [keV Å] (CODATA 2018, exact by definition of the SI).
HC_KEV_ANGSTROM = 12.398419843320026

#: Waasmaier and Kirfel fitted f0 up to s = 6 Å⁻¹ [Å⁻¹].
Q_MAX = 4 * np.pi * 6.0
# Rest energy of the electron [keV] (CODATA 2018).
_ELECTRON_KEV = 510.99895
# First point of the tables of incoherent scattering functions, sin θ/λ [Å⁻¹].
_COMPTON_FROM = 0.001


def energy_of_wavelength(wavelength_angstrom: float) -> float:
    """Photon energy [keV] of a wavelength [Å].

    Raises:
        ValueError: the wavelength is not positive.
    """
    if not (np.isfinite(wavelength_angstrom) and wavelength_angstrom > 0):
        raise ValueError(f"wavelength must be > 0 Å, got {wavelength_angstrom}")
    return HC_KEV_ANGSTROM / wavelength_angstrom


def check_element(element: str) -> str:
    """The symbol by which the tables know the electrons of an element: its own, and H for D.

    Raises:
        ValueError: not the symbol of an element that the f0 table holds.
    """
    import xraydb

    if element == "D":
        return "H"
    # The table also holds ions (Na1+) and valence forms (Cval); a site carries a neutral atom.
    if not element.isalpha() or len(element) > 2 or element not in xraydb.f0_ions():
        raise ValueError(
            f"element must be a chemical symbol of the Waasmaier-Kirfel table (H to Cf) or D, got {element!r}"
        )
    return element


def check_energy(energy_kev: float | None, elements: tuple[str, ...] = ()) -> float:
    """The photon energy, if it is given and inside the tables of f' and f''.

    Raises:
        ValueError: missing, not positive, or outside the tables of one of the elements.
    """
    if energy_kev is None:
        raise ValueError(
            "the photon energy is missing: f' and f'' depend on it and there is no default; "
            "give energy_kev (22 keV for 0.5636 Å, 8.048 keV for Cu Kα1)"
        )
    if not (np.isfinite(energy_kev) and energy_kev > 0):
        raise ValueError(f"energy_kev must be > 0, got {energy_kev}")
    import xraydb

    for element in elements:
        low, high = np.asarray(xraydb.chantler_energies(element))[[0, -1]] / 1000
        if not low <= energy_kev <= high:
            raise ValueError(
                f"energy_kev must lie in {low:.3g} to {high:.3g} keV, the table of {element}; got {energy_kev}"
            )
    return float(energy_kev)


def scattering_factor(
    element: str, q: np.ndarray, *, energy_kev: float | None = None, anomalous: bool = True
) -> np.ndarray:
    """Atomic scattering factor of a neutral atom.

    Args:
        element: chemical symbol.
        q: (q,) float64 [Å⁻¹].
        energy_kev: photon energy [keV]; needed only with `anomalous`.
        anomalous: add f' + i f''.

    Returns:
        (q,) complex128 [electrons].

    Raises:
        ValueError: unknown element, q outside the table, energy missing or outside the table.
    """
    import xraydb

    element = check_element(element)
    q = np.asarray(q, dtype=np.float64)
    if q.size and not (q.min() >= 0 and q.max() <= Q_MAX):
        raise ValueError(f"q must lie in 0 to {Q_MAX:.1f} Å⁻¹ (the f0 table), got {q.min():g} to {q.max():g}")
    f = np.asarray(xraydb.f0(element, q / (4 * np.pi))).astype(np.complex128)
    if anomalous:
        f += dispersion(element, np.array([check_energy(energy_kev)]))[0]
    return f


def dispersion(element: str, energies_kev: np.ndarray) -> np.ndarray:
    """Anomalous parts f' + i f'' of a neutral atom at many energies, which takes as long as at one.

    Args:
        element: chemical symbol.
        energies_kev: (n,) float64 [keV].

    Returns:
        (n,) complex128 [electrons].

    Raises:
        ValueError: unknown element, or an energy outside the table.
    """
    import xraydb

    element = check_element(element)
    for end in (energies_kev.min(), energies_kev.max()):
        check_energy(float(end), (element,))
    energy_ev = 1000 * np.asarray(energies_kev, dtype=np.float64)
    # Of one energy xraydb returns a number.
    real, imaginary = (np.atleast_1d(f(element, energy_ev)) for f in (xraydb.f1_chantler, xraydb.f2_chantler))
    total: np.ndarray = real + 1j * imaginary
    return total


def compton(element: str, q: np.ndarray) -> np.ndarray:
    """Incoherent scattering function.

    Args:
        element: chemical symbol.
        q: (q,) float64 [Å⁻¹].

    Returns:
        (q,) float64 [electron units per atom], 0 at q = 0 and tending to Z.
    """
    import xraylib

    z = xraylib.SymbolToAtomicNumber(check_element(element))
    s = np.asarray(q, dtype=np.float64) / (4 * np.pi)
    # Below its first point the table is continued by the limit of small s, where S is proportional to s².
    tabulated = np.maximum(s, _COMPTON_FROM)
    return np.array([xraylib.SF_Compt(z, value) for value in tabulated]) * (s / tabulated) ** 2


def recoil(q: np.ndarray, energy_kev: float, *, power: int = 2) -> np.ndarray:
    """Loss of Compton scattering by recoil, to multiply `compton` with.

    Args:
        q: (q,) float64 [Å⁻¹] of elastic scattering, at most 4π/λ.
        energy_kev: photon energy [keV].
        power: 2 for a detector that counts photons, 3 for one that adds up their energy.

    Returns:
        (q,) float64, R = (E'/E)^power, 1 at q = 0.

    Raises:
        ValueError: no energy, or q that no angle reaches.
    """
    energy_kev = check_energy(energy_kev)
    furthest = 4 * np.pi * energy_kev / HC_KEV_ANGSTROM
    q = np.asarray(q, dtype=np.float64)
    if q.size and not (q.min() >= 0 and q.max() <= furthest):
        raise ValueError(
            f"q must lie in 0 to {furthest:.4g} Å⁻¹ (2θ = 180°) at {energy_kev:g} keV, "
            f"got {q.min():g} to {q.max():g}"
        )
    return (1 + 2 * energy_kev / _ELECTRON_KEV * (q / furthest) ** 2) ** -float(power)
