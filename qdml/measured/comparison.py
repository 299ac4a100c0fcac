"""The answer beside the measurement: the simulated pattern of the predicted D and σ, laid over the measured
one.

D and σ are held at the answer; what the answer does not speak of is fitted by the forward model of
`qdml.fitting`, for display and as a check only: strain, B, correlated motion of the first neighbours, a slowly
varying scale, liquids and a smooth background. Residuals are weighted by 1/y, as for counts.

Two numbers say how well the answer describes the pattern: Rwp, the weighted residual over the weighted
intensity; and the *explained structure*, 1 - (residual with dots / residual of the smooth background alone)²,
which a featureless or foreign pattern does not reach however small its Rwp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hpc.ensemble import largest_diameter
from hpc.structure.material import Material
from hpc.structure.variant import Shape, Variant
from qdml.files.patterns import OnGrid
from qdml.fitting.forward import STRAIN
from qdml.fitting.ingredients import ingredients
from qdml.fitting.instrument import Optics
from qdml.fitting.levenberg import minimise
from qdml.fitting.points import Points
from qdml.fitting.problem import Problem
from qdml.fitting.settings import FitSettings, fit_settings

if TYPE_CHECKING:
    from hpc.instrument.setup import Instrument

__all__ = ["Comparison", "compare"]

# y: measured intensity [any unit]; Q [Å⁻¹]
_LIQUIDS = ("hexane", "toluene")
# Parameters are fitted on points about so far apart [Å⁻¹]: finer than the Nyquist step π/D of a 20 nm dot by 1.5.
_Q_STEP = 0.01
# The ensemble's largest dots hold most of the work; for display a thousandth of the atoms may be missing.
_TAIL = 1e-3
# Families are counted up to multiples of this diameter [Å], so that answers of about one size share a count.
_SIZE_STEP = 20.0
_STEPS, _TOLERANCE = 20, 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The simulated pattern of an answer, fitted onto a measured one for display."""

    total: np.ndarray
    """(q,) float64: scaled dots plus background, in the unit of the measurement; NaN outside the mask."""
    background: np.ndarray
    """(q,) float64: the background alone; NaN outside the mask."""
    strain: float
    """Fitted isotropic strain (also takes up a zero shift of the instrument)."""
    rwp: float
    """Weighted residual over weighted intensity, as a fraction."""
    explained: float
    """Part of the squared deviation from a smooth curve that the dots explain, at most 1."""
    energy_kev: float
    """Photon energy of the simulation [keV]."""


def compare(
    pattern: OnGrid,
    q: np.ndarray,
    *,
    material: Material,
    diameter_nm: float,
    sigma: float,
    energy_kev: float,
    instrument: Instrument | None = None,
) -> Comparison:
    """Simulate an answer and lay it over the measured pattern.

    Args:
        pattern: the measured pattern on the grid.
        q: (q,) float64 [Å⁻¹]: the grid.
        material: what the dots are made of.
        diameter_nm: number-mean diameter D [nm].
        sigma: relative standard deviation σ.
        energy_kev: photon energy [keV].
        instrument: whose resolution and lines the pattern has; a perfect one when None.
    """
    settings = fit_settings(
        Variant(material=material, shape=Shape(name="sphere")),
        solvents=_LIQUIDS,
        instrument=instrument,
        zero_deg=0.0,
        fixed={"diameter_nm": diameter_nm, "sigma": max(sigma, 1e-3)},
    )
    reach = largest_diameter(np.array([10 * diameter_nm]), np.array([sigma]), tail=_TAIL)
    largest = _SIZE_STEP * float(np.ceil(reach / _SIZE_STEP))
    stride = max(1, int(_Q_STEP / (q[1] - q[0])))
    rough = _problem(pattern, q, settings, energy_kev, largest, stride=stride)
    theta = minimise(
        rough.residual,
        rough.space.start,
        low=rough.space.low,
        high=rough.space.high,
        steps=_STEPS,
        tolerance=_TOLERANCE,
    ).x
    problem = _problem(pattern, q, settings, energy_kev, largest, stride=1) if stride > 1 else rough
    parts, solved = problem.solve(theta)
    mask, points = pattern.mask, problem.points
    n_scale = problem.scales[0][0].shape[1]
    dots = (problem.scales[0][0] @ solved.x[:n_scale]) * parts[0].value[0][mask]
    background = problem.statics.columns[mask] @ solved.x[n_scale:]
    residual = float(np.linalg.norm(solved.residual))
    return Comparison(
        total=_on_grid(dots + background, mask),
        background=_on_grid(background, mask),
        strain=problem.space.values(theta)[STRAIN],
        rwp=residual / float(np.linalg.norm(points.weight * points.y)),
        explained=1 - residual**2 / problem.cost_without_dots(),
        energy_kev=energy_kev,
    )


def _problem(
    pattern: OnGrid, q: np.ndarray, settings: FitSettings, energy_kev: float, largest: float, *, stride: int
) -> Problem:
    """The fit of every `stride`-th point of the grid."""
    grid, mask = q[::stride], pattern.mask[::stride]
    y = pattern.intensity[::stride][mask]
    # As for counts; at the mean intensity, the weight of the model's own error.
    weight = 1 / (settings.model_error * np.sqrt(y * y.mean()))
    points = Points(q=grid, mask=mask, y=y, noise=np.sqrt(y), weight=weight, on_grid=pattern)
    optics = Optics.of(settings.instrument, grid, energy_kev=energy_kev)
    return Problem(
        points,
        ingredients(grid, settings, energy_kev=energy_kev, response=optics.response),
        settings,
        energy_kev=energy_kev,
        optics=optics,
        largest=largest,
        bin_width=float(q[1] - q[0]),
    )


def _on_grid(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(q,) float64: the values where the mask is set, NaN elsewhere."""
    full = np.full(len(mask), np.nan)
    full[mask] = values
    return full
