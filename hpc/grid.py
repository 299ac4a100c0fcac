"""Parameter grid -> ordered samples.

A cartesian grid is in C order of `hpc.schema.PARAMETERS` (strain slowest, σ fastest). A Sobol grid fills the same box
with a scrambled low-discrepancy sequence (I. M. Sobol, USSR Comput. Math. 7, 86 (1967); A. B. Owen's scrambling).
"""

from __future__ import annotations

import numpy as np

from hpc.config import Axis, GridConfig, QConfig
from hpc.schema import DIAMETER, PARAMETERS

__all__ = ["axis_values", "grid_samples", "intensity_bytes", "q_values", "stepped"]


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


def intensity_bytes(grid: GridConfig, q: QConfig) -> int:
    """Size of the intensities, counted without making a single array."""
    samples = grid.samples or 1
    if grid.sampling == "cartesian":
        for axis in (grid.diameter_nm, grid.sigma, grid.strain, grid.b_scale):
            samples *= _axis_length(axis)
    return 4 * samples * _steps(q.min, q.max, q.step)


def _axis_length(axis: Axis) -> int:
    if axis.values is not None:
        return len(axis.values)
    assert axis.start is not None and axis.stop is not None
    return axis.num if axis.step is None else _steps(axis.start, axis.stop, axis.step)  # type: ignore[return-value]


def grid_samples(config: GridConfig, seed: int) -> dict[str, np.ndarray]:
    """Parameters of every sample.

    Args:
        config: the checked grid.
        seed: scrambles a Sobol grid; a cartesian grid does not depend on it.

    Returns:
        name -> (sample,) float64, for each of `PARAMETERS`.
    """
    axes = [getattr(config, _config_key(name)) for name in PARAMETERS]
    if config.sampling == "cartesian":
        mesh = np.meshgrid(*(axis_values(axis) for axis in axes), indexing="ij")
        return {name: values.ravel() for name, values in zip(PARAMETERS, mesh, strict=True)}

    from scipy.stats import qmc

    assert config.samples is not None
    unit = qmc.Sobol(d=len(axes), scramble=True, rng=np.random.default_rng(seed)).random(config.samples)
    low, high = np.array([axis.bounds for axis in axes]).T
    values = low + unit * (high - low)
    # Neighbours in the store then share strains no more than chance has it, but sizes: the tables stay small.
    order = np.argsort(values[:, PARAMETERS.index(DIAMETER)], kind="stable")
    return {name: values[order, index] for index, name in enumerate(PARAMETERS)}


def _config_key(name: str) -> str:
    return "diameter_nm" if name == DIAMETER else name
