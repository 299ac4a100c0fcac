"""The unknowns of a pattern in one order, and what is known of them before it is measured.

    (ln D_v, ln σ, ε, ln b | z_1 ... z_L),        b: factor on every Debye-Waller B

The latents z are independent standard normal numbers. The main parameters lie between two bounds, every value as
likely. A uniform density has no Fisher information: in bounds and in posteriors it counts as a normal one of the same
variance, 12/(high - low)², which is nothing where a pattern says anything, and the spread of the range where it says
nothing. A parameter whose bounds are equal is known.

Symbols: B pattern, N main parameter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from qdml.densities import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qdml.augmentation.recipe import Main

__all__ = ["MAIN", "MainPrior", "main_of", "values_of"]

#: Main parameters in the order of their columns: the targets, and ln b.
MAIN = (*TARGETS, "log_b_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class MainPrior:
    """Between which bounds the main parameters lie."""

    low: torch.Tensor
    """(N,) float64, in units of `MAIN`."""
    high: torch.Tensor
    """(N,) float64; equal to `low` where a parameter is known."""

    def __post_init__(self) -> None:
        """Refuse bounds that hold nothing.

        Raises:
            ValueError: other than one bound for each of `MAIN`, not finite, or in the wrong order.
        """
        for name, bound in (("low", self.low), ("high", self.high)):
            if bound.shape != (len(MAIN),) or not bool(torch.isfinite(bound).all()):
                raise ValueError(
                    f"MainPrior.{name} must be {len(MAIN)} finite numbers, one for each of {MAIN}; got {bound.tolist()}"
                )
        if bool((self.high < self.low).any()):
            raise ValueError(
                f"MainPrior: every high must be >= low, got {self.low.tolist()}, {self.high.tolist()}"
            )

    @staticmethod
    def of_ranges(ranges: Mapping[str, tuple[float, float]], device: torch.device) -> MainPrior:
        """From the ranges of `diameter` [nm, number mean], `sigma`, `strain` and `b_scale` of a data set."""
        (d0, d1), (s0, s1) = ranges["diameter"], ranges["sigma"]
        volume = [math.log(d) + 3 * math.log1p(s**2) for d, s in ((d0, s0), (d1, s1))]
        b0, b1 = ranges["b_scale"]
        low = [volume[0], math.log(s0), ranges["strain"][0], math.log(b0)]
        high = [volume[1], math.log(s1), ranges["strain"][1], math.log(b1)]
        as_tensor = lambda x: torch.tensor(x, dtype=torch.float64, device=device)  # noqa: E731
        return MainPrior(low=as_tensor(low), high=as_tensor(high))

    @property
    def free(self) -> torch.Tensor:
        """(N,) bool: what is not known."""
        return self.high > self.low

    @property
    def information(self) -> torch.Tensor:
        """(N,) float64: 12/(high - low)²; 0 where a parameter is known."""
        width = self.high - self.low
        return torch.where(self.free, 12 / torch.where(self.free, width, 1.0) ** 2, 0.0)


def values_of(main: Main) -> torch.Tensor:
    """(B, N) float64 values in the order of `MAIN`."""
    columns = [main.log_volume_diameter, torch.log(main.sigma), main.strain, torch.log(main.b_scale)]
    return torch.stack([column.double() for column in columns], dim=1)


def main_of(values_BN: torch.Tensor, variant_B: torch.Tensor) -> Main:
    """The same as a recipe takes them: float32."""
    from qdml.augmentation.recipe import Main

    size_B, log_sigma_B, strain_B, log_b_B = values_BN.float().unbind(dim=1)
    return Main(
        log_volume_diameter=size_B,
        sigma=torch.exp(log_sigma_B),
        strain=strain_B,
        variant=variant_B,
        b_scale=torch.exp(log_b_B),
    )
