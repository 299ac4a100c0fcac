"""A measured pattern -> sizes, by least squares.

Scan over sizes, Levenberg-Marquardt from the best minima of the scan, profile along σ.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qdml.answers import Estimate
from qdml.files.patterns import Pattern
from qdml.fitting.forward import SIGMA, SIZE, STRAIN, ZERO, Parts
from qdml.fitting.ingredients import ingredients
from qdml.fitting.instrument import Optics
from qdml.fitting.levenberg import Minimum, minimise
from qdml.fitting.points import Points, points_of
from qdml.fitting.problem import LOG_SIZE, Problem
from qdml.fitting.profile import Profile, autocorrelation_points, mixture_estimate, profile_along
from qdml.fitting.settings import FitSettings

__all__ = ["Fit", "fit_pattern"]

_STEPS, _TOLERANCE = 40, 1e-6
_ROUGH_STEPS, _ROUGH_TOLERANCE = 12, 1e-3
_PROFILE_STEPS = 8
# Of the atoms that may lie beyond the largest counted particle before larger ones are counted.
_BEYOND = 1e-4
# Of ln D_v: by so much the width of reflections may be off.
_SAME_WIDTH = 0.1
# What is expected of B and correlation counts in units of s²τ, which is known after a fit: it is fitted again.
_REWEIGHTED, _SAME_UNIT = 3, 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What a fit found."""

    pattern: Pattern
    settings: FitSettings
    points: Points
    diameter_nm: Estimate
    """Number-mean diameter D."""
    diameter_volume_nm: Estimate
    """D_v = D(1 + σ²)³."""
    sigma: Estimate
    strain: Estimate
    best: Mapping[str, float]
    """Values at the minimum: `diameter_nm`, `diameter_volume_nm`, `sigma`, `strain`, and B, correlation, `zero_deg`."""
    errors: Mapping[str, float]
    """Standard errors of the same, from the curvature at the minimum times s²τ; 0 for what was held."""
    at_bound: tuple[str, ...]
    """Parameters that ended at a bound."""
    total: np.ndarray
    """(n,) float64: the fitted pattern at the compared points."""
    contributions: Mapping[str, np.ndarray]
    """Name -> (n,) float64; they add up to `total`."""
    gains: Mapping[str, float]
    """Reflections -> how much stronger they are than the median one of an oriented sample; empty without texture."""
    coefficients: Mapping[str, tuple[float, ...]]
    """Name -> the linear coefficients of its columns."""
    rwp: float
    """sqrt(Σ (y - f)²/y / Σ y): weighted as counts, a fraction."""
    rwp_weighted: float
    """|r| / |w y| with the weights of the fit."""
    chi2: float
    """χ² per degree of freedom with the counting noise alone; NaN where it is not known."""
    chi2_model: float
    """s²: χ² per degree of freedom with the weights of the fit."""
    correlated_points: float
    """τ."""
    explained: float
    """Part of the squared residual of solvents and background alone that the dots explain."""
    profile: Profile
    """Along σ."""
    profile_diameter_nm: np.ndarray
    """(node,) float64: the best number-mean D at each σ of the profile [nm]."""
    beyond: float
    """Fraction of the atoms beyond the largest particle that was counted."""
    converged: bool
    evaluations: int
    seconds: float
    """Processor time, counting of the dots included where nothing had been counted before."""


