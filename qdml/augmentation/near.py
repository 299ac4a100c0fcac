"""Correlated motion and halo of a batch, as matrix products.

The physics is `hpc.motion`. Every term of either is

    w o_a o_b Re(f_a f_b*) sinc(q' r) e^{-y q'²},     y = (1 - c) (B_a+B_b) / (4π(1+ε))²   or   B_h / (4π(1+ε))²

in the frame of the crystal, q' = Q(1+ε). A Chebyshev series in y separates it,

    e^{-y q'²} = Σ_n T_n(2y/y_max - 1) E_n(q'),   E_n = (2 - δ_n0) (-1)^n I_n(a) e^{-a},   a = y_max q'²/2

so that the terms of all pairs of two elements are one product with a table sinc(q' r) E_n(q'). Distances below 20 Å
make no feature narrower than π/20 Å⁻¹: a hundred points of q' say what the sum is at all others (interpolative
decomposition: H. Cheng et al., SIAM J. Sci. Comput. 26, 1389 (2005)), and form factors are needed at these alone.

Symbols: B pattern, C column (two kinds at one distance), H column of the halo, N term of the series, J point of q' out
of G.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hpc.transform import sinc
from qdml.augmentation.tables import table

__all__ = ["Columns", "NearTables"]

# Largest error of a term, relative to the undamped one.
_TOLERANCE = 1e-5
# Random functions from which points are chosen, beyond the number of oscillations that one can make over the range.
_SPARE = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Pairs of two elements at one distance."""

    elements: np.ndarray
    """(C,) int64, which pair of elements."""
    distance: np.ndarray
    """(C,) float64 [Å]."""


class NearTables:
    """Tables of a data set, and what they add to a batch."""

    def __init__(
        self,
        columns: Columns,
        halo: Columns,
        q: np.ndarray,
        *,
        y_max: float,
        form: np.ndarray,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Tabulate.

        Args:
            columns: of the dots.
            halo: of the halo.
            q: (G,) float64 [Å⁻¹], q'.
            y_max: largest y [Å²].
            form: (pair of elements, G) float64, f_a f_b at some energy: how fast form factors vary.
            device: of the batches.
            dtype: of the tables.
        """
        from scipy.linalg import qr, solve_triangular
        from scipy.special import ive

        distances = np.concatenate([columns.distance, halo.distance])
        elements = np.concatenate([columns.elements, halo.elements])
        top = 0.5 * y_max * q[-1] ** 2
        self._n = next(n for n in range(2, 200) if 4 * ive(n, top) < _TOLERANCE)
        self._y_max = y_max
        n = np.arange(self._n)
        series_NG = (
            (-1.0) ** n[:, None] * np.where(n == 0, 1, 2)[:, None] * ive(n[:, None], 0.5 * y_max * q**2)
        )

        # Random sums of random terms span what all of them span; those of a random y the products with any series.
        longest = float(distances.max(initial=1.0))
        size = int((q[-1] - q[0]) * 2 * longest / (2 * np.pi)) + _SPARE
        random = np.random.default_rng(0)
        radius = random.uniform(0.5 * distances.min(initial=1.0), longest * 1.02, size)
        damping = np.exp(-random.uniform(0, y_max, size)[:, None] * q**2)
        samples = form[random.integers(len(form), size=size)] * damping * sinc(radius[:, None] * q)
        _, triangle, order = qr(samples, mode="economic", pivoting=True)
        kept = int((np.abs(np.diag(triangle)) > 0.1 * _TOLERANCE * abs(triangle[0, 0])).sum())
        rest = solve_triangular(triangle[:kept, :kept], triangle[:kept])
        #: (J,) int64: the points of q' at which `__call__` needs form factors.
        self.points = order[:kept]
        matrix = np.empty((kept, len(q)))
        matrix[:, order] = rest
        #: (J, G): from these points to all.
        self.matrix_JG = table(matrix, device, dtype)

        self._slices: list[tuple[torch.Tensor, torch.Tensor]] = []
        waves_CJ, series_NJ = sinc(distances[:, None] * q[self.points]), series_NG[:, self.points]
        #: Pairs of elements that occur, by their numbers: the order of `form` in `__call__`.
        self.elements: list[int] = sorted(set(elements.tolist()))
        for one in self.elements:
            here = np.flatnonzero(elements == one)
            rows = (waves_CJ[here, None, :] * series_NJ).reshape(-1, kept)
            self._slices.append((torch.as_tensor(here, device=device), table(rows, device, dtype)))

    def __call__(
        self,
        weight_BC: torch.Tensor,
        damping_BC: torch.Tensor,
        base_BC: torch.Tensor,
        halo_BH: torch.Tensor,
        halo_damping_BH: torch.Tensor,
        form: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """(B, J) what both add to the intensity, at `points`.

        Args:
            weight_BC: ordered pairs of each column, times occupancies.
            damping_BC: y of atoms as they move.
            base_BC: y of atoms that move independently, which is taken away.
            halo_BH: weight of each column of the halo.
            halo_damping_BH: its y, (B, 1) if all have the same.
            form: for each of `elements` (B, J) Re(f_a f_b*).
        """
        damping = damping_BC, base_BC, halo_damping_BH
        moving_BCN, base_BCN, halo_BHN = self._terms(torch.cat(damping, dim=1)).split(
            [one.shape[1] for one in damping], dim=1
        )
        terms_BCN = torch.cat(
            [weight_BC[:, :, None] * (moving_BCN - base_BCN), halo_BH[:, :, None] * halo_BHN], dim=1
        )
        total_BJ: torch.Tensor | None = None
        for (here, rows), form_BJ in zip(self._slices, form, strict=True):
            part_BJ = (terms_BCN.index_select(1, here).flatten(1) @ rows) * form_BJ
            total_BJ = part_BJ if total_BJ is None else total_BJ + part_BJ
        assert total_BJ is not None
        return total_BJ

    def _terms(self, y: torch.Tensor) -> torch.Tensor:
        """(..., N) the polynomials; y beyond the range counts as its end."""
        x = (y * (2 / self._y_max) - 1).clamp(-1, 1)
        terms = [torch.ones_like(x), x]
        twice = 2 * x
        while len(terms) < self._n:
            terms.append(twice * terms[-1] - terms[-2])
        return torch.stack(terms[: self._n], dim=-1)
