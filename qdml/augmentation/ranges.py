"""Ranges of named quantities that differ from instrument to instrument.

Symbols: B pattern, I instrument, N quantity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from qdml.augmentation.tables import table

__all__ = ["Ranges"]

# Instead of 0 where the logarithm is uniform.
_LEAST = 1e-9


class Ranges:
    """Ends [low, high] of named quantities, one set for each of several cases (instruments)."""

    def __init__(
        self,
        cases: Sequence[Mapping[str, Sequence[float]]],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        logarithmic: Sequence[str] = (),
    ) -> None:
        """Tabulate.

        Args:
            cases: for each case, the same names.
            device: of the batches.
            dtype: of the values.
            logarithmic: names whose logarithm is uniform; 0 counts as 1e-9.
        """
        self.names = list(cases[0])
        values = np.array([[case[name] for name in self.names] for case in cases], dtype=float)
        self._logarithmic = [name in logarithmic for name in self.names]
        values[:, self._logarithmic] = np.log(np.maximum(values[:, self._logarithmic], _LEAST))
        self._low_IN = table(values[..., 0], device, dtype)
        self._width_IN = table(np.diff(values)[..., 0], device, dtype)

    def at(self, case_B: torch.Tensor, u_BN: torch.Tensor) -> dict[str, torch.Tensor]:
        """Name -> (B, 1) values.

        Args:
            case_B: (B,) int64.
            u_BN: 0 for the lower ends, 1 for the upper ones, in the order of `names`.
        """
        columns = (self._low_IN[case_B] + self._width_IN[case_B] * u_BN).split(1, dim=1)
        return {
            name: torch.exp(column) if logarithmic else column
            for name, column, logarithmic in zip(self.names, columns, self._logarithmic, strict=True)
        }
