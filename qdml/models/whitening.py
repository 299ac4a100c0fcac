"""Moments of inputs, and the whitening of patterns that they give.

Sizes and dispersions live in directions of the input that carry 10⁻² to 10⁻³ of its variance; a network on the plain
input learns strain and size and leaves σ at its prior. So a pattern is first projected on its leading principal
components and each is scaled by what is to be expected of it:

    z_p = k asinh(t_p / k),   t_p = v_p · (x - mean) m / √(λ_p + Σ_Q v_Qp² n_Q²)      (n² as its mean over 16 points)

with the covariance V Λ Vᵀ of augmented training patterns, less their mean noise, the mask m and the declared noise n
of this pattern: every component has about unit variance at every noise, and one that is drowned says so by being
small. asinh keeps a measured pattern that is unlike any in training from driving the network far out; k = 6, because
what is wanted is a sum of components that cancel each other to 10⁻³: sums of asinh t (k = 1) do not, and no later layer
can take the curvature of 400 components back.

Symbols: B pattern, Q point, P component, K condition, T target.
"""

from __future__ import annotations

import torch
from torch import nn

from qdml.preprocess import NetworkInput

__all__ = ["InputMoments", "Whitening", "principal_components"]

# Fewer patterns than components leave variances of rounding size; they must not be blown up.
_LEAST_VARIANCE = 1e-9
# Points over which the declared noise is averaged.
_NOISE_WINDOW = 16
# A component that noise hides in most patterns keeps this part of its variance as signal.
_LEAST_SIGNAL = 0.01