def fit_pattern(pattern: Pattern, settings: FitSettings) -> Fit:
    """Fit one measured pattern.

    Args:
        pattern: from `qdml.files.patterns.read_pattern`.
        settings: what the dots are and what is free.

    Raises:
        FileError: pattern or solvent and the range of Q share too little.
        ValueError: unknown names, no energy.
    """
    started = time.process_time()
    points = points_of(pattern, settings)
    energy = pattern.energy_kev
    optics = Optics.of(settings.instrument, points.q, energy_kev=energy)
    statics = ingredients(points.q, settings, energy_kev=energy, response=optics.response)
    largest, limit = 10 * settings.largest_nm[0], 10 * settings.largest_nm[1]
    theta: np.ndarray | None = None
    log_size = LOG_SIZE
    evaluations = 0
    while True:
        problem = Problem(
            points, statics, settings, energy_kev=energy, optics=optics, largest=largest, log_size=log_size
        )
        best = _search(problem, theta)
        theta, found = best.x, float(best.x[problem.space.index(SIZE)])
        parts, _ = problem.solve(theta)
        whole = parts[0].beyond < _BEYOND or largest >= limit
        # Reflections whose gains are free must be about as wide as the dots make them.
        fitting = settings.texture is None or abs(found - log_size) < _SAME_WIDTH
        if whole and fitting:
            break
        if not whole:
            largest = min(1.5 * largest, limit)
        log_size = found
        evaluations += problem.evaluations

    space = problem.space
    low, high = space.low, space.high
    column = space.index(SIGMA)
    unit, s2, tau = _unit(problem, best)
    for _ in range(_REWEIGHTED):
        if 1 / _SAME_UNIT < unit / problem.unit < _SAME_UNIT:
            break
        problem.unit = unit
        best = minimise(problem.residual, best.x, low=low, high=high, steps=_STEPS, tolerance=_TOLERANCE)
        unit, s2, tau = _unit(problem, best)
    for _ in range(2):
        profile, lowest = profile_along(
            problem.residual, best, column, low=low, high=high, unit=unit, steps=_PROFILE_STEPS
        )
        if lowest.cost > best.cost - 0.05 * unit:
            break
        # The profile has met a lower minimum: start from there.
        best = minimise(problem.residual, lowest.x, low=low, high=high, steps=_STEPS, tolerance=_TOLERANCE)
        unit, s2, tau = _unit(problem, best)
    return _answer(pattern, problem, best, profile, s2=s2, tau=tau, evaluations=evaluations, started=started)


def _search(problem: Problem, theta: np.ndarray | None) -> Minimum:
    """The lowest minimum: a scan over sizes, rough searches from its minima, an exact one from the best of these."""
    space, settings = problem.space, problem.settings
    low, high = space.low, space.high
    if theta is None:
        at = space.index(SIZE)
        if high[at] > low[at]:
            sizes = np.clip(np.log(10 * np.array(settings.start_diameters_nm)), low[at], high[at])
        else:
            sizes = low[[at]]
        tried = []
        for size in np.unique(sizes):
            start = space.start.copy()
            start[at] = size
            residual, _ = problem.residual(start, False)
            tried.append((float(residual @ residual), start))
        cost = np.array([np.inf, *(one[0] for one in tried), np.inf])
        minima = np.flatnonzero((cost[1:-1] <= cost[:-2]) & (cost[1:-1] <= cost[2:]))
        minima = minima[np.argsort(cost[1 + minima])][: settings.starts]
        rough = [
            minimise(
                problem.residual,
                tried[i][1],
                low=low,
                high=high,
                steps=_ROUGH_STEPS,
                tolerance=_ROUGH_TOLERANCE,
            )
            for i in minima
        ]
        theta = rough[int(np.argmin([one.cost for one in rough]))].x
    return minimise(problem.residual, theta, low=low, high=high, steps=_STEPS, tolerance=_TOLERANCE)


def _unit(problem: Problem, best: Minimum) -> tuple[float, float, float]:
    """s²τ, s² and τ at a minimum."""
    _, solved = problem.solve(best.x)
    used = int(solved.used.sum()) + int((problem.space.high > problem.space.low).sum())
    s2 = float(solved.residual @ solved.residual) / max(len(solved.residual) - used, 1)
    tau = autocorrelation_points(solved.residual)
    return max(s2 * tau, 1e-300), s2, tau


