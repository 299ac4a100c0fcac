"""The answer of a posterior model for one measured pattern: two posteriors, the simulated pattern, reasons to doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hpc.structure.material import Material
from qdml.answers import Estimate
from qdml.asking import ask, model_grid
from qdml.measured.comparison import Comparison, compare
from qdml.measured.posterior import Inferred, inferred_of
from qdml.measured.posterior_doubts import outside_training, posterior_doubts, prior_ranges
from qdml.measured.refinement import MODEL_ERROR, Refinement, refine_pattern
from qdml.measured.refusals import posterior_refusals

if TYPE_CHECKING:
    from torch import nn

    from qdml.augmentation.recipe import Recipe
    from qdml.files.patterns import OnGrid, Pattern
    from qdml.measured.measurement import Measurement

__all__ = ["PosteriorAnswer", "answer_posterior"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PosteriorAnswer:
    """What is known about one file at the end."""

    pattern: Pattern
    on_grid: OnGrid
    q: np.ndarray
    """(q,) float64 [Å⁻¹]: the grid of the model."""
    measurement: Measurement
    network: Inferred
    refinement: Refinement | None
    """None where it was not asked for."""
    comparison: Comparison
    """The simulated pattern of the answer, beside the measured one."""
    refusals: tuple[str, ...]
    """Why the pattern gets no size: what the posterior says is none then. Empty where it gets one."""
    doubts: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def refined(self) -> Inferred | None:
        """What the fit from the network's answer says."""
        return None if self.refinement is None else self.refinement.inferred

    @property
    def final(self) -> Inferred:
        """The fit where there is one that converged, the network otherwise."""
        return (
            self.network
            if self.refinement is None or not self.refinement.converged
            else self.refinement.inferred
        )

    @property
    def diameter_nm(self) -> Estimate:
        """Number-mean diameter D."""
        return self.final.estimates["diameter_nm"]

    @property
    def diameter_volume_nm(self) -> Estimate:
        """D_v = D(1 + σ²)³."""
        return self.final.estimates["diameter_volume_nm"]

    @property
    def sigma(self) -> Estimate:
        """Relative standard deviation of the diameter."""
        return self.final.estimates["sigma"]

    @property
    def lines(self) -> tuple[str, ...]:
        """What the console says beside the table."""
        if self.refusals:
            return ()
        strain = f"strain {self.final.estimates['strain'].text(3, factor=100)} %"
        said = f"{strain}, correlation of D and σ {self.final.correlation:+.2f}"
        if self.refinement is None:
            return (f"network's answer; {said}",)
        first = self.network.estimates
        volume, number, sigma = (first[name] for name in ("diameter_volume_nm", "diameter_nm", "sigma"))
        return (
            f"{said}; residual as of {100 * self.refinement.model_error:.1f} % of model error",
            f"shape: {self.refinement.likely}",
            f"network: D_vol {volume.text(2)}, D {number.text(2)} nm, σ {sigma.text(1, factor=100)} %",
        )

    def as_record(self) -> dict[str, Any]:
        """The answer as JSON data: one entry of `results.json`."""
        on_grid, setup, refinement = self.on_grid, self.measurement, self.refinement
        return {
            "file": self.pattern.source,
            **self.final.as_record(),
            "answer_of": "network" if self.final is self.network else "refine",
            "network": self.network.as_record(),
            "refined": None if refinement is None else refinement.as_record(),
            "instrument": {
                "name": setup.instrument.name,
                "assumed": setup.assumed,
                "resolution_factor": setup.resolution_factor,
            },
            "pattern": {
                "energy_kev": self.pattern.energy_kev,
                "q_window": list(on_grid.window),
                "coverage": on_grid.coverage,
                "points": on_grid.n_points,
                "counts_per_grid_point": on_grid.counts,
                "noise": on_grid.noise_source.source,
            },
            "display_fit": {"rwp": self.comparison.rwp, "explained_structure": self.comparison.explained},
            "sized": not self.refusals,
            "warnings": [*self.refusals, *self.doubts],
            "notes": list(self.notes),
        }


def answer_posterior(
    module: nn.Module,
    card: Mapping[str, Any],
    pattern: Pattern,
    on_grid: OnGrid,
    *,
    measurement: Measurement,
    recipe: Recipe | None,
    variants: tuple[int, ...] | None = None,
    model_error: float = MODEL_ERROR,
) -> PosteriorAnswer:
    """Size one pattern and check the answer against it.

    Args:
        module: the network, in eval mode.
        card: its card.
        pattern: the measured pattern.
        on_grid: the same on the Q grid of the card.
        measurement: what is known of it.
        recipe: the world of the training, to refine the answer; None for the network's answer alone.
        variants: of the model's basis, by number, that the fit considers; None for all that the network thinks
            possible.
        model_error: of the fit, see `refine_pattern`.
    """
    q = model_grid(card)
    observation = measurement.observe(on_grid)
    density, nuisance = ask(module, card, observation)
    network = inferred_of(density, card["store"]["ranges"]["sigma"][0])
    refinement = None
    if recipe is not None:
        setting = measurement.setting(on_grid, float(q[1] - q[0]))
        refinement = refine_pattern(
            recipe, observation, setting, density, nuisance, q=q, variants=variants, model_error=model_error
        )
    if refinement is not None:
        comparison = refinement.comparison
    else:
        trained, ranges = card["store"]["config"], prior_ranges(card)
        comparison = compare(
            on_grid,
            q,
            material=Material.from_config(trained["material"]).with_b_iso(trained["b_iso"]),
            diameter_nm=_inside(network, "diameter_nm", ranges),
            sigma=_inside(network, "sigma", ranges),
            energy_kev=measurement.energy_kev,
            instrument=measurement.instrument,
        )
    final = network if refinement is None or not refinement.converged else refinement.inferred
    refusals = posterior_refusals(final, refinement, comparison, on_grid, card, q)
    # Of an answer that is none nothing else is worth doubting.
    doubts = (
        outside_training(on_grid, measurement, card)
        if refusals
        else posterior_doubts(network, refinement, comparison, on_grid, measurement, card)
    )
    return PosteriorAnswer(
        pattern=pattern,
        on_grid=on_grid,
        q=q,
        measurement=measurement,
        network=network,
        refinement=refinement,
        comparison=comparison,
        refusals=tuple(refusals),
        doubts=(*pattern.warnings, *doubts),
        notes=(*pattern.notes, *on_grid.notes, *measurement.notes),
    )


def _inside(network: Inferred, name: str, ranges: Mapping[str, tuple[float, float]]) -> float:
    """What is simulated of an answer: its mean, where there are dots of the training; far beyond it nothing can be."""
    low, high = ranges[name if name in ranges else "diameter_volume_nm"]
    return min(max(network.estimates[name].mean, low), high)
