"""Scattering of a liquid, per molecule in electron units.

    I(Q) = Σ_i (f_i² + S_i) + Σ_{i≠j} f_i f_j <sin(Q r_ij)/(Q r_ij)> exp(-(u_ij Q)²/2)        one molecule
         + (Σ_i f_i)² (S(Q) - 1)                                                              between molecules

The first line averages the distances over the molecule's conformers (`hpc.liquids.molecule`); S_i is Compton
scattering. In the second, around any atom a sphere of radius R, blurred by a Gaussian of width v, holds no atom of
another molecule, and n molecules more than average sit in a shell at r ± w. R follows from density and compressibility.

Symbols: q [Å⁻¹], f [electrons], ρ molecules per Å³.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from hpc.liquids.liquid import Liquid, load_liquid
from hpc.liquids.molecule import Distances, distances

__all__ = ["LiquidTerms", "liquid_profile", "liquid_terms"]


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
    """Position of the first maximum of the sum [Å⁻¹]."""
    ring_width: float
    """Its half width at half maximum [Å⁻¹]."""

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
        arrays = {
            f.name: function(getattr(self, f.name))
            for f in fields(self)
            if f.name not in ("ring", "ring_width")
        }
        return replace(self, **arrays)


@lru_cache(maxsize=32)
def _distances(name: str) -> tuple[Liquid, list[Distances]]:
    liquid = load_liquid(name)
    return liquid, distances(liquid)


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
    q = np.asarray(q, dtype=np.float64)
    if q.ndim != 1 or q.size == 0 or not (np.all(np.isfinite(q)) and q[0] > 0 and np.all(np.diff(q) > 0)):
        raise ValueError("q of a liquid must be one row of ascending values > 0 Å⁻¹")
    if isinstance(liquid, str):
        liquid, pairs = _distances(liquid.lower())
    else:
        pairs = distances(liquid)
    f, self_term = _atoms(liquid, q, energy_kev, particle)
    intra = np.zeros_like(q)
    for pair in pairs:
        product = (f[pair.elements[0]] * f[pair.elements[1]].conj()).real
        intra += product * _debye_sum(pair, q)
    amplitude = sum(n * f[element] for element, n in liquid.composition.items())
    amplitude2 = np.abs(amplitude) ** 2
    structure = _hole_and_shell(liquid, q)
    ring, ring_width = _ring(liquid)
    return LiquidTerms(
        q=q,
        self=self_term,
        intra=intra,
        amplitude2=amplitude2,
        structure=structure,
        ring=ring,
        ring_width=ring_width,
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


def _atoms(
    liquid: Liquid, q: np.ndarray, energy_kev: float | None, particle: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    from hpc.form_factors import compton, scattering_factor

    if particle != "xray":
        raise ValueError(f"particle must be xray or neutron, got {particle!r}")
    anomalous = energy_kev is not None
    f = {
        element: scattering_factor(element, q, energy_kev=energy_kev, anomalous=anomalous)
        for element in liquid.composition
    }
    self_term = np.zeros_like(q)
    for element, n in liquid.composition.items():
        self_term += n * (np.abs(f[element]) ** 2 + compton(element, q))
    return f, self_term


def _debye_sum(pair: Distances, q: np.ndarray) -> np.ndarray:
    """(q,) float64: Σ w sin(Q r)/(Q r) exp(-(u Q)²/2)."""
    total = np.zeros_like(q)
    for width in np.unique(pair.width):
        same = pair.width == width
        waves = np.sinc(np.outer(q, pair.r[same]) / np.pi) @ pair.weight[same]
        total += waves * np.exp(-((width * q) ** 2) / 2)
    return total


def _hole_and_shell(liquid: Liquid, q: np.ndarray) -> np.ndarray:
    s = liquid.structure
    n = float(s["neighbours"])
    rho = liquid.number_density
    volume = (1 - liquid.forward + n) / rho
    x = q * (3 * volume / (4 * np.pi)) ** (1 / 3)
    blur = np.exp(-((float(s["hole_width"]) * q) ** 2) / 2)
    hole = -3 * volume * (np.sin(x) - x * np.cos(x)) / x**3 * blur
    shell = np.sinc(q * float(s["shell"]) / np.pi) * np.exp(-((float(s["shell_width"]) * q) ** 2) / 2)
    return rho * hole + n * shell


@lru_cache(maxsize=64)
def _ring_of(key: str) -> tuple[float, float]:
    return 1.35, 0.2


def _ring(liquid: Liquid) -> tuple[float, float]:
    return _ring_of(liquid.name)
