"""Random parameters of a batch: every pattern gets its own, and all come from the generator that is passed in.

Symbols: B pattern, Q point of the grid, K bump.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from qdml.augmentation.tables import float32_table

__all__ = ["Ranges", "SmoothField", "log_uniform", "uniform"]


def uniform(n: int, bounds: Sequence[float], generator: torch.Generator) -> torch.Tensor:
    """(n, 1) float32 draws between the two bounds, on the generator's device."""
    low, high = bounds
    return low + (high - low) * torch.rand((n, 1), generator=generator, device=generator.device)


def log_uniform(n: int, bounds: Sequence[float], generator: torch.Generator) -> torch.Tensor:
    """(n, 1) float32 draws whose logarithm is uniform; both bounds are > 0."""
    return torch.exp(uniform(n, [float(np.log(bound)) for bound in bounds], generator))


class Ranges:
    """Ranges [low, high] of named quantities, one set for each of several cases (instruments)."""

    def __init__(
        self,
        cases: Sequence[Mapping[str, Sequence[float]]],
        device: torch.device,
        *,
        logarithmic: Sequence[str] = (),
    ) -> None:
        """Tabulate.

        Args:
            cases: for each case, the same names.
            device: of the draws.
            logarithmic: names that are drawn uniformly in the logarithm; their bounds are > 0.
        """
        self._names = list(cases[0])
        table = np.array([[case[name] for name in self._names] for case in cases], dtype=float)
        self._logarithmic = [name in logarithmic for name in self._names]
        table[:, self._logarithmic] = np.log(table[:, self._logarithmic])
        self._low_CN = torch.as_tensor(table[..., 0], dtype=torch.float32, device=device)
        self._width_CN = torch.as_tensor(np.diff(table)[..., 0], dtype=torch.float32, device=device)

    def draw(self, case_B: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Name -> (B, 1) draws for patterns of the given cases."""
        width_BN = self._width_CN[case_B]
        drawn = torch.rand(width_BN.shape, generator=generator, device=width_BN.device)
        columns = (self._low_CN[case_B] + width_BN * drawn).split(1, dim=1)
        return {
            name: torch.exp(column) if logarithmic else column
            for name, column, logarithmic in zip(self._names, columns, self._logarithmic, strict=True)
        }


class SmoothField:
    """Random functions of Q with mean 0, standard deviation 1 and features no shorter than `length`.

    z(Q) = Σ_k w_k b_k(Q), w_k normal, b_k Gaussians of standard deviation `length` at knots `length` apart, scaled to
    unit variance at every Q. The correlation of z falls to 1/e over 2·`length`.
    """

    def __init__(self, q: torch.Tensor, length: float) -> None:
        """Tabulate the bumps.

        Args:
            q: (Q,) [Å⁻¹].
            length: [Å⁻¹].
        """
        knots = np.arange(float(q[0]) - 2 * length, float(q[-1]) + 2.5 * length, length)
        basis = np.exp(-0.5 * ((q.cpu().double().numpy() - knots[:, None]) / length) ** 2)
        basis /= np.sqrt((basis**2).sum(axis=0))
        self._basis_KQ = float32_table(basis, q.device)

    def draw(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """(n, Q) random functions."""
        weights = torch.randn((n, len(self._basis_KQ)), generator=generator, device=self._basis_KQ.device)
        return weights @ self._basis_KQ
