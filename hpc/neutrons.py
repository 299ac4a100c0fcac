"""Scattering lengths of bound nuclei: what neutrons see of an element of natural isotopic composition (or of D).

    b = b_coh, complex where nuclei absorb;   σ_inc = 4π (⟨|b|²⟩ - |⟨b⟩|²) per atom, the same in every direction

Values are those of `periodictable`: H. Rauch & W. Waschkowski, Neutron Data Booklet (ILL, 2003) with the corrections
that its documentation lists. They hold at every wavelength but near a resonance. Sm, Eu, Gd, Er, Yb and Lu follow
J. E. Lynn & P. A. Seeger, At. Data Nucl. Data Tables 44, 191 (1990). Cadmium, whose table has one value, follows the
resonance of 113Cd, the only one below 10 eV (G. Breit & E. Wigner, Phys. Rev. 49, 519 (1936)):

    b(E) = b(E_th) + x [a(E) - a(E_th)],   a(E) = (g Γ_n / 2k_0) (1 + 1/A)² / (E - E_0 + iΓ/2),   E_th = 25.3 meV

Resonances above 1 eV (In, Rh, Ir, ...) are left out; they matter below 0.4 Å.
Unpolarised neutrons, no magnetic scattering, no recoil (static approximation), σ_inc at thermal energies throughout.

Symbols: b [fm], σ [barn = 100 fm²], λ wavelength of the neutrons [Å], E = 81.804 meV Å² / λ² [eV].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["incoherent_self", "neutron_energy", "scattering_length"]

#: ħ²/2m of the neutron [eV Å²] (CODATA 2018).
_HBAR2_2M = 2.0721248e-3
# 2200 m/s, the energy of all tables [eV].
_THERMAL = 0.0253


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resonance:
    """One resonance of one isotope of an element."""

    abundance: float
    mass_number: int
    spin_factor: float
    """g = (2J + 1) / (2 (2I + 1))."""
    energy: float
    """E_0 [eV]."""
    neutron_width: float
    """Γ_n at E_0 [eV]."""
    radiation_width: float
    """Γ_γ [eV]."""

    def amplitude(self, energy: float) -> complex:
        """The product x a(E) [fm]."""
        k = math.sqrt(self.energy / _HBAR2_2M)
        strength = 1e5 * self.spin_factor * self.neutron_width / (2 * k) * (1 + 1 / self.mass_number) ** 2
        width = self.neutron_width + self.radiation_width
        return self.abundance * strength / (energy - self.energy + 0.5j * width)


# 113Cd, I = 1/2, J = 1: K. Volev et al., Nucl. Instrum. Methods B 300, 11 (2013). Its capture cross section at
# 25.3 meV, 2.00e4 barn by this formula, is that of the evaluated libraries (ENDF/B-VIII.1 1.996e4, JENDL-5 2.016e4).
_RESONANCES = {
    "Cd": _Resonance(
        abundance=0.12227,
        mass_number=113,
        spin_factor=0.75,
        energy=0.1787,
        neutron_width=0.640e-3,
        radiation_width=113.5e-3,
    )
}
# [Å]: up to 2 eV, far below the next resonances of cadmium (18 eV and more).
_SHORTEST_BY_RESONANCE = 0.2


def neutron_energy(wavelength: float) -> float:
    """Kinetic energy [eV] of neutrons of a wavelength [Å].

    Raises:
        ValueError: the wavelength is not positive.
    """
    if not (math.isfinite(wavelength) and wavelength > 0):
        raise ValueError(f"wavelength must be > 0 Å, got {wavelength}")
    return _HBAR2_2M * (2 * math.pi / wavelength) ** 2


def scattering_length(element: str, *, wavelength: float | None = None) -> complex:
    """Coherent scattering length of a bound nucleus.

    Args:
        element: chemical symbol, or D.
        wavelength: of the neutrons [Å]; only elements with a resonance depend on it.

    Returns:
        b [fm]; the imaginary part is negative.

    Raises:
        ValueError: an element that is unknown or has no value, or a wavelength that is missing, not positive or outside
            the table of a resonance.
    """
    nucleus = _nucleus(element)
    energy = None if wavelength is None else neutron_energy(wavelength)
    if not nucleus.is_energy_dependent and nucleus.nsf_table is None:
        return complex(nucleus.b_c_complex)
    if wavelength is None or energy is None:
        raise ValueError(
            f"the scattering length of {element} depends on the wavelength of the neutrons; give one in Å"
        )
    if element in _RESONANCES:
        if wavelength < _SHORTEST_BY_RESONANCE:
            raise ValueError(
                f"wavelength must be >= {_SHORTEST_BY_RESONANCE} Å for {element}, got {wavelength:g}"
            )
        resonance = _RESONANCES[element]
        return complex(nucleus.b_c_complex) + resonance.amplitude(energy) - resonance.amplitude(_THERMAL)
    if nucleus.nsf_table is None:
        raise ValueError(f"how the scattering length of {element} depends on the wavelength is not tabulated")
    low, high = np.min(nucleus.nsf_table[0]), np.max(nucleus.nsf_table[0])
    if not low <= wavelength <= high:
        raise ValueError(
            f"wavelength must lie in {low:.3g} to {high:.3g} Å, the table of {element}; got {wavelength:g}"
        )
    return complex(np.asarray(nucleus.scattering_by_wavelength(wavelength)[0]).item())


def incoherent_self(element: str) -> float:
    """σ_inc / 4π [fm² per atom]: incoherent scattering into any direction, beside |b|².

    Raises:
        ValueError: an element that is unknown or has no value.
    """
    return 100 * float(_nucleus(element).incoherent) / (4 * math.pi)


def _nucleus(element: str):  # type: ignore[no-untyped-def]  # periodictable.nsf.Neutron
    import periodictable

    try:
        nucleus = periodictable.elements.symbol(element).neutron
    except (ValueError, TypeError):
        raise ValueError(f"element must be a chemical symbol, got {element!r}") from None
    if nucleus is None or not nucleus.has_sld():
        raise ValueError(f"no neutron scattering length of {element} is tabulated")
    return nucleus
