"""The answer for one measured pattern: sizes, the simulated pattern that belongs to them, reasons to doubt it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hpc.structure.material import Material
from qdml.answers import Estimate
from qdml.asking import input_of, model_grid
from qdml.files.patterns import OnGrid, Pattern
from qdml.measured.comparison import Comparison, compare
from qdml.measured.inference import (
    ClassProbabilities,
    estimate_of_classes,
    size_pattern,
    trained_windows,
    volume_diameter,
)
from qdml.measured.measurement import observation_of

if TYPE_CHECKING:
    from torch import nn

    from hpc.instrument.setup import Instrument

__all__ = ["Answer", "answer_pattern", "doubts"]

# Synchrotron patterns of dots of the named size reach 0.965 and more, with a size 50 % off 0.89 and less, a
# solvent 0.
MIN_EXPLAINED = 0.93
# Perfect spheres and a smooth background leave 2 to 5 % on synchrotron patterns, 14 % and more on textured
# films.
MAX_RWP = 0.10
# With more in an outermost class, the end of the classes and not the pattern fixes one end of the 68 % interval.
MAX_EDGE_PROBABILITY = 0.25
# A zero shift of 0.005 Å⁻¹ at Q = 5 Å⁻¹, where most of the structure lies, looks like this strain.
_STRAIN_MARGIN = 1e-3
# f' of lead changes by 0.25 electrons of 80 when 22 keV change by so much.
_ENERGY_MARGIN = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is known about one file at the end."""

    pattern: Pattern
    on_grid: OnGrid
    q: np.ndarray
    """(q,) float64 [Å⁻¹]: the grid of the model."""
    classes: ClassProbabilities
    diameter_nm: Estimate
    """Number-mean diameter D."""
    diameter_volume_nm: Estimate
    """D(1 + σ²)³."""
    sigma: Estimate
    """Relative standard deviation of the diameter."""
    comparison: Comparison
    """The simulated pattern of this D and σ, laid over the measured one."""
    seen: np.ndarray
    """(q,) float32: the network's input, first channel."""
    seen_comparison: np.ndarray
    """(q,) float32: the same for the simulated pattern."""
    doubts: tuple[str, ...]
    """Reasons to doubt the answer; none means that no simple check failed."""
    notes: tuple[str, ...]
    """What was done to the pattern, and what differs from the training without much effect."""

    @property
    def refusals(self) -> tuple[str, ...]:
        """Models of classes answer every pattern; what is wrong with an answer is in its doubts."""
        return ()

    @property
    def lines(self) -> tuple[str, ...]:
        """What the console says beside the table."""
        return ()

    def as_record(self) -> dict[str, Any]:
        """The answer as JSON data: one entry of `results.json`."""
        on_grid, comparison, classes = self.on_grid, self.comparison, self.classes
        return {
            "file": self.pattern.source,
            "diameter_nm": asdict(self.diameter_nm),
            "diameter_volume_nm": asdict(self.diameter_volume_nm),
            "sigma": asdict(self.sigma),
            "strain": None,  # no network here predicts it
            "classes": {
                "diameter_nm": classes.diameter_nm.tolist(),
                "diameter_probability": classes.of_diameter.tolist(),
                "sigma": classes.sigma.tolist(),
                "sigma_probability": classes.of_sigma.tolist(),
                "joint_probability": classes.joint.tolist(),
            },
            "pattern": {
                "energy_kev": self.pattern.energy_kev,
                "q_window": list(on_grid.window),
                "coverage": on_grid.coverage,
                "points": on_grid.n_points,
                "counts_per_grid_point": on_grid.counts,
            },
            "display_fit": {
                "rwp": comparison.rwp,
                "explained_structure": comparison.explained,
                "strain": comparison.strain,
                "energy_kev": comparison.energy_kev,
            },
            "sized": True,
            "warnings": list(self.doubts),
            "notes": list(self.notes),
        }


