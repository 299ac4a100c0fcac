"""Debye scattering equation on pair tables, and its Python interface to particles given as arrays.

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

The particle scatters at small angles too. With q from 0, r G(r) is the distribution of neighbours (the area of a peak is
a coordination number); with q from beyond the small-angle part, G(r) has the usual baseline -4πρ₀rγ₀(r).

    import numpy as np
    from hpc.debye import gr, iq
    I = iq(positions, elements, np.linspace(0, 20, 2001), energy_kev=22.0, b_iso={"Pb": 1.3, "S": 1.2})
    G = gr(positions, elements, np.linspace(1, 20, 1901), np.linspace(0, 20, 2001), energy_kev=22.0)

`iq`, `sq`, `fq`, `gr` and `partials` are named like the methods of DebyeCalculator (Johansen et al., J. Open Source
Softw. 9, 6024 (2024)), whose I, S - 1, F and G are half of these: it sums each pair once.

`partial_sums` and `intensity` take arrays of NumPy, CuPy or torch and answer in kind (array API standard).

Symbols: q [Å⁻¹], r [Å], f [electrons], B [Å²], I [electron units].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc.atoms import Atoms, expand_to_kinds, group_sites, make_atoms
from hpc.form_factors import compton as incoherent
from hpc.form_factors import scattering_factor
from hpc.material import Kind, kind_pairs
from hpc.transform import partial_sums, sinc

__all__ = [
    "Coefficients",
    "PairSums",
    "coefficients",
    "fq",
    "gr",
    "intensity",
    "iq",
    "pair_sums",
    "partial_sums",
    "partials",
    "reduced_pdf",
    "sinc",
    "sq",
    "sums_of_atoms",
]

Array = Any  # an array of any namespace that follows the array API standard
#: (positions by class [(n, 3) Å], q) -> (class pair, q) partial sums; see `hpc.pairs`.
Engine = Callable[[list[np.ndarray], np.ndarray], np.ndarray]


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
            term + kind.occupancy * incoherent(kind.element, q)
            for kind, term in zip(kinds, self_, strict=True)
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

    @property
    def n_occupied(self) -> float:
        """N = Σ o_a N_a: how many atoms are there."""
        return float(self.n_atoms @ [kind.occupancy for kind in self.kinds])

    def iq(
        self,
        *,
        energy_kev: float | None = None,
        anomalous: bool = True,
        compton: bool = False,
        per_atom: bool = False,
    ) -> np.ndarray:
        """(q,) float64 [electron units]: the intensity; arguments as in `hpc.debye.iq`."""
        terms = coefficients(
            self.kinds, self.q, energy_kev=energy_kev, anomalous=anomalous, with_compton=compton
        )
        total = intensity(self.partial, self.n_atoms, terms.pair(), terms.self)
        return total / self.n_occupied if per_atom else total

    def sq(self, *, energy_kev: float | None = None, anomalous: bool = True) -> np.ndarray:
        """(q,) float64: the total-scattering structure factor S."""
        terms = coefficients(self.kinds, self.q, energy_kev=energy_kev, anomalous=anomalous)
        distinct = np.einsum("pq,pq->q", self.partial, terms.pair())
        # N² |<f>|² = |Σ o_a N_a f_a|², from products of pairs
        numbers = [(1 if a == b else 2) * self.n_atoms[a] * self.n_atoms[b] for a, b in self._pairs]
        return 1 + self.n_occupied * distinct / (numbers @ terms.undamped)

    def fq(self, *, energy_kev: float | None = None, anomalous: bool = True) -> np.ndarray:
        """(q,) float64 [Å⁻¹]: the reduced structure function F."""
        return self.q * (self.sq(energy_kev=energy_kev, anomalous=anomalous) - 1)

    def gr(
        self,
        r: np.ndarray,
        *,
        energy_kev: float | None = None,
        anomalous: bool = True,
        lorch: bool = False,
    ) -> np.ndarray:
        """(r,) float64 [Å⁻²]: the reduced pair distribution function G; arguments as in `hpc.debye.gr`."""
        f = self.fq(energy_kev=energy_kev, anomalous=anomalous)
        return reduced_pdf(self.q, f, r, extent=self.extent, lorch=lorch)

    def partials(self) -> dict[tuple[str, str], np.ndarray]:
        """Elements, in alphabetical order -> (q,) float64: the partial structure factor A_EF."""
        s2 = (self.q / (4 * np.pi)) ** 2
        elements = sorted({kind.element for kind in self.kinds})
        total = dict.fromkeys(elements, 0.0)
        for kind, n in zip(self.kinds, self.n_atoms, strict=True):
            total[kind.element] += kind.occupancy * float(n)
        distinct = {(elements[a], elements[b]): np.zeros_like(self.q) for a, b in kind_pairs(len(elements))}
        for (a, b), sums in zip(self._pairs, self.partial, strict=True):
            one, two = self.kinds[a], self.kinds[b]
            first, second = sorted((one.element, two.element))
            damping = np.exp(-(one.b_iso + two.b_iso) * s2)
            distinct[first, second] += one.occupancy * two.occupancy * damping * sums
        return {
            (e, f): 1 + self.n_occupied * sums / ((1 if e == f else 2) * total[e] * total[f])
            for (e, f), sums in distinct.items()
        }

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


def pair_sums(
    positions: np.ndarray,
    elements: Sequence[str] | np.ndarray,
    q: np.ndarray,
    *,
    occupancy: float | np.ndarray = 1.0,
    b_iso: float | np.ndarray | Mapping[str, float] = 0.0,
    tolerance: float = 1e-6,
    width: float | None = None,
    threads: int | None = None,
    device: Any = None,
) -> PairSums:
    """All pairs of a particle that is given by its atoms, before form factors.

    Args:
        positions: (n, 3) [Å].
        elements: (n,) chemical symbols.
        q: (q,) [Å⁻¹], >= 0; at 0 the limit is returned.
        occupancy: probability that an atom is there, in 0 to 1: one number, or (n,). Atoms may share a position when
            theirs add up to at most 1 (mixed sites).
        b_iso: Debye-Waller factor [Å²]: one number, (n,), or by element (0 for those not named).
        tolerance: asked error, relative to I(Q); it decides the width of the bins of distances.
        width: width of those bins [Å] instead.
        threads: CPU threads; all cores of this process when None.
        device: `hpc.device.Device` to count on; the CPU when None.

    Raises:
        ValueError: bad atoms (see `hpc.atoms`), q that is empty, negative or not finite, a width that is too coarse for
            the tolerance.
    """
    from hpc.pairs import partial_sums_of_positions

    if isinstance(b_iso, Mapping):
        unknown = sorted(set(b_iso) - {str(element) for element in elements})
        if unknown:
            raise ValueError(f"b_iso: the elements are {sorted({str(e) for e in elements})}, got {unknown}")
        b_iso = np.array([b_iso.get(str(element), 0.0) for element in elements])
    atoms = make_atoms(positions, elements, occupancy=occupancy, b_iso=b_iso)
    return sums_of_atoms(
        atoms,
        q,
        lambda classes, q: partial_sums_of_positions(
            classes, q, tolerance=tolerance, width=width, threads=threads, device=device
        ),
    )


def sums_of_atoms(atoms: Atoms, q: np.ndarray, engine: Engine) -> PairSums:
    """The same for checked atoms, with any engine that counts the pairs of classes of sites.

    Raises:
        ValueError: atoms too close to each other, too many kinds, or q that is empty, negative or not finite.
    """
    q = np.asarray(q, dtype=np.float64)
    if q.ndim != 1 or q.size == 0 or not (np.isfinite(q).all() and q.min() >= 0):
        raise ValueError("q must be a list of numbers >= 0 1/Å, at least one")
    sites = group_sites(atoms)
    return PairSums(
        kinds=sites.kinds,
        n_atoms=sites.n_atoms,
        q=q,
        partial=expand_to_kinds(engine(list(sites.positions), q), sites),
        extent=float(np.linalg.norm(np.ptp(atoms.position, axis=0))),
    )


def iq(
    positions: np.ndarray,
    elements: Sequence[str] | np.ndarray,
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    anomalous: bool = True,
    compton: bool = False,
    per_atom: bool = False,
    **particle: Any,
) -> np.ndarray:
    """Intensity I(Q) of a particle given by its atoms.

    Args:
        positions: (n, 3) [Å].
        elements: (n,) chemical symbols.
        q: (q,) [Å⁻¹].
        energy_kev: photon energy [keV]; needed with `anomalous`.
        anomalous: f' and f'' by energy.
        compton: add incoherent scattering.
        per_atom: divide by the number of atoms Σ o.
        **particle: occupancy, b_iso, tolerance, width, threads, device of `pair_sums`.

    Returns:
        (q,) float64 [electron units].

    Raises:
        ValueError: bad atoms, no energy, or q outside the tables.
    """
    return pair_sums(positions, elements, q, **particle).iq(
        energy_kev=energy_kev, anomalous=anomalous, compton=compton, per_atom=per_atom
    )


def sq(
    positions: np.ndarray,
    elements: Sequence[str] | np.ndarray,
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    anomalous: bool = True,
    **particle: Any,
) -> np.ndarray:
    """(q,) float64: total-scattering structure factor S(Q); arguments as in `iq`."""
    return pair_sums(positions, elements, q, **particle).sq(energy_kev=energy_kev, anomalous=anomalous)


def fq(
    positions: np.ndarray,
    elements: Sequence[str] | np.ndarray,
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    anomalous: bool = True,
    **particle: Any,
) -> np.ndarray:
    """(q,) float64 [Å⁻¹]: reduced structure function F(Q) = Q [S(Q) - 1]; arguments as in `iq`."""
    return pair_sums(positions, elements, q, **particle).fq(energy_kev=energy_kev, anomalous=anomalous)


def gr(
    positions: np.ndarray,
    elements: Sequence[str] | np.ndarray,
    r: np.ndarray,
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    anomalous: bool = True,
    lorch: bool = False,
    **particle: Any,
) -> np.ndarray:
    """Reduced pair distribution function G(r), transformed over the range of q.

    Args:
        positions: (n, 3) [Å].
        elements: (n,) chemical symbols.
        r: (r,) [Å].
        q: (q,) [Å⁻¹], uniform; its ends are those of the integral.
        energy_kev: photon energy [keV]; needed with `anomalous`.
        anomalous: f' and f'' by energy.
        lorch: multiply F(Q) by sin(πQ/Q_max)/(πQ/Q_max).
        **particle: occupancy, b_iso, tolerance, width, threads, device of `pair_sums`.

    Returns:
        (r,) float64 [Å⁻²].

    Raises:
        ValueError: bad atoms, no energy, q that is not uniform or too coarse for the particle.
    """
    return pair_sums(positions, elements, q, **particle).gr(
        r, energy_kev=energy_kev, anomalous=anomalous, lorch=lorch
    )


def partials(
    positions: np.ndarray, elements: Sequence[str] | np.ndarray, q: np.ndarray, **particle: Any
) -> dict[tuple[str, str], np.ndarray]:
    """Elements in alphabetical order -> (q,) float64: Faber-Ziman partial structure factors; arguments as in `iq`."""
    return pair_sums(positions, elements, q, **particle).partials()
