"""The classical fit: what least squares with perfect dots makes of the patterns of a world.

`qd-fit` (`qdml.fitting`) with what its user knows: instrument, energy, resolution, solvents, whether the sample is an
oriented film. It has no halo, no surface, no smooth random errors: a claim about a network or `refine` is made
beside it, on the same patterns.

Symbols: B pattern, Q point of the grid, K quantity (`qdml.limits.cramer_rao.QUANTITIES`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hpc.instrument.setup import Instrument
    from hpc.structure.variant import Variant
    from qdml.observation import Observation

__all__ = ["ClassicalFits", "Conditions", "classical_fits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the user of a fit knows of one pattern."""

    instrument: str | None
    """Of `conf/instrument`; None for perfect resolution."""
    energy_kev: float
    resolution_factor: float
    """Times the widths of the instrument's file."""
    solvents: tuple[str, ...]
    """Of `conf/liquid`."""
    containers: tuple[str, ...]
    film: bool
    """An oriented sample: reflections have free gains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicalFits:
    """Answers of the fit."""

    estimate: torch.Tensor
    """(B, K) float64."""
    error: torch.Tensor
    """(B, K) float64, half of the 68 % interval."""
    chi2: torch.Tensor
    """(B,) float64 per degree of freedom, with the counting noise."""
    seconds: torch.Tensor
    """(B,) float64 of one core; without the counting of the dots, which is done once."""


def classical_fits(
    observation: Observation,
    q: np.ndarray,
    conditions: Sequence[Conditions],
    variant: Variant,
    *,
    show: Callable[[int, int], None] = lambda done, total: None,
    **changes: Any,
) -> ClassicalFits:
    """Fit every pattern of a batch.

    Args:
        observation: the patterns.
        q: (Q,) float64 [Å⁻¹], their uniform grid.
        conditions: of each.
        variant: the dots.
        show: called with the number of finished patterns and of all.
        changes: of `qdml.fitting.settings.fit_settings`.

    Raises:
        ValueError: not one set of conditions for each pattern, or names that do not exist.
    """
    from qdml.files.patterns import Pattern
    from qdml.fitting.fit import fit_pattern
    from qdml.fitting.settings import fit_settings

    if len(conditions) != len(observation):
        raise ValueError(f"{len(observation)} patterns need as many conditions, got {len(conditions)}")
    step = float((q[-1] - q[0]) / (len(q) - 1))
    rows = []
    for index, known in enumerate(conditions):
        visible = observation.mask[index].cpu().numpy() > 0
        pattern = Pattern(
            source=f"pattern {index}",
            q=q[visible],
            intensity=observation.intensity[index].double().cpu().numpy()[visible],
            sigma=observation.noise[index].double().cpu().numpy()[visible],
            energy_kev=known.energy_kev,
        )
        settings = fit_settings(
            variant,
            **{
                "solvents": known.solvents,
                "containers": known.containers,
                "instrument": None if known.instrument is None else _instrument(known),
                "texture": "direction" if known.film else None,
                "q_step": step,
                **changes,
            },
        )
        started = time.process_time()
        fit = fit_pattern(pattern, settings)
        seconds = time.process_time() - started
        answers = (fit.diameter_nm, fit.diameter_volume_nm, fit.sigma, fit.strain)
        rows.append(
            [
                *(one.mean for one in answers),
                *((one.hi68 - one.lo68) / 2 for one in answers),
                fit.chi2,
                seconds,
            ]
        )
        show(index + 1, len(conditions))
    table = torch.tensor(rows, dtype=torch.float64)
    return ClassicalFits(estimate=table[:, :4], error=table[:, 4:8], chi2=table[:, 8], seconds=table[:, 9])


def _instrument(known: Conditions) -> Instrument:
    """The set-up at its energy, with its own widths."""
    from hpc.instrument.setup import load_instrument

    assert known.instrument is not None
    instrument = load_instrument(known.instrument)
    if len(instrument.radiation.wavelengths) == 1:
        instrument = load_instrument(known.instrument, energy_kev=known.energy_kev)
    factor, widths = known.resolution_factor, instrument.resolution
    scaled = replace(
        widths,
        u=widths.u * factor**2,
        v=widths.v * factor**2,
        w=widths.w * factor**2,
        x=widths.x * factor,
        y=widths.y * factor,
    )
    return replace(instrument, resolution=scaled)