def _answer(
    pattern: Pattern,
    problem: Problem,
    best: Minimum,
    profile: Profile,
    *,
    s2: float,
    tau: float,
    evaluations: int,
    started: float,
) -> Fit:
    space, points = problem.space, problem.points
    parts, solved = problem.solve(best.x)
    values = space.values(best.x)
    fine, weight = profile.density()
    shrink = (1 + fine**2) ** 3
    size = space.index(SIZE)
    of_size = profile.along(size, fine), weight, float(profile.spread[size])
    volume = mixture_estimate(*of_size, change=_nanometres)
    number = mixture_estimate(*of_size, change=lambda x: _nanometres(x) / shrink[:, None])
    at = space.index(STRAIN)
    strain = mixture_estimate(profile.along(at, fine), weight, float(profile.spread[at]), change=lambda x: x)
    sigma = mixture_estimate(fine, weight, 0.0, change=lambda x: x)

    free = space.high > space.low
    covariance = np.zeros((len(free), len(free)))
    hessian = best.jacobian.T @ best.jacobian
    sure = free & (np.diag(hessian) > 0)
    covariance[np.ix_(sure, sure)] = s2 * tau * np.linalg.pinv(hessian[np.ix_(sure, sure)], hermitian=True)
    error = np.sqrt(np.maximum(np.diag(covariance), 0))
    diameter_volume = float(np.exp(values[SIZE]) / 10)
    shrink_best = (1 + values[SIGMA] ** 2) ** 3
    named = {"diameter_nm": diameter_volume / shrink_best, "diameter_volume_nm": diameter_volume}
    # ln D = ln D_v - 3 ln(1 + σ²)
    by = np.zeros(len(free))
    by[size], by[space.index(SIGMA)] = 1.0, -6 * values[SIGMA] / (1 + values[SIGMA] ** 2)
    errors = {
        "diameter_nm": named["diameter_nm"] * float(np.sqrt(max(float(by @ covariance @ by), 0))),
        "diameter_volume_nm": diameter_volume * float(error[size]),
    }
    for name, value, one in zip(space.names, best.x, error, strict=True):
        if name == SIZE:
            continue
        factor = float(np.degrees(1)) if name == ZERO else 1.0
        label = "zero_deg" if name == ZERO else name
        named[label], errors[label] = factor * float(value), factor * float(one)
    bounded = free & ((best.x <= space.low) | (best.x >= space.high))

    curves, linear = _contributions(problem, parts, solved.x)
    total = np.sum(list(curves.values()), axis=0)
    difference = points.y - total
    degrees = max(len(points.y) - int(solved.used.sum()) - int(free.sum()), 1)
    known = (points.noise > 0).all()
    return Fit(
        pattern=pattern,
        settings=problem.settings,
        points=points,
        diameter_nm=number,
        diameter_volume_nm=volume,
        sigma=sigma,
        strain=strain,
        best=named,
        errors=errors,
        at_bound=tuple(
            {SIZE: "diameter_volume_nm", ZERO: "zero_deg"}.get(space.names[i], space.names[i])
            for i in np.flatnonzero(bounded)
        ),
        total=total,
        contributions=curves,
        gains=_gains(problem, linear),
        coefficients=linear,
        rwp=float(np.sqrt((difference**2 / points.y).sum() / points.y.sum())),
        rwp_weighted=float(np.linalg.norm(solved.residual) / np.linalg.norm(points.weight * points.y)),
        chi2=float(((difference / points.noise) ** 2).sum() / degrees) if known else float("nan"),
        chi2_model=s2,
        correlated_points=tau,
        explained=1 - float(solved.residual @ solved.residual) / problem.cost_without_dots(),
        profile=profile,
        profile_diameter_nm=_nanometres(profile.theta[:, size]) / (1 + profile.values**2) ** 3,
        beyond=parts[0].beyond,
        converged=best.converged,
        evaluations=evaluations + problem.evaluations,
        seconds=time.process_time() - started,
    )


def _gains(problem: Problem, linear: Mapping[str, tuple[float, ...]]) -> dict[str, float]:
    """Gains of the first sort of dots over their median."""
    labels = problem.gain_labels
    if not labels:
        return {}
    own = np.array(next(iter(linear.values()))[: len(labels)])
    return dict(zip(labels, (own / (np.median(own) or 1.0)).tolist(), strict=True))


def _nanometres(log_angstrom: np.ndarray) -> np.ndarray:
    return np.exp(log_angstrom) / 10


def _contributions(
    problem: Problem, parts: list[Parts], x: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, tuple[float, ...]]]:
    """The parts of the fitted pattern by name, and their coefficients."""
    mask = problem.points.mask
    curves: dict[str, np.ndarray] = {}
    linear: dict[str, tuple[float, ...]] = {}
    at = 0
    for index, (part, scales) in enumerate(zip(parts, problem.scales, strict=True)):
        name = "dots" if len(parts) == 1 else f"dots {index + 1}"
        for value, scale in zip(part.value, scales, strict=True):
            own = x[at : at + scale.shape[1]]
            at += scale.shape[1]
            curves[name] = curves.get(name, 0.0) + (scale @ own) * value[mask]
            linear[name] = (*linear.get(name, ()), *own.tolist())
    for column, group in enumerate(problem.statics.groups):
        curves[group] = curves.get(group, 0.0) + problem.statics.columns[mask, column] * x[at + column]
        linear[group] = (*linear.get(group, ()), float(x[at + column]))
    return curves, linear
