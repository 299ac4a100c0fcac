"""Least squares that are linear in most unknowns: variable projection with non-negative coefficients.

For given parameters θ, the coefficients x of the columns A(θ) that fit y best are known: x minimises |y - A x|²
with x_i >= 0 for the columns that cannot be negative. What remains is a problem in θ alone, r(θ) = y - A x(θ),
with the derivative (G. H. Golub & V. Pereyra, SIAM J. Numer. Anal. 10, 413 (1973))

    ∂r = -(1 - A A⁺) ∂A x - (A⁺)ᵀ ∂Aᵀ r        over the columns whose x is not held at 0.

Coefficients come from a true active set (C. L. Lawson & R. J. Hanson, Solving Least Squares Problems, ch. 23;
on the normal equations as R. Bro & S. de Jong, J. Chemometrics 11, 393 (1997)), started from that of the step
before: dropping all negative coefficients at once is no least-squares solution, and makes larger models fit
worse.

Symbols: A (point, column), x (column,), y (point,), G = AᵀA.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Projected", "non_negative", "project"]

# Columns have unit norm: a gradient below this part of |y| is none.
_TOLERANCE = 1e-10
# On the diagonal of G, for columns that are sums of others.
_RIDGE = 1e-13


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """The linear part of a fit, solved."""

    x: np.ndarray
    """(column,) float64."""
    residual: np.ndarray
    """(point,) float64, y - A x."""
    used: np.ndarray
    """(column,) bool: not held at 0."""
    columns: np.ndarray
    """(point, used column) float64, of unit norm."""
    inverse: np.ndarray
    """(used column, used column) float64, inverse of their G."""
    norms: np.ndarray
    """(column,) float64."""

    def slopes(self, curves: np.ndarray, pulls: np.ndarray) -> np.ndarray:
        """Derivatives of the residual.

        Args:
            curves: (point, parameter) float64, ∂A x.
            pulls: (column, parameter) float64, ∂Aᵀ r.

        Returns:
            (point, parameter) float64.
        """
        inner = self.columns.T @ curves - pulls[self.used] / self.norms[self.used][:, None]
        return self.columns @ (self.inverse @ inner) - curves


def project(a: np.ndarray, y: np.ndarray, free: np.ndarray, *, start: np.ndarray | None = None) -> Projected:
    """Find the coefficients.

    Args:
        a: (point, column) float64, weighted.
        y: (point,) float64, weighted.
        free: (column,) bool: coefficients that may be negative.
        start: (column,) bool: the columns that are probably used.
    """
    norms = np.sqrt(np.einsum("ij,ij->j", a, a))
    norms = np.where(norms > 0, norms, 1.0)
    unit = a / norms
    gram = unit.T @ unit
    gram[np.diag_indices_from(gram)] += _RIDGE
    scaled, used = non_negative(gram, unit.T @ y, free, start=start, scale=float(np.linalg.norm(y)))
    columns = unit[:, used]
    return Projected(
        x=scaled / norms,
        residual=y - columns @ scaled[used],
        used=used,
        columns=columns,
        inverse=np.linalg.inv(gram[np.ix_(used, used)]),
        norms=norms,
    )


def non_negative(
    gram: np.ndarray,
    target: np.ndarray,
    free: np.ndarray,
    *,
    start: np.ndarray | None = None,
    scale: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise xᵀGx/2 - targetᵀx with x >= 0 where a column is not free.

    Args:
        gram: (column, column) float64, positive definite, ones on the diagonal.
        target: (column,) float64, Aᵀy.
        free: (column,) bool.
        start: (column,) bool: a guess of the columns that are not held at 0.
        scale: |y|.

    Returns:
        x, and (column,) bool: not held at 0 (free columns always).
    """

    def solve(used: np.ndarray) -> np.ndarray:
        x = np.zeros(len(target))
        if used.any():
            x[used] = np.linalg.solve(gram[np.ix_(used, used)], target[used])
        return x

    used = free.copy() if start is None else start | free
    x = solve(used)
    # A start has to be feasible: leave out what is negative until nothing is.
    while (wrong := used & ~free & (x <= 0)).any():
        used &= ~wrong
        x = solve(used)
    for _ in range(20 * len(target)):
        gradient = np.where(used, -np.inf, target - gram @ x)
        best = int(np.argmax(gradient))
        if gradient[best] <= _TOLERANCE * scale:
            break
        used[best] = True
        trial = solve(used)
        if trial[best] <= 0:  # rounding: this column does not help
            used[best] = False
            break
        while (negative := used & ~free & (trial <= 0)).any():
            # As far towards the solution as all stay positive, then hold those at 0 that have reached it.
            steps = np.where(negative, x / np.where(negative, x - trial, 1.0), np.inf)
            x = x + steps.min() * (trial - x)
            used &= free | (x > 1e-15 * max(float(np.abs(x).max()), 1e-300)) & ~(steps == steps.min())
            x = np.where(used, x, 0.0)
            trial = solve(used)
        x = trial
    return x, used
