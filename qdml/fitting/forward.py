"""The pattern of dots for any parameters, with exact derivatives.

    I(Q) N = Σ_a N_a S_a + Σ_ab C_ab e^{-B_ab s²} P_ab
           + Σ_ab C_ab Σ_near N_ab(r) sinc(Qr(1+ε)) [e^{-(1-c(r))B_ab s²} - e^{-B_ab s²}]

with S_a = o_a |f_a|², C_ab = o_a o_b Re(f_a f_b*), B_ab = B_a + B_b, s = Q/4π, P_ab = Σ_n N_ab(r_n) sinc(Q
r_n(1+ε)), and numbers N of sites and pairs of a lognormal ensemble (`qdml.fitting.dots`): no stored basis, no
interpolation in size. Every parameter enters in closed form, so every derivative is exact. Patterns are means
over the bins of the grid, which multiplies each wave by sinc(r h/2).

Instrument: the pattern is broadened, seen in each line of the radiation and shifted by a zero error of 2θ; all
of this is linear, so derivatives go the same way.

Symbols: q [Å⁻¹] uniform, h its step, r [Å], B [Å²], ε strain, c correlation of neighbours, D_v volume-weighted
mean [Å].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpc.motion import correlation_weights, tail_weights
from hpc.scattering import coefficients
from hpc.structure.material import Kind
from hpc.texture import diffuse_terms
from hpc.transform import waves
from qdml.fitting.dots import CountedDots, Ensemble
from qdml.fitting.instrument import Optics

__all__ = ["SIGMA", "SIZE", "STRAIN", "TAIL", "ZERO", "DotModel", "Parts", "b_name", "correlation_name"]

SIZE, SIGMA, STRAIN, ZERO = "log_volume_diameter", "sigma", "strain", "zero"

#: Parameter t of the law c = t r_1/r beyond the first shell (`hpc.motion.tail_weights`).
TAIL = "correlation_tail"


def b_name(element: str) -> str:
    """Name of the parameter that is the mean B [Å²] of the sites of an element."""
    return f"b_{element}"


def correlation_name(shell: int) -> str:
    """Name of the parameter that is the correlation c of a shell, the nearest being 1."""
    return f"correlation_{shell + 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A pattern and its derivatives: one row, or two for an oriented sample, what texture multiplies and the rest."""

    value: np.ndarray
    """(part, q) float64 [electron units per atom]; the sum is the pattern."""
    slopes: np.ndarray
    """(part, parameter, q) float64, in the order of `DotModel.names`."""
    beyond: float
    """Fraction of the atoms beyond the largest counted particle."""


