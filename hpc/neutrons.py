"""Scattering lengths of bound nuclei: what neutrons see of an element of natural isotopic composition.

    b = b_coh (complex where absorption is strong),   σ_inc = 4π (⟨|b|²⟩ - |⟨b⟩|²) per atom, isotropic

Values: the table of `periodictable` (Sears, Neutron News 3, 26 (1992), with the updates its documentation lists), and
for nuclei with a resonance at thermal energies Lynn & Seeger, At. Data Nucl. Data Tables 44, 191 (1990), by wavelength.
Unpolarised neutrons, no magnetic scattering, no Placzek corrections: static approximation.

Symbols: b [fm], σ [barn = 100 fm²], λ wavelength of the neutrons [Å].
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["incoherent_self", "scattering_length"]


def scattering_length(element: str, *, wavelength: float | None = None) -> complex:
    """Coherent scattering length of a bound nucleus.

    Args:
        element: chemical symbol.
        wavelength: of the neutrons [Å]; only elements with a resonance depend on it.

    Returns:
        b [fm]; the imaginary part is negative.

    Raises:
        ValueError: unknown element, or a wavelength that is missing or not positive.
    """
    return _lookup(element, wavelength)[0]


def incoherent_self(element: str, *, wavelength: float | None = None) -> float:
    """σ_inc / 4π [fm² per atom]: incoherent scattering into any direction, beside |b|².

    Raises:
        ValueError: as `scattering_length`.
    """
    return 100 * _lookup(element, wavelength)[1] / (4 * math.pi)


def _lookup(element: str, wavelength: float | None) -> tuple[complex, float]:
    """Scattering length b [fm] and σ_inc [barn]."""
    import periodictable

    if wavelength is not None and not (math.isfinite(wavelength) and wavelength > 0):
        raise ValueError(f"wavelength must be > 0 Å, got {wavelength}")
    try:
        nucleus = periodictable.elements.symbol(element).neutron
    except (ValueError, TypeError):
        raise ValueError(f"element must be a chemical symbol, got {element!r}") from None
    if nucleus is None or not nucleus.has_sld():
        raise ValueError(f"no scattering length of {element} is tabulated")
    assert nucleus.incoherent is not None  # has_sld
    if wavelength is None and nucleus.is_energy_dependent:
        raise ValueError(
            f"the scattering length of {element} depends on the wavelength of the neutrons; give one in Å"
        )
    # At any wavelength if there is no resonance; 1.798 Å are the 2200 m/s of the tables.
    b, _ = nucleus.scattering_by_wavelength(wavelength or periodictable.nsf.ABSORPTION_WAVELENGTH)
    return complex(np.asarray(b).item()), nucleus.incoherent
