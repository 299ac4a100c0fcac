"""Debye scattering equation on pair tables.

    I(Q) = Σ_a o_a N_a |f_a|² + Σ_{a<=b} o_a o_b Re(f_a f_b*) exp(-(B_a+B_b) s²) P_ab(Q),   s = Q/4π
    P_ab(Q) = Σ_n c_ab(n) sin(Q r_n) / (Q r_n)

P. Debye, Ann. Phys. 351, 809 (1915). a, b run over *kinds* of sites (element, occupancy o, Debye-Waller factor B);
c_ab(n) counts ordered pairs i ≠ j at distance r_n, both orders of two kinds together. The self term carries no
Debye-Waller factor, and o_a rather than o_a²: Ferri et al., Acta Cryst. A79 (2023), 10.1107/S2053273323008446.

`partial_sums` and `intensity` take arrays of NumPy, CuPy or torch and answer in kind (array API standard).

Symbols: q [Å⁻¹], r [Å], f [electrons], B [Å²], I [electron units].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

from hpc.form_factors import compton, scattering_factor
from hpc.material import Kind, kind_pairs

__all__ = ["Coefficients", "coefficients", "intensity", "partial_sums", "sinc"]

Array = Any  # an array of any namespace that follows the array API standard


def sinc(x: Array) -> Array:
    """sin(x)/x, 1 at x = 0."""
    xp = array_api_compat.array_namespace(x)
    safe = xp.where(x == 0, xp.ones_like(x), x)
    return xp.where(x == 0, xp.ones_like(x), xp.sin(safe) / safe)


def partial_sums(counts: Array, distance: Array, q: Array) -> Array:
    """P(Q) of one pair of kinds: a matrix product of counts and sin(Qr)/(Qr).

    Args:
        counts: (..., n) float64, ordered pairs at each distance.
        distance: (n,) float64 [Å].
        q: (q,) float64 [Å⁻¹], any sign (P is even).

    Returns:
        (..., q) float64. In float64 throughout: phases Qr reach 10⁴, which float32 and TF32 cannot resolve.
    """
    return counts @ sinc(distance[:, None] * q[None, :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """What multiplies the partial sums and the site numbers: everything that depends on q, energy and B alone."""

    undamped: np.ndarray
    """(pair, q) float64: o_a o_b Re(f_a f_b*)."""
    exponent: np.ndarray
    """(pair, q) float64: (B_a+B_b) s²."""
    self: np.ndarray
    """(kind, q) float64: o_a |f_a|², plus the Compton term o_a S_a when asked for."""

    def pair(self, b_scale: float = 1.0) -> np.ndarray:
        """(pair, q) float64: o_a o_b Re(f_a f_b*) exp(-b (B_a+B_b) s²), with every B multiplied by b = `b_scale`."""
        return self.undamped * np.exp(-b_scale * self.exponent)


def coefficients(
    kinds: Sequence[Kind],
    q: np.ndarray,
    *,
    energy_kev: float | None,
    anomalous: bool = True,
    with_compton: bool = False,
    self_term: str = "exact",
) -> Coefficients:
    """Pair and self coefficients of kinds of scatterers.

    Args:
        kinds: element, occupancy and B of each.
        q: (q,) float64 [Å⁻¹].
        energy_kev: photon energy [keV], needed only with `anomalous`.
        anomalous: f' and f'' by energy.
        with_compton: add incoherent scattering to the self term.
        self_term: "exact" (o_a |f_a|²) or "squared" (o_a² |f_a|², as Debussy 2.2 has it, for comparisons).

    Raises:
        ValueError: unknown `self_term`, element or energy.
    """
    if self_term not in ("exact", "squared"):
        raise ValueError(f"self_term must be 'exact' or 'squared', got {self_term!r}")
    s2 = (np.asarray(q) / (4 * np.pi)) ** 2
    f = [scattering_factor(kind.element, q, energy_kev=energy_kev, anomalous=anomalous) for kind in kinds]
    pairs = kind_pairs(len(kinds))
    power = 1 if self_term == "exact" else 2
    self_ = [kind.occupancy**power * np.abs(f_kind) ** 2 for kind, f_kind in zip(kinds, f, strict=True)]
    if with_compton:
        self_ = [
            term + kind.occupancy * compton(kind.element, q) for kind, term in zip(kinds, self_, strict=True)
        ]
    return Coefficients(
        undamped=np.stack(
            [kinds[a].occupancy * kinds[b].occupancy * (f[a] * f[b].conj()).real for a, b in pairs]
        ),
        exponent=np.stack([(kinds[a].b_iso + kinds[b].b_iso) * s2 for a, b in pairs]),
        self=np.stack(self_),
    )


def intensity(partial: Array | Sequence[Array], n_atoms: Array, pair: Array, self: Array) -> Array:
    """I(Q) of particles from their partial sums.

    Args:
        partial: (pair, ..., q) float64, P_ab.
        n_atoms: (..., kind) float64, sites of each kind.
        pair: (pair, q) float64, `Coefficients.pair()`.
        self: (kind, q) float64, `Coefficients.self`.

    Returns:
        (..., q) float64 [electron units], for whole particles; divide by the number of sites for "per atom".
    """
    total = n_atoms @ self
    for index in range(len(partial)):
        total = total + partial[index] * pair[index]
    return total
