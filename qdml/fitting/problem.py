"""One pattern and everything that may explain it, as a least-squares problem in the nonlinear parameters.

    y(Q) ≈ Σ_v c_v(Q) I_v(Q; θ) + Σ_i x_i b_i(Q),     weights 1/(counting noise² + (model error · y)²)

I_v: patterns of the sorts of dots, one θ for all; c_v: slowly varying scales; b_i: liquids, smooth background,
halo. Everything but θ is linear and projected out (`qdml.fitting.projection`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hpc.ensemble import volume_mean_diameter
from hpc.structure.crystal import shells
from qdml.fitting.dots import count_dots
from qdml.fitting.forward import SIGMA, SIZE, STRAIN, TAIL, ZERO, DotModel, Parts, correlation_name
from qdml.fitting.ingredients import Ingredients, bernstein
from qdml.fitting.instrument import Optics
from qdml.fitting.points import Points
from qdml.fitting.projection import Projected, project
from qdml.fitting.reflections import texture_groups
from qdml.fitting.settings import FitSettings

__all__ = ["LOG_SIZE", "Problem", "Space", "parameter_space"]


#: ln D_v until something is known: 5 nm.
LOG_SIZE = float(np.log(50.0))
# s²τ of good fits of measured patterns with a model error of 2 %.
_UNIT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The parameters θ: names, bounds and where to start. Equal bounds hold a parameter."""

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    start: np.ndarray

    def index(self, name: str) -> int:
        """Position of a parameter."""
        return self.names.index(name)

    def values(self, theta: np.ndarray) -> dict[str, float]:
        """Names -> values."""
        return dict(zip(self.names, theta.tolist(), strict=True))

    def held(self, name: str, value: float) -> Space:
        """The same with one parameter held."""
        low, high, start = self.low.copy(), self.high.copy(), self.start.copy()
        at = self.index(name)
        low[at] = high[at] = start[at] = value
        return Space(names=self.names, low=low, high=high, start=start)


def parameter_space(model: DotModel, settings: FitSettings) -> Space:
    """Bounds and starts of all parameters of a model."""
    bounds: dict[str, tuple[float, float, float]] = {
        SIZE: (
            np.log(10 * settings.diameter_volume_nm[0]),
            np.log(10 * settings.diameter_volume_nm[1]),
            LOG_SIZE,
        ),
        SIGMA: (*settings.sigma, settings.start_sigma),
        STRAIN: (*settings.strain, 0.0),
        ZERO: (-np.radians(settings.zero_deg), np.radians(settings.zero_deg), 0.0),
    }
    for name, table in model.tabulated_b().items():
        bounds[name] = (
            settings.b_factor[0] * table,
            settings.b_factor[1] * table,
            settings.start_b_factor * table,
        )
    for shell in range(settings.correlation_shells):
        start = settings.start_correlation[min(shell, len(settings.start_correlation) - 1)]
        bounds[correlation_name(shell)] = (*settings.correlation, start)
    bounds[TAIL] = (*settings.correlation, settings.start_correlation[0])
    if model.optics is None:
        bounds[ZERO] = (0.0, 0.0, 0.0)
    limits = np.array([bounds[name] for name in model.names])
    space = Space(
        names=model.names,
        low=limits[:, 0],
        high=limits[:, 1],
        start=np.clip(limits[:, 2], limits[:, 0], limits[:, 1]),
    )
    fixed = dict(settings.fixed)
    if "diameter_nm" in fixed:
        fixed[SIZE] = float(np.log(10 * volume_mean_diameter(fixed.pop("diameter_nm"), fixed[SIGMA])))
    if "zero_deg" in fixed:
        fixed[ZERO] = float(np.radians(fixed.pop("zero_deg")))
    for name, value in fixed.items():
        space = space.held(name, value)
    return space


