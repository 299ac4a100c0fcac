"""Pair sums of particles, form factors and B -> intensity and structure functions.

    I(Q) = Σ_a o_a N_a |f_a|² + Σ_{a<=b} o_a o_b Re(f_a f_b*) exp(-(B_a+B_b) s²) P_ab(Q),   s = Q/4π
    P_ab(Q) = Σ_n c_ab(n) sin(Q r_n) / (Q r_n)

P. Debye, Ann. Phys. 351, 809 (1915). a, b run over *kinds* of sites (element, occupancy o, Debye-Waller factor B);
c_ab(n) counts ordered pairs i ≠ j at distance r_n, both orders of two kinds together. The self term carries no
Debye-Waller factor, and o_a rather than o_a²: Ferri et al., Acta Cryst. A79 (2023), 10.1107/S2053273323008446.

Structure functions are those of Faber & Ziman (Phil. Mag. 11, 153 (1965); D. A. Keen, J. Appl. Cryst. 34, 172 (2001);
C. L. Farrow & S. J. L. Billinge, Acta Cryst. A65, 232 (2009)), with N = Σ_a o_a N_a and <f> = Σ_a o_a N_a f_a / N:

    S(Q) = 1 + [I(Q) - Σ_a o_a N_a |f_a|²] / (N |<f>|²)     tends to 1 at large Q, and to about N at Q = 0
    F(Q) = Q [S(Q) - 1]
    G(r) = (2/π) ∫ F(Q) sin(Qr) w(Q) dQ                      over the range of the given q
    S(Q) - 1 = Σ_{E<=F} weight_EF(Q) [A_EF(Q) - 1]           A_EF: partial structure factors of pairs of elements

The particle scatters at small angles too. With q from 0, r G(r) is the distribution of neighbours (the area of a peak
is a coordination number); with q from beyond the small-angle part, G(r) has the usual baseline -4πρ₀rγ₀(r).

Neutrons are scattered by nuclei: f is then the coherent scattering length b [fm] at every q, I is in fm² (0.01 barn),
and the incoherent part of the self term is σ_inc/4π in place of the Compton term.

`intensity` takes arrays of NumPy, CuPy or torch and answers in kind (array API standard).

Symbols: q [Å⁻¹], r [Å], f [electrons], B [Å²], I [electron units].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from hpc.form_factors import compton, scattering_factor
from hpc.near_part import NearPart
from hpc.neutrons import incoherent_self, scattering_length
from hpc.radiation import Beam, Particle
from hpc.structure.material import Kind, kind_pairs
from hpc.texture import bragg_part, diffuse_terms

__all__ = ["Coefficients", "PairSums", "amplitudes", "coefficients", "intensity", "reduced_pdf"]

Array = Any  # an array of any namespace that follows the array API standard


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """What multiplies the partial sums and the site numbers: everything that depends on q, energy and B alone."""

    undamped: np.ndarray
    """(pair, q) float64: o_a o_b Re(f_a f_b*)."""
    exponent: np.ndarray
    """(pair, q) float64: (B_a+B_b) s²."""
    self: np.ndarray
    """(kind, q) float64: o_a |f_a|², plus the incoherent term o_a S_a when asked for."""

    def pair(self, b_scale: float = 1.0) -> np.ndarray:
        """(pair, q) float64: o_a o_b Re(f_a f_b*) exp(-b (B_a+B_b) s²), with every B multiplied by b = `b_scale`."""
        return self.undamped * np.exp(-b_scale * self.exponent)


def amplitudes(
    kinds: Sequence[Kind],
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    anomalous: bool = True,
    particle: Particle = "xray",
    wavelength: float | None = None,
) -> np.ndarray:
    """(kind, q) complex128: f [electrons], or b [fm] of neutrons; arguments as in `coefficients`.

    Raises:
        ValueError: unknown particle, element, energy or wavelength.
    """
    if particle == "xray":
        factors = {
            element: scattering_factor(element, q, energy_kev=energy_kev, anomalous=anomalous)
            for element in dict.fromkeys(kind.element for kind in kinds)
        }
        return np.stack([factors[kind.element] for kind in kinds])
    if particle == "neutron":
        if energy_kev is not None:
            raise ValueError(
                f"energy_kev is that of photons; give neutrons a wavelength or nothing, got {energy_kev}"
            )
        return np.stack(
            [np.full(np.shape(q), scattering_length(kind.element, wavelength=wavelength)) for kind in kinds]
        )
    raise ValueError(f"particle must be 'xray' or 'neutron', got {particle!r}")


def coefficients(
    kinds: Sequence[Kind],
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    anomalous: bool = True,
    with_compton: bool = False,
    self_term: str = "exact",
    particle: Particle = "xray",
    wavelength: float | None = None,
) -> Coefficients:
    """Pair and self coefficients of kinds of scatterers.

    Args:
        kinds: element, occupancy and B of each.
        q: (q,) float64 [Å⁻¹].
        energy_kev: photon energy [keV], needed only with `anomalous`.
        anomalous: f' and f'' by energy; X-rays only.
        with_compton: add incoherent scattering to the self term: Compton, or that of nuclei.
        self_term: "exact" (o_a |f_a|²) or "squared" (o_a² |f_a|², as Debussy 2.2 has it, for comparisons).
        particle: "xray" (electron units) or "neutron" (fm²).
        wavelength: of neutrons [Å], needed only where a nucleus has a resonance.

    Raises:
        ValueError: unknown `self_term`, particle, element, energy or wavelength.
    """
    if self_term not in ("exact", "squared"):
        raise ValueError(f"self_term must be 'exact' or 'squared', got {self_term!r}")
    s2 = (np.asarray(q) / (4 * np.pi)) ** 2
    f = amplitudes(
        kinds, q, energy_kev=energy_kev, anomalous=anomalous, particle=particle, wavelength=wavelength
    )
    pairs = kind_pairs(len(kinds))
    power = 1 if self_term == "exact" else 2
    self_ = [kind.occupancy**power * np.abs(f_kind) ** 2 for kind, f_kind in zip(kinds, f, strict=True)]
    if with_compton:
        incoherent = [
            compton(kind.element, q) if particle == "xray" else incoherent_self(kind.element)
            for kind in kinds
        ]
        self_ = [
            term + kind.occupancy * extra for kind, term, extra in zip(kinds, self_, incoherent, strict=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSums:
    """One particle, or the mean over an ensemble, before form factors: all its structure functions follow from it."""

    kinds: tuple[Kind, ...]
    n_atoms: np.ndarray
    """(kind,) float64, sites of each kind."""
    q: np.ndarray
    """(q,) float64 [Å⁻¹]."""
    partial: np.ndarray
    """(pair, q) float64, P_ab."""
    extent: float
    """No two atoms are farther apart [Å]."""
    near: NearPart | None = None
    """How near neighbours move together, and a halo; None where every atom moves by itself."""
    texture: np.ndarray | None = None
    """(q,) float64, of `hpc.texture.texture_gain`: what an oriented sample adds to `iq`, over its Bragg part."""

    @property
    def n_occupied(self) -> float:
        """N = Σ o_a N_a: how many atoms are there."""
        return float(self.n_atoms @ [kind.occupancy for kind in self.kinds])

    def iq(
        self,
        *,
        compton: bool = False,
        per_atom: bool = False,
        b_scale: float = 1.0,
        **beam: Unpack[Beam],
    ) -> np.ndarray:
        """(q,) float64 [electron units; fm² for neutrons]: the intensity.

        Arguments as in `hpc.debye.iq`; every B times b_scale.
        """
        terms = coefficients(self.kinds, self.q, with_compton=compton, **beam)
        total = intensity(self.partial, self.n_atoms, terms.pair(b_scale), terms.self)
        if self.near is not None:
            total = total + np.einsum("pq,pq->q", terms.undamped, self._near(terms, b_scale))
        if self.texture is not None:
            total = total + self.texture * self.bragg(b_scale=b_scale, **beam)
        return total / self.n_occupied if per_atom else total

    def bragg(self, *, per_atom: bool = False, b_scale: float = 1.0, **beam: Unpack[Beam]) -> np.ndarray:
        """(q,) float64: the part of `iq` that depends on orientation, see `hpc.texture`; arguments as in `iq`."""
        terms = coefficients(self.kinds, self.q, **beam)
        total = intensity(self.partial, self.n_atoms, terms.pair(b_scale), terms.self)
        of_itself = [self._pairs.index((a, a)) for a in range(len(self.kinds))]
        occupancy = np.array([kind.occupancy for kind in self.kinds])
        diffuse = diffuse_terms(terms.self, occupancy, terms.exponent[of_itself], b_scale)
        bragg = bragg_part(total, self.n_atoms, diffuse)
        return bragg / self.n_occupied if per_atom else bragg

    def sq(self, **beam: Unpack[Beam]) -> np.ndarray:
        """(q,) float64: the total-scattering structure factor S."""
        terms = coefficients(self.kinds, self.q, **beam)
        distinct = np.einsum("pq,pq->q", self.partial, terms.pair())
        if self.near is not None:
            distinct += np.einsum("pq,pq->q", terms.undamped, self._near(terms))
        # N² |<f>|² = |Σ o_a N_a f_a|², from products of pairs
        numbers = [(1 if a == b else 2) * self.n_atoms[a] * self.n_atoms[b] for a, b in self._pairs]
        return 1 + self.n_occupied * distinct / (numbers @ terms.undamped)

    def fq(self, **beam: Unpack[Beam]) -> np.ndarray:
        """(q,) float64 [Å⁻¹]: the reduced structure function F."""
        return self.q * (self.sq(**beam) - 1)

    def gr(self, r: np.ndarray, *, lorch: bool = False, **beam: Unpack[Beam]) -> np.ndarray:
        """(r,) float64 [Å⁻²]: the reduced pair distribution function G; arguments as in `hpc.debye.gr`."""
        f = self.fq(**beam)
        return reduced_pdf(self.q, f, r, extent=self.extent, lorch=lorch)

    def partials(self) -> dict[tuple[str, str], np.ndarray]:
        """Elements, in alphabetical order -> (q,) float64: the partial structure factor A_EF."""
        s2 = (self.q / (4 * np.pi)) ** 2
        elements = sorted({kind.element for kind in self.kinds})
        total = dict.fromkeys(elements, 0.0)
        for kind, n in zip(self.kinds, self.n_atoms, strict=True):
            total[kind.element] += kind.occupancy * float(n)
        distinct = {(elements[a], elements[b]): np.zeros_like(self.q) for a, b in kind_pairs(len(elements))}
        exponent = np.stack([(self.kinds[a].b_iso + self.kinds[b].b_iso) * s2 for a, b in self._pairs])
        damped = np.exp(-exponent) * self.partial
        if self.near is not None:
            damped += self.near.damped(self.q, exponent)
        for (a, b), sums in zip(self._pairs, damped, strict=True):
            one, two = self.kinds[a], self.kinds[b]
            first, second = sorted((one.element, two.element))
            distinct[first, second] += one.occupancy * two.occupancy * sums
        return {
            (e, f): 1 + self.n_occupied * sums / ((1 if e == f else 2) * total[e] * total[f])
            for (e, f), sums in distinct.items()
        }

    def _near(self, terms: Coefficients, b_scale: float = 1.0) -> np.ndarray:
        """(pair, q) float64: what motion adds to the damped partial sums."""
        assert self.near is not None
        return self.near.damped(self.q, terms.exponent, b_scale)

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        return kind_pairs(len(self.kinds))


def reduced_pdf(
    q: np.ndarray, f: np.ndarray, r: np.ndarray, *, extent: float = 0.0, lorch: bool = False
) -> np.ndarray:
    """G(r) = (2/π) ∫ F(Q) sin(Qr) w(Q) dQ over the range of q.

    Args:
        q: (q,) float64 [Å⁻¹], uniform.
        f: (q,) float64 [Å⁻¹], F(Q).
        r: (r,) float64 [Å].
        extent: largest distance in the particle [Å], for the check of the step.
        lorch: w = sin(πQ/Q_max)/(πQ/Q_max) instead of 1 (E. Lorch, J. Phys. C 2, 229 (1969)): no ripples, wider peaks.

    Returns:
        (r,) float64 [Å⁻²].

    Raises:
        ValueError: q is not uniform, has fewer than 8 points, or so large a step that distances fold back into r.
    """
    q, f, r = (np.asarray(x, dtype=np.float64) for x in (q, f, r))
    if len(q) < 8 or not np.allclose(np.diff(q), q[1] - q[0], rtol=1e-6, atol=0) or q[1] <= q[0]:
        raise ValueError("G(r) needs a uniform, increasing q of at least 8 points")
    step = (q[-1] - q[0]) / (len(q) - 1)
    # F oscillates as fast as sin(Q·extent): sampled more coarsely, its distances appear at 2π/step - extent.
    if step * (extent + np.abs(r).max(initial=0.0)) >= 2 * np.pi:
        raise ValueError(
            f"the step of q must be < {2 * np.pi / (extent + np.abs(r).max()):.3g} 1/Å to keep distances up to "
            f"{extent:.4g} Å out of G(r) up to r = {np.abs(r).max():g} Å, got {step:g}"
        )
    # Trapezoidal rule with end corrections, of fourth order (Press et al., Numerical Recipes, eq. 4.1.14).
    weight = np.full(len(q), step)
    ends = np.array([3 / 8, 7 / 6, 23 / 24])
    weight[:3] *= ends
    weight[-3:] *= ends[::-1]
    weighted = weight * f * (np.sinc(q / q[-1]) if lorch else 1.0)
    # Strips of r bound the memory of the table of sines.
    parts = [np.sin(part[:, None] * q) @ weighted for part in np.split(r, range(1024, len(r), 1024))]
    return 2 / np.pi * np.concatenate(parts)
