"""Scattering of a liquid, per molecule in electron units.

    I(Q) = Σ_i (f_i² + S_i) + Σ_{i≠j} f_i f_j <sin(Q r_ij)/(Q r_ij)> exp(-(u_ij Q)²/2)        one molecule
         + Σ_ab n_a n_b f_a f_b H_ab(Q)                                                       between molecules

The first line averages the distances over the molecule's conformers (`hpc.liquids.molecule`); S_i is Compton
scattering, u_ij the amplitude of vibration. n_a atoms of element a in the molecule see the atoms b of other molecules
through H_ab (`hpc.liquids.structure`).

Symbols: q [Å⁻¹], f [electrons], ρ molecules per Å³.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from hpc.liquids.liquid import Liquid, load_liquid
from hpc.liquids.molecule import Distances, distances
from hpc.liquids.structure import ordering

__all__ = ["LiquidTerms", "atom_amplitudes", "bonded_hydrogen", "check_q", "liquid_profile", "liquid_terms"]

#: Where the ring of a liquid is looked for [Å⁻¹].
_RING_GRID = np.arange(0.4, 4.0, 0.005)
_ARRAYS = ("q", "self", "intra", "amplitude2", "structure")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiquidTerms:
    """The parts of a liquid's scattering on a grid of Q, per molecule in electron units (neutrons: fm²)."""

    q: Any
    """(q,) float64 [Å⁻¹]."""
    self: Any
    """(q,) float64: free atoms, coherent and incoherent."""
    intra: Any
    """(q,) float64: pairs of atoms of one molecule."""
    amplitude2: Any
    """(q,) float64: (Σ f)² of the molecule's atoms."""
    structure: Any
    """(q,) float64: S(Q) - 1 of the liquid, weighted by the amplitudes."""
    ring: float
    """Position of the highest maximum of the sum [Å⁻¹]."""
    ring_width: float
    """Its half width at half maximum, on the side of small Q [Å⁻¹]."""
    uniform: bool = True
    """Whether q is."""

    @property
    def molecule(self) -> Any:
        """(q,) float64: molecules that know nothing of each other."""
        return self.self + self.intra

    @property
    def total(self) -> Any:
        """(q,) float64: the liquid."""
        return self.self + self.intra + self.amplitude2 * self.structure

    def convert(self, function: Callable[[np.ndarray], Any]) -> LiquidTerms:
        """The same terms with every array passed through a function (`torch.as_tensor`, `cupy.asarray`, ...)."""
        return replace(self, **{name: function(getattr(self, name)) for name in _ARRAYS})

    def scaled(self, factor: float) -> LiquidTerms:
        """The same liquid with all intensities multiplied by a factor."""
        return replace(
            self,
            self=factor * self.self,
            intra=factor * self.intra,
            amplitude2=factor * self.amplitude2,
        )


def liquid_terms(
    liquid: Liquid | str,
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    particle: Literal["xray", "neutron"] = "xray",
) -> LiquidTerms:
    """The parts of a liquid's scattering.

    Args:
        liquid: a liquid, or the name of one of `conf/liquid/`.
        q: (q,) float64 [Å⁻¹], > 0, ascending.
        energy_kev: photon energy [keV] for f' and f''; None leaves them out.
        particle: what scatters.

    Returns:
        The terms on q.

    Raises:
        ValueError: unknown liquid, q not positive and ascending, energy outside the tables.
    """
    q = check_q(q)
    if isinstance(liquid, str):
        liquid, pairs = _shipped(liquid.lower())
    else:
        pairs = distances(liquid)
    parts = _parts(liquid, pairs, q, energy_kev, particle)
    free, intra, amplitude2, structure = _parts(liquid, pairs, _RING_GRID, energy_kev, particle)
    ring, ring_width = _ring(_RING_GRID, free + intra + amplitude2 * structure)
    return LiquidTerms(
        q=q,
        self=parts[0],
        intra=parts[1],
        amplitude2=parts[2],
        structure=parts[3],
        ring=ring,
        ring_width=ring_width,
        uniform=q.size > 1 and np.ptp(np.diff(q)) < 1e-6 * (q[1] - q[0]),
    )


def liquid_profile(
    liquid: Liquid | str,
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    particle: Literal["xray", "neutron"] = "xray",
) -> np.ndarray:
    """Coherent and incoherent scattering of a liquid: the sum of `liquid_terms`, with its arguments and errors.

    Returns:
        (q,) float64 [electron units per molecule; neutrons: fm²].
    """
    total: np.ndarray = liquid_terms(liquid, q, energy_kev=energy_kev, particle=particle).total
    return total


@lru_cache(maxsize=32)
def _shipped(name: str) -> tuple[Liquid, list[Distances]]:
    liquid = load_liquid(name)
    return liquid, distances(liquid)


