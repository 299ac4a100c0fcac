"""Resolution of a batch: Voigt functions whose width varies along Q, and from pattern to pattern.

The physics is `hpc.instrument.resolution`: at each Q of the result the pattern is folded with the function that the
instrument has there, whose transform is f_Q(r) = exp(-σ(Q)²r²/2 - γ(Q)r). Widths of instruments are smooth: what a few
points of Q have says what all others have (interpolative decomposition, as in `qdml.augmentation.near`),

    f_Q(r) ≈ Σ_k w_k(Q) f_{Q_k}(r),     y ⊗ f_Q ≈ Σ_k w_k(Q) (y ⊗ f_{Q_k})

with weights w_k that all patterns share. Half a dozen folds, each with the widths of one point of each pattern, are the
whole, where parts that suit any widths would be twice as many.

Symbols: B pattern, G point of the grid, K chosen point, r [Å] variable of the Fourier transform over Q.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import array_api_compat
import numpy as np
import torch

from hpc.instrument.ends import continued, fft_length
from qdml.augmentation.tables import table

__all__ = ["Resolution"]

# Largest error, as a fraction of a pattern's highest point, about.
_TOLERANCE = 1e-5
# Random functions from which the points are chosen.
_FUNCTIONS = 400
# How the waves of patterns fall with r [Å]: those of dots of 12 nm do so faster.
_FALL = 50.0
# Points by which the ends are continued, in standard deviations and half widths.
_REACH_SIGMA, _REACH_GAMMA = 6.0, 12.0


class Resolution:
    """Tables of a grid and of some instruments."""

    def __init__(
        self,
        q: np.ndarray,
        draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Choose the points.

        Args:
            q: (G,) float64 [Å⁻¹], uniform.
            draw: (G,) σ and γ [Å⁻¹] of a random measurement.
            device: of the batches.
            dtype: of the tables.
        """
        from scipy.linalg import qr, solve_triangular

        random = np.random.default_rng(0)
        step = float((q[-1] - q[0]) / (len(q) - 1))
        longest = math.pi / step
        functions, reach = [np.ones(len(q))], 0.0
        for _ in range(_FUNCTIONS):
            sigma, gamma = draw(random)
            reach = max(reach, _REACH_SIGMA * float(sigma.max()) + _REACH_GAMMA * float(gamma.max()))
            r = longest * random.random() ** 2
            functions.append(np.exp(-0.5 * (sigma * r) ** 2 - gamma * r - r / _FALL))
        _, triangle, order = qr(np.array(functions), mode="economic", pivoting=True)
        size = np.abs(np.diag(triangle))
        n = int((size > _TOLERANCE * size[0]).sum())
        weights = np.empty((n, len(q)))
        weights[:, order] = solve_triangular(triangle[:n, :n], triangle[:n])
        #: (K,) [Å⁻¹]: where `__call__` needs widths.
        self.points = q[order[:n]]
        self._weights_KG = table(weights, device, dtype)
        self._pad = min(len(q) - 1, math.ceil(reach / step) + 1)
        self._length = fft_length(len(q) + 2 * self._pad)
        r_of_fft = 2 * np.pi * np.fft.rfftfreq(self._length, step)
        self._r = table(r_of_fft, device, dtype)
        self._square = table(-0.5 * r_of_fft**2, device, dtype)

    def __call__(
        self, y: torch.Tensor, sigma_BK: torch.Tensor, gamma_BK: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(..., B, G) patterns as they are seen.

        Args:
            y: (..., B, G), any unit. The ends are continued by reflection in the end point.
            sigma_BK: standard deviation of the Gaussian [Å⁻¹] at `points`.
            gamma_BK: half width of the Lorentzian; None for no Lorentzian.
        """
        n, pad, length = y.shape[-1], self._pad, self._length
        spectrum = torch.fft.rfft(continued(array_api_compat.array_namespace(y), y, pad, length), dim=-1)
        total: torch.Tensor | None = None
        for k, weight_G in enumerate(self._weights_KG):
            exponent = self._square * sigma_BK[:, k : k + 1] ** 2
            if gamma_BK is not None:
                exponent = exponent.addcmul(self._r, gamma_BK[:, k : k + 1], value=-1)
            folded = torch.fft.irfft(spectrum * torch.exp(exponent), n=length, dim=-1)[..., :n]
            total = folded * weight_G if total is None else total.addcmul(folded, weight_G)
        assert total is not None
        return total