class Problem:
    """Residuals of one pattern as a function of θ."""

    def __init__(
        self,
        points: Points,
        statics: Ingredients,
        settings: FitSettings,
        *,
        energy_kev: float | None,
        optics: Optics | None,
        largest: float,
        log_size: float = LOG_SIZE,
        bin_width: float | None = None,
    ) -> None:
        """Count the dots, unless they have been, and tabulate the columns.

        Args:
            points: what is fitted.
            statics: columns that do not depend on θ, on the whole grid.
            settings: what is free.
            energy_kev: photon energy [keV].
            optics: the instrument.
            largest: diameter of the largest particle that is counted [Å].
            log_size: about ln D_v, D_v in Å: how wide reflections are whose gains are free.
            bin_width: over which each point is a mean [Å⁻¹]; the step of the grid when None.
        """
        q, mask = points.q, points.mask
        self.points, self.settings = points, settings
        if settings.correlation_shells:
            nodes, _ = shells(settings.variants[0].material, settings.correlation_shells + 1)
        else:
            nodes = np.empty(0)
        # In steps, so that patterns of about one range share a count.
        q_max = 5.0 * np.ceil(q[-1] * (1 + settings.strain[1]) / 5.0)
        self.models = [
            DotModel(
                count_dots(variant, largest, q_max),
                q,
                energy_kev=energy_kev,
                nodes=nodes,
                tail=settings.correlation_tail,
                optics=optics,
                bin_width=bin_width,
                sampling=points.sampling,
                split=settings.texture is not None,
            )
            for variant in settings.variants
        ]
        self.space = parameter_space(self.models[0], settings)
        scales = bernstein(q, settings.scale_degree)[mask]
        self.gain_labels: list[str] = []
        #: For each sort of dots and each part of its pattern, the (n, column) functions that multiply it; further
        #: sorts are fractions of the first.
        self.scales: list[list[np.ndarray]] = []
        for index, variant in enumerate(settings.variants):
            own = scales if index == 0 else np.ones((len(scales), 1))
            if settings.texture is None:
                self.scales.append([own])
            else:
                groups, self.gain_labels = texture_groups(
                    variant.material, q, settings, energy_kev=energy_kev, log_size=log_size
                )
                self.scales.append([groups[mask], own])
        self.statics = statics
        self._static = statics.columns[mask] * points.weight[:, None]
        self._target = points.y * points.weight
        n_scaled = sum(scale.shape[1] for scales in self.scales for scale in scales)
        self._free = np.concatenate((np.zeros(n_scaled, dtype=bool), statics.free))
        self._used: np.ndarray | None = None
        self._prior = _Prior(self.models[0], self.space, settings)
        #: χ² of one standard deviation of what is expected of B and correlation: s²τ, once that is known.
        self.unit = _UNIT
        self.evaluations = 0

    def parts(self, theta: np.ndarray, *, slopes: bool) -> list[Parts]:
        """The pattern of each sort of dots on the whole grid."""
        self.evaluations += 1
        values = self.space.values(theta)
        return [model(values, slopes=slopes) for model in self.models]

    def residual(self, theta: np.ndarray, slopes: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """(n + prior,) weighted residual with the best linear part; (n + prior, parameter) derivative, if asked for."""
        parts = self.parts(theta, slopes=slopes)
        solved = self._solve(parts)
        expected, bent_expected = self._prior(theta, np.sqrt(self.unit))
        if not slopes:
            return np.concatenate((solved.residual, expected)), None
        mask, weight = self.points.mask, self.points.weight
        curves = np.zeros((len(weight), len(theta)))
        pulls = np.zeros((len(solved.x), len(theta)))
        weighted = weight * solved.residual
        at = 0
        for slope, scale in self._multiplied([part.slopes for part in parts]):
            columns = slice(at, at + scale.shape[1])
            at = columns.stop
            bent = slope[:, mask].T
            curves += (weight * (scale @ solved.x[columns]))[:, None] * bent
            pulls[columns] = (scale * weighted[:, None]).T @ bent
        return (
            np.concatenate((solved.residual, expected)),
            np.concatenate((solved.slopes(curves, pulls), bent_expected)),
        )

    def solve(self, theta: np.ndarray) -> tuple[list[Parts], Projected]:
        """The patterns at θ and the linear part that belongs to them."""
        parts = self.parts(theta, slopes=False)
        return parts, self._solve(parts)

    def cost_without_dots(self) -> float:
        """|r|² of the static columns alone."""
        free = self.statics.free
        solved = project(self._static[:, ~free], self._target, free[~free])
        return float(solved.residual @ solved.residual)

    def _multiplied(self, arrays: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each part of each sort of dots, and the functions that multiply it."""
        for parts, scales in zip(arrays, self.scales, strict=True):
            yield from zip(parts, scales, strict=True)

    def _solve(self, parts: list[Parts]) -> Projected:
        mask, weight = self.points.mask, self.points.weight
        scaled = [
            scale * (weight * value[mask])[:, None]
            for value, scale in self._multiplied([part.value for part in parts])
        ]
        solved = project(np.hstack([*scaled, self._static]), self._target, self._free, start=self._used)
        self._used = solved.used
        return solved


class _Prior:
    """Weak expectations of B and correlation, as further residuals."""

    def __init__(self, model: DotModel, space: Space, settings: FitSettings) -> None:
        """Find the free parameters that have one."""
        factor, spread = settings.b_prior
        tables = model.tabulated_b()
        rows: list[tuple[int, bool, float, float]] = []
        for index, name in enumerate(space.names):
            if space.high[index] <= space.low[index]:
                continue
            if name in tables:
                rows.append((index, True, np.log(factor * tables[name]), 1 / np.log(spread)))
            elif name.startswith("correlation_"):
                centre, width = settings.correlation_prior
                rows.append((index, False, centre, 1 / width))
        self._n = len(space.names)
        self._index = np.array([row[0] for row in rows], dtype=int)
        self._logarithm = np.array([row[1] for row in rows], dtype=bool)
        self._centre = np.array([row[2] for row in rows], dtype=float)
        self._scale = np.array([row[3] for row in rows], dtype=float)

    def __call__(self, theta: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
        """(prior,) residuals and (prior, parameter) derivatives, times a weight."""
        x = theta[self._index]
        safe = np.where(self._logarithm, x, 1.0)
        residual = weight * self._scale * (np.where(self._logarithm, np.log(safe), x) - self._centre)
        slopes = np.zeros((len(x), self._n))
        slopes[np.arange(len(x)), self._index] = weight * self._scale / safe
        return residual, slopes
