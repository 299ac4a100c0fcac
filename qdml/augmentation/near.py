"""Correlated motion and halo of a batch, as one matrix product.

The physics is `hpc.motion`; here its terms are tabulated once, so that a batch needs no sines of Q. Every term is
ν sinc(Q(1+ε)r) e^{-y B s²} at some strain ε and damping y = b (1 - c); Chebyshev series give it at all ε
and y of the data set, and all their coefficients together span few functions of Q: distances below 15 Å
make no feature narrower than π/15 Å⁻¹. So

    ΔI = [pairs per atom x (T_n(y) - T_n(b)) x T_e(ε)] · A · U,    A (column x series, K), U (K, Q), K about 100.

Symbols: B pattern, Q point of the grid, C column (pair of kinds at one distance), N, E, W term of the series in the
damping, the strain and the halo's B, S shell of neighbours, K function of Q.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from hpc.motion import halo_terms, near_table
from qdml.atoms import AtomRows, SampleAtoms
from qdml.augmentation.tables import float32_table

__all__ = ["NearTables", "Series"]

# Largest error of an interpolated term, relative to the undamped one.
_TOLERANCE = 1e-4
# Dimensions beyond the number of oscillations that a term can make over the range of Q.
_SPARE = 30
# Columns of which the terms at all nodes are in memory at a time.
_BLOCK = 64


class Series:
    """Chebyshev series over a range, from values at its nodes."""

    def __init__(self, bounds: tuple[float, float], error: Callable[[int], float]) -> None:
        """Choose the number of terms.

        Args:
            bounds: the range.
            error: number of terms -> what they leave.
        """
        low, high = bounds
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        n = 1 if high == low else next(n for n in range(2, 64) if error(n) < _TOLERANCE)
        angle = np.pi * (np.arange(n) + 0.5) / n
        #: (n,) float64, where values are needed.
        self.nodes = self._middle + self._half * np.cos(angle)
        #: (n, n) float64: values at the nodes -> coefficients.
        self.from_values = (
            np.cos(np.arange(n)[:, None] * angle) * np.where(np.arange(n) == 0, 1, 2)[:, None] / n
        )

    def terms(self, x: torch.Tensor) -> torch.Tensor:
        """(..., n) the polynomials at x; x beyond the range counts as its end."""
        angle = torch.acos(((x - self._middle) / (self._half or 1.0)).clamp(-1, 1))
        return torch.cos(angle[..., None] * torch.arange(len(self.nodes), device=x.device))


class NearTables:
    """Tables of a data set, and what they add to a batch."""

    def __init__(
        self,
        atoms: SampleAtoms,
        q: np.ndarray,
        *,
        undamped: np.ndarray,
        exponent: np.ndarray,
        shells: tuple[np.ndarray, np.ndarray],
        halo: np.ndarray,
        halo_b: tuple[float, float],
        device: torch.device,
    ) -> None:
        """Tabulate.

        Args:
            atoms: of the store.
            q: (Q,) float64 [Å⁻¹].
            undamped: (pair, Q) float64 of the store's kinds, `Coefficients.undamped`.
            exponent: (pair, Q) float64, `Coefficients.exponent`.
            shells: of `hpc.motion.shells`: the halo's distances and neighbours.
            halo: (bulk pair, Q) float64, `Coefficients.undamped` of the crystal's kinds.
            halo_b: range of the halo's B [Å²].
            device: of the batches.
        """
        from scipy.special import iv, jv

        strain, b_scale = atoms.ranges["strain"], atoms.ranges["b_scale"]
        longest = max(atoms.distance.max(initial=0.0), shells[0].max())
        # Chebyshev's error for e^{iax} and e^{-ax} on -1..1 (the first coefficient left out, twice).
        a = 0.5 * (strain[1] - strain[0]) * q[-1] * longest
        self._strain = Series(strain, lambda n: 4 * abs(float(jv(n, a))))
        top = 0.5 * b_scale[1] * float(exponent.max())
        self._damping = Series((0.0, b_scale[1]), lambda n: 4 * float(iv(n, top)) * math.exp(-top))
        half = 0.5 * (halo_b[1] - halo_b[0]) * (q[-1] / (4 * np.pi)) ** 2
        self._width = Series(halo_b, lambda n: 4 * float(iv(n, half)) * math.exp(-half))

        def blocks() -> Iterator[tuple[slice, np.ndarray]]:
            """Coefficients (column, N, E, Q) of some columns at a time."""
            for start in range(0, len(atoms.distance), _BLOCK):
                here = slice(start, start + _BLOCK)
                pair = atoms.pair[here]
                distance, inverse = np.unique(atoms.distance[here], return_inverse=True)
                tables = [
                    near_table(
                        distance,
                        q,
                        self._damping.nodes,
                        undamped=undamped,
                        exponent=exponent,
                        strain=float(e),
                    )[pair, inverse]
                    for e in self._strain.nodes
                ]
                yield (
                    here,
                    np.einsum(
                        "ef,nm,fcmq->cneq",
                        self._strain.from_values,
                        self._damping.from_values,
                        tables,
                        optimize=True,
                    ),
                )

        bulk = np.array(
            [
                [
                    halo_terms(*shells, q, undamped=halo, b=float(b), strain=float(e))
                    for b in self._width.nodes
                ]
                for e in self._strain.nodes
            ]
        )
        bulk = np.einsum(
            "ef,wv,fvsq->sweq", self._strain.from_values, self._width.from_values, bulk, optimize=True
        )
        # Random sums of all terms span what they span (N. Halko et al., SIAM Rev. 53, 217, 2011).
        size = int((q[-1] - q[0]) * 2 * longest / (2 * np.pi)) + _SPARE
        random = np.random.default_rng(0)
        sums = np.tensordot(random.normal(size=(size, *bulk.shape[:-1])), bulk, axes=3)
        for _, terms in blocks():
            sums = sums + np.tensordot(random.normal(size=(size, *terms.shape[:-1])), terms, axes=3)
        basis = np.linalg.qr(sums.T)[0].T  # (K, Q)

        def to_device(values: np.ndarray) -> torch.Tensor:
            return float32_table(values, device)

        series = len(self._damping.nodes), len(self._strain.nodes)
        table = np.empty((len(atoms.distance), *series, len(basis)))
        for here, terms in blocks():
            table[here] = terms @ basis.T
        # One product for both: the halo's rows below those of the columns.
        rows = [part.reshape(-1, series[1] * len(basis)) for part in (table, bulk @ basis.T)]
        self._table = to_device(np.concatenate(rows))
        self._basis_KQ = to_device(basis)

    def __call__(
        self,
        rows: AtomRows,
        correlation_BC: torch.Tensor,
        halo_BS: torch.Tensor,
        halo_b_B1: torch.Tensor,
    ) -> torch.Tensor:
        """(B, Q) what both add to the intensity per atom.

        Args:
            rows: of the batch.
            correlation_BC: c at the distance of each column.
            halo_BS: amplitude A of each shell.
            halo_b_B1: B_h [Å²].
        """
        b_B1 = rows.b_scale[:, None]
        change_BCN = self._damping.terms(b_B1 * (1 - correlation_BC)) - self._damping.terms(b_B1)
        near_B = (rows.near[:, :, None] * change_BCN).flatten(1)
        halo_B = (halo_BS[:, :, None] * self._width.terms(halo_b_B1[:, 0])[:, None]).flatten(1)
        sums_BEK = (torch.cat([near_B, halo_B], dim=1) @ self._table).unflatten(
            1, (len(self._strain.nodes), -1)
        )
        sums_BK = (self._strain.terms(rows.strain)[:, :, None] * sums_BEK).sum(dim=1)
        return sums_BK @ self._basis_KQ
