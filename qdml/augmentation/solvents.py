"""Solvents: liquids of `conf/liquid/` (`hpc.liquids`), or measured files beside them or instead.

A liquid is the family around its model (`hpc.liquids.varied`): its ring moved, widened, heightened. Of a
measured file it is not known what the molecule alone scatters, so all of it moves with the ring.

Symbols: q [Å⁻¹].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpc.liquids import LiquidTerms, liquid_profile, liquid_terms

if TYPE_CHECKING:
    from qdml.augmentation.config import SolventConfig

__all__ = ["solvent_profile", "solvent_profiles", "solvent_terms"]

# Where the ring of a measured solvent is looked for, and half of its usual width [Å⁻¹].
_RING = (0.9, 2.2)
_RING_WIDTH = 0.2


def solvent_terms(solvent: SolventConfig, q: np.ndarray, grid: np.ndarray) -> LiquidTerms:
    """A solvent with what its family needs, of mean 1.

    Args:
        solvent: a liquid or a file.
        q: (q,) float64 [Å⁻¹], uniform: of the patterns.
        grid: (p,) float64 [Å⁻¹], uniform, inside q: of the terms.

    Raises:
        ValueError: the file cannot be read or does not cover q.
    """
    if solvent.file is None:
        terms = liquid_terms(solvent.name, grid)
        return terms.scaled(1 / float(terms.total.mean()))
    profile = np.interp(grid, q, _measured_profile(solvent, q))
    profile, q = profile / profile.mean(), grid
    near = (q >= _RING[0]) & (q <= _RING[1])
    ring = float(q[near][np.argmax(profile[near])]) if near.any() else float(np.mean(_RING))
    one = np.ones_like(q)
    return LiquidTerms(
        q=q,
        self=one,
        intra=0 * one,
        amplitude2=one,
        structure=profile - 1,
        ring=ring,
        ring_width=_RING_WIDTH,
    )


def solvent_profile(solvent: SolventConfig, q: np.ndarray) -> np.ndarray:
    """(q,) float64: a solvent on the grid of the patterns, positive, of mean 1; arguments as in `solvent_terms`."""
    profile = liquid_profile(solvent.name, q) if solvent.file is None else _measured_profile(solvent, q)
    return profile / profile.mean()


def solvent_profiles(solvents: Sequence[SolventConfig], q: np.ndarray) -> np.ndarray:
    """(S, q) float64: solvents of sum 1."""
    profiles = np.stack([solvent_profile(solvent, q) for solvent in solvents])
    return profiles / profiles.sum(axis=1, keepdims=True)


def _measured_profile(solvent: SolventConfig, q: np.ndarray) -> np.ndarray:
    from qdml.files.patterns import read_pattern, regrid

    assert solvent.file is not None
    unit = "1/A" if solvent.wavelength is None else None
    pattern = read_pattern(solvent.file, wavelength=solvent.wavelength, q_unit=unit)
    on_grid = regrid(pattern, q)
    if not on_grid.mask.all():
        raise ValueError(
            f"the solvent file {solvent.file} must cover the patterns' Q, {q[0]:g} to {q[-1]:g} Å⁻¹; it has usable "
            f"points from {on_grid.window[0]:.4g} to {on_grid.window[1]:.4g} Å⁻¹ and {int((~on_grid.mask).sum())} of "
            f"{q.size} grid points are missing; use another file, or simulate a smaller Q range"
        )
    return on_grid.intensity