class InputMoments:
    """Sums over inputs and targets from which a network sets what it keeps fixed.

    `sums` is one float64 tensor, so that one sum over processes does; they add up in any order to rounding.
    """

    def __init__(self, n_q: int, n_conditions: int, n_targets: int) -> None:
        """Start from nothing.

        Args:
            n_q: points of a pattern.
            n_conditions: K.
            n_targets: T.
        """
        self._sizes = (n_q, n_q, n_conditions, n_targets, 1)
        self.sums = torch.zeros(sum(self._sizes) + 1, sum(self._sizes), dtype=torch.float64)

    def add(self, inputs: NetworkInput, targets_BT: torch.Tensor) -> None:
        """Count some more inputs, and what they are of."""
        x_BQ = inputs.pattern[:, 0]
        # A network without a mask channel sees every point.
        mask_BQ = inputs.pattern[:, 1] if inputs.pattern.shape[1] > 1 else torch.ones_like(x_BQ)
        one_B1 = torch.ones_like(x_BQ[:, :1])
        parts = [x_BQ, mask_BQ, inputs.conditions, targets_BT.to(x_BQ), one_B1]
        all_BF = torch.cat(parts, dim=1).double()
        noise_BQ = inputs.noise.double()
        self.sums[:-1] += (all_BF.T @ all_BF).cpu()
        self.sums[-1, : noise_BQ.shape[1]] += noise_BQ.square().sum(dim=0).cpu()

    def _block(self, row: int, column: int) -> torch.Tensor:
        start, size = [sum(self._sizes[:i]) for i in (row, column)], [self._sizes[i] for i in (row, column)]
        return self.sums[start[0] : start[0] + size[0], start[1] : start[1] + size[1]]

    @property
    def count(self) -> float:
        """Patterns."""
        return float(self.sums[-2, -1])

    @property
    def mean(self) -> torch.Tensor:
        """(Q,) float64 of the first channel over the patterns in which the point is visible."""
        return self._block(0, 4)[:, 0] / self._block(1, 4)[:, 0].clamp(min=1)

    @property
    def covariance(self) -> torch.Tensor:
        """(Q, Q) float64 of (x - mean) m: what is hidden counts as the mean."""
        mean = self.mean
        cross = self._block(0, 1) * mean
        product = self._block(0, 0) - cross - cross.T + self._block(1, 1) * mean[:, None] * mean
        return product / self.count

    @property
    def noise_variance(self) -> torch.Tensor:
        """(Q,) float64 mean square of the declared noise; hidden points count as 0."""
        return self.sums[-1, : self._sizes[0]] / self.count

    def mean_and_spread(self, what: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the conditions (2) or of the targets (3); float64."""
        mean = self._block(what, 4)[:, 0] / self.count
        variance = self._block(what, what).diagonal() / self.count - mean**2
        return mean, variance.clamp(min=0).sqrt()


def principal_components(covariance: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The n leading variances (n,) and directions (Q, n) of a covariance; the largest entry of each is positive."""
    variance, direction = torch.linalg.eigh(covariance)
    variance, direction = variance.flip(0)[:n], direction.flip(1)[:, :n]
    # The sign of an eigenvector is arbitrary: this one does not depend on the library.
    largest = direction.gather(0, direction.abs().argmax(dim=0, keepdim=True))
    return variance.clamp(min=float(variance[0]) * _LEAST_VARIANCE), direction * largest.sign()


def _windows(values: torch.Tensor) -> torch.Tensor:
    """(..., Q) -> (..., windows, points of a window), with zeros behind the end."""
    beyond = -values.shape[-1] % _NOISE_WINDOW
    return nn.functional.pad(values, (0, beyond)).unflatten(-1, (-1, _NOISE_WINDOW))


class Whitening(nn.Module):
    """The fixed first layer: (x, n, m) -> z."""

    def __init__(self, n_q: int, components: int, *, declared_noise: bool, compress_beyond: float) -> None:
        """Reserve the tensors; `fit` sets them.

        Args:
            n_q: points of a pattern.
            components: that are kept.
            declared_noise: whether the noise of each pattern scales its components.
            compress_beyond: k, in standard deviations of a component.

        Raises:
            ValueError: more components than points.
        """
        super().__init__()
        if components > n_q:
            raise ValueError(
                f"network.components must be <= {n_q}, the points of a pattern, got {components}"
            )
        self.declared_noise, self.compress_beyond = declared_noise, compress_beyond
        # Fixed, but no buffers: DistributedDataParallel sends buffers round before every step.
        self.mean = nn.Parameter(torch.zeros(n_q), requires_grad=False)
        self.directions = nn.Parameter(torch.zeros(n_q, components), requires_grad=False)
        self.variance = nn.Parameter(torch.ones(components), requires_grad=False)
        # Sums of squares over windows: noise varies slowly, and the product of all points costs as much as that of x.
        self.power = nn.Parameter(torch.zeros(-(-n_q // _NOISE_WINDOW), components), requires_grad=False)

    @torch.no_grad()
    def fit(self, moments: InputMoments) -> None:
        """Set the components from augmented training patterns."""
        variance, direction = principal_components(moments.covariance, self.variance.numel())
        if self.declared_noise:
            noise = (direction.square() * moments.noise_variance[:, None]).sum(dim=0)
            variance = (variance - noise).clamp(min=_LEAST_SIGNAL * variance)
        self.mean.copy_(moments.mean)
        self.directions.copy_(direction)
        self.variance.copy_(variance)
        inside = _windows(torch.ones_like(direction[:, 0])).mean(dim=-1, keepdim=True)
        self.power.copy_(_windows(direction.square().T).sum(dim=-1).T / inside)

    def forward(self, x_BQ: torch.Tensor, noise_BQ: torch.Tensor, mask_BQ: torch.Tensor) -> torch.Tensor:
        """(B, P) float32 components of about unit variance."""
        # Directions of 10⁻⁴ of the variance drown in the rounding of bfloat16.
        with torch.autocast(x_BQ.device.type, enabled=False):
            projected_BP = ((x_BQ - self.mean) * mask_BQ) @ self.directions
            variance: torch.Tensor = self.variance
            if self.declared_noise:
                variance = variance + _windows(noise_BQ.square()).mean(dim=-1) @ self.power
            k = self.compress_beyond
            return k * torch.asinh(projected_BP * variance.rsqrt() / k)
