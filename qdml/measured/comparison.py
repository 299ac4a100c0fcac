"""The answer beside the measurement: the simulated pattern of the predicted D and σ, laid over the measured
one.

The dots' pattern comes from `hpc.dots` without a free parameter but the answer's. To lay it over a
measurement, the parts that the answer does not speak of are fitted, for display and as a check only; no size
is fitted here:

    y(Q) ≈ c(Q) · P(Q (1 + ε)) + b(Q)

c: a slowly varying scale (polarisation, absorption), b: the built-in liquids and a smooth background (air,
fluorescence, Compton), all sums of non-negative functions with non-negative coefficients (NNLS, a true active
set); ε: isotropic strain, by scan. Residuals are weighted by 1/y, as for counts.

Two numbers say how well the answer describes the pattern: Rwp, the weighted residual over the weighted
intensity; and the *explained structure*, 1 - (residual with dots / residual of the smooth background alone)²,
which a featureless or foreign pattern does not reach however small its Rwp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpc.structure.material import Material
from qdml.augmentation.solvents import LIQUIDS, liquid_profile
from qdml.measured.patterns import OnGrid

__all__ = ["Comparison", "compare"]

# P: simulated intensity [electron units per atom]; y: measured intensity [any unit]; Q [Å⁻¹]
# Finer than the Nyquist step π/D of a 20 nm dot by 1.5: cubic interpolation is then good to 1e-3, enough to
# draw.
_Q_STEP = 0.01
# The ensemble's largest dots hold most of the work; for display a thousandth of the atoms may be missing.
_TAIL = 1e-3
_STRAIN_LIMIT = 0.012
_STRAIN_STEPS = (0.001, 0.0001)
_SCALE_DEGREE = 2
# Knots: 0.4 Å⁻¹ apart where liquids have structure, 2 Å⁻¹ beyond. [Å⁻¹]
_LIQUID_Q, _LIQUID_KNOT, _FAR_KNOT = 5.0, 0.4, 2.0


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
    pattern: OnGrid, q: np.ndarray, *, material: Material, diameter_nm: float, sigma: float, energy_kev: float
) -> Comparison:
    """Simulate an answer and lay it over the measured pattern.

    Args:
        pattern: the measured pattern on the grid.
        q: (q,) float64 [Å⁻¹]: the grid.
        material: what the dots are made of.
        diameter_nm: number-mean diameter D [nm].
        sigma: relative standard deviation σ.
        energy_kev: photon energy [keV].
    """
    from scipy.interpolate import CubicSpline

    from hpc.dots import dot_pattern

    low, high = pattern.window
    fine = np.arange(low * (1 - _STRAIN_LIMIT), high * (1 + _STRAIN_LIMIT) + _Q_STEP, _Q_STEP)
    dots = CubicSpline(
        fine,
        dot_pattern(
            material, q=fine, diameter_nm=diameter_nm, sigma=sigma, energy_kev=energy_kev, tail=_TAIL
        ),
    )
    q_seen, y = q[pattern.mask], pattern.intensity[pattern.mask]
    x = (q_seen - low) / (high - low)
    smooth = np.column_stack([_splines(q_seen), *(liquid_profile(name, q_seen) for name in LIQUIDS)])
    scales = _bernstein(x, _SCALE_DEGREE)

    def fit(strain: float) -> tuple[float, np.ndarray]:
        p = dots(q_seen * (1 + strain))
        return _weighted_nnls(np.column_stack([scales * (p / p.mean())[:, None], smooth]), y)

    strain = 0.0
    for step in _STRAIN_STEPS:
        tried = strain + step * np.arange(-10, 11)
        tried = tried[np.abs(tried) <= _STRAIN_LIMIT]
        strain = float(tried[np.argmin([fit(one)[0] for one in tried])])
    residual, coefficients = fit(strain)
    residual_smooth, _ = _weighted_nnls(smooth, y)

    background = smooth @ coefficients[_SCALE_DEGREE + 1 :]
    p = dots(q_seen * (1 + strain))
    total = background + (scales @ coefficients[: _SCALE_DEGREE + 1]) * p / p.mean()
    return Comparison(
        total=_on_grid(total, pattern.mask),
        background=_on_grid(background, pattern.mask),
        strain=strain,
        rwp=float(residual / np.sqrt(y.sum())),
        explained=float(1 - (residual / residual_smooth) ** 2),
        energy_kev=energy_kev,
    )


def _bernstein(x: np.ndarray, degree: int) -> np.ndarray:
    """(point, degree + 1) float64: the Bernstein polynomials, ≥ 0 on 0 ≤ x ≤ 1 and adding up to 1."""
    from scipy.special import comb

    k = np.arange(degree + 1)
    return comb(degree, k) * x[:, None] ** k * (1 - x[:, None]) ** (degree - k)


def _splines(q: np.ndarray) -> np.ndarray:
    """(point, function) float64: cubic B-splines, ≥ 0, broader than any reflection."""
    from scipy.interpolate import BSpline

    near = np.arange(q[0], min(_LIQUID_Q, q[-1]), _LIQUID_KNOT)
    far = np.arange(near[-1] + _FAR_KNOT, q[-1], _FAR_KNOT)
    inner = np.concatenate([near[1:], far])
    inner = inner[inner < q[-1] - _LIQUID_KNOT / 2]
    knots = np.concatenate([np.repeat(q[0], 4), inner, np.repeat(q[-1], 4)])
    return BSpline.design_matrix(q, knots, 3).toarray()


def _weighted_nnls(basis: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Non-negative least squares with weights 1/y through the normal equations' Cholesky factor.

    Returns:
        the norm of the weighted residual, and the (function,) coefficients.
    """
    from scipy.optimize import nnls

    weight = 1 / np.sqrt(y)
    # Orthogonal triangularisation leaves the problem the same and a hundred times smaller.
    r = np.asarray(np.linalg.qr(np.column_stack([basis, y]) * weight[:, None], mode="r"))
    coefficients, residual = nnls(r[:, :-1], r[:, -1])
    return float(residual), coefficients


def _on_grid(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(q,) float64: the values where the mask is set, NaN elsewhere."""
    full = np.full(len(mask), np.nan)
    full[mask] = values
    return full
