"""Columns of a fit that do not depend on the dots: liquids, smooth background, halo; and what multiplies the dots.

All but the halo are non-negative functions with non-negative coefficients. The halo's terms may have either
sign: they stand for neighbours that the dots have more or fewer of than the crystal.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc.motion import halo_terms
from hpc.scattering import coefficients
from hpc.structure.crystal import shells
from qdml.files.columns import FileError
from qdml.files.patterns import Pattern, regrid
from qdml.fitting.settings import FitSettings

__all__ = ["Ingredients", "bernstein", "ingredients", "splines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """Static columns, and the group that each belongs to."""

    columns: np.ndarray
    """(q, column) float64."""
    groups: tuple[str, ...]
    """(column,): "background", "halo", or the name of a solvent or container."""

    @property
    def free(self) -> np.ndarray:
        """(column,) bool: coefficients of either sign."""
        return np.array([group == "halo" for group in self.groups])


def ingredients(
    q: np.ndarray, settings: FitSettings, *, energy_kev: float | None, response: np.ndarray | None = None
) -> Ingredients:
    """Tabulate the static columns.

    Args:
        q: (q,) float64 [Å⁻¹], uniform.
        settings: what is asked for.
        energy_kev: photon energy [keV]; None leaves f' and f'' out.
        response: (q,) float64 of the instrument, which computed columns are multiplied with; None for 1. Measured
            solvents have theirs already.

    Raises:
        ValueError: an unknown liquid or container, or a measured solvent that does not cover q.
    """
    columns = list(splines(q, settings).T)
    groups = ["background"] * len(columns)
    seen = np.ones(len(q)) if response is None else response
    for solvent in settings.solvents:
        if isinstance(solvent, Pattern):
            columns.append(_measured(solvent, q))
            groups.append(solvent.source)
        else:
            family = _liquid(solvent, q, energy_kev, settings.liquid_stretch)
            columns += [seen * one for one in family]
            groups += [solvent] * len(family)
    for container in settings.containers:
        from hpc.liquids.containers import container_profile

        profile = container_profile(container, q, energy_kev=energy_kev)
        columns.append(seen * profile / profile.mean())
        groups.append(container)
    if settings.halo_shells:
        material = settings.variants[0].material
        distance, neighbours = shells(material, settings.halo_shells)
        undamped = coefficients(
            material.kinds, q, energy_kev=energy_kev, anomalous=energy_kev is not None
        ).undamped
        terms = halo_terms(distance, neighbours, q, undamped=undamped, b=settings.halo_b)
        columns += list(seen * terms)
        groups += ["halo"] * len(terms)
    return Ingredients(columns=np.stack(columns, axis=1), groups=tuple(groups))


def _liquid(name: str, q: np.ndarray, energy_kev: float | None, stretch: float) -> list[np.ndarray]:
    """A liquid of mean 1, and the same with its ring moved inwards and outwards: models are not exact."""
    from hpc.liquids import liquid_terms, varied

    terms = liquid_terms(name, q, energy_kev=energy_kev)
    moved = [1.0] if stretch == 0 else [1 - stretch, 1.0, 1 + stretch]
    family = [varied(terms, stretch=np.array([one]), width=1.0, height=1.0) for one in moved]
    return [profile / profile.mean() for profile in family]


def _measured(solvent: Pattern, q: np.ndarray) -> np.ndarray:
    """Bin means of a measured solvent, of mean 1."""
    on_grid = regrid(solvent, q)
    if not on_grid.mask.all():
        missing = q[~on_grid.mask]
        raise FileError(
            Path(solvent.source),
            f"a solvent must cover the Q that is fitted, {q[0]:.4g} to {q[-1]:.4g} Å⁻¹; {len(missing)} points from "
            f"{missing[0]:.4g} to {missing[-1]:.4g} Å⁻¹ are missing; use another file, or a smaller --q-range",
        )
    return on_grid.intensity / on_grid.intensity.mean()


def bernstein(q: np.ndarray, degree: int) -> np.ndarray:
    """(q, degree + 1) float64: the Bernstein polynomials over the range of q, >= 0 and adding up to 1."""
    from scipy.special import comb

    x = ((q - q[0]) / (q[-1] - q[0]))[:, None]
    k = np.arange(degree + 1)
    return comb(degree, k) * x**k * (1 - x) ** (degree - k)


def splines(q: np.ndarray, settings: FitSettings) -> np.ndarray:
    """(q, function) float64: cubic B-splines, >= 0, broader than any reflection."""
    from scipy.interpolate import BSpline

    near_step, far_step = settings.background_knots
    near = np.arange(q[0], min(settings.background_near, q[-1]), near_step)
    far = np.arange(near[-1] + far_step, q[-1], far_step)
    inner = np.concatenate([near[1:], far])
    inner = inner[inner < q[-1] - near_step / 2]
    knots = np.concatenate([np.repeat(q[0], 4), inner, np.repeat(q[-1], 4)])
    return BSpline.design_matrix(q, knots, 3).toarray()
