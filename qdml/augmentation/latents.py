"""What nobody knows of a sample, as independent standard normal numbers z.

Every unknown beside the main parameters (size, dispersion, strain) is a function of some of them: a normal number is z
itself, a uniform one Φ(z) between bounds, a smooth random function of Q the sum Σ_k z_k b_k(Q). So one draw makes
a batch, the prior of everything is N(0, 1), and limits and fits have the same unknowns as training.

Nothing unknown is discrete: mixtures are softmax functions of z, so that everything has derivatives.

Symbols: B pattern, L latent, Q point of the grid, K bump.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Field", "LatentSpace", "between", "log_between", "smooth_modes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A smooth random factor exp(a Σ_k z_k b_k(Q)) of one part of the scene.

    With the part as it is in the expected intensity y (of mean 1 over the window) and the amplitude a of
    `Expected.amplitudes`, the column of the Jacobian is ∂y/∂z_k = a p b_k - y <a p b_k>, <> the mean over the window.
    """

    slice: slice
    """Of z."""
    part: str
    """A key of `Expected.parts`."""
    basis: torch.Tensor
    """(K, Q) b_k."""


class LatentSpace:
    """Names of latents, in the order in which they were added."""

    def __init__(self) -> None:
        self.names: dict[str, slice] = {}
        """Name -> where in z."""
        self.fields: dict[str, Field] = {}
        """Name -> smooth random factor; the names are in `names` too."""
        self.amplitudes: dict[str, str] = {}
        """Name -> the latent whose standard deviation it says. Where both together are most probable, both are too
        small: fits take the amplitude that is most probable with all of the other integrated out."""
        self.mixtures: dict[str, float] = {}
        """Name -> a: the latent stands for the shares softmax(a z) of a mixture."""
        self._uniform: list[str] = []
        self._kept: tuple[str, torch.Tensor] | None = None

    def __len__(self) -> int:
        """L, how many numbers z has."""
        return max((s.stop for s in self.names.values()), default=0)

    def labels(self) -> list[str]:
        """A name for each number of z: that of its latent, with an index where it has several."""
        return [
            name if where.stop - where.start == 1 else f"{name}[{index}]"
            for name, where in self.names.items()
            for index in range(where.stop - where.start)
        ]

    def normal(self, name: str, n: int = 1) -> None:
        """Add n normal numbers: `values` gives z itself."""
        if name in self.names:
            raise ValueError(f"the latent {name} is there already")
        self.names[name] = slice(len(self), len(self) + n)

    def uniform(self, name: str, n: int = 1, *, amplitude_of: str | None = None) -> None:
        """Add n numbers that are uniform over 0 to 1: `values` gives Φ(z).

        Args:
            name: of the latent.
            n: how many.
            amplitude_of: the latent whose standard deviation it says, if it does.
        """
        self.normal(name, n)
        self._uniform.append(name)
        if amplitude_of is not None:
            self.amplitudes[name] = amplitude_of

    def mixture(self, name: str, n: int, sharpness: float) -> None:
        """Add n normal numbers that stand for shares softmax(sharpness z); `values` gives z itself."""
        self.normal(name, n)
        self.mixtures[name] = sharpness

    def field(self, name: str, part: str, basis_KQ: torch.Tensor) -> None:
        """Add a smooth random factor of a part of the scene."""
        self.normal(name, len(basis_KQ))
        self.fields[name] = Field(slice=self.names[name], part=part, basis=basis_KQ)

    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """(n, L) draws of the prior, on the generator's device."""
        return torch.randn((n, len(self)), generator=generator, device=generator.device, dtype=dtype)

    def values(self, z_BL: torch.Tensor) -> dict[str, torch.Tensor]:
        """Name -> (B, n): z, or Φ(z) of what is uniform."""
        if self._uniform and (self._kept is None or self._kept[0] != str(z_BL.device)):
            columns = np.concatenate([np.r_[self.names[name]] for name in self._uniform])
            self._kept = str(z_BL.device), torch.as_tensor(columns, device=z_BL.device)
        found = {name: z_BL[:, where] for name, where in self.names.items()}
        if self._uniform:
            assert self._kept is not None
            # One call for all of them.
            phi = torch.special.ndtr(z_BL.index_select(1, self._kept[1]))
            sizes = [self.names[name].stop - self.names[name].start for name in self._uniform]
            found |= zip(self._uniform, phi.split(sizes, dim=1), strict=True)
        return found

    def slopes(self, z_BL: torch.Tensor) -> dict[str, torch.Tensor]:
        """Name -> (B, n) derivatives of `values`, each with respect to its own z."""
        found = {name: torch.ones_like(z_BL[:, where]) for name, where in self.names.items()}
        for name in self._uniform:
            found[name] = torch.exp(-0.5 * z_BL[:, self.names[name]] ** 2) / math.sqrt(2 * math.pi)
        return found

    def moved(self, z_BL: torch.Tensor, step_BL: torch.Tensor) -> torch.Tensor:
        """(B, L) z after a step along a tangent, which is straight in the shares of mixtures.

        A pattern is linear in shares. z + step would make a share of 0.05 one of 0.5 where the tangent says 0.2.
        """
        moved_BL = z_BL + step_BL
        for name, sharpness in self.mixtures.items():
            where = self.names[name]
            share, step = torch.softmax(sharpness * z_BL[:, where], dim=1), step_BL[:, where]
            common = (share * step).sum(dim=1, keepdim=True)
            # Relative change of each share; below -1/2 an exponential goes on, so that none becomes negative.
            change = sharpness * (step - common)
            change = torch.log1p(change.clamp(min=-0.5)) + 2 * (change + 0.5).clamp(max=0)
            moved_BL[:, where] = z_BL[:, where] + common + change / sharpness
        return moved_BL

    def straight(self, z_BL: torch.Tensor) -> torch.Tensor:
        """(B, L) dz/dv of unknowns v of variance 1, straight in what they stand for: √12 Φ(z) of what is uniform.

        Far from z = 0, Φ(z) hardly changes with z, though the number that it stands for is no better known there.
        """
        slope_BL = torch.ones_like(z_BL)
        for name in self._uniform:
            z = z_BL[:, self.names[name]]
            # Beyond 4 standard deviations Φ(z) is the end of its range, to 3e-5 of it.
            slope_BL[:, self.names[name]] = torch.exp(0.5 * z.clamp(-4, 4) ** 2) * math.sqrt(2 * math.pi / 12)
        return slope_BL


def between(u: torch.Tensor, low: torch.Tensor | float, high: torch.Tensor | float) -> torch.Tensor:
    """A number between bounds from one between 0 and 1; bounds may differ from row to row."""
    return low + (high - low) * u


def log_between(u: torch.Tensor, bounds: tuple[float, float]) -> torch.Tensor:
    """The same, uniform in the logarithm; both bounds are > 0."""
    low, high = (math.log(bound) for bound in bounds)
    return torch.exp(between(u, low, high))


def smooth_modes(q: np.ndarray, length: float) -> np.ndarray:
    """Bumps b_k whose sums with normal numbers have unit variance at every Q and no features shorter than `length`.

    Gaussians of standard deviation `length` at knots `length` apart; the correlation falls to 1/e over 2·`length`.

    Args:
        q: (Q,) float64 [Å⁻¹].
        length: [Å⁻¹].

    Returns:
        (K, Q) float64.
    """
    knots = np.arange(float(q[0]) - 2 * length, float(q[-1]) + 2.5 * length, length)
    modes = np.exp(-0.5 * ((q - knots[:, None]) / length) ** 2)
    scaled: np.ndarray = modes / np.sqrt((modes**2).sum(axis=0))
    return scaled
