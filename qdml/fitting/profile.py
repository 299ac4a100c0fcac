"""What a pattern knows of its sizes: χ² along σ, and intervals from it.

A mean size and its dispersion pull the same way (their correlation is -0.8 to -0.97), and the likelihood along
σ is no parabola. So σ is stepped away from its best value to both sides, everything else is fitted again at
each step, and

    p(σ) ∝ exp[-(χ²(σ) - χ²_min) / (2 s² τ)],    s² = χ²_min / (n - p),   τ = 1 + 2 Σ_k ρ_k

is the distribution of σ over the bounds of the fit. At each σ, D_v and ε are normal around their best values with the
covariance at the minimum times s²τ; D = D_v/(1 + σ²)³. Means and intervals are those of these mixtures.

s² scales χ² to what the residual really is (larger than 1 where the model is wrong, smaller where the model
error in the weights is larger than it). τ is the integrated autocorrelation of the weighted residual in points
of the grid, up to its first value below 0.05: a wrong model leaves waves and not noise, and n points of waves
of length τ are n/τ observations. With a perfect model and noise of known size both are 1 and the intervals are
the usual ones. What they do not hold is an error of the model that looks like another size: two samples of one
model differ less from each other than from the truth.

Symbols: n points, p parameters and used columns, ρ_k autocorrelation at a lag of k points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qdml.answers import INTERVALS, Estimate
from qdml.fitting.levenberg import Minimum, minimise

__all__ = ["Profile", "autocorrelation_points", "mixture_estimate", "profile_along"]

Residual = Callable[[np.ndarray, bool], tuple[np.ndarray, np.ndarray | None]]

# Steps of σ in units of its standard error at the minimum; those beyond four only where χ² rises slower than it began.
_STEPS = (0.8, 1.6, 2.5, 3.5, 5.0, 7.0, 10.0, 14.0)
# Part of the bounds of σ that a standard error is taken to be at most.
_WIDEST = 1 / 7
# Beyond this rise of χ²/(s²τ) nothing more is needed: 3 standard errors and a half.
_ENOUGH = 12.0
_FINE = 401
_NORMAL = 41
# Below this the autocorrelation of noise is not told from 0.
_SMALLEST_CORRELATION = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """χ² and everything else along one parameter."""

    values: np.ndarray
    """(node,) float64, increasing: the parameter."""
    cost: np.ndarray
    """(node,) float64, χ² minimised over the others."""
    theta: np.ndarray
    """(node, parameter) float64, where."""
    unit: float
    """s²τ: the rise of χ² that counts as 1."""
    spread: np.ndarray
    """(parameter,) float64: standard deviations of the others at a fixed value, at the minimum."""

    def density(self) -> tuple[np.ndarray, np.ndarray]:
        """(fine,) values and (fine,) weights that add up to 1."""
        if len(self.values) < 3:
            return self.values, np.full(len(self.values), 1 / len(self.values))
        from scipy.interpolate import PchipInterpolator

        fine = np.linspace(self.values[0], self.values[-1], _FINE)
        # The square root is nearly linear on both sides: interpolate it with its sign.
        best = int(np.argmin(self.cost))
        root = np.sqrt(np.maximum(self.cost - self.cost[best], 0) / self.unit)
        signed = np.where(np.arange(len(root)) < best, -root, root)
        weight = np.exp(-0.5 * PchipInterpolator(self.values, signed)(fine) ** 2)
        return fine, weight / weight.sum()

    def along(self, column: int, fine: np.ndarray) -> np.ndarray:
        """(fine,) float64: the best value of another parameter at values of this one."""
        if len(self.values) < 3:
            return np.interp(fine, self.values, self.theta[:, column])
        from scipy.interpolate import PchipInterpolator

        return PchipInterpolator(self.values, self.theta[:, column])(fine)


def autocorrelation_points(residual: np.ndarray) -> float:
    """τ: over how many points a residual is one observation, at least 1.

    Args:
        residual: (n,) float64, weighted, in the order of Q.
    """
    n = len(residual)
    spectrum = np.fft.rfft(residual - residual.mean(), 2 * n)
    lagged = np.fft.irfft(np.abs(spectrum) ** 2)[: n // 2]
    if lagged[0] == 0:
        return 1.0
    rho = lagged[1:] / lagged[0]
    below = np.flatnonzero(rho < _SMALLEST_CORRELATION)
    stop = int(below[0]) if len(below) else len(rho)
    return float(1 + 2 * rho[:stop].sum())


def profile_along(
    residual: Residual,
    best: Minimum,
    column: int,
    *,
    low: np.ndarray,
    high: np.ndarray,
    unit: float,
    steps: int,
) -> tuple[Profile, Minimum]:
    """Step one parameter away from the minimum and fit the others.

    Args:
        residual: as for `minimise`.
        best: the minimum over all parameters.
        column: the parameter.
        low: (parameter,) float64 bounds; a parameter with equal bounds stays.
        high: (parameter,) float64.
        unit: s²τ.
        steps: most steps of each search.

    Returns:
        the profile, and the lowest minimum that was met on the way (`best`, or a better one).
    """
    hessian = best.jacobian.T @ best.jacobian
    others = (high > low) & (np.diag(hessian) > 0)
    others[column] = False
    spread = np.zeros(len(low))
    slope = np.zeros(len(low))
    error = np.inf
    if others.any():
        inner = np.linalg.pinv(hessian[np.ix_(others, others)], hermitian=True)
        spread[others] = np.sqrt(np.maximum(unit * np.diag(inner), 0))
        slope[others] = -inner @ hessian[others, column]
        slope[column] = 1.0
        curvature = hessian[column, column] + hessian[column] @ (slope * others)
        if curvature > 0:
            error = float(np.sqrt(unit / curvature))
    nodes = [(float(best.x[column]), best.cost, best.x)]
    lowest = best
    if high[column] > low[column]:
        # A flat profile is stepped over its bounds.
        error = min(error, _WIDEST * (high[column] - low[column]))
        for side, bound in ((-1.0, low[column]), (1.0, high[column])):
            previous, direction = best.x, slope
            for step in _STEPS:
                value = float(np.clip(best.x[column] + side * step * error, low[column], high[column]))
                if value == previous[column]:
                    break
                held_low, held_high = low.copy(), high.copy()
                held_low[column] = held_high[column] = value
                start = np.clip(previous + direction * (value - previous[column]), held_low, held_high)
                found = minimise(
                    residual,
                    start,
                    low=held_low,
                    high=held_high,
                    steps=steps,
                    tolerance=0.01 * unit / best.cost,
                )
                nodes.append((value, found.cost, found.x))
                if found.cost < lowest.cost:
                    lowest = found
                direction = (found.x - previous) / (value - previous[column])
                previous = found.x
                if found.cost - best.cost > _ENOUGH * unit or value == bound:
                    break
    nodes.sort(key=lambda node: node[0])
    values, cost, theta = (np.array(column) for column in zip(*nodes, strict=True))
    return Profile(values=values, cost=cost, theta=theta, unit=unit, spread=spread), lowest


def mixture_estimate(
    centre: np.ndarray, weight: np.ndarray, spread: float, change: Callable[[np.ndarray], np.ndarray]
) -> Estimate:
    """Mean and central intervals of a mixture of normal distributions.

    Args:
        centre: (fine,) float64, their centres.
        weight: (fine,) float64, adding up to 1.
        spread: their standard deviation.
        change: (fine, point) float64 values -> the quantity; rising in each row.
    """
    from scipy.special import ndtri

    normal = ndtri((np.arange(_NORMAL) + 0.5) / _NORMAL)
    value = change(centre[:, None] + spread * normal[None, :])
    weights = np.broadcast_to(weight[:, None] / _NORMAL, value.shape).ravel()
    order = np.argsort(value, axis=None)
    flat, weights = value.ravel()[order], weights[order]
    cumulative = np.cumsum(weights) - weights / 2
    return Estimate.of(weights @ flat, np.interp(INTERVALS, cumulative, flat))
