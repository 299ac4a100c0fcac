"""A measured pattern -> the points that a fit compares: bin means on a uniform grid of Q, with their weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc.model_error import floor_variance
from qdml.files.columns import FileError
from qdml.files.patterns import MIN_OVERLAP, OnGrid, Pattern, regrid
from qdml.fitting.settings import FitSettings

__all__ = ["Points", "points_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """What is fitted."""

    q: np.ndarray
    """(q,) float64 [Å⁻¹], uniform; patterns are computed on all of it."""
    mask: np.ndarray
    """(q,) bool: the points that are compared, n of them."""
    y: np.ndarray
    """(n,) float64, measured."""
    noise: np.ndarray
    """(n,) float64: standard deviation of the counts; 0 where it is not known."""
    weight: np.ndarray
    """(n,) float64: 1 / sqrt(noise² + (model error · y)²)."""
    on_grid: OnGrid
    sampling: float = 0.0
    """Step of the measured points [Å⁻¹], between which they are joined by straight lines; 0 when that is no matter."""


def points_of(pattern: Pattern, settings: FitSettings) -> Points:
    """Bring a pattern onto the grid of a fit.

    Raises:
        FileError: the pattern and `q_range` share too little, or much of it is not positive.
        ValueError: neither noise nor a model error gives weights.
    """
    step = settings.q_step
    low, high = settings.q_range
    covered = min(high, float(pattern.q[-1])) - max(low, float(pattern.q[0]))
    if covered < MIN_OVERLAP:
        raise FileError(
            Path(pattern.source),
            f"expected at least {MIN_OVERLAP:g} Å⁻¹ of the range that is fitted, {low:g} to {high:g} Å⁻¹, got "
            f"{max(covered, 0):.3g} (the file covers {pattern.q[0]:.4g} to {pattern.q[-1]:.4g} Å⁻¹); check the "
            "wavelength or the Q unit, or give another --q-range",
        )
    first = max(np.ceil(max(low, float(pattern.q[0])) / step), 1)
    last = max(np.floor(min(high, float(pattern.q[-1])) / step), first + 1)
    q = step * np.arange(first, last + 1)
    on_grid = regrid(pattern, q)
    mask = on_grid.mask
    y = on_grid.intensity[mask]
    noise = on_grid.noise[mask] * (on_grid.noise_source.source != "none visible")
    variance = floor_variance(noise**2, y, settings.model_error)
    if not (variance > 0).all():
        raise ValueError(
            f"{pattern.source}: the noise of the pattern is not known everywhere; give a model_error > 0, got "
            f"{settings.model_error}"
        )
    inside = pattern.q[(pattern.q >= q[0]) & (pattern.q <= q[-1])]
    return Points(
        q=q,
        mask=mask,
        y=y,
        noise=noise,
        weight=1 / np.sqrt(variance),
        on_grid=on_grid,
        sampling=float(np.median(np.diff(inside))),
    )
