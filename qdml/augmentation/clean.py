"""Basis -> the patterns of perfect dots that qd-simulate would write: any size, dispersion, strain and B, on a device.

    I(Q) = Σ_a x_a S_a(Q) + Σ_ab C_ab(Q) e^{-b (B_a+B_b) s²} P_ab(Q(1+ε)),   s = Q/4π

with means x_a, P_ab per atom (`qdml.basis`), form factors at the photon energy of the store (`qdml.augmentation.dots`)
and polynomials from the crystal's grid to Q(1+ε) (`hpc.instrument.lines`). Differentiable in everything.

Symbols: B pattern, G point of the crystal's q, Q point of the patterns' grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hpc.form_factors import HC_KEV_ANGSTROM
from hpc.instrument.lines import seen
from qdml.augmentation.dots import Dots
from qdml.augmentation.latents import LatentSpace
from qdml.augmentation.tables import table

if TYPE_CHECKING:
    from qdml.augmentation.recipe import Main
    from qdml.basis import DotBasis

__all__ = ["CleanPatterns"]


class CleanPatterns:
    """Patterns of perfect dots."""

    def __init__(self, basis: DotBasis, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Tabulate.

        Args:
            basis: the dots.
            device: of the rows.
            dtype: of the tables; the dots of a basis are float32.

        Raises:
            ValueError: the store is of neutrons, or its dots are not perfect: neighbours move together.
        """
        if basis.attrs.get("particle", "xray") != "xray":
            raise ValueError(
                "patterns are made of a basis for X-rays alone, this one is of a store of neutrons; take data=store"
            )
        moving = [one["title"] for one in basis.attrs["variants"] if one.get("motion")]
        if moving:
            raise ValueError(
                "patterns are made of a basis for atoms that move independently, its store has others "
                f"({moving[0]}); take data=store, or simulate with motion=independent"
            )
        # Without f' and f'' the energy does not matter.
        self._energy_kev = float(basis.attrs["energy_kev"] or HC_KEV_ANGSTROM)
        self._dots = Dots(None, basis, (self._energy_kev,) * 2, LatentSpace(), device, dtype)
        self._inside, self._q_G = basis.inside, table(basis.q, device, dtype)

    def __call__(self, main: Main) -> torch.Tensor:
        """(B, Q) intensity [electron units per atom].

        Args:
            main: the dots.
        """
        dots_BG = self._dots(main, torch.full_like(main.strain[:, None], self._energy_kev))
        read_BG: torch.Tensor = seen(dots_BG, self._q_G, [1.0], [1.0], main.strain[:, None] * self._q_G)
        return read_BG[:, self._inside]
