"""Least squares in a few parameters with bounds: Levenberg-Marquardt.

    (JᵀJ + λ diag JᵀJ) δ = -Jᵀr

(D. W. Marquardt, SIAM J. Appl. Math. 11, 431 (1963); λ by the gain ratio, H. B. Nielsen, IMM-REP-1999-05).
Steps are cut at the bounds; a parameter at a bound that wants to go beyond stays there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Minimum", "minimise"]

_LAMBDA = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimum:
    """Where a search ended."""

    x: np.ndarray
    """(parameter,) float64."""
    cost: float
    """|r|²."""
    jacobian: np.ndarray
    """(point, parameter) float64, ∂r, at x."""
    converged: bool
    evaluations: int


def minimise(
    residual: Callable[[np.ndarray, bool], tuple[np.ndarray, np.ndarray | None]],
    x: np.ndarray,
    *,
    low: np.ndarray,
    high: np.ndarray,
    steps: int,
    tolerance: float,
) -> Minimum:
    """Minimise |r(x)|² within bounds.

    Args:
        residual: x, whether the derivative is wanted -> (point,) r and (point, parameter) ∂r or None.
        x: (parameter,) float64, where to start.
        low: (parameter,) float64 lower bounds.
        high: (parameter,) float64 upper bounds; equal bounds hold a parameter.
        steps: most steps that are tried.
        tolerance: part of |r|² that a further step must promise.
    """
    x = np.clip(x, low, high)
    r, jacobian = residual(x, True)
    assert jacobian is not None
    cost, damping, growth, evaluations = float(r @ r), _LAMBDA, 2.0, 1
    converged = False
    for _ in range(steps):
        gradient, hessian = jacobian.T @ r, jacobian.T @ jacobian
        free = ~(((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))) & (high > low)
        free &= np.diag(hessian) > 0
        step = _step(hessian, gradient, free, damping, x, low, high)
        promised = -float(2 * gradient @ step + step @ hessian @ step)
        if promised <= tolerance * cost:
            converged = True
            break
        tried, tried_jacobian = residual(x + step, True)
        evaluations += 1
        gain = (cost - float(tried @ tried)) / promised
        if gain > 1e-4:
            x = np.clip(x + step, low, high)
            r, jacobian = tried, tried_jacobian
            assert jacobian is not None
            cost = float(r @ r)
            damping = max(damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), 1e-9)
            growth = 2.0
        else:
            damping, growth = damping * growth, 2 * growth
            if damping > 1e8:
                break
    return Minimum(x=x, cost=cost, jacobian=jacobian, converged=converged, evaluations=evaluations)


def _step(
    hessian: np.ndarray,
    gradient: np.ndarray,
    free: np.ndarray,
    damping: float,
    x: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """The damped step; parameters that would pass a bound are put onto it, and the others stepped again."""
    step = np.zeros(len(x))
    free = free.copy()
    for _ in range(len(x) + 1):
        if not free.any():
            break
        damped = hessian[np.ix_(free, free)] + damping * np.diag(np.diag(hessian)[free])
        pull = gradient[free] + hessian[np.ix_(free, ~free)] @ step[~free]
        step[free] = -np.linalg.solve(damped, pull)
        passed = free & ((x + step < low) | (x + step > high))
        if not passed.any():
            break
        step[passed] = np.clip(x + step, low, high)[passed] - x[passed]
        free &= ~passed
    return step