class DotModel:
    """The pattern of one variant on one grid, as a function of the parameters in `names`."""

    def __init__(
        self,
        dots: CountedDots,
        q: np.ndarray,
        *,
        energy_kev: float | None,
        nodes: np.ndarray,
        tail: float = 0.0,
        optics: Optics | None = None,
        split: bool = False,
        bin_width: float | None = None,
        sampling: float = 0.0,
    ) -> None:
        """Tabulate what does not depend on the parameters.

        Args:
            dots: pair numbers.
            q: (q,) float64 [Å⁻¹], uniform.
            energy_kev: photon energy [keV]; None leaves f' and f'' out.
            nodes: (m + 1,) float64 [Å]: distances of the m shells whose correlation is a parameter, and where it ends;
                empty for none.
            tail: reach [Å] of the law of a tail, which takes the place of shells beyond the first; `nodes` are then the
                first two shells. 0 for none.
            optics: the instrument; None for an ideal one.
            bin_width: over which each point of q is a mean [Å⁻¹]; the step of q when None.
            sampling: step of the measured points, between which the mean is taken along straight lines [Å⁻¹].
            split: whether the part that texture multiplies (`hpc.texture`) is wanted apart from the rest.
        """
        self.dots, self.q, self.optics, self._split = dots, q, optics, split
        self._nodes, self._tail = nodes, tail
        n_shells = max(len(nodes) - 1, 0)
        self._correlations = (*(correlation_name(m) for m in range(n_shells)), *((TAIL,) if tail else ()))
        self._s2 = (q / (4 * np.pi)) ** 2
        self._step = (q[-1] - q[0]) / (len(q) - 1)
        self._bin_width = self._step if bin_width is None else bin_width
        self._sampling = sampling
        self._terms = coefficients(dots.kinds, q, energy_kev=energy_kev, anomalous=energy_kev is not None)
        self._occupancy = np.array([kind.occupancy for kind in dots.kinds])
        self.elements = sorted({kind.element for kind in dots.kinds})
        self._b_shares = _b_shares(dots.kinds, self.elements)
        self.names: tuple[str, ...] = (
            SIZE,
            SIGMA,
            STRAIN,
            *(b_name(element) for element in self.elements),
            *self._correlations,
            ZERO,
        )

    def tabulated_b(self) -> dict[str, float]:
        """Parameters of B -> mean of the material's values [Å²]; 1 where these are 0."""
        table = {}
        for element in self.elements:
            own = [kind.b_iso for kind in self.dots.kinds if kind.element == element]
            table[b_name(element)] = float(np.mean(own)) or 1.0
        return table

    def __call__(self, values: dict[str, float], *, slopes: bool = True) -> Parts:
        """The pattern at these parameter values, after the instrument.

        Args:
            values: parameter name -> value.
            slopes: whether derivatives are wanted.
        """
        ensemble = self.dots.ensemble(values[SIZE], values[SIGMA])
        rows = self._ideal(ensemble, values, slopes=slopes)
        if self.optics is not None:
            rows = self.optics.apply(rows, zero=values[ZERO], slopes=slopes)
        elif slopes:
            rows = np.concatenate((rows, np.zeros((len(rows), 1, len(self.q)))), axis=1)
        return Parts(value=rows[:, 0], slopes=rows[:, 1:], beyond=ensemble.beyond)

    def _ideal(self, ensemble: Ensemble, values: dict[str, float], *, slopes: bool) -> np.ndarray:
        """(part, 1 or 1 + parameters less the zero shift, q): the pattern before the instrument and its derivatives."""
        n_rows = 3 if slopes else 1
        stretch = 1 + values[STRAIN]
        b = self._b_shares @ [values[b_name(element)] for element in self.elements]
        c = np.array([values[name] for name in self._correlations])
        n_b, n_c = len(self.elements), len(c)
        # Scattering of independent atoms, and what correlated motion adds.
        total = np.zeros((1 + 3 + n_b + n_c if slopes else 1, len(self.q)))
        moved = np.zeros_like(total)
        total[:n_rows] = ensemble.atoms[:n_rows] @ self._terms.self
        sums = self._sums(ensemble, stretch, slopes=slopes)
        for index, ((one, two), (partial, slope)) in enumerate(zip(self.dots.pairs, sums, strict=True)):
            b_ab = b[one] + b[two]
            factor = self._terms.undamped[index] * np.exp(-b_ab * self._s2)
            damped = factor * partial
            near = self._near_sums(ensemble.tables[index], stretch, b_ab, c, slopes=slopes)
            total[:n_rows] += damped
            if near is not None:
                moved[:n_rows] += factor * near.value
            if not slopes:
                continue
            share = (self._b_shares[one] + self._b_shares[two])[:, None]
            total[3] += factor * slope
            total[4 : 4 + n_b] -= share * (self._s2 * damped[0])
            if near is not None:
                moved[3] += factor * near.by_strain
                moved[4 : 4 + n_b] += share * (factor * near.by_b)
                moved[4 + n_b :] += factor * near.by_c
        if self._split:
            rest = moved + self._diffuse(ensemble, b, moved.shape, slopes=slopes)
            rows = np.stack((total + moved - rest, rest))
        else:
            rows = (total + moved)[None]
        # Per atom: quotient rule for the two parameters on which the number of atoms depends.
        number = ensemble.atoms @ self._occupancy
        rows /= number[0]
        if slopes:
            rows[:, 1:3] -= (number[1:3] / number[0])[None, :, None] * rows[:, :1]
        return rows

    def _diffuse(
        self, ensemble: Ensemble, b: np.ndarray, shape: tuple[int, ...], *, slopes: bool
    ) -> np.ndarray:
        """Rows like those of the pattern: Σ_a N_a o_a |f_a|² (1 - o_a e^{-2 B_a s²}), which has no direction."""
        exponent = 2 * b[:, None] * self._s2
        terms = diffuse_terms(self._terms.self, self._occupancy, exponent)
        rows = np.zeros(shape)
        n_rows = 3 if slopes else 1
        rows[:n_rows] = ensemble.atoms[:n_rows] @ terms
        if slopes:
            damped = (ensemble.atoms[0] * self._occupancy)[:, None] * self._terms.self * np.exp(-exponent)
            rows[4 : 4 + len(self.elements)] = self._b_shares.T @ (2 * self._s2 * damped)
        return rows

    def _sums(
        self, ensemble: Ensemble, stretch: float, *, slopes: bool
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each pair of kinds: (rows, q) P and its derivatives by size, (q,) dP/dε."""
        n_rows = 3 if slopes else 1
        found: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(ensemble.tables)
        for members in self.dots.shared:
            # Tables of equal distances share their waves; of one table, there are the most.
            distance = max((ensemble.tables[i][0] for i in members), key=len)
            counts = np.zeros((len(members), n_rows, len(distance)))
            for row, i in enumerate(members):
                counts[row, :, : ensemble.tables[i][1].shape[1]] = ensemble.tables[i][1][:n_rows]
            counts *= self._bin_factor(distance)
            r = distance * stretch
            sine, cosine = waves(
                (counts / r).reshape(-1, len(r)),
                counts[:, 0] if slopes else counts[:0, 0],
                r,
                float(self.q[0]),
                self._step,
                len(self.q),
            )
            partial = (sine / self.q).reshape(len(members), n_rows, -1)
            for row, i in enumerate(members):
                slope = (cosine[row] - partial[row, 0]) / stretch if slopes else partial[row, 0]
                found[i] = partial[row], slope
        return found

    def _bin_factor(self, distance: np.ndarray) -> np.ndarray:
        """What the mean over a bin of Q leaves of a wave, and straight lines between measured points."""
        turns = distance / (2 * np.pi)
        return np.sinc(turns * self._bin_width) * np.sinc(turns * self._sampling) ** 2

    def _near_sums(
        self,
        table: tuple[np.ndarray, np.ndarray],
        stretch: float,
        b_ab: float,
        c: np.ndarray,
        *,
        slopes: bool,
    ) -> _NearSums | None:
        """What correlated motion adds to one pair of kinds, over e^{-B s²}."""
        distance, counts = table
        if not len(c):
            return None
        n = int(np.searchsorted(distance, self._tail or self._nodes[-1]))
        used = np.flatnonzero(counts[0, :n])
        if not len(used):
            return None
        r, counts = distance[used], counts[:, used]
        if self._tail:
            hats = tail_weights(r, self._nodes[0], self._nodes[1], reach=self._tail)
        else:
            hats = correlation_weights(r, self._nodes)
        x = np.outer(r * stretch, self.q)
        wave = np.sinc(x / np.pi) * self._bin_factor(r)[:, None]
        rise = np.exp(np.outer(c @ hats * b_ab, self._s2))
        gain = wave * (rise - 1)
        if not slopes:
            return _NearSums(value=counts[:1] @ gain)
        waved = counts[0][:, None] * wave * rise
        # d sinc(x)/dε = (cos x - sinc x)/(1+ε)
        bent = (np.cos(x) * self._bin_factor(r)[:, None] - wave) / stretch
        return _NearSums(
            value=counts @ gain,
            by_strain=counts[0] @ (bent * (rise - 1)),
            # d/dB of e^{-B s²} (rise - 1), over e^{-B s²}
            by_b=self._s2 * (((c @ hats) @ waved) - counts[0] @ gain),
            by_c=b_ab * self._s2 * (hats @ waved),
        )


@dataclass(slots=True, kw_only=True)
class _NearSums:
    value: np.ndarray
    by_strain: np.ndarray | float = 0.0
    by_b: np.ndarray | float = 0.0
    by_c: np.ndarray | float = 0.0


def _b_shares(kinds: Sequence[Kind], elements: Sequence[str]) -> np.ndarray:
    """(kind, element) float64: B of a kind over the mean B of its element; all 1 where the mean is 0."""
    shares = np.zeros((len(kinds), len(elements)))
    for column, element in enumerate(elements):
        mine = [index for index, kind in enumerate(kinds) if kind.element == element]
        b = np.array([kinds[index].b_iso for index in mine])
        shares[mine, column] = b / b.mean() if b.mean() > 0 else 1.0
    return shares