def _parts(
    liquid: Liquid, pairs: list[Distances], q: np.ndarray, energy_kev: float | None, particle: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """self, intra, amplitude2 and structure of `LiquidTerms` on q."""
    f, incoherent = atom_amplitudes(tuple(liquid.composition), q, energy_kev, particle)
    free = np.zeros_like(q)
    for element, n in liquid.composition.items():
        free += n * (np.abs(f[element]) ** 2 + incoherent[element])
    intra = np.zeros_like(q)
    for pair in pairs:
        a, b = pair.elements
        intra += (f[a] * f[b].conj()).real * _debye_sum(pair, q)
    amplitude2 = np.abs(sum(n * f[element] for element, n in liquid.composition.items())) ** 2
    between = np.zeros_like(q)
    for (a, b), h in ordering(liquid, q, pairs).items():
        count = liquid.composition[a] * liquid.composition[b] * (1 if a == b else 2)
        between += count * (f[a] * f[b].conj()).real * h
    return free, intra, amplitude2, between / amplitude2


def bonded_hydrogen(q: np.ndarray) -> np.ndarray:
    """Scattering factor of hydrogen in a bond, contracted against the free atom: R. F. Stewart, E. R. Davidson &
    W. T. Simpson, J. Chem. Phys. 42, 3175 (1965), as Gaussians (International Tables C, table 6.1.1.4).

    Args:
        q: (q,) float64 [Å⁻¹], up to 25.

    Returns:
        (q,) float64 [electrons].
    """
    s2 = (q / (4 * np.pi)) ** 2
    f = np.full_like(s2, 0.0030)
    for a, b in ((0.49300, 10.51091), (0.32291, 26.12573), (0.14019, 3.14236), (0.04081, 57.79977)):
        f += a * np.exp(-b * s2)
    return f


def check_q(q: np.ndarray) -> np.ndarray:
    """(q,) float64: the same values.

    Raises:
        ValueError: not one row of ascending values > 0.
    """
    q = np.asarray(q, dtype=np.float64)
    if q.ndim != 1 or q.size == 0 or not (np.all(np.isfinite(q)) and q[0] > 0 and np.all(np.diff(q) > 0)):
        got = f"{q.min():g} to {q.max():g}" if q.size else "nothing"
        raise ValueError(f"q must be one row of ascending values > 0 Å⁻¹, got {got} of shape {q.shape}")
    return q


def atom_amplitudes(
    elements: tuple[str, ...], q: np.ndarray, energy_kev: float | None, particle: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Amplitudes of elements, and what they scatter incoherently.

    Args:
        elements: chemical symbols; hydrogen is that of a bond.
        q: (q,) float64 [Å⁻¹].
        energy_kev: photon energy [keV] for f' and f''; None leaves them out.
        particle: "xray" or "neutron".

    Returns:
        By element, (q,) complex128 amplitudes [electrons; neutrons: fm] and (q,) float64 [their squares].

    Raises:
        ValueError: unknown particle, energy outside the tables.
    """
    if particle == "xray":
        return _xray(elements, q, energy_kev)
    if particle == "neutron":
        return _neutron(elements, q)
    raise ValueError(f"particle must be xray or neutron, got {particle!r}")


def _xray(
    elements: tuple[str, ...], q: np.ndarray, energy_kev: float | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    from hpc.form_factors import compton, scattering_factor

    anomalous = energy_kev is not None
    amplitude, incoherent = {}, {}
    for element in elements:
        if element == "H":
            amplitude[element] = bonded_hydrogen(q).astype(np.complex128)
            incoherent[element] = 1 - amplitude[element].real ** 2  # exact for one electron
        else:
            amplitude[element] = scattering_factor(element, q, energy_kev=energy_kev, anomalous=anomalous)
            incoherent[element] = compton(element, q)
    return amplitude, incoherent


def _neutron(elements: tuple[str, ...], q: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    from hpc.neutrons import incoherent_self, scattering_length

    return (
        {element: np.full(q.shape, scattering_length(element)) for element in elements},
        {element: np.full(q.shape, incoherent_self(element)) for element in elements},
    )


def _debye_sum(pair: Distances, q: np.ndarray) -> np.ndarray:
    """(q,) float64: Σ w sin(Q r)/(Q r) exp(-(u Q)²/2)."""
    total = np.zeros_like(q)
    for width in np.unique(pair.width):
        same = pair.width == width
        waves = np.sinc(np.outer(q, pair.r[same]) / np.pi) @ pair.weight[same]
        total += waves * np.exp(-((width * q) ** 2) / 2)
    return total


def _ring(q: np.ndarray, total: np.ndarray) -> tuple[float, float]:
    top = int(total.argmax())
    half = (total[top] + total[: top + 1].min()) / 2
    below = np.flatnonzero(total[:top] < half)
    return float(q[top]), float(q[top] - q[below[-1]])
