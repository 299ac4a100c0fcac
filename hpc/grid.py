"""Parameter grid -> ordered samples.

A cartesian grid is in C order of `hpc.schema.PARAMETERS` (variant slowest, then strain; σ fastest). A Sobol grid fills
the same box with a scrambled low-discrepancy sequence (I. M. Sobol, USSR Comput. Math. 7, 86 (1967); A. B. Owen's
scrambling). Where it has a largest dot, σ ends at each D where a fraction `tail` of the atoms would be in larger ones:
the box's face is bent, and the sequence fills what is left of it as evenly.
"""

from __future__ import annotations

import numpy as np

from hpc.config import GridConfig, QConfig
from hpc.config_axis import Axis
from hpc.ensemble import largest_sigma
from hpc.schema import DIAMETER, PARAMETERS, SIGMA, VARIANT

__all__ = ["axis_values", "grid_samples", "intensity_bytes", "q_values", "stepped"]

_CONTINUOUS = tuple(name for name in PARAMETERS if name != VARIANT)


def _steps(start: float, stop: float, step: float) -> int:
    # 1e-9: ten steps of 0.1 reach 1.0, whatever the last bit says.
    return int(np.floor((stop - start) / step + 1e-9)) + 1


def stepped(start: float, stop: float, step: float) -> np.ndarray:
    """start, start + step, ... up to and including stop when a whole number of steps reaches it."""
    return start + step * np.arange(_steps(start, stop, step))


def q_values(config: QConfig) -> np.ndarray:
    """(q,) float64 [Å⁻¹]."""
    return stepped(config.min, config.max, config.step)


def axis_values(axis: Axis) -> np.ndarray:
    """(n,) float64 values of one axis of a cartesian grid; a stepped range includes its end."""
    if axis.values is not None:
        return np.array(axis.values, dtype=np.float64)
    assert axis.start is not None and axis.stop is not None
    if axis.step is not None:
        return stepped(axis.start, axis.stop, axis.step)
    assert axis.num is not None
    return np.linspace(axis.start, axis.stop, axis.num)


def intensity_bytes(grid: GridConfig, q: QConfig, n_variants: int = 1) -> int:
    """Size of the intensities, counted without making a single array."""
    samples = grid.samples or n_variants
    if grid.sampling == "cartesian":
        for axis in (grid.diameter_nm, grid.sigma, grid.strain, grid.b_scale):
            samples *= _axis_length(axis)
    return 4 * samples * _steps(q.min, q.max, q.step)


def _axis_length(axis: Axis) -> int:
    if axis.values is not None:
        return len(axis.values)
    assert axis.start is not None and axis.stop is not None
    return axis.num if axis.step is None else _steps(axis.start, axis.stop, axis.step)  # type: ignore[return-value]


def grid_samples(config: GridConfig, seed: int, n_variants: int = 1) -> dict[str, np.ndarray]:
    """Parameters of every sample, variant by variant.

    Args:
        config: the checked grid.
        seed: scrambles a Sobol grid; a cartesian grid does not depend on it.
        n_variants: how many structural variants there are. A cartesian grid holds every combination; the points of a
            Sobol grid are dealt out by `grid.shares`.

    Returns:
        name -> (sample,) for each of `PARAMETERS`; float64, the variant int64.
    """
    axes = [getattr(config, _config_key(name)) for name in _CONTINUOUS]
    if config.sampling == "cartesian":
        values = [np.arange(n_variants), *(axis_values(axis) for axis in axes)]
        mesh = np.meshgrid(*values, indexing="ij")
        return {name: points.ravel() for name, points in zip(PARAMETERS, mesh, strict=True)}

    from scipy.stats import qmc

    assert config.samples is not None
    unit = qmc.Sobol(d=len(axes), scramble=True, rng=np.random.default_rng(seed)).random(config.samples)
    low, high = np.array([axis.bounds for axis in axes]).T
    diameter, sigma = _CONTINUOUS.index(DIAMETER), _CONTINUOUS.index(SIGMA)
    high = np.tile(high, (config.samples, 1))
    if config.largest_nm is not None:
        diameters = low[diameter] + unit[:, diameter] * (high[:, diameter] - low[diameter])
        widest = largest_sigma(diameters, config.largest_nm, tail=config.tail)
        high[:, sigma] = np.minimum(high[:, sigma], widest)
    points = low + unit * (high - low)
    # Consecutive points fill the box evenly, every second or fourth would not: each variant gets a run of them.
    share = np.cumsum(config.shares or [1.0] * n_variants)
    middle = (np.arange(config.samples) + 0.5) / config.samples
    variant = np.searchsorted(share / share[-1], middle)
    # Neighbours in the store then share strains no more than chance has it, but sizes: the tables stay small.
    order = np.lexsort((points[:, diameter], variant))
    return {VARIANT: variant[order]} | {name: points[order, index] for index, name in enumerate(_CONTINUOUS)}


def _config_key(name: str) -> str:
    return "diameter_nm" if name == DIAMETER else name