def answer_pattern(
    module: nn.Module,
    card: Mapping[str, Any],
    pattern: Pattern,
    on_grid: OnGrid,
    *,
    instrument: Instrument | None = None,
) -> Answer:
    """Size one pattern and check the answer against it.

    Args:
        module: the network, in eval mode.
        card: its card.
        pattern: the measured pattern.
        on_grid: the same on the Q grid of the card.
        instrument: whose resolution and lines the simulated pattern gets; a perfect one when None.
    """
    q = model_grid(card)
    classes = size_pattern(module, card, on_grid)
    diameter = estimate_of_classes(classes.diameter_nm, classes.of_diameter)
    sigma = estimate_of_classes(classes.sigma, classes.of_sigma)
    trained = card["store"]["config"]
    comparison = compare(
        on_grid,
        q,
        material=Material.from_config(trained["material"]).with_b_iso(trained["b_iso"]),
        diameter_nm=diameter.mean,
        sigma=sigma.mean,
        energy_kev=pattern.energy_kev or card["store"]["energy_kev"],
        instrument=instrument,
    )
    return Answer(
        pattern=pattern,
        on_grid=on_grid,
        q=q,
        classes=classes,
        diameter_nm=diameter,
        diameter_volume_nm=volume_diameter(classes),
        sigma=sigma,
        comparison=comparison,
        seen=_seen(card, on_grid),
        seen_comparison=_seen(card, replace(on_grid, intensity=np.nan_to_num(comparison.total))),
        doubts=(*pattern.warnings, *doubts(classes, on_grid, comparison, card)),
        notes=(*pattern.notes, *on_grid.notes, *_energy_note(pattern, card)),
    )


def doubts(
    classes: ClassProbabilities, on_grid: OnGrid, comparison: Comparison, card: Mapping[str, Any]
) -> list[str]:
    """Reasons to doubt an answer, one sentence each.

    Args:
        classes: what the network said.
        on_grid: what it saw.
        comparison: what the answer looks like.
        card: what the network was trained on.
    """
    found = []
    _, smallest = trained_windows(card)
    width = on_grid.window[1] - on_grid.window[0]
    if width < 0.99 * smallest:
        found.append(
            f"the pattern covers {width:.2f} Å⁻¹ of Q, the smallest window in training was {smallest:.2f} Å⁻¹"
        )
    for name, unit, p, centres in (
        ("D", " nm", classes.of_diameter, classes.diameter_nm),
        ("σ", "", classes.of_sigma, classes.sigma),
    ):
        for side, word in ((0, "smaller"), (-1, "larger")):
            if p[side] > MAX_EDGE_PROBABILITY and centres[side] > 0:
                found.append(
                    f"{name} is at the edge of what the model knows: {centres[side]:g}{unit} with probability "
                    f"{p[side]:.2f}; the true value may be {word}"
                )
    if comparison.explained < MIN_EXPLAINED or comparison.rwp > MAX_RWP:
        found.append(
            "the simulated answer describes the pattern badly: it explains "
            f"{100 * max(comparison.explained, 0):.0f} % of the structure (expected {100 * MIN_EXPLAINED:.0f} % or "
            f"more) at Rwp {100 * comparison.rwp:.1f} % (expected "
            f"{100 * MAX_RWP:.0f} % or less); is it this material, this wavelength, not a textured film?"
        )
    low, high = card["store"]["ranges"]["strain"]
    if not low - _STRAIN_MARGIN <= comparison.strain <= high + _STRAIN_MARGIN:
        found.append(
            f"the lattice seems strained by {100 * comparison.strain:.2f} %, training went from {100 * low:.2f} to "
            f"{100 * high:.2f} %; is the wavelength right?"
        )
    return found


def _seen(card: Mapping[str, Any], on_grid: OnGrid) -> np.ndarray:
    """(q,) float32: first channel of the network's input."""
    seen: np.ndarray = input_of(card, observation_of(on_grid)).pattern[0, 0].numpy()
    return seen


def _energy_note(pattern: Pattern, card: Mapping[str, Any]) -> list[str]:
    """Says when f' and f'' of the training were those of another energy."""
    trained = card["store"]["energy_kev"]
    if pattern.energy_kev is None or abs(pattern.energy_kev / trained - 1) < _ENERGY_MARGIN:
        return []
    return [f"measured at {pattern.energy_kev:.4g} keV, the model was trained for {trained:.4g} keV"]
